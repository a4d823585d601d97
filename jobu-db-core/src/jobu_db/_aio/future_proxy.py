"""What a task waits for while a coroutine is stepped by hand.

A task that is cancelled cancels the future that it waits for. Whoever steps a coroutine can show
the task a stand-in for that future, and so decides what a cancellation does.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Generator
from contextvars import Context
from typing import Any, Self, TypeVar

T = TypeVar("T")


class FutureProxy:
    """As much of a future as asyncio's tasks ask for.

    Attributes:
        future: What is waited for in truth.
    """

    __slots__ = ("_asyncio_future_blocking", "future")

    future: asyncio.Future[Any]

    def before(self, future: asyncio.Future[Any] | None) -> Self:
        """Stand in for what a coroutine waits for; None is the next turn of the loop."""
        if future is None:
            future = _next_turn()
        else:
            future._asyncio_future_blocking = False
        self._asyncio_future_blocking = True
        self.future = future
        return self

    def add_done_callback(
        self, callback: Callable[[Any], object], *, context: Context | None = None
    ) -> None:
        """Call back when the future is done."""
        self.future.add_done_callback(callback, context=context)

    def remove_done_callback(self, callback: Callable[[Any], object]) -> int:
        """Do not call back; returns how many calls that spares."""
        return self.future.remove_done_callback(callback)

    def get_loop(self) -> asyncio.AbstractEventLoop:
        """Return the event loop of the future."""
        return self.future.get_loop()

    def done(self) -> bool:
        """Say whether the future is done."""
        return self.future.done()

    def cancel(self, msg: Any = None) -> bool:
        """Cancel the future; False if it will not be."""
        return self.future.cancel(msg)


def _next_turn() -> asyncio.Future[Any]:
    loop = asyncio.get_running_loop()
    future = loop.create_future()
    loop.call_soon(_settle, future)
    return future


def _settle(future: asyncio.Future[Any]) -> None:
    if not future.done():
        future.set_result(None)


def go_on(work: Coroutine[Any, Any, T], waits_for: Any) -> Generator[Any, Any, T]:
    """Step a coroutine to its end, as `await` does, from what it waits for already."""
    try:
        while True:
            try:
                yield waits_for
            except BaseException as error:
                waits_for = work.throw(error)
            else:
                waits_for = work.send(None)
    except StopIteration as end:
        result: T = end.value
        return result
