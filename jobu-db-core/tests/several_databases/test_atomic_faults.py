"""Atomic units that are cut off at each step: whatever was told is so, in all databases."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any

import pytest
from waiting import eventually

from jobu_db import (
    CommitOutcomeUnknownError,
    ConnectionLostError,
    DatabaseError,
    QueryTimeoutError,
    transactional,
)
from jobu_db.registry import get_connection
from jobu_db.testing.conformance.backend import ids, insert, nothing_held
from jobu_db.transaction import decisions

from .atomic import HANG, agreed, prepared, recovered, rows_of_units, unit
from .conftest import MYSQL, POSTGRES, SQLITE, World

ORDERS = ((SQLITE, POSTGRES, MYSQL), (POSTGRES, MYSQL), (MYSQL, POSTGRES))
INSERT, PREPARE, DECIDE, COMMIT, DELETE = "insert", "prepare", "decide", "commit", "delete"
PATTERNS = {
    (POSTGRES, INSERT): b"(unit, participants)",
    (MYSQL, INSERT): b"(unit, participants)",
    (POSTGRES, PREPARE): b"PREPARE TRANSACTION",
    (MYSQL, PREPARE): b"XA PREPARE",
    (POSTGRES, DECIDE): b"COMMIT",
    (MYSQL, DECIDE): b"COMMIT",
    (POSTGRES, COMMIT): b"COMMIT PREPARED",
    (MYSQL, COMMIT): b"XA COMMIT",
    (POSTGRES, DELETE): b"DELETE FROM",
    (MYSQL, DELETE): b"DELETE FROM",
}
CASES = [
    (order, kind, step)
    for order in ORDERS
    for kind in order
    if kind != SQLITE
    for step in ((INSERT, DECIDE, DELETE) if kind == order[0] else (PREPARE, COMMIT))
]


@pytest.mark.parametrize("answered", [False, True], ids=["lost", "unanswered"])
@pytest.mark.parametrize(
    ("order", "victim", "step"),
    CASES,
    ids=["-".join((*order, f"{victim}.{step}")) for order, victim, step in CASES],
)
async def test_a_connection_lost_at_any_step_leaves_all_or_nothing(
    world: World, order: tuple[str, ...], victim: str, step: str, answered: bool
) -> None:
    databases = await world.open_all(order)
    await unit(databases, 0)()  # so that everybody is known to be fit
    proxy = world.proxies[victim]
    proxy.cut_at(PATTERNS[victim, step], answered=answered)
    told: DatabaseError | None = None
    try:
        await asyncio.wait_for(unit(databases)(), HANG)
    except DatabaseError as error:
        told = error
    assert proxy.has_sprung, "the fault did not happen: this tested nothing"
    await recovered(databases)
    committed = await agreed(databases)
    decided = step in (COMMIT, DELETE) or (step == DECIDE and answered)
    assert committed == decided
    if decided:
        assert told is None
    else:
        assert isinstance(told, ConnectionLostError)
        assert not isinstance(told, CommitOutcomeUnknownError)
    assert await agreed(databases, 0)
    assert await rows_of_units(databases[0]) == []
    for database in databases:
        await nothing_held(database)


@pytest.mark.parametrize("order", ORDERS[1:], ids="-".join)
async def test_nothing_is_prepared_before_the_row_is_inserted(
    world: World, order: tuple[str, ...]
) -> None:
    databases = await world.open_all(order)
    await unit(databases, 0)()
    decider, last = world.proxies[order[0]], world.proxies[order[-1]]
    decider.cut_at(PATTERNS[order[0], INSERT], answered=False)
    last.cut_at(PATTERNS[order[-1], PREPARE], answered=False)
    with pytest.raises(ConnectionLostError):
        await asyncio.wait_for(unit(databases)(), HANG)
    assert decider.has_sprung, "the fault did not happen: this tested nothing"
    assert not last.has_sprung
    last.disarm()
    assert not await agreed(databases)


@pytest.mark.parametrize("order", ORDERS, ids="-".join)
async def test_a_decider_in_which_nothing_ran_decides(world: World, order: tuple[str, ...]) -> None:
    databases = await world.open_all(order)
    last = databases[-1]
    world.proxies[last.name].cut_at(PATTERNS[last.name, COMMIT], answered=False)
    async with transactional(*databases, atomic=True):
        await insert(get_connection(last.name), 1)
    assert len(await prepared(databases)) == 1
    assert len(await rows_of_units(databases[0])) == 1
    await recovered(databases)
    assert await ids(last) == [1]


@pytest.mark.parametrize("answered", [True, False], ids=["committed", "lost"])
async def test_what_another_process_recovered_and_forgot_meanwhile_is_not_told_as_undone(
    world: World, monkeypatch: pytest.MonkeyPatch, answered: bool
) -> None:
    """The decider's answer is lost, and the others are recovered before this process asks."""
    databases = await world.open_all((MYSQL, POSTGRES))
    await unit(databases, 0)()
    beside = [await world.open(MYSQL, "beside"), await world.open(POSTGRES, "beside too")]
    proxy, decide = world.proxies[MYSQL], decisions.decide

    async def late(*asked: Any) -> bool | None:
        monkeypatch.setattr(decisions, "decide", decide)
        await recovered(beside)
        assert await rows_of_units(beside[0]) == []
        return await decide(*asked)

    monkeypatch.setattr(decisions, "decide", late)
    proxy.cut_at(PATTERNS[MYSQL, DECIDE], answered=answered)
    with pytest.raises(CommitOutcomeUnknownError):
        await asyncio.wait_for(unit(databases, retries=1)(), HANG)
    assert proxy.has_sprung, "the fault did not happen: this tested nothing"
    await recovered(databases)
    assert await agreed(databases) == answered


