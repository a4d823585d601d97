"""Those who wait for a connection: what their tasks await, and when to look who is late.

Whose time is up is decided by the state; here it is only seen to that it is asked in time.

One timer serves all deadlines: one for each waiter cost more than all the rest of an acquire.
"""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Callable
from math import inf
from time import monotonic
from typing import Any, Generic, TypeVar

from jobu_db._aio.callsite import Asked, Place, note
from jobu_db.pool.slots import Actions, Slot
from jobu_db.pool.state import PoolState

C = TypeVar("C")
Perform = Callable[[Actions], None]

PAUSE_PER_WAITER = 1e-6
"""Seconds between two looks at the deadlines; looking at one takes less than a tenth of that."""


class Queued(asyncio.Future[None], Generic[C]):
    """A waiter. It is all in one object: the more there are for each of thousands who wait, the
    longer the garbage collector takes.

    Attributes:
        slot: What it was granted.
        asked_at, deadline: Since when it waits and until when, in seconds on the monotonic clock.
        task: Who waits.
        full: All connections that there may be were taken when it began to wait.
        begins: See `Waiter`.
    """

    __slots__ = (
        "_code",
        "_instruction",
        "_stack",
        "asked_at",
        "begins",
        "deadline",
        "full",
        "slot",
        "task",
    )

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        place: Place,
        asked_at: float,
        deadline: float,
        *,
        begins: bool = False,
    ) -> None:
        super().__init__(loop=loop)
        self.begins = begins
        self.slot: Slot[C] | None = None
        self.full = False
        self.asked_at = asked_at
        self.deadline = deadline
        self.task = asyncio.current_task(loop)
        self._code, self._instruction, self._stack = place

    def asked(self) -> Asked:
        """Return who it is, in a form that does not keep the task alive."""
        return note(self.task, (self._code, self._instruction, self._stack))


class Deadlines(Generic[C]):
    """Has the state look whose time is up.

    Invariant: while somebody waits, the timer goes off at the earliest deadline, or so soon after
    it that looking at all of them takes but a small part of the time: milliseconds for thousands.

    Args:
        state: Whose waiters they are.
        perform: Carries out what the state decides.
    """

    def __init__(self, state: PoolState[C], perform: weakref.WeakMethod[Perform]) -> None:
        self._state = state
        self._perform = perform
        self._timer: asyncio.TimerHandle | None = None
        self._due = inf

    def mind(self, deadline: float) -> None:
        """Ensure that this deadline is kept."""
        # Else the timer goes off before that, and `look` sets it anew for this one.
        if deadline < self._due:
            self.stop()
            self._due = deadline
            loop, delay = asyncio.get_running_loop(), max(0.0, deadline - monotonic())
            self._timer = loop.call_later(delay, _look, weakref.ref(self))

    def stop(self) -> None:
        """Mind no deadline any more."""
        if self._timer is not None:
            self._timer.cancel()

    def look(self) -> None:
        """Refuse those whose time is up, and mind the deadlines of the others."""
        now, self._due = monotonic(), inf
        perform = self._perform()
        if perform is not None:
            # First, so that the next timer is set for those who are left.
            perform(self._state.expire(now))
        waiters = self._state.waiters
        earliest = min((waiter.deadline for waiter in waiters), default=inf)
        self.mind(max(earliest, now + PAUSE_PER_WAITER * len(waiters)))


def _look(reference: weakref.ref[Deadlines[Any]]) -> None:
    """Only a weak reference, so that an abandoned pool can die."""
    deadlines = reference()
    if deadlines is not None:
        deadlines.look()
