"""The row by which SQLite decides an atomic unit. It prepares nothing."""

from __future__ import annotations

from typing import Any

from jobu_db.two_phase import CLAIM_SECONDS, Deciding, Place, refuse
from jobu_db_sqlite.database_file import DatabaseFile
from jobu_db_sqlite.proxy import Connection

_DURABLE = (2, 3)
"""FULL and EXTRA."""


class SQLiteDeciding(Deciding[Connection]):
    """SQLite as the database that decides.

    Args:
        driver: Its driver.
        file: The database.
    """

    def __init__(self, driver: Any, file: DatabaseFile) -> None:
        super().__init__(driver)
        self._file = file

    async def place(self, connection: Connection) -> Place:
        # By device and inode: one file under two paths is one place.
        identity = self._file.identity()
        fingerprint = "" if identity is None else f"sqlite {identity[0]} {identity[1]}"
        return Place(fingerprint, "main.", writable=not self._file.read_only)

    async def check(self, connection: Connection) -> None:
        if self._file.in_memory:
            raise refuse("a database in memory keeps no decision", "let another one decide")
        if self._file.read_only:
            raise refuse("the file is read-only", "name a database first that can be written to")
        # SQLite is asked, not the settings: `on_connect` may have set another level.
        ((level,),) = await connection.call(
            lambda _: connection.engine.ask("PRAGMA main.synchronous")
        )
        if level not in _DURABLE:
            raise refuse(
                "synchronous is less than FULL, so that a power cut loses commits",
                "leave out options.synchronous, or set it to FULL or EXTRA",
            )
        ((mode,),) = await connection.call(
            lambda _: connection.engine.ask("PRAGMA main.journal_mode")
        )
        if mode in ("off", "memory"):
            raise refuse(
                f"with journal_mode {mode.upper()} a crash may destroy the database",
                "set options.journal_mode to WAL or DELETE",
            )

    async def claim(self, connection: Connection, sql: str) -> int:
        engine = connection.engine
        usual = engine.busy_timeout
        # The thread looks at it whenever it waits, and nobody else has this connection meanwhile.
        engine.busy_timeout = min(usual, CLAIM_SECONDS * 1000)
        try:
            return await super().claim(connection, sql)
        finally:
            engine.busy_timeout = usual
