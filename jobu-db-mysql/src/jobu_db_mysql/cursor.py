"""Rows read piece by piece, without a buffer in between that could grow."""

from __future__ import annotations

from typing import Any

from asyncmy.constants.CR import CR_SERVER_LOST
from asyncmy.cursors import SSCursor
from asyncmy.errors import MySQLError, OperationalError

from jobu_db_mysql.commands import Noting
from jobu_db_mysql.deadline import Deadline
from jobu_db_mysql.implicit_commit import first_word
from jobu_db_mysql.kill import OpenSide
from jobu_db_mysql.session import MySQLConnection
from jobu_db_mysql.values import refuse_more_results

_READING = frozenset(
    {"DESC", "DESCRIBE", "EXPLAIN", "HANDLER", "HELP", "SELECT", "SHOW", "TABLE", "VALUES", "WITH"}
)


def reads_only(sql: str) -> bool:
    """Say whether nothing is lost if a statement is stopped in the middle of its rows.

    Not so for CALL, and for what MariaDB lets return what it writes.
    """
    return first_word(sql) in _READING


DRAIN_LIMIT = 0.5
"""Seconds for reading on to the end of a result that was abandoned; then its query is killed."""


class RowCursor:
    """The rows of one statement, as dictionaries, at the pace of their reader."""

    def __init__(
        self, connection: MySQLConnection, batch: int, open_side: OpenSide, *, reads: bool
    ) -> None:
        self._connection = connection
        self._reads = reads
        self._batch = batch
        self._open_side = open_side
        self._cursor = SSCursor(connection)
        self._columns: tuple[str, ...] = ()

    async def open(self, sql: str) -> None:
        """Start the statement."""
        await self._cursor.execute(sql)
        self._columns = self._connection.columns()

    async def fetch(self) -> list[dict[str, Any]]:
        """Return the next rows, at most `batch` of them; none at the end.

        Raises:
            QueryExecutionError: At the end: more rows came behind those of the first result.
        """
        connection, columns = self._connection, self._columns
        async with connection.turn:
            connection.receive(True)
            with Noting(connection):
                rows = await self._cursor.fetchmany(self._batch)
            # Between two fetches the server waits.
            connection.receive(not connection.streaming)
        if not rows:
            refuse_more_results(await connection.run_out())
        return [dict(zip(columns, row, strict=True)) for row in rows]

    async def close(self) -> None:
        """Read what is left, or have the server stop sending it.

        Raises:
            OperationalError: Neither succeeded, and the connection is closed; or a statement that
                may write failed, or was stopped, behind the rows that were read.
        """
        connection = self._connection
        try:
            async with connection.turn:
                with Noting(connection):
                    # Read on for a moment, since most results are nearly read: to kill its query
                    # takes a second connection, and a large one would be read for minutes.
                    async with Deadline(connection, DRAIN_LIMIT, self._open_side):
                        await connection.drain()
            await connection.run_out()
        except MySQLError as error:
            if not connection.alive:
                text = "the rest of an abandoned result could not be stopped"
                raise OperationalError(CR_SERVER_LOST, text) from error
            if not self._reads:
                raise
