"""All that jobu-db uses of aiosqlite's, sqlite3's and asyncio's private parts.

`test_private.py` and `test_arrivals.py` watch them.

aiosqlite runs every call in a thread per connection, one queue entry and so one thread hop for
each. Queue and thread are ours, so that one hop can do several things and costs less; what
aiosqlite's own methods would queue goes through `perform`, so that it can do ours first.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections.abc import Callable
from contextvars import copy_context
from queue import SimpleQueue
from threading import Thread, get_ident
from typing import Any

import aiosqlite

from jobu_db_sqlite.errors import ClosedError

logger = logging.getLogger("jobu_db")

Function = Callable[[], object]


class QueuedConnection(aiosqlite.Connection):
    """An aiosqlite connection whose queue is ours. Its thread doesn't keep the program alive.

    Attributes:
        is_open: Calls are taken.
        why_closed: What to tell those who use it when it takes no calls.
    """

    is_open = False  # a property would be one call more, for each transaction three
    why_closed = "the connection is closed"

    def __init__(self) -> None:
        super().__init__(_never, iter_chunk_size=64)
        # In the place of aiosqlite's own thread and queue: its thread is never started.
        # Written in C, unlike `queue.Queue`, whose locks and conditions are Python's: each hop
        # passes here.
        self._queue: SimpleQueue[Function | None] = SimpleQueue()
        # A daemon: for others the interpreter waits at its end, before it calls what is registered
        # for that, and a program that forgot to close would hang there.
        self._thread = Thread(target=_work, args=(self._queue,), daemon=True)

    async def perform(self, function: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        """Run what a method of aiosqlite asks for. To be overridden."""
        raise NotImplementedError

    async def _execute(self, fn: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        return await self.perform(fn, args, kwargs)

    @property
    def raw(self) -> sqlite3.Connection:
        """The connection of the sqlite3 module. Most of its methods work in its thread alone."""
        if self._connection is None:
            raise ClosedError(self.why_closed)
        return self._connection

    _conn = raw

    @property
    def has_thread(self) -> bool:
        """Whether the thread is running."""
        return self._thread.is_alive()

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def opened(self, raw: sqlite3.Connection) -> None:
        """Take calls from now on."""
        self._connection = raw
        self.is_open = True

    def post(self, function: Function) -> None:
        """Have the thread call a function behind all that is queued."""
        self._queue.put(function)

    def forget(self) -> None:
        """Take no more calls, and have nothing done."""
        self.is_open = self._running = False
        self._connection = None

    def shut(self, close: Function) -> None:
        """Take no more calls; have the thread call `close` behind all that is queued, and end."""
        self.forget()
        self.post(close)
        # Behind it: the thread ends only once the file is closed.
        self._queue.put(None)


class ForwardingConnection(aiosqlite.Connection):
    """An aiosqlite connection that has no thread: each call goes to another one after a check."""

    def __init__(self, target: QueuedConnection, check: Callable[[], None]) -> None:
        # Not super().__init__(): it would make a thread and a queue. Of what that sets, the
        # methods that are left need these three.
        self._connection = None
        self._iter_chunk_size = 64
        self._running = True
        self._target = target
        self._check = check

    async def _execute(self, fn: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        self._check()
        return await self._target._execute(fn, *args, **kwargs)

    @property
    def _conn(self) -> sqlite3.Connection:
        # In the thread nothing is checked: it was before, and no event loop runs there.
        if get_ident() != self._target._thread.ident:
            self._check()
        return self._target.raw


def settle(future: asyncio.Future[Any], value: Any, error: BaseException | None) -> None:
    """Give a future its result, unless it was cancelled; who waits for it goes on at once.

    By itself a future has them wait for the next turn of the event loop. Several still do: they
    are told in the order in which they asked.
    """
    if future.done():
        return
    waiting = future._callbacks
    alone = waiting is not None and len(waiting) == 1
    if alone:
        # Taken out before the result is set, or the loop would call it once more.
        callback, context = waiting[0]
        future.remove_done_callback(callback)
    if error is not None:
        future.set_exception(error)
    else:
        future.set_result(value)
    if alone:
        (copy_context() if context is None else context).run(callback, future)


def set_busy_timeout(raw: sqlite3.Connection, milliseconds: int) -> None:
    """Set how long SQLite itself waits for a lock, also inside a transaction.

    `PRAGMA busy_timeout` takes effect while it is compiled. Executed, it would come out of the
    statement cache the second time, and do nothing; this compiles it past the cache.
    """
    raw(f"PRAGMA busy_timeout = {milliseconds:d}")


def never_free(thing: object) -> None:
    """Keep the interpreter from freeing an object, also when it ends.

    A list in a module would do until then; at its end the interpreter frees that as well.
    """
    import ctypes  # in forked children alone: it takes as long as all the rest to import

    ctypes.pythonapi.Py_IncRef(ctypes.py_object(thing))


def _work(queue: SimpleQueue[Function | None]) -> None:
    """What the thread does. Who wants to know how a function fares has it tell by itself."""
    while (function := queue.get()) is not None:
        try:
            function()
        except Exception:
            logger.warning("%r failed", function, exc_info=True)
        function = None  # what it belongs to may be forgotten meanwhile, and shall be seen to be


def _never() -> sqlite3.Connection:
    raise AssertionError("the connection is opened by jobu-db")
