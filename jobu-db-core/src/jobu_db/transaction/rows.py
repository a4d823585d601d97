"""Rows read piece by piece, so that memory does not grow with the result."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from time import monotonic
from typing import Any, Generic, TypeVar

from jobu_db.driver import Cursor
from jobu_db.errors import ProgrammingError, TransactionError
from jobu_db.row_types import converted
from jobu_db.statements import translate_names
from jobu_db.transaction.session import Level, Session

Row = TypeVar("Row")


class RowStream(Generic[Row]):
    """An async iterator over the rows of one statement, inside a transaction."""

    def __init__(
        self,
        session: Session,
        level: Level,
        sql: str,
        values: Any,
        batch: int,
        into: Callable[..., Row] | None = None,
    ) -> None:
        self._cursor = OpenCursor(session, level, sql, values, batch)
        self._rows: Iterator[Row] = iter(())
        self._into = into
        self._of = (sql, session.pool.name)

    def __aiter__(self) -> RowStream[Row]:
        return self

    async def __anext__(self) -> Row:
        for row in self._rows:
            return row
        rows = await self._cursor.fetch()
        self._rows = iter(rows) if self._into is None else self._converted(rows, self._into)
        for row in self._rows:
            return row
        raise StopAsyncIteration

    def _converted(self, rows: Any, into: Callable[..., Row]) -> Iterator[Row]:
        try:
            return converted(rows, into, *self._of)
        except ProgrammingError:  # those that follow have the same columns
            self._cursor.abandoned = True
            raise

    async def aclose(self) -> None:
        """Close the cursor now.

        Raises:
            TransactionError: In another process or event loop than the transaction's.
        """
        self._cursor.check_place()
        self._rows = iter(())
        await self._cursor.close()

    def __del__(self) -> None:
        # Only a mark: garbage may be collected anywhere, and closing takes a turn on the
        # connection.
        self._cursor.abandoned = True


class OpenCursor:
    """The cursor behind a stream. The session knows it, so that no cursor outlives its block.

    It is one `statement` event, told at its end: the seconds are those spent with the driver,
    not those in which the reader did something else.

    Attributes:
        level: The level that opened it.
        abandoned: It cannot be read on; the cursor is closed before the next statement.
    """

    def __init__(self, session: Session, level: Level, sql: str, values: Any, batch: int) -> None:
        self._session = session
        self.level = level
        self._sql = sql
        self._values = values
        self._batch = batch
        self._cursor: Cursor | None = None
        self._seconds = 0.0
        self._observation = session.pool.observer.observe("iterate", sql, None, session)
        self._closed = False
        self._at_end = False
        self.abandoned = False

    async def fetch(self) -> Any:
        """Return the next rows; none at the end."""
        if self._at_end:
            return ()
        self._session.check(self.level)
        if self._closed:
            raise TransactionError(
                "the rows can be read no further: their cursor was closed",
                database=self._session.pool.name,
            )
        started = monotonic()
        try:
            rows = await self._session.call(self.level, self._sql, self._next, reader=self)
        except BaseException as error:
            # Where in the result it broke off is not known: there is no reading on.
            self._closed = self.abandoned = True
            self._seconds += monotonic() - started
            self._tell(error)
            raise
        self._seconds += monotonic() - started
        if not rows:
            # At once: an open cursor holds its table, and on MySQL the connection as well.
            self._at_end = True
            await self.close()
        return rows

    async def _next(self) -> Any:
        session = self._session
        if self._cursor is None:
            driver, connection = session.driver, session.connection
            if self._observation is not None:
                self._observation.sent(connection)
            sql, values = translate_names(driver, connection, "iterate", self._sql, self._values)
            self._cursor = await driver.open_cursor(connection, sql, values, self._batch)
            # Only now: one that could not be opened has nothing to close.
            session.readers.append(self)
        return await self._cursor.fetch()

    def check_place(self) -> None:
        """Raise `TransactionError` in another process or event loop than the transaction's."""
        self._session.pool.check_transaction_place()

    async def close(self) -> None:
        """Close in turn; in a block that can only be left, the cursor ends with it."""
        self._closed = self.abandoned = True
        if self._cursor is not None:
            with suppress(TransactionError):
                await self._session.call(self.level, self._sql, self.close_cursor, reader=self)

    async def close_cursor(self) -> None:
        """Close without taking a turn: for a caller who has it. A failure loses the connection."""
        cursor, self._cursor = self._cursor, None
        self._closed = True
        if cursor is not None:
            self._session.readers.remove(self)
            try:
                await self._session.clean_up(cursor.close(), "closing a cursor")
            finally:
                self._tell(None)

    def _tell(self, error: BaseException | None) -> None:
        observation, self._observation = self._observation, None
        if observation is not None:
            observation.ended(self._seconds, error)

    def refuse_others(self) -> None:
        """Raise because another statement would spoil what is still to be read."""
        raise TransactionError(
            "rows of an earlier statement are still being read with iterate(), and this database "
            "cannot run another one at the same time: read them to the end, or leave the loop",
            database=self._session.pool.name,
            statement=self._sql,
        )
