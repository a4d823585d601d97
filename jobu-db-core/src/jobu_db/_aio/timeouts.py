"""A limit in time that leaves the task alone: it cancels what is waited for.

One timer serves all limits of a pool: a timer for each would cost more than sending BEGIN.
"""

from __future__ import annotations

import asyncio
import types
from collections.abc import Coroutine, Generator
from math import inf, isnan
from time import monotonic
from typing import Any, TypeVar

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


class TimeLimits:
    """Runs work that must end in time.

    Unlike `asyncio.timeout` it does so in any task, and outside one, and costs less.

    Invariant: the timer goes off at the earliest deadline, or before it.
    """

    def __init__(self) -> None:
        self._deadlines: dict[_Limited[Any], float] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._due = inf

    @types.coroutine
    def within(self, seconds: float, work: Coroutine[Any, Any, T]) -> Generator[Any, Any, T]:
        """Run work. When time is up, the loop makes two passes, which may bring the answer; then
        the work is cancelled where it waits for something.

        Raises:
            TimeoutError: It did not end in time.
        """
        limited = _Limited(work, self, seconds)
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

    def mind(self, limited: _Limited[Any], deadline: float) -> None:
        """Cut this work off at its deadline, if it still runs then."""
        self._deadlines[limited] = deadline
        if deadline < self._due:
            if self._timer is not None:
                self._timer.cancel()
            self._due = deadline
            delay = max(0.0, deadline - monotonic())
            self._timer = asyncio.get_running_loop().call_later(delay, self._look)

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

    def _expire(self, due: list[_Limited[Any]]) -> None:
        for limited in due:
            if limited in self._deadlines:  # else it has ended
                limited.expire()


class _Limited(InnerStepper[T]):
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
