"""A limit in time that leaves the task alone: it cancels what is waited for.

One timer serves all limits of a pool: a timer for each would cost more than sending BEGIN.
"""

from __future__ import annotations

import asyncio
import types
from collections.abc import Coroutine, Generator
from math import inf
from time import monotonic
from typing import Any, Self, TypeVar

from jobu_db._aio.future_proxy import FutureProxy

T = TypeVar("T")


class TimeLimits:
    """Runs work that must end in time.

    Unlike `asyncio.timeout` it does so in any task, and outside one, and costs less.

    Invariant: the timer goes off at the earliest deadline, or before it.
    """

    def __init__(self) -> None:
        self._deadlines: dict[_Limit, float] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._due = inf

    @types.coroutine
    def within(self, seconds: float, work: Coroutine[Any, Any, T]) -> Generator[Any, Any, T]:
        """Run work; it is cancelled where it waits for something when time is up.

        Raises:
            TimeoutError: It did not end in time.
        """
        limit = _Limit()
        try:
            waits_for = work.send(None)
            self._mind(limit, monotonic() + seconds)
            while True:
                try:
                    yield limit.before(waits_for)
                    if waits_for is None:  # any other future tells it again when the work goes on
                        limit.future.result()
                except BaseException as error:
                    waits_for = work.throw(error)
                else:
                    waits_for = work.send(None)
        except StopIteration as end:
            result: T = end.value
            return result
        except asyncio.CancelledError as error:
            if limit.alone:
                raise TimeoutError from error
            raise
        finally:
            self._deadlines.pop(limit, None)

    def _mind(self, limit: _Limit, deadline: float) -> None:
        self._deadlines[limit] = deadline
        if deadline < self._due:
            if self._timer is not None:
                self._timer.cancel()
            self._due = deadline
            delay = max(0.0, deadline - monotonic())
            self._timer = asyncio.get_running_loop().call_later(delay, self._look)

    def _look(self) -> None:
        now, self._due = monotonic(), inf
        for limit in [limit for limit, deadline in self._deadlines.items() if deadline <= now]:
            del self._deadlines[limit]
            limit.expire()
        for limit, deadline in self._deadlines.items():
            self._mind(limit, deadline)


class _Limit(FutureProxy):
    """Cancels the future when time is up, or the next one if that is done already: an answer that
    has come is not lost.

    Attributes:
        alone: Time is up, and nothing else cancelled it.
    """

    __slots__ = ("_overdue", "alone")

    def __init__(self) -> None:
        self.alone = self._overdue = False

    def before(self, future: asyncio.Future[Any] | None) -> Self:
        """Stand in for this future."""
        super().before(future)
        if self._overdue:
            self.expire()
        return self

    def expire(self) -> None:
        """Time is up."""
        self.alone = self.future.cancel()
        self._overdue = not self.alone

    def cancel(self, msg: Any = None) -> bool:
        """The task is cancelled, and that counts whatever the limit did."""
        self.alone = False
        return super().cancel(msg)
