"""Every invariant of the pool's state, by its name."""

from __future__ import annotations

import re
from typing import Any

import pytest

from jobu_db.pool import state as _pool_state
from jobu_db.pool.backoff import FIRST_RETRY, LONGEST_RETRY
from jobu_db.pool.slots import Phase

Bench = Any


def test_every_invariant_has_a_test_of_its_name() -> None:
    told = re.findall(r"^([a-z]+) {2,}\S", _pool_state.__doc__ or "", re.MULTILINE)
    assert len(told) == 11
    assert [name for name in told if f"test_{name}" not in globals()] == []


def test_size(bench: type[Bench]) -> None:
    """A connection being closed still has its place: the server never sees max_size + 1."""
    b = bench(max_size=2)
    first, second = b.grow(2)
    assert b.take() is second
    assert b.take() is first
    b.wait(5)
    b.release(first, discard="broken")
    assert b.to_close() == [(first.id, "broken")]
    assert b.to_open() == []
    b.closed(first)
    assert len(b.to_open()) == 1
    assert len(b.state.slots) == 2


def test_place(bench: type[Bench]) -> None:
    b = bench(check_after=30)
    slot = b.grow(1)[0]
    assert (slot.phase, b.state.idle) == (Phase.IDLE, [slot])
    b.take()
    assert (slot.phase, b.state.idle) == (Phase.LEASED, [])
    b.release(slot, reset=True)
    assert (slot.phase, b.state.idle) == (Phase.RESETTING, [])
    b.ready(slot)
    assert (slot.phase, b.state.idle) == (Phase.IDLE, [slot])
    b.tick(31)
    assert (slot.phase, b.state.idle) == (Phase.CHECKING, [])
    b.broken(slot)
    assert (slot.phase, b.state.idle) == (Phase.CLOSING, [])
    b.closed(slot)
    assert slot not in b.state.slots


def test_once(bench: type[Bench]) -> None:
    b = bench(max_size=1)
    slot = b.grow(1)[0]
    b.take()
    granted, withdrawn, refused = b.wait(3)
    b.state.withdraw(withdrawn)
    b.release(slot)
    assert b.granted() == [granted]
    b.tell(b.state.close(b.now))
    assert b.refused() == [(refused, None)]
    b.release(slot)
    assert b.granted() == []


def test_returned(bench: type[Bench]) -> None:
    b = bench(max_size=1)
    slot = b.grow(1)[0]
    b.take()
    cancelled, next_in_line = b.wait(2)
    b.release(slot)
    assert b.granted() == [cancelled]
    b.tell(b.state.give_back(slot, b.now))
    assert b.granted() == [next_in_line]
    assert next_in_line.slot is slot


def test_a_grant_given_back_was_never_used(bench: type[Bench]) -> None:
    b = bench(max_size=1)
    slot = b.grow(1)[0]
    b.take()
    b.release(slot)
    last_used_at = slot.last_used_at
    b.take()
    b.now += 5
    b.tell(b.state.give_back(slot, b.now))
    assert (slot.last_used_at, slot.uses) == (last_used_at, 1)


def test_progress(bench: type[Bench]) -> None:
    b = bench(max_size=3)
    b.wait(2)
    first, second = b.to_open()
    b.opened(first)
    assert len(b.granted()) == 1
    b.open_failed(second)
    assert b.to_open() == []  # held back after the failure
    b.tick(LONGEST_RETRY)
    assert len(b.to_open()) == 1


def test_progress_when_a_connection_is_lost_or_retired(bench: type[Bench]) -> None:
    """aiosqlitepool; asyncmy #154: retiring or losing a connection woke nobody."""
    b = bench(max_size=1)
    slot = b.grow(1)[0]
    b.take()
    b.wait()
    b.release(slot, discard="lost")
    b.closed(slot)
    assert len(b.to_open()) == 1


def test_progress_past_a_fresh_connection_kept_alive_out_of_order(bench: type[Bench]) -> None:
    """The one used last is unproven, another has just been pinged: that one is lent."""
    b = bench(max_size=2, check_after=30)
    older, newer = b.grow(2)
    b.now = older.proven_at + 30.5
    b.tick()
    assert b.to_check() == [older]
    b.ready(older)
    b.now += 10
    assert b.state.idle == [older, newer]
    assert b.take() is older


