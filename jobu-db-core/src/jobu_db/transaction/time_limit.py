"""The seconds that a block may take, from before it begins to before it ends."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from jobu_db.errors import QueryTimeoutError

T = TypeVar("T")


class TimeLimit:
    """One limit for beginning a block and for what is done in it; its end is not cut short.

    Args:
        seconds: From `begin` to `end`.
        what: What is limited, for the message.
        database: Its name, if it is one.
    """

    def __init__(self, seconds: float, what: str, database: str | None = None) -> None:
        self._scope = asyncio.timeout(seconds)
        self._told = took_longer(what, seconds)
        self._database = database

    async def begin(self, beginning: Coroutine[Any, Any, T]) -> T:
        """Begin the block, within the limit.

        Raises:
            QueryTimeoutError: That took too long.
        """
        await self._scope.__aenter__()
        try:
            return await beginning
        except BaseException as error:
            late = await self.end(error)
            if late is None:
                raise
            raise late from error

    async def end(self, error: BaseException | None) -> QueryTimeoutError | None:
        """The block was left, with an error or without; return what to raise if it is late."""
        cause: BaseException | None = None
        try:
            await self._scope.__aexit__(type(error) if error else None, error, None)
        except TimeoutError as timeout:
            cause = timeout
        # A block that is left normally after its time was over has swallowed the cancellation: it
        # is late all the same, and must not commit.
        if cause is None and not (error is None and self._scope.expired()):
            return None  # in time, or ended by something else: another cancellation, for one
        late = QueryTimeoutError(self._told, database=self._database)
        late.__cause__ = cause
        return late


def took_longer(what: str, seconds: float) -> str:
    """Say what is over."""
    return f"the {what} took longer than its timeout of {seconds:g} s"


@contextmanager
def of_statement(sql: str, seconds: float) -> Iterator[None]:
    """Have the time limit of a block that is made for one statement be told as that statement's."""
    try:
        yield
    except QueryTimeoutError as error:
        if error.statement is None:
            error.message, error.statement = took_longer("statement", seconds), sql
            error.args = (error.message,)
        raise
