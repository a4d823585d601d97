"""Every decision of the pool, made synchronously over one object.

No asyncio, no clock, no logging: time comes in as `now` (monotonic seconds), I/O goes out as
actions that the runner performs. Nothing is awaited between reading and writing, so no
cancellation can fall between a decision and its effect, and no lock is needed.

Invariants, each with a test of its name:

size      Connections in any phase, opening and closing ones included, never exceed `max_size`
          (a resize below the present size shrinks as connections come back).
place     A connection is in one phase, and in `idle` exactly when it is idle.
once      A waiter settles once: granted, refused, expired or withdrawn.
returned  A grant that its waiter cannot use any more goes to the next waiter.
progress  Nobody waits while a usable connection is idle, or while there is room and nothing is
          under way for it, unless connecting is held back after a failure.
order     Waiters are granted first come, first served, and nobody overtakes them.
health    A connection that is known dead, past its lifetime, unproven for longer than
          `check_after`, or suspect since another one was lost, is never granted.
probe     After a failed connect one attempt at a time is made, not before `retry_at`, until one
          succeeds; after that attempts double with each success.
drained   What was there or being opened when the pool was drained is never granted after that.
closed    A closing pool grants nothing, opens nothing and lets nobody wait.
owed      What must end before it is lent is granted, before that, only to who begins behind it.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from math import inf
from typing import Generic, TypeVar

from jobu_db.errors import ConnectionFailedError
from jobu_db.pool.backoff import Backoff
from jobu_db.pool.slots import (
    COMMIT,
    IDLE,
    LEASED,
    Actions,
    Check,
    Close,
    Expire,
    Grant,
    Limits,
    Open,
    Owe,
    Phase,
    Refuse,
    Reset,
    Slot,
    Waiter,
    WakeAt,
)

C = TypeVar("C")

PATIENCE = 1.0
"""Seconds after which a check or reset under way no longer counts as a connection to come."""
LIFETIME_JITTER = 0.1
FEWEST_AT_ONCE = 3
"""Connections that may be opened side by side in an empty pool."""
DRAINED = -inf
"""The end of the lifetime of what is to be replaced."""


class Slots(Generic[C]):
    """The connections and where each of them is. Counts and moves them, and decides nothing.

    Attributes:
        slots: All places that are taken.
        idle: The idle ones, least recently used first.
        staying: How many are not being closed.
    """

    def __init__(self) -> None:
        self.slots: set[Slot[C]] = set()
        self.idle: list[Slot[C]] = []
        self.staying = 0
        self._next_id = 1

    def add(self, now: float) -> Slot[C]:
        """Take a place, for a connection that is yet to be opened."""
        slot: Slot[C] = Slot(self._next_id, now)
        self._next_id += 1
        self.slots.add(slot)
        self.staying += 1
        return slot

    def move(self, slot: Slot[C], phase: Phase, now: float) -> None:
        """Note where a connection went. The idle ones are the caller's to take out."""
        slot.phase = phase
        slot.since = now

    def park(self, slot: Slot[C], now: float) -> None:
        """Put a connection among the idle ones, in its place by last use."""
        slot.phase = IDLE
        slot.since = now
        idle = self.idle
        # Nearly always the last place. What was checked or reset comes back later than it was used.
        at = len(idle)
        while at and idle[at - 1].last_used_at > slot.last_used_at:
            at -= 1
        idle.insert(at, slot)

    def retire(self, slot: Slot[C], now: float) -> None:
        """Note that a connection is being closed."""
        self.move(slot, Phase.CLOSING, now)
        self.staying -= 1

    def remove(self, slot: Slot[C]) -> None:
        """Free a place."""
        self.slots.remove(slot)
        if slot.phase is not Phase.CLOSING:
            self.staying -= 1

    # -- figures

    @property
    def established(self) -> int:
        """Number of connections that the server has accepted and that are not being closed."""
        return self.staying - self.count(Phase.OPENING)

    def count(self, phase: Phase) -> int:
        """Number of connections in a phase. May be asked from another thread."""
        return sum(slot.phase is phase for slot in tuple(self.slots))

    def leased(self) -> list[Slot[C]]:
        """The leases, longest first."""
        held = [slot for slot in self.slots if slot.phase is Phase.LEASED]
        return sorted(held, key=lambda slot: slot.since)


