"""A time limit for any statement: MySQL's own stops SELECT alone."""

from __future__ import annotations

import asyncio
import logging
from types import TracebackType

from asyncmy.errors import OperationalError

from jobu_db_mysql import implicit_commit
from jobu_db_mysql.kill import KILL_LIMIT, OpenSide, kill
from jobu_db_mysql.session import MySQLConnection

logger = logging.getLogger("jobu_db")

_TIMED_OUT = 3024
"""What MySQL answers when its own limit is over."""

_COMMITTED = (
    "was told to stop, and ended without an error: what it changed, if anything, is committed"
)

_CHANGE_ROWS = frozenset({"INSERT", "UPDATE", "DELETE", "REPLACE"})
"""The server tells how many rows these have changed."""


class Deadline:
    """Kills the statement that runs inside its block once `seconds` have passed.

    The connection and its transaction survive that, unless the server can't be told. A kill that
    is under way is waited for, so that it cannot hit the next statement. It may come too late, or
    find a SLEEP(), which ends early and without an error: a statement outside a transaction is
    committed then, and what it changed has succeeded, late or not. Where that can't be seen (a
    function or procedure may write), the error says so.

    Raises:
        OperationalError: 3024, in place of the error or early end that the kill brought about.
    """

    def __init__(self, connection: MySQLConnection, seconds: float, open_side: OpenSide) -> None:
        self._connection = connection
        self._seconds = seconds
        self._open_side = open_side
        self._killing: asyncio.Task[None] | None = None

    async def __aenter__(self) -> None:
        # What an earlier statement has left there would count as this one's.
        self._connection.committed_alone = None
        self._timer = asyncio.get_running_loop().call_later(self._seconds, self._expire)

    def _expire(self) -> None:
        self._killing = asyncio.get_running_loop().create_task(self._kill())

    async def _kill(self) -> None:
        try:
            async with asyncio.timeout(KILL_LIMIT):
                if await kill(self._connection, "QUERY", self._open_side):
                    return
        except Exception as error:
            # Neither stopped nor known to have ended: closing our side is all that is left, and the
            # caller is not kept waiting for the server.
            logger.warning("a statement that timed out could not be killed: %r", error)
        self._connection.terminate()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._timer.cancel()
        if self._killing is None:
            return
        try:
            # Also if the statement has ended by itself by now: a kill that is still on its way
            # would hit the next one.
            await self._killing
        except asyncio.CancelledError:
            # Whether the kill is still to come is not known then.
            self._connection.terminate()
            raise
        took_effect = False if error else _took_effect(self._connection.committed_alone)
        if took_effect:
            return
        if error is None or isinstance(error, Exception):
            became = "was stopped" if took_effect is False else _COMMITTED
            text = f"no result within {self._seconds:g} s: the statement {became}"
            raise OperationalError(_TIMED_OUT, text) from error


def _took_effect(committed: tuple[str, int | None] | None) -> bool | None:
    """Say whether a statement that ended without an error did what it was for; None if unknown."""
    # In a transaction: nothing of it counts yet, and the block can only be left.
    if committed is None:
        return False
    sql, changed = committed
    if changed:
        return True
    # No row was changed. INSERT and its like do nothing else, so that this one was stopped before
    # it did; SELECT and DO may call a function that has written. DDL that ends without an error is
    # done.
    if changed is not None and implicit_commit.stays_inside(sql):
        return False if implicit_commit.first_word(sql) in _CHANGE_ROWS else None
    return True if implicit_commit.commits_implicitly(sql) else None
