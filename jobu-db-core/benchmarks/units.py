"""jobu-db over two databases: a file of SQLite and a server, by best effort and atomically."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from ours import Ours
from places import database_class

from jobu_db import transactional

NOTE = "INSERT INTO notes (item) VALUES (?)"


class OursUnit(Ours):
    """The second database is written first, and commits first: in an atomic unit, it decides."""

    title = "jobu-db, a unit of work"
    atomic = False

    async def open(self) -> None:
        await super().open()
        self._folder = tempfile.TemporaryDirectory(prefix="jobu-db-bench-")
        path = str(Path(self._folder.name) / "notes.db")
        self.notes: Any = await database_class("sqlite").create("notes", {"path": path})
        await self.notes.execute("CREATE TABLE notes (item INTEGER NOT NULL)")

        @transactional(self.notes, self.db, atomic=self.atomic)
        async def both(key: int) -> None:
            await self.notes.execute(NOTE, (key,))
            await self.db.execute(self.WRITE, *self._given(key))

        self.both = both

    async def both(self, key: int) -> None:
        """Write in both databases."""
        raise AssertionError("it is not open")

    async def close(self) -> None:
        await self.notes.close()
        self._folder.cleanup()
        await super().close()


class OursAtomicUnit(OursUnit):
    """All or nothing, whatever fails."""

    title = "jobu-db, an atomic unit"
    atomic = True


UNITS = (OursUnit, OursAtomicUnit)
