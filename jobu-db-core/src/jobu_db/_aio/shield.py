"""Finishing what must not be cut short, when the caller is cancelled meanwhile."""

from __future__ import annotations

import asyncio
import sys
import types
from asyncio.tasks import _enter_task, _leave_task
from collections.abc import Callable, Coroutine, Generator
from contextvars import Context, copy_context
from typing import Any, NamedTuple

from jobu_db._aio.future_proxy import FutureProxy, go_on

Work = Coroutine[Any, Any, None]


class Finished(NamedTuple):
    """How the work ended.

    Attributes:
        error: What it raised; `TimeoutError` if it was given up.
        cancelled: The cancellation that came meanwhile, to be raised once everything is in order.
    """

    error: BaseException | None = None
    cancelled: asyncio.CancelledError | None = None


DONE = Finished()


@types.coroutine
def finish(
    work: Work, limit: float, *, hurry: bool = False, taskless: bool = False
) -> Generator[Any, Any, Finished]:
    """Run work to its end; once the caller is cancelled, for at most `limit` seconds more.

    What is given up is cancelled, and winds up in the background.

    Args:
        work: Its first step is taken at once: what it sends is on its way then.
        limit: In seconds.
        hurry: The limit holds from the beginning: the caller was cancelled before.
        taskless: The work awaits futures only, and needs no task of its own. In the caller's, a
            timeout of its own would cancel the caller.
    """
    if not taskless:
        work = _in_a_task(work)
    shield = _Shield(limit)
    try:
        shield.before(work.send(None))
        if hurry:
            shield.hurry()
        while True:
            if not shield.time_is_up:
                try:  # noqa: SIM105 on the path of every commit
                    yield shield
                except (Exception, asyncio.CancelledError):
                    pass  # held back; or the future's, which it tells again when the work goes on
            if shield.time_is_up and not shield.done():
                start(_wind_up(work, shield.future), shield.get_loop())  # nothing comes between
                return Finished(
                    TimeoutError(f"not finished within {limit:g} s"), shield.cancelled_by
                )
            shield.before(work.send(None))
    except StopIteration:
        return DONE if shield.cancelled_by is None else Finished(None, shield.cancelled_by)
    except (Exception, asyncio.CancelledError) as error:
        return Finished(error, shield.cancelled_by)
    finally:
        shield.stop()


class _Shield(FutureProxy):
    """Keeps cancellations away from the future, and lets time run out instead.

    A task that could not be cancelled at once is so by asyncio when it is woken.

    Attributes:
        cancelled_by: The first cancellation that came meanwhile.
        time_is_up: What is not done now is given up.
    """

    __slots__ = ("_context", "_limit", "_timer", "_wake", "cancelled_by", "time_is_up")

    def __init__(self, limit: float) -> None:
        self._limit = limit
        self._timer: asyncio.TimerHandle | None = None
        self.cancelled_by: asyncio.CancelledError | None = None
        self.time_is_up = False

    def add_done_callback(
        self, callback: Callable[[Any], object], *, context: Context | None = None
    ) -> None:
        """Call back when the future is done or time is up."""
        self._wake, self._context = callback, context
        self.future.add_done_callback(callback, context=context)

    def cancel(self, msg: Any = None) -> bool:
        """The caller is cancelled: time is limited from now on."""
        if self.cancelled_by is None:
            self.cancelled_by = asyncio.CancelledError(*(() if msg is None else (msg,)))
        self.hurry()
        return False

    def hurry(self) -> None:
        """Limit the time, unless it is so already."""
        if self._timer is None:
            # Not the running loop: `asyncio.run` cancels what is left when none runs.
            self._timer = self.get_loop().call_later(self._limit, self._give_up)

    def _give_up(self) -> None:
        self.time_is_up = True
        if not self.future.done():
            self.future.remove_done_callback(self._wake)
            self.get_loop().call_soon(self._wake, self, context=self._context)

    def result(self) -> None:
        """Wake the task, which asks for this, with nothing."""

    def stop(self) -> None:
        """Time does not matter any more."""
        if self._timer is not None:
            self._timer.cancel()


async def _wind_up(work: Work, waits_for: asyncio.Future[Any]) -> None:
    """Cancel what a work waits for, as asyncio would, and run it to its end."""
    try:
        await _cut_off(work, waits_for)
    except (Exception, asyncio.CancelledError):
        return  # whoever gave it up was told so


@types.coroutine
def _cut_off(work: Work, waits_for: asyncio.Future[Any] | None) -> Generator[Any, Any, None]:
    try:
        heard = waits_for is not None and waits_for.cancel() and waits_for.done()
        waits_for = work.send(None) if heard else work.throw(asyncio.CancelledError())
    except StopIteration:
        return
    yield from go_on(work, waits_for)


# -- work that needs a task


async def _in_a_task(work: Work) -> None:
    task = start(work, asyncio.get_running_loop())
    try:
        await task
    except asyncio.CancelledError:  # given up: nobody will ask for what comes of it
        task.add_done_callback(_retrieve)
        raise


def _retrieve(task: asyncio.Task[None]) -> None:
    if not task.cancelled():
        task.exception()


if sys.version_info >= (3, 12):

    def start(work: Work, loop: asyncio.AbstractEventLoop) -> asyncio.Task[None]:
        """Make a task that takes its first step at once."""
        return asyncio.Task(work, loop=loop, eager_start=True)

else:

    def start(work: Work, loop: asyncio.AbstractEventLoop) -> asyncio.Task[None]:
        """Make a task that takes its first step at once."""
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
    def _rest(work: Work, waits_for: list[Any]) -> Generator[Any, Any, None]:
        """Go on after the first step. Begun ahead, so that a cancellation goes into the work."""
        try:
            yield
        except asyncio.CancelledError:
            if not waits_for:
                raise
            yield from _cut_off(work, waits_for.pop())
        if waits_for:
            yield from go_on(work, waits_for.pop())
