"""Every decision of the pool, made synchronously over one object.

No asyncio, no clock, no logging: time comes in as `now` (monotonic seconds), I/O goes out as
actions that the pool performs. Nothing is awaited between reading and writing, so no cancellation
can fall between a decision and its effect, and no lock is needed.

Invariants, each with a test of its name:

size      Connections in any phase, opening and closing ones included, never exceed `max_size`
          (a resize below the present size shrinks as connections come back).
place     A connection is in one phase, and in the idle queue exactly when it is idle.
once      A waiter settles once: granted, refused or withdrawn.
returned  A grant that its waiter cannot use any more goes to the next waiter.
progress  Nobody waits while a usable connection is idle, or while there is room and nothing is
          under way for it, unless connecting is held back after a failure.
order     Waiters are granted first come, first served, and nobody overtakes them.
health    A connection that is known dead, past its lifetime, or unproven for longer than
          `check_after` is never granted.
probe     After a failed connect one attempt at a time is made, not before `retry_at`, until one
          succeeds; after that attempts double with each success.
closed    A closing pool grants nothing, opens nothing and lets nobody wait.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from math import inf
from typing import Any, Generic, TypeVar

C = TypeVar("C")

FIRST_RETRY = 0.05
LONGEST_RETRY = 1.0
PATIENCE = 1.0
"""Seconds after which a check or reset under way no longer counts as a connection to come."""
LIFETIME_JITTER = 0.1


class Phase(Enum):
    """Where a connection is."""

    OPENING = "opening"
    IDLE = "idle"
    CHECKING = "checking"
    LEASED = "leased"
    RESETTING = "resetting"
    CLOSING = "closing"


class Slot(Generic[C]):
    """One place in the pool and the connection in it. Only `PoolState` changes `phase`.

    `holder`, `interrupted` and `leak_reported` describe the lease and are the pool's to set.
    """

    __slots__ = (
        "connection",
        "created_at",
        "expires_at",
        "holder",
        "id",
        "interrupted",
        "last_used_at",
        "leak_reported",
        "phase",
        "proven_at",
        "since",
        "uses",
    )

    def __init__(self, id: int, now: float) -> None:
        self.id = id
        self.phase = Phase.OPENING
        self.since = now
        self.connection: Any = None
        self.created_at = now
        self.expires_at = inf
        self.proven_at = now
        self.last_used_at = now
        self.uses = 0
        self.holder: Any = None
        self.interrupted = False
        self.leak_reported = False


class Waiter(Generic[C]):
    """Somebody in the queue. `slot` is set by a grant."""

    __slots__ = ("slot",)

    def __init__(self) -> None:
        self.slot: Slot[C] | None = None


@dataclass(frozen=True, slots=True)
class Open:
    slot: Slot[Any]


@dataclass(frozen=True, slots=True)
class Check:
    slot: Slot[Any]


@dataclass(frozen=True, slots=True)
class Reset:
    slot: Slot[Any]


@dataclass(frozen=True, slots=True)
class Close:
    slot: Slot[Any]
    reason: str


@dataclass(frozen=True, slots=True)
class Grant:
    waiter: Waiter[Any]


@dataclass(frozen=True, slots=True)
class Refuse:
    """`cause` is the failed connect, or None where the pool is closing."""

    waiter: Waiter[Any]
    cause: BaseException | None


@dataclass(frozen=True, slots=True)
class WakeAt:
    when: float


Action = Open | Check | Reset | Close | Grant | Refuse | WakeAt
Actions = list[Action]


@dataclass(slots=True)
class Limits:
    """The settings that decisions depend on, in seconds; None means off."""

    min_size: int
    max_size: int
    max_waiting: int | None = None
    max_idle: float | None = None
    max_lifetime: float | None = None
    check_after: float | None = None


class PoolState(Generic[C]):
    """The connections, the queue, and what to do next.

    `alive` says whether a connection is not known to be dead; `random` returns [0, 1).
    """

    def __init__(
        self, limits: Limits, alive: Callable[[C], bool], random: Callable[[], float]
    ) -> None:
        self.limits = limits
        self._alive = alive
        self._random = random
        self._next_id = 1
        self.slots: set[Slot[C]] = set()
        self.idle: deque[Slot[C]] = deque()
        self.waiters: OrderedDict[Waiter[C], None] = OrderedDict()
        self.closing = False
        self.failures = 0
        self.last_failure: BaseException | None = None
        self.retry_at = -inf
        self._failed_for_good = False
        self._opening_limit = inf
        self._closing_slots = 0

    # -- what callers ask for

    def take(self, now: float, actions: Actions) -> Slot[C] | None:
        """Lease an idle connection at once, unless somebody waits already or none is fit."""
        if self.waiters or self.closing:
            return None
        slot = self._pop_usable(now, actions)
        if slot is not None:
            self._lease(slot, now)
        return slot

    def may_wait(self) -> bool:
        """Say whether the queue has room for one more."""
        return self.limits.max_waiting is None or len(self.waiters) < self.limits.max_waiting

    def enqueue(self, waiter: Waiter[C], now: float) -> Actions:
        """Put a waiter at the end of the queue, or refuse it at once for a cause that stands."""
        if self._failed_for_good and now < self.retry_at:
            return [Refuse(waiter, self.last_failure)]
        self.waiters[waiter] = None
        return self._settle(now, [])

    def withdraw(self, waiter: Waiter[C]) -> None:
        """Take a waiter out that was neither granted nor refused."""
        del self.waiters[waiter]

    def release(
        self, slot: Slot[C], now: float, *, reset: bool = False, discard: str | None = None
    ) -> Actions:
        """Take a leased connection back: to be reset, to be closed for a reason, or as it is."""
        slot.last_used_at = slot.proven_at = now
        slot.uses += 1
        actions: Actions = []
        reason = discard or self._reason_to_retire(slot, now)
        if reason:
            self._close(slot, reason, now, actions)
        elif reset:
            self._move(slot, Phase.RESETTING, now)
            actions.append(Reset(slot))
        else:
            self._park(slot, now)
        return self._settle(now, actions)

    def resize(self, min_size: int, max_size: int, now: float) -> Actions:
        """Change the limits; surplus idle connections are closed now, others as they return."""
        self.limits.min_size, self.limits.max_size = min_size, max_size
        actions: Actions = []
        while self.idle and self._kept() > max_size:
            self._close(self.idle.popleft(), "resized", now, actions)
        return self._settle(now, actions)

    def close(self, now: float) -> Actions:
        """Refuse all waiters, close what is idle, and let nothing in any more."""
        self.closing = True
        actions = self._refuse_all(None)
        while self.idle:
            self._close(self.idle.popleft(), "pool closed", now, actions)
        return actions

    def adopted(self, connection: C, now: float) -> Actions:
        """Take in a connection that was opened without being asked for: the first one."""
        return self.opened(self._new_slot(now), connection, now)

    # -- what became of the actions

    def opened(self, slot: Slot[C], connection: C, now: float) -> Actions:
        """A connect succeeded."""
        slot.connection = connection
        slot.created_at = slot.proven_at = slot.last_used_at = now
        lifetime = self.limits.max_lifetime
        if lifetime is not None:
            slot.expires_at = now + lifetime * (1 - LIFETIME_JITTER * self._random())
        self.failures, self.last_failure, self._failed_for_good = 0, None, False
        self._opening_limit *= 2
        return self._back_in_service(slot, now)

    def open_failed(
        self, slot: Slot[C], error: BaseException, now: float, *, transient: bool
    ) -> Actions:
        """A connect failed; `transient` if waiting may help, else every waiter hears of it now."""
        self.slots.discard(slot)
        self.failures += 1
        self.last_failure = error
        self._failed_for_good = not transient
        self._opening_limit = 1
        delay = min(LONGEST_RETRY, FIRST_RETRY * 2 ** min(self.failures - 1, 30))
        self.retry_at = now + delay * (0.5 + 0.5 * self._random())
        actions: Actions = [] if transient else self._refuse_all(error)
        if not self.closing:
            actions.append(WakeAt(self.retry_at))
        return actions

    def ready(self, slot: Slot[C], now: float) -> Actions:
        """A check or a reset succeeded."""
        slot.proven_at = now
        return self._back_in_service(slot, now)

    def broken(self, slot: Slot[C], reason: str, now: float) -> Actions:
        """A check or a reset failed."""
        actions: Actions = []
        self._close(slot, reason, now, actions)
        return self._settle(now, actions)

    def closed(self, slot: Slot[C], now: float) -> Actions:
        """A connection is gone from the server, or given up: its place is free."""
        self.slots.discard(slot)
        self._closing_slots -= 1
        return self._settle(now, [])

    def tick(self, now: float) -> Actions:
        """Upkeep: retire idle connections, keep one alive, fill up, and probe a lost server."""
        actions: Actions = []
        for slot in [slot for slot in self.idle if self._reason_to_retire(slot, now)]:
            self.idle.remove(slot)
            self._close(slot, self._reason_to_retire(slot, now), now, actions)
        self._shrink(now, actions)
        self._keep_alive(now, actions)
        return self._settle(now, actions)

    # -- figures

    def count(self, phase: Phase) -> int:
        """Number of connections in a phase."""
        return sum(slot.phase is phase for slot in self.slots)

    @property
    def established(self) -> int:
        """Number of connections that the server has accepted and that are not being closed."""
        return sum(slot.phase not in (Phase.OPENING, Phase.CLOSING) for slot in self.slots)

    def leased(self) -> list[Slot[C]]:
        """The leases, longest first."""
        held = [slot for slot in self.slots if slot.phase is Phase.LEASED]
        return sorted(held, key=lambda slot: slot.since)

    # -- decisions

    def _settle(self, now: float, actions: Actions) -> Actions:
        if self.closing:
            return actions
        while self.waiters:
            slot = self._pop_usable(now, actions)
            if slot is None:
                break
            waiter, _ = self.waiters.popitem(last=False)
            waiter.slot = slot
            self._lease(slot, now)
            actions.append(Grant(waiter))
        self._supply(now, actions)
        return actions

    def _pop_usable(self, now: float, actions: Actions) -> Slot[C] | None:
        while self.idle:
            slot = self.idle[-1]
            reason = self._reason_to_retire(slot, now)
            if not reason and self._unproven(slot, now):
                return None
            self.idle.pop()
            if not reason:
                return slot
            self._close(slot, reason, now, actions)
        return None

    def _supply(self, now: float, actions: Actions) -> None:
        if self.waiters and (self.idle or self._may_open(now)):
            short = len(self.waiters) - self._to_come(now)
            while short > 0 and self.idle:
                self._check(self.idle.pop(), now, actions)
                short -= 1
            while short > 0 and self._may_open(now):
                self._open(now, actions)
                short -= 1
        while self._kept() < self.limits.min_size and self._may_open(now):
            self._open(now, actions)

    def _may_open(self, now: float) -> bool:
        if len(self.slots) >= self.limits.max_size:
            return False
        if self.failures:
            return now >= self.retry_at and not self.count(Phase.OPENING)
        return self._opening_limit == inf or self.count(Phase.OPENING) < self._opening_limit

    def _to_come(self, now: float) -> int:
        coming = (Phase.CHECKING, Phase.RESETTING)
        soon = sum(slot.phase in coming and now - slot.since < PATIENCE for slot in self.slots)
        return soon + self.count(Phase.OPENING)

    def _reason_to_retire(self, slot: Slot[C], now: float) -> str:
        if self.closing:
            return "pool closed"
        if now >= slot.expires_at:
            return "lifetime"
        if slot.connection is not None and not self._alive(slot.connection):
            return "dead"
        if self._kept() > self.limits.max_size:
            return "resized"
        return ""

    def _unproven(self, slot: Slot[C], now: float) -> bool:
        check_after = self.limits.check_after
        return check_after is not None and now - slot.proven_at > check_after

    def _shrink(self, now: float, actions: Actions) -> None:
        max_idle = self.limits.max_idle
        if max_idle is None:
            return
        while self.idle and self._kept() > self.limits.min_size:
            if now - self.idle[0].last_used_at < max_idle:
                return
            self._close(self.idle.popleft(), "idle", now, actions)

    def _keep_alive(self, now: float, actions: Actions) -> None:
        if self.idle and self._unproven(self.idle[0], now) and not self.count(Phase.CHECKING):
            self._check(self.idle.popleft(), now, actions)

    def _kept(self) -> int:
        return len(self.slots) - self._closing_slots

    def _refuse_all(self, cause: BaseException | None) -> Actions:
        waiters, self.waiters = self.waiters, OrderedDict()
        return [Refuse(waiter, cause) for waiter in waiters]

    # -- moves

    def _open(self, now: float, actions: Actions) -> None:
        actions.append(Open(self._new_slot(now)))

    def _new_slot(self, now: float) -> Slot[C]:
        slot: Slot[C] = Slot(self._next_id, now)
        self._next_id += 1
        self.slots.add(slot)
        return slot

    def _check(self, slot: Slot[C], now: float, actions: Actions) -> None:
        self._move(slot, Phase.CHECKING, now)
        actions.append(Check(slot))

    def _close(self, slot: Slot[C], reason: str, now: float, actions: Actions) -> None:
        self._move(slot, Phase.CLOSING, now)
        self._closing_slots += 1
        actions.append(Close(slot, reason))

    def _back_in_service(self, slot: Slot[C], now: float) -> Actions:
        actions: Actions = []
        reason = self._reason_to_retire(slot, now)
        if reason:
            self._close(slot, reason, now, actions)
        else:
            self._park(slot, now)
        return self._settle(now, actions)

    def _park(self, slot: Slot[C], now: float) -> None:
        self._move(slot, Phase.IDLE, now)
        self.idle.append(slot)

    def _lease(self, slot: Slot[C], now: float) -> None:
        self._move(slot, Phase.LEASED, now)

    def _move(self, slot: Slot[C], phase: Phase, now: float) -> None:
        slot.phase = phase
        slot.since = now