@pytest.mark.parametrize("order", ORDERS[1:], ids="-".join)
async def test_a_decider_that_cannot_be_asked_is_told_as_unknown(
    world: World, order: tuple[str, ...]
) -> None:
    databases = await world.open_all(order, pool={"timeout": 2.0, "cleanup_timeout": 2.0})
    await unit(databases, 0)()
    proxy = world.proxies[order[0]]
    proxy.cut_at(b"COMMIT", answered=True)

    async def refuse() -> None:
        await proxy.sprung()
        await proxy.refuse()

    refusing = asyncio.create_task(refuse())
    with pytest.raises(CommitOutcomeUnknownError):
        await asyncio.wait_for(unit(databases)(), HANG)
    await refusing
    (branch,) = await prepared(databases[1:])
    (waiting,) = databases[1].stats()["prepared"]
    assert waiting["branch"] == branch.name
    assert waiting["age"] >= 0
    await proxy.accept()
    await recovered(databases)
    assert await agreed(databases)
    assert branch.name not in [one["branch"] for one in databases[1].stats()["prepared"]]


async def test_a_prepare_that_arrives_after_the_abort_is_rolled_back(world: World) -> None:
    """Its connection is given up while the request is still on its way."""
    databases = await world.open_all(
        (SQLITE, POSTGRES), pool={"timeout": 2.0, "cleanup_timeout": 0.5}
    )
    await unit(databases, 0)()
    proxy = world.proxies[POSTGRES]
    proxy.stall_at(b"PREPARE TRANSACTION", answered=False)
    work = asyncio.create_task(unit(databases)())
    await proxy.sprung()
    work.cancel()
    with pytest.raises(asyncio.CancelledError) as caught:
        await asyncio.wait_for(work, HANG)
    assert "sqlite: rolled back" in caught.value.__notes__
    proxy.resume()  # what was held back is delivered now
    await recovered(databases)
    assert not await agreed(databases)


@pytest.mark.parametrize("order", ORDERS, ids="-".join)
async def test_a_cancelled_unit_tells_what_became_of_it(
    world: World, order: tuple[str, ...]
) -> None:
    databases = await world.open_all(order)
    await unit(databases, 0)()
    for number in range(1, 41):
        work = asyncio.create_task(_outcome(databases, number))
        asyncio.get_running_loop().call_later(number * 0.0007, work.cancel)
        told = await asyncio.wait_for(work, HANG)
        await recovered(databases)
        assert await agreed(databases, number) == (told == "committed"), (number, told)
    assert await rows_of_units(databases[0]) == []


async def _outcome(databases: list[Any], number: int) -> str:
    """Run a unit; return what its end told of the first database."""
    try:
        await unit(databases, number)()
    except asyncio.CancelledError as error:
        begin = f"{databases[0].name}: "
        notes = getattr(error, "__notes__", ())
        told = [note.removeprefix(begin) for note in notes if note.startswith(begin)]
        return told[0] if told else "rolled back"
    return "committed"


