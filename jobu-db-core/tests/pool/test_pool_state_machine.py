"""Whatever happens to the pool's state, in whatever order: every invariant holds after each step.

The server, the callers and the clock are played at random. Waiting is simulated as in the pool: a
caller who could not take a connection at once queues, and may withdraw or give back its grant.

That an invariant holds says little if nothing ever tried it: `TRIALS` names, for each, the
situations in which a mistake would show, and the test fails if one of them was never reached.
"""

from __future__ import annotations

from math import inf
from typing import Any

from hypothesis import HealthCheck, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from jobu_db.pool.slots import (
    Check,
    Close,
    Ending,
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
from jobu_db.pool.state import PATIENCE, PoolState

IN_WORK = {
    Open: Phase.OPENING,
    Check: Phase.CHECKING,
    Reset: Phase.RESETTING,
    Close: Phase.CLOSING,
}
numbers = st.integers(min_value=0, max_value=1000)

TRIALS = {
    "size": {"full, and somebody waits", "full with one being closed", "shrunk below its size"},
    "place": {f"one is {phase.value}" for phase in Phase},
    "once": {"granted", "refused", "withdrawn"},
    "returned": {"given back", "given back while somebody waits"},
    "progress": {"held back by a failure", "waiting for one to come", "waiting in vain so far"},
    "order": {"one of several was granted", "a latecomer found others waiting"},
    "health": {"the idle one is dead", "the idle one is too old", "the idle one is unproven"},
    "probe": {"probing", "several wait for one probe", "cautious after a failure"},
    "drained": {"drained with a lease out", "drained while opening", "drained while one waits"},
    "closed": {"closed with a lease out", "closed with a waiter", "closed while opening"},
    "owed": {
        "granted",
        "taken",
        "sent alone",
        "given back",
        "refused to who does not begin",
        "closed while owed",
    },
}
tried: set[tuple[str, str]] = set()


class InQueue:
    """A waiter."""

    slot: Slot[int] | None = None
    deadline = inf

    def __init__(self, begins: bool) -> None:
        self.begins = begins


class PoolMachine(RuleBasedStateMachine):
    """The runner, the callers and the server of one pool."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 1000.0
        self.dead: set[int] = set()
        self.outdated: set[Slot[int]] = set()
        self.connections = 0
        self.work: list[Any] = []
        self.queue: list[Waiter[int]] = []
        self.settled: set[Waiter[int]] = set()
        self.granted: list[Waiter[int]] = []
        self.leases: list[Slot[int]] = []
        self.owed_is_due = False
        self.failed_since_success = False
        self.upkeep_is_due = False
        self.most = 0

    @initialize(
        low=st.integers(0, 2),
        room=st.integers(1, 5),
        check=st.booleans(),
        idle=st.booleans(),
        lifetime=st.sampled_from([50.0, 200.0]),
        there=st.integers(0, 2),
    )
    def make(
        self, low: int, room: int, check: bool, idle: bool, lifetime: float, there: int
    ) -> None:
        limits = Limits(low, low + room, max_lifetime=lifetime)
        limits.check_after = 30.0 if check else inf
        limits.max_idle = 60.0 if idle else inf
        self.most = limits.max_size
        self.state: PoolState[int] = PoolState(
            limits, lambda connection: connection not in self.dead, lambda: 0.5
        )
        for _ in range(min(there, self.most)):
            self.connections += 1
            if len(self.state.slots) < self.most:
                self.perform(self.state.adopted(self.connections, self.now))

    # -- the runner

    def perform(self, actions: list[Any]) -> None:
        opened = [action for action in actions if isinstance(action, Open)]
        if self.failed_since_success and opened:
            self.tried("probe", "probing")
            self.tried("probe", "several wait for one probe", len(self.queue) > 1)
            assert len(opened) == 1, "more than one probe"
            assert self.now >= self.state.backoff.retry_at, "a probe too early"
            assert not self.working(Open), "a probe beside another"
        for action in actions:
            if isinstance(action, Grant | Refuse):
                self.settle(action)
            elif isinstance(action, Owe):
                assert not self.closing
                self.owed_is_due = True
            elif not isinstance(action, WakeAt):
                ends = isinstance(action, Reset) and action.slot.ends is not None
                action.slot.ends = None
                assert ends or not (self.closing and isinstance(action, Open | Check | Reset))
                self.work.append(action)

    def settle(self, action: Grant | Refuse) -> None:
        waiter = action.waiter
        assert waiter not in self.settled, "settled twice"
        self.settled.add(waiter)
        self.tried("once", "refused" if isinstance(action, Refuse) else "granted")
        if isinstance(action, Refuse):
            if waiter in self.queue:
                self.queue.remove(waiter)
            return
        self.tried("order", "one of several was granted", len(self.queue) > 1)
        assert not self.closing
        assert self.queue.pop(0) is waiter, "not the first in line"
        assert waiter.slot is not None
        self.lent(waiter.slot)
        assert waiter.slot.ends is None or waiter.begins
        self.tried("owed", "granted", waiter.slot.ends)
        self.granted.append(waiter)

    def lent(self, slot: Slot[int]) -> None:
        assert slot.connection not in self.dead, "lent a dead connection"
        assert slot not in self.outdated, "lent what was drained"
        assert self.now < slot.expires_at, "lent past its lifetime"
        assert self.is_proven(slot), "lent unproven"
        assert all(other is not slot for other in self.leases), "lent twice"

    def working(self, kind: type[Any]) -> list[Any]:
        return [action for action in self.work if isinstance(action, kind)]

    @property
    def closing(self) -> bool:
        return self.state.closing

    def tried(self, invariant: str, situation: str, when: object = True) -> None:
        if when:
            assert situation in TRIALS[invariant], situation
            tried.add((invariant, situation))

    def pick(self, things: list[Any], number: int) -> Any:
        return things.pop(number % len(things))

    # -- callers

    @rule(after=st.sampled_from([0.0, 0.0, 0.0, 31.0, 70.0]), begins=st.booleans())
    def acquire(self, after: float, begins: bool) -> None:
        if after:
            self.pass_ends()
        self.now += after
        self.upkeep_is_due |= after > 0
        self.tried("order", "a latecomer found others waiting", self.queue)
        for idle in self.state.idle:
            self.tried("health", "the idle one is dead", idle.connection in self.dead)
            self.tried("health", "the idle one is too old", self.now >= idle.expires_at)
            self.tried("health", "the idle one is unproven", not self.is_proven(idle))
        actions: list[Any] = []
        owing = list(self.state.owing)
        slot = self.state.take(self.now, actions, begins=begins)
        self.tried("owed", "refused to who does not begin", owing and not begins)
        if slot is not None:
            assert (slot.ends is not None) == (slot in owing) <= begins
            self.tried("owed", "taken", slot.ends)
            slot.ends = None
            assert not self.queue, "overtook those who wait"
            assert not self.closing
            self.lent(slot)
            self.leases.append(slot)
        self.perform(actions)
        if slot is None:
            waiter = InQueue(begins)
            self.queue.append(waiter)
            self.perform(self.state.enqueue(waiter, self.now))

    @rule()
    def crowd(self) -> None:
        for _ in range(5):
            self.acquire(0.0, True)

    @precondition(lambda self: self.granted)
    @rule(number=numbers)
    def use_a_grant(self, number: int) -> None:
        slot = self.pick(self.granted, number).slot
        slot.ends = None  # the holder has begun behind it
        self.leases.append(slot)

    @precondition(lambda self: self.granted)
    @rule(number=numbers)
    def cancelled_when_granted(self, number: int) -> None:
        slot = self.pick(self.granted, number).slot
        self.tried("returned", "given back")
        self.tried("returned", "given back while somebody waits", self.queue)
        self.tried("owed", "given back", slot.ends)
        self.perform(self.state.give_back(slot, self.now))

    @precondition(lambda self: self.queue)
    @rule(number=numbers)
    def give_up_waiting(self, number: int) -> None:
        waiter = self.pick(self.queue, number)
        self.settled.add(waiter)
        self.tried("once", "withdrawn")
        self.state.withdraw(waiter)

    @precondition(lambda self: self.leases)
    @rule(
        number=numbers,
        used=st.booleans(),
        how=st.sampled_from(["as is", "reset", "owes", "owes", "lost"]),
    )
    def release(self, number: int, used: bool, how: str) -> None:
        slot = self.pick(self.leases, number)
        discard = "lost" if how == "lost" else None
        owes = how == "owes"
        slot.ends = Ending.COMMIT if owes else None
        self.perform(
            self.state.release(
                slot, self.now, used=used, reset=owes or how == "reset", owes=owes, discard=discard
            )
        )

    @precondition(lambda self: not self.queue)
    @rule(then=st.sampled_from(["nothing", "begins", "does not begin", "closes"]))
    def read(self, then: str) -> None:
        """A transaction comes and goes, and something else comes in the same pass of the loop."""
        self.acquire(0.0, True)
        if self.leases:
            self.release(len(self.leases) - 1, True, "owes")
            if then == "closes" and not self.closing:
                self.close(0)
            elif then != "nothing":
                self.acquire(0.0, then == "begins")

    @rule()
    def pass_ends(self) -> None:
        self.tried("owed", "sent alone", self.state.owing)
        self.owed_is_due = False
        self.perform(self.state.send_owed())
        assert not self.state.owing

    # -- the server

    @precondition(lambda self: self.work)
    @rule(number=numbers)
    def succeed(self, number: int) -> None:
        action = self.pick(self.work, number)
        state, slot = self.state, action.slot
        if isinstance(action, Open):
            self.connections += 1
            self.failed_since_success = False
            self.perform(state.opened(slot, self.connections, self.now))
        elif isinstance(action, Close):
            self.perform(state.closed(slot, self.now))
        else:
            self.perform(state.ready(slot, self.now))

    @precondition(lambda self: self.work)
    @rule(number=numbers, transient=st.booleans())
    def fail(self, number: int, transient: bool) -> None:
        action = self.pick(self.work, number)
        state, slot = self.state, action.slot
        if isinstance(action, Open):
            self.failed_since_success = True
            error = OSError("refused")
            self.perform(state.open_failed(slot, error, self.now, transient=transient))
        elif isinstance(action, Close):
            self.perform(state.closed(slot, self.now))
        else:
            self.perform(state.broken(slot, "broken", self.now))

    @precondition(lambda self: self.working(Open))
    @rule()
    def refuse(self) -> None:
        for action in self.working(Open):
            self.work.remove(action)
            self.work.insert(0, action)
            self.fail(0, True)

    @rule(number=numbers)
    def die(self, number: int) -> None:
        if self.connections:
            self.dead.add(1 + number % self.connections)

    # -- time, and the owner

    @rule(seconds=st.sampled_from([0.01, 0.1, 1.0, 10.0, 31.0, 70.0]), tick=st.booleans())
    def time_passes(self, seconds: float, tick: bool) -> None:
        """The upkeep comes now and then, and much may happen before it does."""
        self.pass_ends()
        self.now += seconds
        self.upkeep_is_due = not tick
        if tick:
            self.perform(self.state.tick(self.now))

    @precondition(lambda self: not self.closing)
    @rule(low=st.integers(0, 2), room=st.integers(1, 3))
    def resize(self, low: int, room: int) -> None:
        self.most = max(len(self.state.slots), low + room)
        self.perform(self.state.resize(low, low + room, self.now))

    @rule(chance=st.integers(0, 3))
    def drain(self, chance: int) -> None:
        if not chance:
            self.tried("drained", "drained with a lease out", self.leases)
            self.tried("drained", "drained while opening", self.working(Open))
            self.tried("drained", "drained while one waits", self.queue)
            self.outdated = set(self.state.slots)
            self.perform(self.state.drain(self.now))
            assert not self.state.idle

    @rule(chance=st.integers(0, 3))
    def check(self, chance: int) -> None:
        if not chance:
            idle = list(self.state.idle)
            self.perform(self.state.check(self.now))
            assert all(slot.phase is Phase.CHECKING for slot in idle)

    @precondition(lambda self: not self.closing and self.connections > 1)
    @rule(chance=st.integers(0, 1))
    def close(self, chance: int) -> None:
        if not chance:
            self.tried("closed", "closed with a lease out", self.leases)
            self.tried("closed", "closed with a waiter", self.queue)
            self.tried("closed", "closed while opening", self.working(Open))
            self.tried("owed", "closed while owed", self.state.owing)
            self.perform(self.state.close(self.now))
            assert not self.queue
            assert not self.state.idle

    # -- invariants

    @invariant()
    def size(self) -> None:
        total, limit = len(self.state.slots), self.state.limits.max_size
        assert total <= self.most
        self.tried("size", "full, and somebody waits", total == limit and self.queue)
        self.tried("size", "full with one being closed", total == limit and self.working(Close))
        self.tried("size", "shrunk below its size", total > limit)
        self.most = max(total, self.state.limits.max_size)

    @invariant()
    def place(self) -> None:
        state = self.state
        in_idle = [slot for slot in state.slots if slot.phase is Phase.IDLE]
        assert len(state.idle) == len(in_idle) == len(set(state.idle) & set(in_idle))
        for kind, phase in IN_WORK.items():
            told = {action.slot for action in self.working(kind)}
            if kind is Reset:
                assert told.isdisjoint(state.owing)
                told.update(state.owing)
            assert told == {slot for slot in state.slots if slot.phase is phase}
        for slot in state.slots:
            self.tried("place", f"one is {slot.phase.value}")
        used = [slot.last_used_at for slot in state.idle]
        assert used == sorted(used)

    @invariant()
    def returned(self) -> None:
        """Nothing is leased but what a caller holds or was granted."""
        held = [*self.leases, *(waiter.slot for waiter in self.granted)]
        assert set(self.state.leased()) == set(held)
        assert len(held) == len(set(held))

    @invariant()
    def order(self) -> None:
        assert list(self.state.waiters) == self.queue

    @invariant()
    def progress(self) -> None:
        state, now = self.state, self.now
        if not self.queue:
            return
        usable = [slot for slot in state.idle if self.is_usable(slot)]
        assert not usable
        coming = [*self.working(Open), *self.working(Check), *self.working(Reset)]
        coming += [Owe(slot) for slot in state.owing]
        coming = [a for a in coming if isinstance(a, Open) or now - a.slot.since < PATIENCE]
        room = len(state.slots) < state.limits.max_size
        self.tried("progress", "held back by a failure", room and self.failed_since_success)
        self.tried("progress", "waiting for one to come", coming)
        self.tried("progress", "waiting in vain so far", not room and not coming)
        opening = len(self.working(Open))
        cautious = room and opening and opening < len(self.queue) and not self.failed_since_success
        self.tried("probe", "cautious after a failure", cautious)
        may_open = not self.failed_since_success and now >= state.backoff.retry_at
        if room and may_open and not self.upkeep_is_due:
            assert coming, "nothing is under way for those who wait"

    def is_proven(self, slot: Slot[int]) -> bool:
        return self.now - slot.proven_at <= self.state.limits.check_after

    def is_usable(self, slot: Slot[int]) -> bool:
        return (
            self.is_proven(slot) and slot.connection not in self.dead and self.now < slot.expires_at
        )

    @invariant()
    def closed(self) -> None:
        if self.closing:
            assert not self.state.idle
            assert not self.state.waiters

    @invariant()
    def owed(self) -> None:
        state = self.state
        granted = {waiter.slot for waiter in self.granted if waiter.begins}
        for slot in state.slots:
            assert slot.ends is None or slot in state.owing or slot in granted
        assert len(set(state.owing)) == len(state.owing)
        assert self.owed_is_due or not state.owing

    def teardown(self) -> None:
        """All leave, the server is well: nobody waits for ever, and a closed pool is empty."""
        if not hasattr(self, "state"):
            return
        for _ in range(200):
            if not (self.queue or self.granted or self.leases or self.work):
                break
            while self.granted:
                self.use_a_grant(0)
            while self.leases:
                self.release(0, True, "as is")
            while self.work:
                self.succeed(0)
            self.pass_ends()
            self.time_passes(1.0, True)
        assert not self.queue, "somebody waits for ever"
        if self.closing:
            assert not self.state.slots


SETTINGS = settings(
    max_examples=100,
    stateful_step_count=40,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)


def test_every_invariant_holds_whatever_happens_and_each_was_put_to_the_test() -> None:
    tried.clear()
    wanted = {(name, situation) for name, trials in TRIALS.items() for situation in trials}
    for number in range(20):  # as a rule three are enough
        run_state_machine_as_test(seed(number)(PoolMachine), settings=SETTINGS)
        if tried == wanted and number >= 2:
            break
    assert tried == wanted, f"never tried: {sorted(wanted - tried)}"
