"""A time limit for any statement: MySQL's own stops SELECT alone."""

from __future__ import annotations

import asyncio
import logging
from types import TracebackType

from asyncmy.errors import OperationalError

from jobu_db_mysql.kill import KILL_LIMIT, OpenSide, kill
from jobu_db_mysql.session import MySQLConnection

logger = logging.getLogger("jobu_db")

_TIMED_OUT = 3024
"""What MySQL answers when its own limit is over."""


class Deadline:
    """Kills the statement that runs inside its block once `seconds` have passed.

    The connection and its transaction survive that, unless the server can't be told. A kill that
    is under way is waited for, so that it cannot hit the next statement. It may come too late, or
    find a SLEEP(), which ends early and without an error: a statement that was committed with what
    it changed has succeeded, late or not.

    Raises:
        OperationalError: 3024, in place of the error or early end that the kill brought about.
    """

    def __init__(self, connection: MySQLConnection, seconds: float, open_side: OpenSide) -> None:
        self._connection = connection
        self._seconds = seconds
        self._open_side = open_side
        self._killing: asyncio.Task[None] | None = None

    async def __aenter__(self) -> None:
        self._connection.took_effect = False
        self._timer = asyncio.get_running_loop().call_later(self._seconds, self._expire)

    def _expire(self) -> None:
        self._killing = asyncio.get_running_loop().create_task(self._kill())

    async def _kill(self) -> None:
        try:
            async with asyncio.timeout(KILL_LIMIT):
                if await kill(self._connection, "QUERY", self._open_side):
                    return
        except Exception as error:
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
            await self._killing
        except asyncio.CancelledError:
            self._connection.terminate()
            raise
        if error is None and self._connection.took_effect:
            return
        if error is None or isinstance(error, Exception):
            text = f"no result within {self._seconds:g} s: the statement was stopped"
            raise OperationalError(_TIMED_OUT, text) from error
