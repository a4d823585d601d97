"""The one stepper: a coroutine that is driven by hand, from one wait to the next.

`await` and asyncio's tasks drive coroutines too. By hand it is done where somebody else than the
task decides what a cancellation does (`timeouts`, `shield`), or where no task is needed
(`inline_task`).

The rules of asyncio that it relies on stand in `tests/aio/test_canaries.py`, one test for each.
"""

from __future__ import annotations

import asyncio
import types
from collections.abc import Callable, Coroutine, Generator
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class Stepper(Generic[T]):
    """A coroutine that takes one step at a time.

    Invariant: between two steps the work waits for `future`, and nobody else steps it.

    Args:
        work: The coroutine. It awaits futures, or lets others run as `asyncio.sleep(0)` does.
        future: What it waits for already, if it is under way.

    Attributes:
        future: What the work waits for; None before its first step.
    """

    __slots__ = ("_work", "future")

    def __init__(self, work: Coroutine[Any, Any, T], future: Any = None) -> None:
        self._work = work
        self.future = future

    def advance(self, error: BaseException | None = None) -> None:
        """Let the work go on to where it waits next.

        Args:
            error: Is raised where it waits now.

        Raises:
            StopIteration: It returned; with its result.
            BaseException: It raised this.
        """
        try:
            future = self._work.send(None) if error is None else self._work.throw(error)
        finally:
            error = None  # else this frame and the error that comes out again keep one another
        if future is None:
            self.future = _next_pass()
        elif getattr(future, "_asyncio_future_blocking", False):
            future._asyncio_future_blocking = False  # true: being awaited, and nobody took it up
            self.future = future
        else:
            self.future = _refused(future)


class InnerStepper(Stepper[T]):
    """Steps its work inside a task, for which it stands in for what the work waits for.

    A task that is cancelled cancels what it waits for. It waits for the stepper, which has as much
    of a future as tasks ask for; so what a cancellation does is up to a subclass (`cancel`), and
    so is what the work hears when the task is woken (`heard`).

    What a task does once the work waits must not be interrupted: where Ctrl-C strikes between, the
    task waits for nothing and never ends, nor does the program. So what it calls then is the
    future's own, in C, where signals are not heard, and no method of ours.

    Attributes:
        add_done_callback, get_loop: The future's.
        overdue: Its time was up when it could not be cut off: that is done as soon as it can be.
    """

    __slots__ = ("_asyncio_future_blocking", "add_done_callback", "get_loop", "overdue")

    add_done_callback: Callable[..., None]
    get_loop: Callable[[], asyncio.AbstractEventLoop]

    def __init__(self, work: Coroutine[Any, Any, T], future: Any = None) -> None:
        # As above, without its call: each transaction makes two of these.
        self._work = work
        self.future = future
        self.overdue = False

    @types.coroutine
    def run(self) -> Generator[Any, Any, T]:
        """Step the work to its end, inside the task that awaits this. Returns its result."""
        heard: BaseException | None = None
        try:
            if self.future is None:
                self.advance()
                self.first_wait()
            while True:
                if self.overdue:
                    self.expire()
                self.add_done_callback = self.future.add_done_callback
                self.get_loop = self.future.get_loop
                # By this a task tells a future that is awaited from anything else that is yielded
                # to it.
                self._asyncio_future_blocking = True
                try:
                    yield self
                except BaseException as error:
                    heard = self.heard(error)
                # Not inside `except`: what the work raises has nothing to do with that error.
                self.advance(heard)
                heard = None
        except StopIteration as end:
            result: T = end.value
            return result
        finally:
            heard = None  # as in `advance`

    # -- what a subclass decides

    def first_wait(self) -> None:
        """The work waits for the first time. Most never do: limits in time begin here."""

    def heard(self, error: BaseException) -> BaseException | None:
        """Return what the work hears when its task is woken with this error."""
        return error

    def cancel(self, msg: Any = None) -> bool:
        """The task is cancelled. False if what it waits for is not: then it hears when woken."""
        cancelled: bool = self.future.cancel(msg)
        return cancelled

    def expire(self) -> None:
        """Time is up: cut the work off where it waits."""

    # -- what else tasks ask of a future

    def remove_done_callback(self, callback: Callable[[Any], object]) -> int:
        """Do not call back; returns how many calls that spares."""
        removed: int = self.future.remove_done_callback(callback)
        return removed

    def done(self) -> bool:
        """Say whether the future is done."""
        done: bool = self.future.done()
        return done

    def result(self) -> Any:
        """Return or raise what became of the future."""
        return self.future.result()


def failure(future: Any) -> BaseException | None:
    """Return what a future raises that is done, a cancellation included; None if nothing."""
    try:
        future.result()
    except BaseException as error:
        return error
    return None


def _next_pass() -> asyncio.Future[None]:
    loop = asyncio.get_running_loop()
    future: asyncio.Future[None] = loop.create_future()
    loop.call_soon(_settle, future)
    return future


def _settle(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def _refused(awaited: object) -> asyncio.Future[None]:
    """Return a future that tells the work what is wrong with it, as a task would."""
    future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    future.set_exception(RuntimeError(f"awaits {awaited!r}: neither a future nor asyncio.sleep(0)"))
    return future


PASSES = 2
"""Passes of the event loop between the end of a limit in time and its consequence."""


def after_passes(
    loop: asyncio.AbstractEventLoop, callback: Callable[..., object], *args: Any
) -> None:
    """Call back when the loop has made two more passes.

    Whenever time is up, the answer may be there already: the program was busy with something else,
    and the loop comes to its timers late. uvloop even looks at its timers before its sockets. One
    pass reads what has arrived, another wakes who waits for it; only then the answer is missing.
    """
    loop.call_soon(_pass, loop, PASSES, callback, args)


def _pass(
    loop: asyncio.AbstractEventLoop, left: int, callback: Callable[..., object], args: Any
) -> None:
    if left:
        loop.call_soon(_pass, loop, left - 1, callback, args)
    else:
        callback(*args)
