"""One entry in the queue of a connection's thread, and what stops it."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from jobu_db_sqlite.errors import ClosedError, StatementTimeoutError, StoppedError

INTERRUPT_AGAIN = 0.005
"""Seconds between interrupts: one that comes between two of SQLite's steps has no effect."""


class Call:
    """A function for the thread to run, unless its caller is gone by then.

    Args:
        function: Gets the call, to `check` it where it waits.
        over: Is set once the connection is to be closed without waiting for anything.

    Attributes:
        future: Gets the result.
        expired: Set when the statement has taken too long.
    """

    __slots__ = ("_function", "_over", "expired", "future")

    def __init__(self, function: Callable[[Call], Any], over: threading.Event) -> None:
        self._function = function
        self._over = over
        self.future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self.expired = False

    def __call__(self) -> Any:
        try:
            self.check()
            return self._function(self)
        except sqlite3.Error as error:
            if self.expired:
                raise StatementTimeoutError("the statement took longer than it may") from error
            raise

    def check(self) -> None:
        """Raise if nobody wants the result any more."""
        if self.expired or self.future.cancelled():
            raise StoppedError("the call was given up")
        if self._over.is_set():
            raise ClosedError("the connection was closed")


class Timer:
    """Stops a call when its time is up, again and again until it is over.

    Args:
        call: What to stop.
        limit: Seconds.
        interrupt: Interrupts what SQLite is doing for it.
    """

    __slots__ = ("_call", "_handle", "_interrupt")

    def __init__(self, call: Call, limit: float, interrupt: Callable[[], None]) -> None:
        self._call = call
        self._interrupt = interrupt
        self._handle = asyncio.get_running_loop().call_later(limit, self._expire)

    def _expire(self) -> None:
        if not self._call.future.done():
            self._call.expired = True
            with suppress(sqlite3.ProgrammingError):  # it was closed meanwhile
                self._interrupt()
            self._handle = asyncio.get_running_loop().call_later(INTERRUPT_AGAIN, self._expire)

    def cancel(self) -> None:
        """Leave the call alone: it is over."""
        self._handle.cancel()