class PoolState(Slots[C]):
    """The connections, the queue, and what to do next.

    `alive` says whether a connection is not known to be dead; `random` returns [0, 1).

    The idle connection that was used last is lent first, so that those that are not needed stay
    idle and can go.

    An end for which nobody waits is owed for one pass of the event loop: it is sent ahead of the
    next BEGIN, if there is one by then, and alone if not.

    Attributes:
        backoff: When to connect while the server accepts no connection.
        owing: Those whose end is owed, and that nobody has; their phase is RESETTING.
    """

    def __init__(
        self, limits: Limits, alive: Callable[[C], bool], random: Callable[[], float]
    ) -> None:
        super().__init__()
        self.limits = limits
        self.waiters: OrderedDict[Waiter[C], None] = OrderedDict()
        self.backoff = Backoff(random)
        self.closing = False
        self.owing: list[Slot[C]] = []
        self._alive = alive
        self._random = random

    # -- what callers ask for

    def take(self, now: float, actions: Actions, *, begins: bool = False) -> Slot[C] | None:
        """Lease an idle connection at once, unless somebody waits already or none is fit; or one
        whose end is owed, to who `begins`."""
        if self.waiters or self.closing:
            return None  # who comes now must not overtake those who wait
        slot = self._pop_owing(now) if begins and self.owing else None
        if slot is None:
            slot = self._pop_usable(now, actions)
        if slot is not None:
            slot.phase = LEASED
            slot.since = now
        return slot

    def may_wait(self) -> bool:
        """Say whether the queue has room for one more."""
        return self.limits.max_waiting is None or len(self.waiters) < self.limits.max_waiting

    def enqueue(self, waiter: Waiter[C], now: float) -> Actions:
        """Put a waiter at the end of the queue, or refuse it at once for a cause that stands."""
        if self.closing:
            return [Refuse(waiter, None)]
        if self.backoff.for_good and now < self.backoff.retry_at:
            return [Refuse(waiter, self.backoff.last_failure)]
        self.waiters[waiter] = None
        return self._settle(now, [])

    def withdraw(self, waiter: Waiter[C]) -> None:
        """Take a waiter out that was neither granted nor refused."""
        del self.waiters[waiter]

    def expire(self, now: float) -> Actions:
        """Refuse those whose time is up."""
        actions: Actions = []
        for waiter in [waiter for waiter in self.waiters if waiter.deadline <= now]:
            actions.append(Expire(waiter, len(self.waiters)))
            del self.waiters[waiter]
        return actions

    def give_back(self, slot: Slot[C], now: float) -> Actions:
        """Take a grant back that its waiter never came to use."""
        if slot.ends is None:
            return self._back_in_service(slot, now)
        actions: Actions = []
        self._reset(slot, now, actions, owes=not self.closing)
        return self._settle(now, actions)

    def release(
        self,
        slot: Slot[C],
        now: float,
        *,
        used: bool = True,
        reset: bool = False,
        owes: bool = False,
        discard: str | None = None,
    ) -> Actions:
        """Take a leased connection back: to be reset, to be closed for a reason, or as it is. If it
        `owes`, the reset can travel ahead of a BEGIN."""
        slot.last_used_at = now
        slot.uses += 1
        if used and slot.since > slot.proven_at:
            slot.proven_at = slot.since  # at some time after that it answered
        actions: Actions = []
        if slot.uses == 1:
            self._judge_first_use(slot, discard, now, actions)
        # A transaction that is still to be committed is, before its connection goes.
        to_commit = reset and slot.ends is COMMIT
        reason = discard or ("" if to_commit else self._reason_to_retire(slot, now))
        if reason:
            self._close(slot, reason, now, actions)
        elif reset:
            self._reset(slot, now, actions, owes=owes)
        else:
            self.park(slot, now)
        return self._settle(now, actions)

    def send_owed(self) -> Actions:
        """The pass of the event loop is over: what is still owed is sent alone."""
        owing, self.owing = self.owing, []
        return [Reset(slot) for slot in owing if slot in self.slots]

    def resize(self, min_size: int, max_size: int, now: float) -> Actions:
        """Change the limits; surplus idle connections are closed now, others as they return."""
        self.limits.min_size, self.limits.max_size = min_size, max_size
        actions: Actions = []
        while self.idle and self.staying > max_size:
            self._close(self.idle.pop(0), "resized", now, actions)
        return self._settle(now, actions)

    def drain(self, now: float) -> Actions:
        """Replace all connections: the idle ones now, others as they come back."""
        actions: Actions = []
        for slot in self.slots:
            slot.expires_at = DRAINED
        while self.idle:
            self._close(self.idle.pop(0), "drained", now, actions)
        return self._settle(now, actions)

    def leave(self, leads_there: Callable[[C], bool], now: float) -> Actions:
        """Lend no connection any more that leads to a server that is of no use: the idle ones are
        closed now, others as they come back."""
        actions: Actions = []
        for slot in self.slots:
            if slot.connection is not None and leads_there(slot.connection):
                slot.expires_at = DRAINED
        for slot in [slot for slot in self.idle if slot.expires_at == DRAINED]:
            self.idle.remove(slot)
            self._close(slot, "drained", now, actions)
        return self._settle(now, actions)

    def check(self, now: float) -> Actions:
        """Have all idle connections proven."""
        actions: Actions = []
        while self.idle:
            self._check(self.idle.pop(), now, actions)
        return self._settle(now, actions)

    def close(self, now: float) -> Actions:
        """Refuse all waiters, close what is idle, and let nothing in any more."""
        self.closing = True
        actions = [*self._refuse_all(None), *self.send_owed()]
        # What is lent out, checked or reset is closed as it comes back (`_reason_to_retire`).
        while self.idle:
            self._close(self.idle.pop(0), "pool closed", now, actions)
        return actions

    def adopted(self, connection: C, now: float) -> Actions:
        """Take in a connection that was opened without being asked for: the first one."""
        return self.opened(self.add(now), connection, now)

    # -- what became of the actions

    def opened(self, slot: Slot[C], connection: C, now: float) -> Actions:
        """A connect succeeded."""
        slot.connection = connection
        slot.created_at = slot.proven_at = slot.last_used_at = now
        if slot.expires_at != DRAINED:  # else the pool was drained while this was being opened
            lifetime = self.limits.max_lifetime * (1 - LIFETIME_JITTER * self._random())
            slot.expires_at = now + lifetime
        self.backoff.succeeded(now)
        return self._back_in_service(slot, now)

    def open_failed(
        self, slot: Slot[C], error: BaseException, now: float, *, transient: bool
    ) -> Actions:
        """A connect failed; `transient` if waiting may help, else every waiter hears of it now."""
        self.remove(slot)  # first: the next attempt needs the place
        self.backoff.failed(error, slot.since, now, transient=transient)
        if self.closing:
            return []
        actions: Actions = [] if transient else self._refuse_all(error)
        actions.append(WakeAt(self.backoff.retry_at))
        return actions

    def ready(self, slot: Slot[C], now: float) -> Actions:
        """A check or a reset succeeded."""
        slot.proven_at, slot.suspect = now, False
        return self._back_in_service(slot, now)

    def broken(self, slot: Slot[C], reason: str, now: float) -> Actions:
        """A check or a reset failed. What broke one idle connection may have broken its like."""
        actions: Actions = []
        if slot.phase is Phase.CHECKING:
            for other in [other for other in self.idle if self._is_unproven(other, now)]:
                self.idle.remove(other)
                self._check(other, now, actions)
        self._close(slot, reason, now, actions)
        return self._settle(now, actions)

    def suspect_idle(self) -> None:
        """One connection was lost or is silent: the idle ones are proven before they are lent."""
        for slot in self.idle:
            slot.suspect = True

    def closed(self, slot: Slot[C], now: float) -> Actions:
        """A connection is gone from the server, or abandoned: its place is free."""
        self.remove(slot)
        return self._settle(now, [])

    def tick(self, now: float) -> Actions:
        """Upkeep: retire idle connections, keep one alive, fill up, and probe a lost server."""
        actions: Actions = []
        for slot in list(self.idle):
            reason = self._reason_to_retire(slot, now)
            if reason:
                self.idle.remove(slot)
                self._close(slot, reason, now, actions)
        self._shrink(now, actions)
        self._keep_alive(now, actions)
        return self._settle(now, actions)

    # -- decisions

    def _settle(self, now: float, actions: Actions) -> Actions:
        if self.closing:
            return actions
        # Those who wait come before the supply: what has just come back may be all that they need.
        while self.waiters:
            slot = self._pop_usable(now, actions)
            if slot is None:
                break
            self._grant(slot, now, actions)
        if self.waiters or self.staying < self.limits.min_size:
            self._supply(now, actions)
        return actions

    def _pop_usable(self, now: float, actions: Actions) -> Slot[C] | None:
        # From the end, where the last used ones are. Those that are unproven stay where they are:
        # `_supply` has as many of them checked as are needed.
        idle, at = self.idle, len(self.idle)
        while at:
            at -= 1
            slot = idle[at]
            reason = self._reason_to_retire(slot, now)
            if reason:
                del idle[at]
                self._close(slot, reason, now, actions)
            elif not self._is_unproven(slot, now):
                del idle[at]
                return slot
        return None

    def _pop_owing(self, now: float) -> Slot[C] | None:
        if self._reason_to_retire(self.owing[-1], now):
            return None  # once its end is sent
        return self.owing.pop()

    def _supply(self, now: float, actions: Actions) -> None:
        if self.waiters and (self.idle or self._may_open(now)):
            # What is on its way will serve some of them. To prove an idle connection costs one
            # round trip, to open another several: that comes second.
            short = len(self.waiters) - self._to_come(now)
            while short > 0 and self.idle:
                self._check(self.idle.pop(), now, actions)
                short -= 1
            while short > 0 and self._may_open(now):
                actions.append(Open(self.add(now)))
                short -= 1
        while self.staying < self.limits.min_size and self._may_open(now):
            actions.append(Open(self.add(now)))

    def _may_open(self, now: float) -> bool:
        if len(self.slots) >= self.limits.max_size:
            return False  # first: this is asked for each of thousands who wait
        # As many at once as there are already: those under way may suffice once they arrive, for
        # holders come back before that. What is still missing then is opened then.
        opening = self.count(Phase.OPENING)
        at_once = max(FEWEST_AT_ONCE, self.staying - opening)
        return opening < at_once and self.backoff.may_open(opening, now)

    def _to_come(self, now: float) -> int:
        coming = (Phase.CHECKING, Phase.RESETTING)
        soon = sum(slot.phase in coming and now - slot.since < PATIENCE for slot in self.slots)
        return soon + self.count(Phase.OPENING)

    def _reason_to_retire(self, slot: Slot[C], now: float) -> str:
        if self.closing:
            return "pool closed"
        if now >= slot.expires_at:
            return "drained" if slot.expires_at == DRAINED else "lifetime"
        if not self._alive(slot.connection):
            return "dead"
        if self.staying > self.limits.max_size:
            return "resized"
        return ""

    def _is_unproven(self, slot: Slot[C], now: float) -> bool:
        return slot.suspect or now - slot.proven_at > self.limits.check_after

    def _shrink(self, now: float, actions: Actions) -> None:
        while self.idle and self.staying > self.limits.min_size:
            if now - self.idle[0].last_used_at < self.limits.max_idle:
                return  # the others were used later
            self._close(self.idle.pop(0), "idle", now, actions)

    def _keep_alive(self, now: float, actions: Actions) -> None:
        # One at a time: what is being checked cannot be lent.
        unproven = [slot for slot in self.idle if self._is_unproven(slot, now)]
        if unproven and not self.count(Phase.CHECKING):
            slot = min(unproven, key=lambda slot: slot.proven_at)
            self.idle.remove(slot)
            self._check(slot, now, actions)

    def _refuse_all(self, cause: BaseException | None) -> Actions:
        waiters, self.waiters = self.waiters, OrderedDict()
        return [Refuse(waiter, cause) for waiter in waiters]

    def _judge_first_use(
        self, slot: Slot[C], discard: str | None, now: float, actions: Actions
    ) -> None:
        if not discard:
            self.backoff.useful()
        elif not self._alive(slot.connection):
            error = ConnectionFailedError(
                f"a new connection was lost at its first use: {discard}", transient=True
            )
            self.backoff.useless(error, slot.created_at, now)
            actions.append(WakeAt(self.backoff.retry_at))

    # -- moves

    def _check(self, slot: Slot[C], now: float, actions: Actions) -> None:
        self.move(slot, Phase.CHECKING, now)
        actions.append(Check(slot))

    def _reset(self, slot: Slot[C], now: float, actions: Actions, *, owes: bool) -> None:
        fit = owes and not (self._is_unproven(slot, now) or self._reason_to_retire(slot, now))
        first = next(iter(self.waiters), None)
        if fit and first is not None and first.begins:
            self._grant(slot, now, actions)
            return
        self.move(slot, Phase.RESETTING, now)
        if fit and first is None:
            self.owing.append(slot)
            actions.append(Owe(slot))
        else:
            actions.append(Reset(slot))

    def _grant(self, slot: Slot[C], now: float, actions: Actions) -> None:
        waiter, _ = self.waiters.popitem(last=False)
        waiter.slot = slot
        slot.phase = LEASED
        slot.since = now
        actions.append(Grant(waiter))

    def _close(self, slot: Slot[C], reason: str, now: float, actions: Actions) -> None:
        self.retire(slot, now)
        actions.append(Close(slot, reason))

    def _back_in_service(self, slot: Slot[C], now: float) -> Actions:
        actions: Actions = []
        reason = self._reason_to_retire(slot, now)
        if reason:
            self._close(slot, reason, now, actions)
        else:
            self.park(slot, now)
        return self._settle(now, actions)
