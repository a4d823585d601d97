"""Finishing what must not be cut short, also when the caller is cancelled."""

from __future__ import annotations

import asyncio
import types
from collections.abc import Coroutine, Generator
from typing import Any, NamedTuple

from jobu_db._aio.stepper import InnerStepper, after_passes, failure

Work = Coroutine[Any, Any, None]


class Finished(NamedTuple):
    """How the work ended.

    Attributes:
        error: What it raised; `TimeoutError` if it was cut off.
        cancelled: The cancellation that came in between, to be raised once all is in order.
    """

    error: BaseException | None = None
    cancelled: asyncio.CancelledError | None = None


DONE = Finished()


@types.coroutine
def finish(
    work: Work, limit: float, *, hurry: bool = False, taskless: bool = False
) -> Generator[Any, Any, Finished]:
    """Run work to its end; once the caller is cancelled, for at most `limit` seconds more.

    When the limit is over, the loop makes two passes, which may bring the answer. What is cut off
    then is cancelled, and winds up in the background.

    Args:
        work: Taskless work takes its first step at once: what it sends is on its way then.
        limit: In seconds.
        hurry: The limit holds from the beginning: the caller was cancelled before.
        taskless: The work awaits futures only, and needs no task of its own. In the caller's, a
            timeout of its own would cancel the caller.
    """
    shield = _Shield(work if taskless else _in_a_task(work), limit, hurry)
    try:
        yield from shield.run()
    except _GivenUpError:
        shield.cut_off()
        return Finished(TimeoutError(f"not finished within {limit:g} s"), shield.cancelled_by)
    except (Exception, asyncio.CancelledError) as error:
        return Finished(error, shield.cancelled_by)
    finally:
        shield.stop()
    return DONE if shield.cancelled_by is None else Finished(None, shield.cancelled_by)


class _GivenUpError(Exception):
    """Time is up, and what the work waits for is not done."""


class _Shield(InnerStepper[None]):
    """Keeps cancellations away from the future, and lets time run out instead.

    A task that could not be cancelled at once is so by asyncio when it is woken.

    Attributes:
        cancelled_by: The first cancellation that came in between.
    """

    __slots__ = ("_caller", "_hurry", "_limit", "_loop", "_timer", "cancelled_by")

    def __init__(self, work: Work, limit: float, hurry: bool) -> None:
        super().__init__(work)
        self._limit = limit
        self._hurry = hurry
        self._timer: asyncio.TimerHandle | None = None
        self.cancelled_by: asyncio.CancelledError | None = None

    def first_wait(self) -> None:
        """Note who waits, and limit the time if it is so from the beginning."""
        self._loop = self.future.get_loop()
        self._caller = asyncio.current_task(self._loop)
        if self._hurry:
            self._limit_time()

    def heard(self, error: BaseException) -> BaseException | None:
        """The work hears what became of its future, and nothing of the caller's cancellation."""
        if not isinstance(error, (Exception, asyncio.CancelledError)):
            return error
        if not self.future.done():
            raise _GivenUpError
        return failure(self.future)

    def cancel(self, msg: Any = None) -> bool:
        """The caller is cancelled: time is limited from now on."""
        if self.cancelled_by is None:
            self.cancelled_by = asyncio.CancelledError(*(() if msg is None else (msg,)))
        self._limit_time()
        return False

    def _limit_time(self) -> None:
        if self._timer is None:
            # Not the running loop: `asyncio.run` cancels what is left when none runs.
            self._timer = self._loop.call_later(
                self._limit, after_passes, self._loop, self._time_is_up
            )

    def _time_is_up(self) -> None:
        if self._timer is None:
            return  # it has ended
        self.overdue = True
        if not self.future.done():
            self._wake()

    def _wake(self) -> None:
        """Wake the caller in place of the future. Its wake-up is among the future's callbacks."""
        future = self.future
        while isinstance(future, InnerStepper):
            future = future.future
        # `_callbacks` is private to asyncio: pairs of a callback and its context, and a task's
        # wake-up is bound to the task. `tests/aio/test_canaries.py` notices when that changes.
        for callback, context in list(future._callbacks or ()):
            if getattr(callback, "__self__", None) is self._caller:
                future.remove_done_callback(callback)
                self._loop.call_soon(callback, self, context=context)

    def result(self) -> None:
        """Wake the task, which asks for this, when time is up."""
        raise _GivenUpError

    def expire(self) -> None:
        """Stop before one more wait."""
        if not self.future.done():
            raise _GivenUpError

    def cut_off(self) -> None:
        """Cancel the work where it waits, before the loop turns and an answer comes.

        What it has to do then goes on in a task. Nobody asks for what comes of it: the caller was
        told that it was cut off.
        """
        self.future.cancel()
        try:
            self.advance(asyncio.CancelledError())
        except (StopIteration, Exception, asyncio.CancelledError):
            return
        start(_wind_up(InnerStepper(self._work, self.future)), self._loop)

    def stop(self) -> None:
        """Time does not matter any more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


async def _wind_up(rest: InnerStepper[None]) -> None:
    try:
        await rest.run()
    except (Exception, asyncio.CancelledError):
        return


# -- work that needs a task


async def _in_a_task(work: Work) -> None:
    task = start(work, asyncio.get_running_loop())
    try:
        await task
    except asyncio.CancelledError:  # cut off: nobody will ask for what comes of it
        task.add_done_callback(_retrieve)
        raise


def _retrieve(task: asyncio.Task[None]) -> None:
    if not task.cancelled():
        task.exception()


def start(work: Work, loop: asyncio.AbstractEventLoop) -> asyncio.Task[None]:
    """Make a task that begins the work whatever happens.

    A task that is cancelled before its first step would never begin it, and its `finally` would
    never run: a connection would not be given back.
    """
    begun = _begun(work)
    begun.send(None)
    return asyncio.Task(begun, loop=loop)


async def _begun(work: Work) -> None:
    """Run work. Its caller takes the first step, up to here, so that a cancellation is heard."""
    try:
        await asyncio.sleep(0)
    except asyncio.CancelledError:
        task = asyncio.current_task()
        assert task is not None
        # Taken back first, so that one cancellation is counted once.
        task.uncancel()
        task.cancel()  # once more: now it is heard where the work waits first
    await work
