"""Which of several hosts is tried, when, and what is told when none will do."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobu_db.errors import ConnectionFailedError
from jobu_db.hosts import HostOrder, UnsuitableHostError, connect_to_one, look_around
from jobu_db.settings import Address

A, B, C = (Address(name, 1) for name in "abc")


def names(order: HostOrder, now: float) -> str:
    return "".join(address.host for address in order.to_try(now))


def test_hosts_are_tried_as_listed() -> None:
    assert names(HostOrder([B, A, C]), 0.0) == "bac"


def test_a_host_that_is_listed_twice_is_tried_once() -> None:
    assert names(HostOrder([A, B, A]), 0.0) == "ab"


def test_the_last_good_host_is_first() -> None:
    order = HostOrder([A, B, C])
    order.succeeded(C)
    assert names(order, 0.0) == "cab"
    order.succeeded(B)
    assert names(order, 0.0) == "bac"


def test_a_host_that_failed_is_last_for_a_second_then_two_up_to_thirty() -> None:
    order, now = HostOrder([A, B]), 100.0
    for penalty in (1, 2, 4, 8, 16, 30, 30, 30):
        order.failed(A, now, now)
        assert names(order, now + penalty - 0.01) == "ba"
        assert names(order, now + penalty) == "ab"
        now += penalty
    order.succeeded(A)
    order.failed(A, now, now)
    assert names(order, now + 1) == "ab", "a success ends the row of failures"


def test_attempts_side_by_side_that_fail_together_count_once() -> None:
    order = HostOrder([A, B])
    for _ in range(10):
        order.failed(A, 0.0, 3.0)
    assert names(order, 4.0) == "ab"


def test_of_hosts_that_failed_the_one_whose_time_is_over_first_comes_first() -> None:
    order = HostOrder([A, B, C])
    order.failed(A, 0.0, 0.0)
    order.failed(A, 0.1, 0.1)  # until 2.1
    order.failed(C, 0.5, 0.5)  # until 1.5
    order.failed(B, 0.6, 0.6)  # until 1.6
    assert names(order, 0.7) == "cba"


def test_a_good_host_that_failed_is_no_longer_first() -> None:
    order = HostOrder([A, B])
    order.succeeded(B)
    order.failed(B, 0.0, 0.0)
    assert names(order, 0.5) == "ab"
    assert names(order, 1.0) == "ba", "until its time is over"


def test_a_random_order_is_a_new_one_each_time_and_puts_failed_hosts_last() -> None:
    order = HostOrder([A, B, C], "random", random.Random(7).shuffle)
    order.succeeded(A)
    assert {names(order, 0.0)[0] for _ in range(100)} == {"a", "b", "c"}
    order.failed(A, 0.0, 0.0)
    assert {names(order, 0.5) for _ in range(100)} == {"bca", "cba"}


@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.booleans(), st.floats(0, 100)), max_size=30),
    st.sampled_from(["listed", "random"]),
)
def test_every_host_is_tried_once_and_failed_ones_last(events: Any, order: Any) -> None:
    hosts, now, bad_until = HostOrder([A, B, C], order), 0.0, dict.fromkeys("abc", 0.0)
    row = dict.fromkeys("abc", 0)
    for host, good, delay in events:
        now += delay
        if good:
            hosts.succeeded(Address(host, 1))
            row[host], bad_until[host] = 0, 0.0
        else:
            hosts.failed(Address(host, 1), now, now)
            bad_until[host] = now + min(30, 2 ** row[host])
            row[host] += 1
        tried = names(hosts, now)
        assert sorted(tried) == ["a", "b", "c"]
        assert [bad_until[each] > now for each in tried] == sorted(
            bad_until[each] > now for each in tried
        )


# -- connecting


class Hosts:
    """What each host does: says its name, raises, or never answers."""

    def __init__(self, **answers: BaseException | None) -> None:
        self.answers = answers
        self.tried: list[str] = []

    async def __call__(self, address: Address, role: str) -> str:
        self.tried.append(f"{address.host}:{role}")
        answer = self.answers.get(f"{address.host}_{role}", self.answers.get(address.host))
        if isinstance(answer, TimeoutError):
            await asyncio.Event().wait()
        if answer is not None:
            raise answer
        return address.host


REFUSED = ConnectionFailedError("refused", transient=True)


async def test_a_refused_host_costs_nothing_but_the_attempt() -> None:
    hosts, order = Hosts(a=REFUSED), HostOrder([A, B])
    assert await connect_to_one(order, hosts, roles=["any"], timeout=60) == "b"
    assert await connect_to_one(order, hosts, roles=["any"], timeout=60) == "b"
    assert hosts.tried == ["a:any", "b:any", "b:any"]


async def test_a_silent_host_has_its_own_time_and_no_more() -> None:
    hosts, order = Hosts(a=TimeoutError()), HostOrder([A, B])
    assert await connect_to_one(order, hosts, roles=["any"], timeout=0.01) == "b"


async def test_when_none_will_do_each_says_why() -> None:
    hosts = Hosts(a=REFUSED, b=TimeoutError(), c=UnsuitableHostError("c is a standby"))
    order = HostOrder([A, B, C])
    with pytest.raises(ConnectionFailedError) as caught:
        await connect_to_one(order, hosts, roles=["primary"], timeout=0.01)
    assert caught.value.message == (
        "refused; cannot connect to b:1: no answer within 0.01 s; c is a standby"
    )
    assert caught.value.transient


async def test_a_refusal_for_good_ends_the_search() -> None:
    hosts = Hosts(a=REFUSED, b=ConnectionFailedError("wrong password", code="28P01"))
    with pytest.raises(ConnectionFailedError, match="wrong password") as caught:
        await connect_to_one(HostOrder([A, B, C]), hosts, roles=["any"], timeout=60)
    assert (caught.value.transient, caught.value.code) == (False, "28P01")
    assert hosts.tried == ["a:any", "b:any"]


async def test_only_unsuitable_hosts_are_asked_for_the_next_best_role() -> None:
    hosts = Hosts(
        a=REFUSED,
        b_standby=UnsuitableHostError("b is a primary"),
        c_standby=UnsuitableHostError("c is a primary"),
    )
    found = await connect_to_one(HostOrder([A, B, C]), hosts, roles=["standby", "any"], timeout=60)
    assert found == "b"
    assert hosts.tried == ["a:standby", "b:standby", "c:standby", "b:any"]


async def test_a_cancelled_search_ends_at_once_and_blames_no_host() -> None:
    hosts, order = Hosts(a=TimeoutError()), HostOrder([A, B])
    connecting = asyncio.create_task(connect_to_one(order, hosts, roles=["any"], timeout=60))
    await asyncio.sleep(0)
    connecting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await connecting
    assert hosts.tried == ["a:any"]
    assert names(order, 0.0) == "ab"


# -- what is known of them


def test_a_host_that_says_that_it_takes_no_writes_is_not_tried_for_a_second() -> None:
    order = HostOrder([A, B])
    order.succeeded(A)
    order.demoted(A, 0.0, "standby")
    assert names(order, 0.5) == "b"
    assert names(order, 1.0) == "ab"


def test_where_all_hosts_take_no_writes_all_are_tried() -> None:
    order = HostOrder([A, B])
    order.demoted(A, 0.0)
    order.demoted(B, 0.0)
    assert sorted(names(order, 0.5)) == ["a", "b"]


def test_a_role_is_told_when_it_changes_and_only_then() -> None:
    order, told = HostOrder([A, B]), []
    order.listener = lambda *what: told.append(what)
    order.in_role(A, "primary")
    order.in_role(A, "primary")
    order.demoted(A, 0.0, "standby")
    order.demoted(A, 0.1, "standby")
    order.in_role(A, None)
    assert told == [
        ("a:1", None, "primary"),
        ("a:1", "primary", "standby"),
        ("a:1", "standby", None),
    ]


def test_figures_of_hosts() -> None:
    order = HostOrder([A, B])
    order.in_role(A, "primary")
    order.lost(A, 0.0)
    first, second = order.figures()
    assert first.pop("last_failover") > 1_700_000_000
    assert first == {"host": "a:1", "role": None, "errors": 1}
    assert second == {"host": "b:1", "role": None, "errors": 0, "last_failover": None}


async def look(answering: str, fitting: str, asked: list[str] | None = None) -> tuple[str, str]:
    """Look around from A, whose connections are silent; return what was found, and the order.

    On a machine so busy that the event loop is held up nothing is concluded: it looks again.
    """
    while (found := await look_once(answering, fitting, asked))[0] == "answers":
        if "a" in answering:
            break
    return found


async def look_once(answering: str, fitting: str, asked: list[str] | None) -> tuple[str, str]:
    order = HostOrder([A, B, C])
    order.succeeded(A)

    async def attempt(host: Address, role: str) -> str:
        if asked is not None:
            asked.append(host.host)
        if host.host not in answering:
            await asyncio.Event().wait()
        if role != "any" and host.host not in fitting:
            raise UnsuitableHostError("no")
        return host.host

    closed: list[str] = []
    found = await look_around(
        order,
        attempt,
        host=A,
        roles=("primary",),
        anything="any",
        timeout=0.05,
        terminate=closed.append,
    )
    assert bool(closed) == (found == "replaced" or "a" in answering)
    return found, names(order, asyncio.get_running_loop().time())


async def test_a_host_that_answers_to_a_new_connection_is_not_replaced() -> None:
    asked: list[str] = []
    assert await look("ab", "ab", asked) == ("answers", "abc")
    assert asked == ["a"]


async def test_a_silent_host_is_replaced_by_one_that_is_what_is_wanted() -> None:
    found, order = await look("bc", "c")
    assert found == "replaced"
    assert order.endswith("a")


async def test_a_silent_host_is_not_replaced_while_nobody_has_its_role() -> None:
    assert (await look("bc", ""))[0] == "silent"
    assert (await look("", "abc"))[0] == "silent"
