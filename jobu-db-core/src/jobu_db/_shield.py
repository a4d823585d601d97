"""Finishing what must not be cut short, when the caller is cancelled meanwhile; and limits."""

from __future__ import annotations

import asyncio
import sys
import types
from asyncio.tasks import _enter_task, _leave_task
from collections.abc import Coroutine, Generator
from contextvars import copy_context
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
    loop = asyncio.get_running_loop()
    end = _End(limit, loop)
    task = start(_run(work, end), loop)
    if hurry:
        end.hurry()
    while not end.done():
        try:
            await end
        except asyncio.CancelledError as error:
            end.note(error)
    if not end.finished:
        task.cancel()
        return Finished(TimeoutError(f"not finished within {limit:g} s"), end.cancelled_by)
    return Finished(end.error, end.cancelled_by)


class _End(asyncio.Future[None]):
    """What the caller of `finish` waits for: the end of the work, or of its time.

    Cancelling a task cancels what it waits for. This stays, and lets the time run out: a task that
    could not be cancelled at once is so by asyncio when it comes back.

    Attributes:
        finished: The work is over.
        error: What it raised.
        cancelled_by: The first cancellation that came meanwhile.
    """

    def __init__(self, limit: float, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop=loop)
        self.finished = False
        self.error: BaseException | None = None
        self.cancelled_by: asyncio.CancelledError | None = None
        self._limit = limit
        self._timer: asyncio.TimerHandle | None = None

    def cancel(self, msg: Any = None) -> bool:
        self.note(asyncio.CancelledError() if msg is None else asyncio.CancelledError(msg))
        return False

    def note(self, error: asyncio.CancelledError) -> None:
        """The caller is cancelled: time is limited from now on."""
        self.cancelled_by = self.cancelled_by or error
        self.hurry()

    def hurry(self) -> None:
        """Limit the time, unless it is so already."""
        if self._timer is None and not self.done():
            self._timer = self.get_loop().call_later(self._limit, self._settle)

    def finish(self, error: BaseException | None) -> None:
        """The work is over."""
        self.finished, self.error = True, error
        self._settle()

    def _settle(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if not self.done():
            self.set_result(None)


async def _run(work: Coroutine[Any, Any, None], end: _End) -> None:
    error: BaseException | None = None
    try:
        await work
    except BaseException as failure:
        error = failure
        if not isinstance(error, (Exception, asyncio.CancelledError)):
            raise
    finally:
        end.finish(error)


if sys.version_info >= (3, 12):

    def start(
        work: Coroutine[Any, Any, None], loop: asyncio.AbstractEventLoop
    ) -> asyncio.Task[None]:
        """Make a task that takes its first step at once: what it sends is on its way then."""
        return asyncio.Task(work, loop=loop, eager_start=True)

else:

    def start(
        work: Coroutine[Any, Any, None], loop: asyncio.AbstractEventLoop
    ) -> asyncio.Task[None]:
        """Make a task that takes its first step at once: what it sends is on its way then."""
        context, caller = copy_context(), asyncio.current_task(loop)
        assert caller is not None
        waits_for: list[Any] = []
        rest = _rest(work, waits_for)
        rest.send(None)
        task = asyncio.Task(rest, loop=loop, context=context)
        _leave_task(loop, caller)
        _enter_task(loop, task)
        try:
            waits_for.append(context.run(work.send, None))
        except StopIteration:
            pass
        finally:
            _leave_task(loop, task)
            _enter_task(loop, caller)
        return task

    @types.coroutine
    def _rest(work: Coroutine[Any, Any, None], waits_for: list[Any]) -> Generator[Any, Any, None]:
        """Go on after the first step. Begun ahead, so that a cancellation goes into the work."""
        yield
        if waits_for:
            yield from _go_on(work, waits_for.pop())


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