def test_drained(bench: type[Bench]) -> None:
    b = bench(min_size=1, max_size=5)
    checking, resetting, leased = b.grow(3)
    for slot in (leased, resetting):
        assert b.take() is slot
    b.tell(b.state.check(b.now))
    b.release(resetting, reset=True)
    (idle,) = b.grow(1)
    b.tell(b.state.drain(b.now))
    assert b.to_close() == [(idle.id, "drained")]
    b.ready(resetting)
    b.ready(checking)
    b.release(leased)
    assert b.to_close() == [(slot.id, "drained") for slot in (resetting, checking, leased)]
    assert b.take() is None
    for slot in (idle, leased, resetting, checking):
        b.closed(slot)
    (fresh,) = b.to_open()
    b.opened(fresh)
    assert b.take() is fresh, "what is opened after it is lent"


def test_drained_while_it_was_being_opened(bench: type[Bench]) -> None:
    """It may have logged in before whatever the pool was drained for."""
    b = bench(max_size=2)
    b.wait()
    (before,) = b.to_open()
    b.tell(b.state.drain(b.now))
    b.opened(before)
    assert b.granted() == []
    assert b.to_close() == [(before.id, "drained")]
    (after,) = b.to_open()
    b.opened(after)
    assert len(b.granted()) == 1


def test_drained_idle_connections_are_replaced_up_to_min_size(bench: type[Bench]) -> None:
    b = bench(max_size=5)
    b.grow(3)
    b.tell(b.state.resize(2, 5, b.now))
    b.tell(b.state.drain(b.now))
    assert len(b.to_close()) == 3
    assert len(b.to_open()) == 2


def test_a_check_proves_all_that_are_idle_and_closes_those_that_are_silent(
    bench: type[Bench],
) -> None:
    b = bench(max_size=3, check_after=30)
    silent, leased, sound = b.grow(3)
    assert b.take() is sound
    assert b.take() is leased
    b.release(sound)
    b.tell(b.state.check(b.now))
    assert set(b.to_check()) == {silent, sound}
    assert b.take() is None, "none is lent before it is proven"
    b.wait()
    b.ready(sound)
    assert len(b.granted()) == 1
    b.broken(silent)
    assert b.to_close() == [(silent.id, "broken")]
    assert leased.phase is Phase.LEASED


def test_order(bench: type[Bench]) -> None:
    b = bench(max_size=1)
    slot = b.grow(1)[0]
    b.take()
    waiters = b.wait(5)
    for waiter in waiters:
        b.release(slot)
        assert b.granted() == [waiter]


def test_order_for_latecomers(bench: type[Bench]) -> None:
    """A freed connection cannot be stolen: whoever asks without waiting gets none."""
    b = bench(max_size=2)
    first, second = b.grow(2)
    b.take()
    b.take()
    early, late = b.wait(2)
    b.release(first)
    assert b.take() is None
    assert b.granted() == [early]
    b.release(second)
    assert b.take() is None
    assert b.granted() == [late]


def test_health(bench: type[Bench]) -> None:
    b = bench(max_size=3, check_after=30, max_lifetime=100)
    expired, unproven, dead = b.grow(3)
    b.dead.add(dead.connection)
    b.now = expired.expires_at
    assert b.take() is None
    assert set(b.to_close()) == {(expired.id, "lifetime"), (dead.id, "dead")}
    waiter = b.wait()[0]
    assert b.to_check() == [unproven]
    assert b.granted() == []
    b.ready(unproven)
    assert b.granted() == [waiter]


def test_probe(bench: type[Bench]) -> None:
    b = bench(max_size=10)
    b.wait(8)
    for slot in b.to_open():
        b.open_failed(slot)
    delay = max(b.wake_ups())
    assert delay == pytest.approx(FIRST_RETRY / 2)
    b.tick(delay * 0.9)
    assert b.to_open() == []
    b.tick(delay * 0.11)
    probe = b.to_open()
    assert len(probe) == 1
    b.tick(5)
    assert b.to_open() == []  # one at a time, however long it takes
    b.opened(probe[0])
    assert len(b.to_open()) == 2
    b.tick()
    assert b.to_open() == []


def test_closed(bench: type[Bench]) -> None:
    b = bench(max_size=3, min_size=3)
    idle = b.grow(1)[0]
    leased, opening = b.to_open()
    b.opened(leased)
    assert b.take() is leased
    b.tell(b.state.close(b.now))
    assert b.to_close() == [(idle.id, "pool closed")]
    assert b.take() is None
    waiter = b.wait()[0]
    assert b.refused() == [(waiter, None)]
    b.release(leased)
    b.opened(opening)
    assert b.to_close() == [(leased.id, "pool closed"), (opening.id, "pool closed")]
    for slot in (idle, leased, opening):
        b.closed(slot)
    b.tick()
    assert b.told == []
    assert not b.state.slots


