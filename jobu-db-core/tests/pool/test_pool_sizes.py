"""What the pool's state decides about lending, growing, shrinking and lifetimes."""

from __future__ import annotations

from math import inf
from typing import Any

import pytest

from jobu_db.pool.slots import Phase
from jobu_db.pool.state import FEWEST_AT_ONCE, LIFETIME_JITTER, PATIENCE

Bench = Any


# -- lending


def test_the_connection_used_last_is_lent_first(bench: type[Bench]) -> None:
    b = bench()
    first, second, third = b.grow(3)
    taken = [b.take(), b.take(), b.take()]
    assert taken == [third, second, first]
    for slot in (second, third, first):
        b.now += 1
        b.release(slot)
    assert [b.take(), b.take(), b.take()] == [first, third, second]


def test_the_queue_has_a_limit(bench: type[Bench]) -> None:
    b = bench(max_size=1, max_waiting=2)
    b.grow(1)
    b.take()
    b.wait()
    assert b.state.may_wait()
    b.wait()
    assert not b.state.may_wait()


# -- growing and shrinking


def test_no_more_is_opened_than_is_waited_for(bench: type[Bench]) -> None:
    b = bench(max_size=10)
    b.wait(3)
    assert len(b.to_open()) == 3
    b.tick(60)
    assert b.to_open() == []


def test_a_connection_being_reset_counts_as_one_to_come_for_a_while(bench: type[Bench]) -> None:
    b = bench(max_size=2)
    slot = b.grow(1)[0]
    b.take()
    b.release(slot, reset=True)
    assert b.to_reset() == [slot]
    b.wait()
    b.tick(PATIENCE / 2)
    assert b.to_open() == []
    b.tick(PATIENCE / 2)
    assert len(b.to_open()) == 1


def test_min_size_is_kept_warm(bench: type[Bench]) -> None:
    b = bench(max_size=5, min_size=2)
    slot = b.grow(1)[0]
    second = b.to_open()[0]
    b.opened(second)
    b.dead.add(second.connection)
    b.tick()
    assert b.to_close() == [(second.id, "dead")]
    assert len(b.to_open()) == 1
    b.take()
    b.release(slot, discard="lost")
    assert len(b.to_open()) == 1


def test_idle_connections_above_min_size_go_after_max_idle(bench: type[Bench]) -> None:
    b = bench(max_size=4, min_size=1, max_idle=100)
    slots = b.grow(4)
    b.now = slots[1].last_used_at + 100
    b.tick()
    assert b.to_close() == [(slots[0].id, "idle"), (slots[1].id, "idle")]
    b.tick(1000)
    assert b.to_close() == [(slots[2].id, "idle")]


def test_a_held_connection_counts_towards_min_size(bench: type[Bench]) -> None:
    b = bench(max_size=3, min_size=2, max_idle=100)
    idle = b.grow(1)[0]
    used = b.to_open()[0]
    b.opened(used)
    assert b.take() is used
    b.tick(50)
    assert b.to_close() == []
    b.tick(60)
    assert b.to_close() == []  # two are to stay, one of them is in use
    assert (used.phase, idle.phase) == (Phase.LEASED, Phase.IDLE)


def test_a_pool_under_light_load_shrinks(bench: type[Bench]) -> None:
    """A ping must not make a connection look used, or each would get its turn for ever."""
    b = bench(max_size=5, max_idle=300, check_after=30)
    b.grow(5)
    for _ in range(400):
        b.tick(1)
        for slot in b.to_check():
            b.ready(slot)
        slot = b.take()
        if slot is not None:
            b.release(slot)
    assert len(b.state.idle) == 1
    assert [reason for _, reason in b.to_close()] == ["idle"] * 4


def test_a_smaller_size_takes_effect_as_connections_return(bench: type[Bench]) -> None:
    b = bench(max_size=4)
    b.grow(4)
    leased = [b.take(), b.take(), b.take()]
    b.tell(b.state.resize(0, 2, b.now))
    assert [reason for _, reason in b.to_close()] == ["resized"]
    b.release(leased[0])
    assert b.to_close() == [(leased[0].id, "resized")]
    b.release(leased[1])
    b.release(leased[2])
    assert b.to_close() == []
    assert len(b.state.idle) == 2


def test_a_larger_size_serves_those_who_wait(bench: type[Bench]) -> None:
    b = bench(max_size=1)
    b.grow(1)
    b.take()
    b.wait(3)
    b.tell(b.state.resize(0, 3, b.now))
    assert len(b.to_open()) == 2


# -- lifetime


def test_a_lifetime_ends_at_hand_out_at_release_and_while_idle(bench: type[Bench]) -> None:
    b = bench(max_lifetime=100)
    first, second, third = b.grow(3)
    b.now = first.expires_at
    b.tick()
    assert b.to_close() == [(first.id, "lifetime")]
    assert b.take() is third
    b.now = second.expires_at
    assert b.take() is None
    assert b.to_close() == [(second.id, "lifetime")]
    b.now = third.expires_at
    b.release(third, reset=True)
    assert b.to_close() == [(third.id, "lifetime")]
    assert b.to_reset() == []


def test_a_lifetime_ends_after_a_reset_too(bench: type[Bench]) -> None:
    b = bench(max_lifetime=100)
    slot = b.grow(1)[0]
    b.take()
    b.release(slot, reset=True)
    b.now = slot.expires_at
    b.ready(slot)
    assert b.to_close() == [(slot.id, "lifetime")]


def test_lifetimes_differ(bench: type[Bench]) -> None:
    """sqlx #2854: all connections expired together."""
    numbers = iter([0.0, 0.5, 0.999])
    b = bench(random=lambda: next(numbers), max_lifetime=100)
    ages = [slot.expires_at - slot.created_at for slot in b.grow(3)]
    assert ages == [100, 95, pytest.approx(100 - 100 * LIFETIME_JITTER, abs=0.1)]


def test_without_a_lifetime_nothing_expires(bench: type[Bench]) -> None:
    b = bench()
    assert b.grow(1)[0].expires_at == inf


def test_a_spike_opens_no_more_than_is_still_needed_when_the_first_arrive(
    bench: type[Bench],
) -> None:
    b = bench(max_size=10)
    b.wait(10)
    opening, opened = b.to_open(), 0
    assert len(opening) == FEWEST_AT_ONCE
    while opening:
        slot = opening.pop(0)
        b.opened(slot)
        opened += 1
        for waiter in b.granted():  # its holder is quick, and so are those after it
            b.release(waiter.slot)
        opening += b.to_open()
    assert opened < 10
    assert not b.state.waiters