@pytest.mark.parametrize("order", ORDERS, ids="-".join)
async def test_a_limit_undoes_a_unit_everywhere_or_leaves_it_alone(
    world: World, order: tuple[str, ...]
) -> None:
    """At whatever step it strikes; what is told is true."""
    databases = await world.open_all(order)
    await unit(databases, 0)()
    late = 0
    for number in range(1, 41):
        work = unit(databases, number, timeout=number * 0.0007)()
        try:
            await asyncio.wait_for(work, HANG)
        except QueryTimeoutError:
            late += 1
            committed = False
        else:
            committed = True
        assert await prepared(databases) == []
        assert await agreed(databases, number) is committed, number
    assert late
    assert await rows_of_units(databases[0]) == []


async def test_two_recoverers_at_once_agree(world: World) -> None:
    databases = await world.open_all((SQLITE, POSTGRES, MYSQL))
    await unit(databases, 0)()
    for proxy in world.proxies.values():
        proxy.cut_at(b"COMMIT PREPARED", answered=False)
    world.proxies[MYSQL].cut_at(b"XA COMMIT", answered=False)
    await unit(databases)()
    assert len(await prepared(databases)) == 2
    async with asyncio.timeout(HANG), asyncio.TaskGroup() as group:
        for _ in range(3):
            group.create_task(recovered(databases))
    assert await agreed(databases)
    assert await rows_of_units(databases[0]) == []


async def test_recovery_beside_running_units_disturbs_none(world: World) -> None:
    databases = await world.open_all((SQLITE, POSTGRES, MYSQL), pool={"max_size": 8})
    running = True

    async def recover_again_and_again() -> None:
        while running:
            await recovered(databases)

    async def units(first: int) -> None:
        for number in range(first, first + 10):
            await unit(databases, number)()

    recovering = asyncio.create_task(recover_again_and_again())
    async with asyncio.timeout(HANG), asyncio.TaskGroup() as group:
        for first in (0, 10, 20):
            group.create_task(units(first))
    running = False
    await recovering
    for number in range(30):
        assert await agreed(databases, number)
    assert await rows_of_units(databases[0]) == []


@pytest.mark.parametrize("order", ORDERS, ids="-".join)
async def test_a_deadlock_or_another_failure_at_a_statement_undoes_all(
    world: World, order: tuple[str, ...]
) -> None:
    databases = await world.open_all(order)
    await insert(databases[-1], 1)
    with pytest.raises(DatabaseError):
        await unit(databases)()  # the key is taken in the last one
    await databases[-1].execute("DELETE FROM items")
    assert not await agreed(databases)
    assert await prepared(databases) == []


async def test_retries_run_the_whole_unit_again(world: World) -> None:
    databases = await world.open_all((POSTGRES, MYSQL))
    await unit(databases, 0)()
    world.proxies[MYSQL].cut_at(b"XA PREPARE", answered=False)
    await unit(databases, retries=1)()
    await recovered(databases)
    assert await agreed(databases)


async def test_a_participant_that_died_while_it_was_idle_and_is_not_used_costs_no_error(
    world: World,
) -> None:
    databases = await world.open_all((SQLITE, MYSQL))
    await unit(databases, 0)()
    mysql = databases[1]
    # Until its reset was answered: a connection that answers later did not die while idle.
    await eventually(lambda: mysql.stats()["idle"] == mysql.stats()["size"])
    async with transactional(*databases, atomic=True):
        world.proxies[MYSQL].cut()
        await insert(get_connection(SQLITE), 1)
    assert await ids(databases[0]) == [0, 1]
    assert await prepared(databases) == []


async def test_a_function_that_waits_gets_its_contexts(world: World) -> None:
    databases: list[Any] = await world.open_all((SQLITE, POSTGRES, MYSQL))
    called: list[str] = []
    async with transactional(*databases, atomic=True):
        for database in databases:
            context = get_connection(database.name)
            context.on_commit(partial(called.append, database.name))
            async with database.transaction():
                await insert(get_connection(database.name), 1)
    assert called == [database.name for database in databases]
    assert await agreed(databases)
