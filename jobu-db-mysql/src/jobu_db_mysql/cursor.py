"""Rows read piece by piece, without a buffer in between that could grow."""

from __future__ import annotations

from typing import Any

from asyncmy.constants.CR import CR_SERVER_LOST
from asyncmy.cursors import SSCursor
from asyncmy.errors import OperationalError

from jobu_db_mysql.deadline import Deadline
from jobu_db_mysql.kill import OpenSide
from jobu_db_mysql.session import MySQLConnection

DRAIN_LIMIT = 0.5
"""Seconds for reading on to the end of a result that nobody wants; then its query is killed."""


class RowCursor:
    """The rows of one statement, as dictionaries, at the pace of whoever reads them."""

    def __init__(self, connection: MySQLConnection, batch: int, open_side: OpenSide) -> None:
        self._connection = connection
        self._batch = batch
        self._open_side = open_side
        self._cursor = SSCursor(connection)
        self._columns: tuple[str, ...] = ()

    async def open(self, sql: str) -> None:
        """Start the statement."""
        await self._cursor.execute(sql)
        self._columns = self._connection.columns()

    async def fetch(self) -> list[dict[str, Any]]:
        """Return the next rows, at most `batch` of them; none at the end."""
        connection, columns = self._connection, self._columns
        async with connection.turn:
            connection.receive(True)
            try:
                rows = await self._cursor.fetchmany(self._batch)
            except BaseException as error:
                connection.note_failure(error)
                raise
            # Between two fetches the server waits.
            connection.receive(not connection.streaming)
        return [dict(zip(columns, row, strict=True)) for row in rows]

    async def close(self) -> None:
        """Read what is left, or have the server stop sending it.

        Raises:
            OperationalError: Neither succeeded: the connection is closed.
        """
        connection = self._connection
        async with connection.turn:
            try:
                async with Deadline(connection, DRAIN_LIMIT, self._open_side):
                    await connection.drain()
                await self._cursor.close()
            except BaseException as error:
                connection.note_failure(error)
                if not isinstance(error, Exception):
                    raise
                if not connection.alive:
                    text = "the rest of an abandoned result could not be stopped"
                    raise OperationalError(CR_SERVER_LOST, text) from error
