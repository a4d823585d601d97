"""Finishing what must not be cut short, when the caller is cancelled meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from time import monotonic
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class Finished(Generic[T]):
    """How the work ended, and the cancellation that came meanwhile, if one did.

    Attributes:
        task: The work; not done if its limit ran out.
        cancelled: To be raised by the caller once everything is in order.
    """

    __slots__ = ("cancelled", "task")

    def __init__(self, task: asyncio.Task[T]) -> None:
        self.task = task
        self.cancelled: asyncio.CancelledError | None = None

    @property
    def error(self) -> BaseException | None:
        """What the work raised; `TimeoutError` if it was given up."""
        if not self.task.done() or self.task.cancelled():
            return TimeoutError("given up")
        return self.task.exception()


async def finish(work: Coroutine[Any, Any, T], limit: float) -> Finished[T]:
    """Run work to its end; once the caller is cancelled, for at most `limit` seconds more."""
    task = asyncio.get_running_loop().create_task(work)
    finished = Finished(task)
    try:
        await asyncio.wait({task})
    except asyncio.CancelledError as cancelled:
        finished.cancelled = cancelled
        await _wait_until(task, monotonic() + limit)
    return finished


async def _wait_until(task: asyncio.Task[Any], deadline: float) -> None:
    while not task.done():
        left = deadline - monotonic()
        if left <= 0:
            task.cancel()
            task.add_done_callback(_retrieve)
            return
        try:
            await asyncio.wait({task}, timeout=left)
        except asyncio.CancelledError:
            continue  # one is kept already, and the deadline stands


def _retrieve(task: asyncio.Task[Any]) -> None:
    if not task.cancelled():
        task.exception()
