"""Rows read piece by piece."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from functools import partial

from jobu_db.driver import Parameters
from jobu_db_sqlite.proxy import Connection
from jobu_db_sqlite.thread import Engine
from jobu_db_sqlite.values import bindable


class BatchCursor:
    """Reads a batch of rows with each thread hop, the first one with the statement itself."""

    def __init__(self, connection: Connection, batch: int) -> None:
        self._connection = connection
        self._batch = batch
        self._first: list[sqlite3.Row] | None = None
        self._cursor: sqlite3.Cursor | None = None

    async def open(self, sql: str, parameters: Parameters) -> None:
        """Run the statement."""
        self._first = await self._connection.run(self._open, sql, parameters)

    def _open(self, engine: Engine, sql: str, parameters: Parameters) -> list[sqlite3.Row]:
        values = bindable(parameters)
        # Tracked, so that whatever ends the transaction closes it: unread, it would hold on to its
        # snapshot.
        self._cursor = engine.track(partial(engine.raw.execute, sql, values))
        return self._read(engine)

    def _read(self, _: Engine) -> list[sqlite3.Row]:
        if self._cursor is None:
            return []
        try:
            rows = self._cursor.fetchmany(self._batch)
        except BaseException:
            self._cursor.close()
            raise
        # The end: closed in this very hop, so that `close` takes none.
        if len(rows) < self._batch:
            self._cursor.close()
            self._cursor = None
        return rows

    async def fetch(self) -> Sequence[sqlite3.Row]:
        """Return the next rows, at most `batch` of them; none at the end."""
        if self._first is not None:
            first, self._first = self._first, None
            return first
        if self._cursor is None:
            return []
        rows: list[sqlite3.Row] = await self._connection.run(self._read)
        return rows

    async def close(self) -> None:
        """Free the cursor, unread rows included."""
        if self._cursor is not None:
            cursor, self._cursor = self._cursor, None
            # `run` is for statements: it keeps `statement_timeout`, and refuses once the file has
            # moved.
            await self._connection.call(lambda _: cursor.close())
