"""What the pool's state decides about dead connections, and servers that let nobody in."""

from __future__ import annotations

from typing import Any

import pytest

from jobu_db.pool.backoff import FIRST_RETRY, LONGEST_RETRY

Bench = Any


# -- liveness


def test_a_connection_unproven_for_too_long_is_checked_before_it_is_lent(
    bench: type[Bench],
) -> None:
    b = bench(max_size=1, check_after=30)
    slot = b.grow(1)[0]
    b.now += 30
    assert b.take() is slot
    b.release(slot)
    b.now = slot.proven_at + 30.1
    assert b.take() is None
    waiter = b.wait()[0]
    assert b.to_check() == [slot]
    b.broken(slot)
    b.closed(slot)
    replacement = b.to_open()[0]
    b.opened(replacement)
    assert b.granted() == [waiter]


def test_a_holder_that_did_not_use_its_connection_proves_nothing(bench: type[Bench]) -> None:
    b = bench(max_size=1, check_after=30)
    slot = b.grow(1)[0]
    opened_at = b.now
    b.now += 20
    b.take()
    b.now += 20
    b.release(slot, used=False)
    assert slot.proven_at == opened_at
    assert b.take() is None


def test_a_holder_that_used_its_connection_proves_it_alive_when_taken(bench: type[Bench]) -> None:
    b = bench(max_size=1, check_after=30)
    slot = b.grow(1)[0]
    b.now += 20
    b.take()
    taken_at = b.now
    b.now += 20
    b.release(slot)
    assert slot.proven_at == taken_at
    assert b.take() is slot


def test_idle_connections_are_kept_alive_one_at_a_time(bench: type[Bench]) -> None:
    b = bench(max_size=3, check_after=30)
    first, second, third = b.grow(3)
    b.now += 60
    b.tick()
    assert b.to_check() == [first]
    b.tick(1)
    assert b.to_check() == []
    b.ready(first)
    b.tick(1)
    assert b.to_check() == [second]
    b.ready(second)
    b.tick(1)
    assert b.to_check() == [third]


def test_what_broke_one_idle_connection_is_looked_for_in_the_others(bench: type[Bench]) -> None:
    """A network that swallows everything must not cost each waiter one ping after another."""
    b = bench(max_size=4, check_after=30)
    *rest, last = b.grow(4)
    b.now += 60
    b.wait()
    assert b.to_check() == [last]
    b.broken(last)
    assert set(b.to_check()) == set(rest)


def test_without_check_after_nothing_is_pinged(bench: type[Bench]) -> None:
    b = bench(max_size=1)
    slot = b.grow(1)[0]
    b.tick(1e6)
    assert b.to_check() == []
    assert b.take() is slot


def test_what_broke_at_release_is_not_lent_again(bench: type[Bench]) -> None:
    b = bench(max_size=1)
    slot = b.grow(1)[0]
    b.take()
    b.wait()
    b.dead.add(slot.connection)
    b.release(slot, reset=True)
    assert b.to_close() == [(slot.id, "dead")]
    assert b.granted() == []


# -- a server that lets nobody in


def test_retries_become_rarer_up_to_one_a_second(bench: type[Bench]) -> None:
    b = bench(random=lambda: 1.0)
    b.wait()
    delays = []
    for _ in range(8):
        b.open_failed(b.to_open()[0])
        delays.append(b.wake_ups()[0])
        b.tick(delays[-1])
    assert delays == pytest.approx([0.05, 0.1, 0.2, 0.4, 0.8, 1.0, 1.0, 1.0])


def test_retries_are_spread_by_chance(bench: type[Bench]) -> None:
    b = bench(random=lambda: 0.0)
    b.wait()
    b.open_failed(b.to_open()[0])
    assert b.wake_ups() == pytest.approx([FIRST_RETRY / 2])


def test_attempts_that_fail_together_are_one_failure(bench: type[Bench]) -> None:
    b = bench(random=lambda: 1.0, max_size=10)
    b.wait(10)
    for slot in b.to_open():
        b.open_failed(slot)
    assert max(b.wake_ups()) == pytest.approx(FIRST_RETRY)


def test_a_failure_that_may_pass_lets_waiters_wait(bench: type[Bench]) -> None:
    b = bench()
    b.wait(2)
    first, second = b.to_open()
    error = b.open_failed(first)
    b.open_failed(second)
    assert b.refused() == []
    assert isinstance(b.state.backoff.last_failure, type(error))


def test_a_failure_for_good_reaches_all_waiters_at_once(bench: type[Bench]) -> None:
    b = bench(max_size=1)
    waiters = b.wait(3)
    error = b.open_failed(b.to_open()[0], transient=False)
    assert b.refused() == [(waiter, error) for waiter in waiters]


