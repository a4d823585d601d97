"""Finishing what must not be cut short, when the caller is cancelled meanwhile; and limits."""

from __future__ import annotations

import asyncio
import types
from collections.abc import Coroutine, Generator
from time import monotonic
from typing import Any, NamedTuple


class Finished(NamedTuple):
    """How the work ended.

    Attributes:
        error: What it raised; `TimeoutError` if it was given up.
        cancelled: The cancellation that came meanwhile, to be raised once everything is in order.
    """

    error: BaseException | None = None
    cancelled: asyncio.CancelledError | None = None


DONE = Finished()


async def finish(work: Coroutine[Any, Any, None], limit: float, *, hurry: bool = False) -> Finished:
    """Run work to its end; once the caller is cancelled, for at most `limit` seconds more.

    With `hurry` the limit holds from the beginning: the caller was cancelled before. What is
    given up is cancelled, and winds up in the background.
    """
    task = asyncio.get_running_loop().create_task(work)
    deadline = monotonic() + limit if hurry else None
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        left = None if deadline is None else deadline - monotonic()
        if left is not None and left <= 0:
            task.cancel()
            task.add_done_callback(_retrieve)
            return Finished(TimeoutError(f"not finished within {limit:g} s"), cancelled)
        try:
            await asyncio.wait({task}, timeout=left)
        except asyncio.CancelledError as again:
            cancelled = cancelled or again
            deadline = deadline or monotonic() + limit
    if task.cancelled():
        return Finished(asyncio.CancelledError("the work itself was cancelled"), cancelled)
    return Finished(task.exception(), cancelled)


def _retrieve(task: asyncio.Task[Any]) -> None:
    if not task.cancelled():
        task.exception()


async def within(seconds: float, work: Coroutine[Any, Any, None]) -> None:
    """Run work under `asyncio.timeout`, which costs more than work that need not wait at all.

    Raises:
        TimeoutError: It did not end in time, and was cancelled.
    """
    try:
        waits_for = work.send(None)
    except StopIteration:
        return
    async with asyncio.timeout(seconds):
        await _go_on(work, waits_for)


@types.coroutine
def _go_on(work: Coroutine[Any, Any, None], waits_for: Any) -> Generator[Any, Any, None]:
    try:
        while True:
            try:
                sent = yield waits_for
            except BaseException as error:
                waits_for = work.throw(error)
            else:
                waits_for = work.send(sent)
    except StopIteration:
        return
