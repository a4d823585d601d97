"""Turns on one connection: nobody overtakes, nobody is forgotten, and a savepoint's wait ends."""

from __future__ import annotations

import asyncio

import pytest

from jobu_db import TransactionError
from jobu_db.transaction.statement_queue import StatementQueue


def nobody() -> str:
    return "nobody"


def always() -> bool:
    return True


class Visitor:
    """A task that takes a turn, and keeps it until told to give it back."""

    def __init__(self, turns: StatementQueue, log: list[str], name: str) -> None:
        self.may = True
        self.leave = asyncio.Event()
        self.task = asyncio.create_task(self._visit(turns, log, name))

    async def _visit(self, turns: StatementQueue, log: list[str], name: str) -> None:
        if not turns.take_now(self.may):
            await turns.take(lambda: self.may, 5, nobody)
        log.append(name)
        try:
            await self.leave.wait()
        finally:
            turns.give()


@pytest.fixture
def turns() -> StatementQueue:
    return StatementQueue()


@pytest.fixture
def log() -> list[str]:
    return []


async def settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def test_turns_are_taken_first_come_first_served(
    turns: StatementQueue, log: list[str]
) -> None:
    visitors = [Visitor(turns, log, str(number)) for number in range(5)]
    for number, visitor in enumerate(visitors):
        await settle()
        assert log == [str(n) for n in range(number + 1)]
        visitor.leave.set()


async def test_a_latecomer_cannot_overtake_a_turn_that_is_handed_over(
    turns: StatementQueue, log: list[str]
) -> None:
    first, second = Visitor(turns, log, "first"), Visitor(turns, log, "second")
    await settle()
    first.leave.set()
    await first.task  # the turn is granted now, its new holder has not run yet
    assert not turns.take_now(True)
    await settle()
    assert log == ["first", "second"]
    second.leave.set()


async def test_who_may_not_enter_is_overtaken_and_keeps_its_place(
    turns: StatementQueue, log: list[str]
) -> None:
    first, blocked, third = (Visitor(turns, log, name) for name in ("first", "blocked", "third"))
    blocked.may = False
    await settle()
    first.leave.set()
    await settle()
    assert log == ["first", "third"]
    blocked.may = True
    later = Visitor(turns, log, "later")
    await settle()
    third.leave.set()
    await settle()
    assert log == ["first", "third", "blocked"]
    blocked.leave.set()
    later.leave.set()


async def test_a_cancelled_waiter_leaves_the_line(turns: StatementQueue, log: list[str]) -> None:
    first, second, third = (Visitor(turns, log, name) for name in ("first", "second", "third"))
    await settle()
    second.task.cancel()
    await settle()
    first.leave.set()
    await settle()
    assert log == ["first", "third"]
    third.leave.set()


async def test_a_turn_granted_to_a_cancelled_waiter_goes_on(
    turns: StatementQueue, log: list[str]
) -> None:
    first, second, third = (Visitor(turns, log, name) for name in ("first", "second", "third"))
    await settle()
    first.leave.set()
    await first.task
    second.task.cancel()  # between grant and use
    await settle()
    assert second.task.cancelled()
    assert log == ["first", "third"]
    third.leave.set()
    await settle()
    assert turns.take_now(True)


async def test_the_wait_for_what_may_not_be_ends_with_the_obstacles_name(
    turns: StatementQueue,
) -> None:
    with pytest.raises(TransactionError, match=r"waited 0\.05 s for the savepoint of somebody"):
        await turns.take(lambda: False, 0.05, lambda: "the savepoint of somebody")
    assert turns.take_now(True)


async def test_a_statement_is_waited_for_as_long_as_it_takes(
    turns: StatementQueue, log: list[str]
) -> None:
    first = Visitor(turns, log, "first")
    await settle()
    waiting = asyncio.create_task(turns.take(always, 0.01, nobody))
    await asyncio.sleep(0.1)
    assert not waiting.done()
    first.leave.set()
    await asyncio.wait_for(waiting, 1)


async def test_the_last_turn_does_not_depend_on_savepoints(
    turns: StatementQueue, log: list[str]
) -> None:
    first, blocked = Visitor(turns, log, "first"), Visitor(turns, log, "blocked")
    blocked.may = False
    last = asyncio.create_task(turns.take_last())
    await settle()
    assert not last.done()
    first.leave.set()
    await asyncio.wait_for(last, 1)
    blocked.task.cancel()
