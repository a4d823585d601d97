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

from jobu_db_sqlite._private import settle


class Arrivals:
    """What an event loop is to call because threads have done something.

    It lives as long as somebody may use it: a thread must never write to the number of a file
    that was closed, and may be another one by now.

    Args:
        loop: The event loop, held weakly: it holds this.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        # Threads append while the loop takes out: each is one step of a deque, so that no lock is
        # needed.
        self._arrived: deque[Callable[[], None]] = deque()
        self._woken: deque[asyncio.Future[None]] = deque()
        self._calling = False
        self._loop = weakref.ref(loop)
        self._eventfd: int | None = None
        self._wake: Callable[[], object] = self._call_soon
        if hasattr(os, "eventfd"):
            # The loop must never wait here, and no program that is started from here inherits the
            # number.
            self._eventfd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
            self._wake = partial(os.eventfd_write, self._eventfd, 1)
            # In an empty context: the loop keeps it, and with it what it holds.
            Context().run(loop.add_reader, self._eventfd, self._call_all)

    def put(self, arrive: Callable[[], None]) -> None:
        """Have the event loop call a function, unless it is closed. From any thread."""
        # In this order: the loop, once woken, must find it.
        self._arrived.append(arrive)
        self._wake()

    def _call_soon(self) -> None:
        loop = self._loop()
        if loop is not None:
            with suppress(RuntimeError):  # it is closed
                loop.call_soon_threadsafe(self._call_all)

    def _call_all(self) -> None:
        if self._eventfd is not None:
            # Before the look at what has arrived: what a thread puts there from now on wakes the
            # loop again.
            os.eventfd_read(self._eventfd)
        # Those that come meanwhile have their turn later: the loop has others to serve.
        try:
            self._calling = True
            try:
                for _ in range(len(self._arrived)):
                    # What an error of one keeps from being called stays in the queue, for the
                    # wake-up below.
                    self._arrived.popleft()()
            finally:
                self._calling = False
            while self._woken:
                settle(self._woken.popleft(), None, None)
        finally:
            if self._arrived or self._woken:
                self._wake()

    def wake(self, future: asyncio.Future[None]) -> None:
        """Give a future its result, in the loop. Who waits for it goes on in the same turn of the
        loop, behind what has arrived, if that is why."""
        if self._calling:
            self._woken.append(future)
        elif not future.done():
            future.set_result(None)

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


def wake(future: asyncio.Future[None]) -> None:
    """Do as `Arrivals.wake`."""
    arrivals_at(future.get_loop()).wake(future)
