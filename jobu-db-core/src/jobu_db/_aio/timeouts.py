"""A limit in time that leaves the task alone: it cancels what is waited for.

One timer serves all limits of a pool: a timer for each would cost more than sending BEGIN.
"""

from __future__ import annotations

import asyncio
import types
from collections.abc import Callable, Coroutine, Generator
from math import inf, isnan
from time import monotonic
from typing import Any, Protocol, TypeVar

from jobu_db._aio.inline_task import InlineTask
from jobu_db._aio.stepper import InnerStepper, after_passes

T = TypeVar("T")


def check_seconds(name: str, given: float | None) -> None:
    """Refuse what is no limit in time.

    Args:
        name: Of the argument, for the message.
        given: Seconds, or None.

    Raises:
        TypeError: It is no number.
        ValueError: It is NaN: that would never be over.
    """
    if given is None:
        return
    if not isinstance(given, (int, float)) or isinstance(given, bool):
        raise TypeError(f"{name}={given!r}: must be a number of seconds, or None")
    if isnan(given):
        raise ValueError(f"{name}={given!r}: must be a number of seconds, or None")


def check_whole(name: str, given: int | None) -> None:
    """Refuse what counts nothing.

    Args:
        name: Of the argument, for the message.
        given: A number, or None.

    Raises:
        TypeError: It is no whole number.
    """
    if given is not None and (not isinstance(given, int) or isinstance(given, bool)):
        raise TypeError(f"{name}={given!r}: must be a whole number")


class Limited(Protocol):
    """Work that must end in time."""

    def expire(self) -> None:
        """Time is up, and the work has not ended."""


class TimeLimits:
    """Runs work that must end in time.

    Unlike `asyncio.timeout` it does so in any task, and outside one, and costs less.

    Invariant: the timer goes off at the earliest deadline, or before it.
    """

    def __init__(self) -> None:
        self._deadlines: dict[Limited, float] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._due = inf

    @types.coroutine
    def within(self, seconds: float, work: Coroutine[Any, Any, T]) -> Generator[Any, Any, T]:
        """Run work. When time is up, the loop makes two passes, which may bring the answer; then
        the work is cancelled where it waits for something.

        Raises:
            TimeoutError: It did not end in time.
        """
        limited = _LimitedSteps(work, self, seconds)
        try:
            return (yield from limited.run())
        except asyncio.CancelledError as error:
            # The limit cancelled the future, and nobody the task: this is ours to turn into a
            # timeout.
            if limited.alone:
                raise TimeoutError from error
            raise
        finally:
            self._deadlines.pop(limited, None)

    def mind(self, limited: Limited, deadline: float) -> None:
        """Cut this work off at its deadline, if it still runs then."""
        self._deadlines[limited] = deadline
        if deadline < self._due:
            if self._timer is not None:
                self._timer.cancel()
            self._due = deadline
            delay = max(0.0, deadline - monotonic())
            self._timer = asyncio.get_running_loop().call_later(delay, self._look)

    def minds(self, limited: Limited) -> bool:
        """Say whether this work is still under way."""
        return limited in self._deadlines

    def forget(self, limited: Limited) -> None:
        """This work has ended."""
        self._deadlines.pop(limited, None)

    def _look(self) -> None:
        now, self._due = monotonic(), inf
        due = [limited for limited, deadline in self._deadlines.items() if deadline <= now]
        for limited in due:
            # Not looked at again, but kept: `_expire` sees by it that the work has not ended.
            self._deadlines[limited] = inf
        for limited, deadline in self._deadlines.items():
            # Sets what is there already, so the dict may be iterated over.
            self.mind(limited, deadline)
        if due:
            after_passes(asyncio.get_running_loop(), self._expire, due)

    def _expire(self, due: list[Limited]) -> None:
        for limited in due:
            if limited in self._deadlines:  # else it has ended
                limited.expire()


class _LimitedSteps(InnerStepper[T]):
    """Cancels the future when time is up, or the next one if that is done already: an answer that
    has come is not lost.

    Attributes:
        alone: Time is up, and nothing else cancelled it.
    """

    __slots__ = ("_limits", "_seconds", "alone")

    def __init__(self, work: Coroutine[Any, Any, T], limits: TimeLimits, seconds: float) -> None:
        super().__init__(work)
        self._limits = limits
        self._seconds = seconds
        self.alone = False

    def first_wait(self) -> None:
        """Time begins to matter."""
        self._limits.mind(self, monotonic() + self._seconds)

    def expire(self) -> None:
        """Time is up."""
        self.alone = self.future.cancel()
        self.overdue = not self.alone

    def cancel(self, msg: Any = None) -> bool:
        """The task is cancelled, and that counts whatever the limit did."""
        self.alone = False
        return super().cancel(msg)


class LimitedTask(InlineTask):
    """A task in line that must end in time; see `TimeLimits.start`.

    Attributes:
        alone: Time is up, and nothing else cancelled it.
        overdue: Time was up when an answer had just come, which is not lost: the work is cut off
            if it waits once more.
    """

    __slots__ = ("_limits", "alone", "overdue")

    def __init__(
        self,
        work: Coroutine[Any, Any, None],
        ended: Callable[[LimitedTask], None],
        limits: TimeLimits,
    ) -> None:
        super().__init__(work, ended)  # type: ignore[arg-type]  # it is told of this very task
        self._limits = limits
        self.alone = self.overdue = False

    def begin(self, seconds: float) -> None:
        """Take the first step; most work of a pool sends something in it."""
        self.step()
        if self.future is not None:  # else that was all: it never waited
            self._limits.mind(self, monotonic() + seconds)

    def expire(self) -> None:
        """Time is up."""
        self.alone = self.future.cancel()
        self.overdue = not self.alone

    def cancel(self, msg: Any = None) -> bool:
        """Cancel it, whatever the limit did."""
        self.alone = False
        return super().cancel(msg)

    def cancelled(self) -> bool:
        """Say whether it ended by a cancellation, and not because time was up."""
        return super().cancelled() and not self.alone

    def exception(self) -> BaseException | None:
        """Return what it raised; `TimeoutError` if it was cut off."""
        error = super().exception()
        if self.alone and isinstance(error, asyncio.CancelledError):
            late = TimeoutError()
            late.__cause__ = error
            return late
        return error

    def _finish(self) -> None:
        self._limits.forget(self)  # first: who hears of the end may start anything
        super()._finish()

    def _wake(self, future: asyncio.Future[Any]) -> None:
        super()._wake(future)
        if self.overdue and self._limits.minds(self):
            self.expire()
