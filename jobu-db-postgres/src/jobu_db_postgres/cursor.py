"""Rows of one statement, read piece by piece from a portal on the server."""

from __future__ import annotations

from typing import TYPE_CHECKING

import asyncpg

from jobu_db_postgres import _private

if TYPE_CHECKING:
    from asyncpg.cursor import Cursor


class PortalCursor:
    """`jobu_db.driver.Cursor` over asyncpg's."""

    def __init__(
        self, connection: _private.Connection, cursor: Cursor[asyncpg.Record], batch: int
    ) -> None:
        self._connection = connection
        self._cursor = cursor
        self._batch = batch

    async def fetch(self) -> list[asyncpg.Record]:
        """Return the next rows, none at the end."""
        try:
            return await self._cursor.fetch(self._batch)
        except asyncpg.PostgresError as error:
            self._connection.heed(error)
            raise

    async def close(self) -> None:
        """Free the portal on the server, unread rows included."""
        await _private.close_cursor(self._cursor)