def test_owed(bench: type[Bench]) -> None:
    """An end that nobody waits for is owed for one pass of the loop, to who begins behind it."""
    b = bench(max_size=1)
    slot = b.grow(1)[0]
    b.take()
    b.owe(slot)
    assert (b.owed(), b.to_reset(), slot.phase) == ([slot], [], Phase.RESETTING)
    assert b.take() is None, "before its end is sent, it is nobody's who does not begin"
    assert b.take(begins=True) is slot
    assert slot.phase is Phase.LEASED
    slot.ends = None  # its holder has begun
    assert b.state.send_owed() == [], "it is sent by who has it"
    b.owe(slot)
    b.tell(b.state.send_owed())
    assert b.to_reset() == [slot]
    assert b.take(begins=True) is None, "it is being sent"
    b.ready(slot)
    assert b.take() is slot


def test_owed_to_the_first_in_line(bench: type[Bench]) -> None:
    b = bench(max_size=1)
    slot = b.grow(1)[0]
    b.take()
    first, second = b.wait(2, begins=True)
    b.owe(slot)
    assert b.granted() == [first]
    assert (first.slot, slot.phase, b.to_reset(), b.owed()) == (slot, Phase.LEASED, [], [])
    b.tell(b.state.give_back(slot, b.now))
    assert b.granted() == [second], "a grant that nobody used is owed still"


def test_owed_to_nobody_while_another_kind_is_first_in_line(bench: type[Bench]) -> None:
    b = bench(max_size=1)
    slot = b.grow(1)[0]
    b.take()
    (first,) = b.wait(1)
    (second,) = b.wait(1, begins=True)
    b.owe(slot)
    assert (b.to_reset(), b.owed(), b.granted()) == ([slot], [], [])
    slot.ends = None
    b.ready(slot)
    assert b.granted() == [first]
    b.owe(slot)
    assert b.granted() == [second]


def test_owed_and_given_back_with_nobody_waiting(bench: type[Bench]) -> None:
    b = bench(max_size=1)
    slot = b.grow(1)[0]
    b.take()
    b.wait(1, begins=True)
    b.owe(slot)
    b.granted()
    b.tell(b.state.give_back(slot, b.now))
    assert (b.owed(), b.to_reset(), slot.phase) == ([slot], [], Phase.RESETTING)


def test_owed_rather_than_idle(bench: type[Bench]) -> None:
    b = bench(max_size=2)
    idle, slot = b.grow(2)
    assert b.take() is slot
    b.owe(slot)
    assert b.take(begins=True) is slot
    assert b.take(begins=True) is idle


@pytest.mark.parametrize("why", ["unproven", "suspect", "too old", "dead", "drained", "shrunk"])
def test_owed_by_none_that_would_not_be_lent(bench: type[Bench], why: str) -> None:
    for before in (True, False):
        b = bench(max_size=2, check_after=5, max_lifetime=100)
        _, slot = b.grow(2)
        b.take()
        b.take()
        if not before:
            b.owe(slot)
            if why in ("unproven", "suspect"):  # it has answered in this very pass
                continue
        if why == "unproven":
            b.now += 6
        elif why == "suspect":
            slot.suspect = True
        elif why == "too old":
            b.now = slot.expires_at
        elif why == "dead":
            b.dead.add(slot.connection)
        elif why == "drained":
            b.tell(b.state.drain(b.now))
        else:
            b.tell(b.state.resize(0, 1, b.now))
        if before:
            b.owe(slot)
            assert (b.to_reset(), b.owed()) == ([slot], [])
        else:
            assert b.take(begins=True) is None
            b.tell(b.state.send_owed())
            assert b.to_reset() == [slot]


def test_owed_when_the_pool_closes(bench: type[Bench]) -> None:
    b = bench(max_size=2)
    granted, owing = b.grow(2)
    b.take()
    b.take()
    b.wait(1, begins=True)
    b.owe(granted)
    b.owe(owing)
    b.tell(b.state.close(b.now))
    assert b.to_reset() == [owing], "its end is sent before it is closed"
    assert b.take(begins=True) is None
    b.tell(b.state.give_back(granted, b.now))
    assert b.to_reset() == [granted]
    for slot in (granted, owing):
        slot.ends = None
        b.ready(slot)
    assert b.to_close() == [(granted.id, "pool closed"), (owing.id, "pool closed")]
