"""One entry in the queue of a connection's thread, and what stops it."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from jobu_db_sqlite._private import settle
from jobu_db_sqlite.arrivals import Arrivals
from jobu_db_sqlite.errors import ClosedError, StatementTimeoutError, StoppedError

INTERRUPT_AGAIN = 0.005
"""Seconds between interrupts: one that comes between two of SQLite's steps has no effect."""


class Over:
    """Says that a connection is to be closed without waiting for anything.

    Threads look at it in every call, and nobody waits for it: it is no `threading.Event`.
    """

    __slots__ = ("now",)

    def __init__(self) -> None:
        self.now = False


class Call:
    """A function for the thread to run, unless its caller is gone by then.

    Args:
        loop: Where the result is awaited.
        arrivals: The way back there.
        over: Of the connection. None: the function runs even then.
        function: Gets the call, to `check` it where it waits, and `args`.

    Attributes:
        future: Gets the result.
        expired: Set when the statement has taken too long.
    """

    __slots__ = (
        "_args",
        "_arrivals",
        "_error",
        "_function",
        "_over",
        "_value",
        "expired",
        "future",
    )

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        arrivals: Arrivals,
        over: Over | None,
        function: Callable[..., Any],
        *args: Any,
    ) -> None:
        self.future: asyncio.Future[Any] = loop.create_future()
        self.expired = False
        self._arrivals = arrivals
        self._over = over
        self._function = function
        self._args = args
        self._value: Any = None
        self._error: BaseException | None = None

    def run(self) -> None:
        """In the thread: run the function, and send on its way what comes of it."""
        try:
            self.check()
            self._value = self._function(self, *self._args)
        except BaseException as error:
            # Whatever it is, it is the caller's; the thread goes on.
            self._error = error
            if self.expired and isinstance(error, sqlite3.Error):
                self._error = StatementTimeoutError("the statement exceeded statement_timeout")
                self._error.__cause__ = error
        # Last: once the loop knows, whoever waited may go on in its thread while this one still
        # runs.
        self._arrivals.put(self._arrive)

    def check(self) -> None:
        """Raise if nobody wants the result any more."""
        # The one thing that a thread asks of a future: it only reads what the loop has set.
        if self.expired or self.future.cancelled():
            raise StoppedError("the call was abandoned")
        if self._over is not None and self._over.now:
            raise ClosedError("the connection was closed")

    def _arrive(self) -> None:
        settle(self.future, self._value, self._error)


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
        self._handle = call.future.get_loop().call_later(limit, self._expire)

    def _expire(self) -> None:
        if not self._call.future.done():
            # Before the interrupt: the thread tells by it what the interrupt meant.
            self._call.expired = True
            with suppress(sqlite3.ProgrammingError):  # it was closed meanwhile
                self._interrupt()
            self._handle = self._call.future.get_loop().call_later(INTERRUPT_AGAIN, self._expire)

    def cancel(self) -> None:
        """Leave the call alone: it is over."""
        self._handle.cancel()