def test_a_failure_for_good_stands_until_the_next_attempt(bench: type[Bench]) -> None:
    b = bench(random=lambda: 1.0)
    b.wait()
    error = b.open_failed(b.to_open()[0], transient=False)
    b.refused()
    late = b.wait()[0]
    assert b.refused() == [(late, error)]
    b.now += FIRST_RETRY
    later = b.wait()[0]
    assert b.refused() == []
    b.opened(b.to_open()[0])
    assert b.granted() == [later]


def test_attempts_double_with_each_success_after_a_failure(bench: type[Bench]) -> None:
    b = bench(max_size=100)
    b.wait(100)
    for slot in b.to_open():
        b.open_failed(slot)
    b.tick(LONGEST_RETRY)
    opening, at_once = b.to_open(), []
    while opening:
        at_once.append(len(opening))
        b.opened(opening.pop(0))
        opening += b.to_open()
    assert at_once[:3] == [1, 2, 3]
    assert max(at_once) <= 50, "as many at once as there are already"
    assert len(b.granted()) == 100


def test_the_limit_on_attempts_ends(bench: type[Bench]) -> None:
    b = bench(max_size=2)
    b.wait()
    b.open_failed(b.to_open()[0])
    for _ in range(5000):
        b.state.backoff.succeeded(b.now)
    assert b.state.backoff.may_open(10**9, b.now)


def test_a_lost_server_is_probed_only_while_somebody_needs_it(bench: type[Bench]) -> None:
    b = bench()
    waiter = b.wait()[0]
    b.open_failed(b.to_open()[0])
    b.state.withdraw(waiter)
    b.tick(LONGEST_RETRY)
    assert b.to_open() == []


def test_idle_connections_are_suspect_once_another_one_was_lost(bench: type[Bench]) -> None:
    b = bench(max_size=3)
    first, second, _ = b.grow(3)
    b.take()
    b.state.suspect_idle()
    assert b.take() is None, "it answered just now, but that was before"
    waiter = b.wait()[0]
    (checked,) = b.to_check()
    assert checked in (first, second)
    assert b.granted() == []
    b.ready(checked)
    assert b.granted() == [waiter]


# -- whose time is up


def test_those_whose_time_is_up_are_refused_and_the_others_wait_on(bench: type[Bench]) -> None:
    b = bench(max_size=1)
    b.grow(1)
    slot = b.take()
    early, late = b.wait(2)
    early.deadline, late.deadline = b.now + 1, b.now + 3
    b.now += 2
    (expired,) = b.state.expire(b.now)
    assert (expired.waiter, expired.waiting) == (early, 2)
    b.release(slot)
    assert b.granted() == [late]


# -- what lets us in and is of no use


def lost_at_its_first_use(b: Bench) -> None:
    """Open the next connection, lend it, and lose it."""
    (slot,) = b.to_open()
    b.opened(slot)
    (waiter,) = b.granted()
    assert waiter.slot is slot
    b.dead.add(slot.connection)
    b.release(slot, discard="lost")
    b.closed(slot)


def test_a_server_that_lets_in_and_is_of_no_use_is_tried_ever_more_seldom(
    bench: type[Bench],
) -> None:
    b = bench(random=lambda: 1.0, max_size=10)
    pauses = []
    b.wait()
    for _ in range(8):
        lost_at_its_first_use(b)
        b.wait()
        assert not b.to_open()
        pauses.append(b.state.backoff.retry_at - b.now)
        b.tick(pauses[-1])
    assert pauses == pytest.approx([0.05, 0.1, 0.2, 0.4, 0.8, 1.0, 1.0, 1.0])


def test_connections_that_are_lost_together_at_their_first_use_are_one_failure(
    bench: type[Bench],
) -> None:
    b = bench(max_size=3)
    b.wait(3)
    slots = b.to_open()
    for slot in slots:
        b.opened(slot)
    for slot in slots:
        b.dead.add(slot.connection)
        b.release(slot, discard="lost")
    assert b.state.backoff.retry_at - b.now <= FIRST_RETRY


def test_a_connection_that_was_of_use_ends_the_doubt(bench: type[Bench]) -> None:
    b = bench(max_size=3)
    b.wait()
    lost_at_its_first_use(b)
    b.wait(3)
    b.tick(b.state.backoff.retry_at - b.now)
    (slot,) = b.to_open()
    b.opened(slot)
    b.granted()
    assert not b.to_open(), "the others wait for it to be of use"
    b.release(slot)
    assert b.granted()
    assert b.to_open()


# -- a server that is of no use any more


def test_what_leads_to_a_server_that_is_left_is_not_lent_again(bench: type[Bench]) -> None:
    b = bench(max_size=3)
    b.grow(3)
    held, there = b.take(), {slot.connection for slot in b.state.slots}
    left = {held.connection, min(there - {held.connection})}
    b.tell(b.state.leave(lambda connection: connection in left, b.now))
    assert [reason for _, reason in b.to_close()] == ["drained"]
    b.release(held)
    assert [reason for _, reason in b.to_close()] == ["drained"]
    (kept,) = b.state.idle
    assert kept.connection not in left
