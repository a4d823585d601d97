"""The way back from the threads of the connections to an event loop.

`loop.call_soon_threadsafe` would do, but it wakes the loop through a socket, which the loop reads
until an exception says that it is empty. An eventfd, where there is one, is written once and read
once: a third of what a thread hop costs.
"""

from __future__ import annotations

import asyncio
import os
import weakref
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from contextvars import Context
from functools import partial


class Arrivals:
    """What an event loop is to call because threads have done something.

    It lives as long as somebody may use it: a thread must never write to the number of a file
    that was closed, and may be another one by now.

    Args:
        loop: The event loop, held weakly: it holds this.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._arrived: deque[Callable[[], None]] = deque()
        self._loop = weakref.ref(loop)
        self._eventfd: int | None = None
        self._wake: Callable[[], object] = self._call_soon
        if hasattr(os, "eventfd"):
            self._eventfd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
            self._wake = partial(os.eventfd_write, self._eventfd, 1)
            # In an empty context: the loop keeps it, and with it what it holds.
            Context().run(loop.add_reader, self._eventfd, self._call_all)

    def put(self, arrive: Callable[[], None]) -> None:
        """Have the event loop call a function, unless it is closed. From any thread."""
        self._arrived.append(arrive)
        self._wake()

    def _call_soon(self) -> None:
        loop = self._loop()
        if loop is not None:
            with suppress(RuntimeError):  # it is closed
                loop.call_soon_threadsafe(self._call_all)

    def _call_all(self) -> None:
        if self._eventfd is not None:
            os.eventfd_read(self._eventfd)
        try:
            # Those that come meanwhile have their turn later: the loop has others to serve.
            for _ in range(len(self._arrived)):
                self._arrived.popleft()()
        finally:
            if self._arrived:
                self._wake()

    def __del__(self) -> None:
        if self._eventfd is not None:
            os.close(self._eventfd)


_of_loops: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, Arrivals] = (
    weakref.WeakKeyDictionary()
)


def arrivals_at(loop: asyncio.AbstractEventLoop) -> Arrivals:
    """Return those of an event loop, the same ones for all connections."""
    arrivals = _of_loops.get(loop)
    if arrivals is None:
        arrivals = _of_loops[loop] = Arrivals(loop)
    return arrivals
