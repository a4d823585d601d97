"""Units of work that share a database with an open transaction keep or lose their work with it."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from jobu_db import (
    PartialCommitError,
    SerializationError,
    TransactionError,
    get_connection,
    transactional,
    transactional_readonly,
)
from jobu_db.testing.conformance.backend import TABLE, ids, insert, nothing_held
from jobu_db.transaction import UnitOfWork

from .conftest import SQLITE, Heard

pytestmark = pytest.mark.one_server


@pytest.fixture
async def three(triple: list[Any]) -> list[Any]:
    """Three databases: orders, ledger and audit, in the order of the test's parameters."""
    return triple


def unit(databases: list[Any], id: int, *, fails: bool = False) -> Any:
    """A unit of work that inserts `id` everywhere."""

    @transactional(*databases)
    async def work() -> None:
        for database in databases:
            await insert(get_connection(database.name), id)
        if fails:
            raise KeyError("on purpose")

    return work


async def assert_ids(*expected: tuple[Any, list[int]]) -> None:
    for database, wanted in expected:
        assert await ids(database) == wanted, database.name
        await nothing_held(database)


async def test_what_a_unit_began_commits_with_the_block_around_it(
    three: list[Any], heard: Heard
) -> None:
    orders, ledger, _ = three
    async with orders.transaction():
        await unit([orders, ledger], 1)()
        assert heard.ended == []
    assert heard.ended == [(orders.name, "committed"), (ledger.name, "committed")]
    await assert_ids((orders, [1]), (ledger, [1]))


async def test_a_block_that_fails_after_the_unit_undoes_all_of_it(three: list[Any]) -> None:
    orders, ledger, _ = three
    with pytest.raises(KeyError):
        async with orders.transaction():
            await unit([orders, ledger], 1)()
            raise KeyError("on purpose")
    await assert_ids((orders, []), (ledger, []))


async def test_a_unit_that_fails_undoes_its_own_and_gives_back_what_it_began(
    three: list[Any],
) -> None:
    orders, ledger, _ = three
    async with orders.transaction() as ctx:
        await insert(ctx, 1)
        with pytest.raises(KeyError):
            await unit([orders, ledger], 2, fails=True)()
        await nothing_held(ledger)
    await assert_ids((orders, [1]), (ledger, []))


async def test_a_savepoint_around_a_unit_undoes_what_it_began(three: list[Any]) -> None:
    orders, ledger, _ = three
    async with orders.transaction() as ctx:
        await insert(ctx, 1)
        with pytest.raises(KeyError):
            async with orders.transaction():
                await unit([orders, ledger], 2)()
                raise KeyError("on purpose")
        await nothing_held(ledger)
    await assert_ids((orders, [1]), (ledger, []))


async def test_a_savepoint_that_is_released_hands_it_to_the_level_around(
    three: list[Any],
) -> None:
    orders, ledger, _ = three
    async with orders.transaction():
        async with orders.transaction():
            await unit([orders, ledger], 1)()
        assert get_connection(ledger.name).in_transaction
    await assert_ids((orders, [1]), (ledger, [1]))


@pytest.mark.parametrize("fails", [True, False])
async def test_in_a_database_enlisted_before_a_units_savepoint_lasts_as_long_as_its_level(
    three: list[Any], fails: bool
) -> None:
    orders, ledger, _ = three
    async with orders.transaction():
        await unit([orders, ledger], 1)()
        try:
            async with orders.transaction():
                await unit([orders, ledger], 2)()
                await insert(get_connection(ledger.name), 3)
                await unit([orders, ledger], 4)()
                if fails:
                    raise KeyError("on purpose")
        except KeyError:
            pass
        await unit([orders, ledger], 5)()
        await insert(get_connection(ledger.name), 6)
    if fails:
        await assert_ids((orders, [1, 5]), (ledger, [1, 5, 6]))
    else:
        await assert_ids((orders, [1, 2, 4, 5]), (ledger, [1, 2, 3, 4, 5, 6]))


async def test_savepoints_that_are_handed_on_do_not_pile_up(three: list[Any]) -> None:
    orders, ledger, _ = three
    async with orders.transaction() as outer:
        await unit([orders, ledger], 1)()
        for id in range(2, 6):
            async with orders.transaction():
                await unit([orders, ledger], id)()
                async with orders.transaction():
                    await unit([orders, ledger], id + 10)()
            for ctx in (outer, get_connection(ledger.name)):
                assert ctx._root.session.levels == [ctx._level]
    await assert_ids((ledger, [1, 2, 3, 4, 5, 12, 13, 14, 15]))


async def test_enlisted_databases_are_ambient_in_the_block_and_in_its_tasks(
    three: list[Any],
) -> None:
    orders, ledger, _ = three
    async with orders.transaction():
        await asyncio.create_task(unit([orders, ledger], 1)())
        await insert(get_connection(ledger.name), 2)
        await insert(ledger, 3)
        async with ledger.transaction() as ctx:
            await insert(ctx, 4)

        async def child() -> None:
            await insert(get_connection(ledger.name), 5)

        await asyncio.create_task(child())
        assert await ids(ledger) == [1, 2, 3, 4, 5]
    await assert_ids((ledger, [1, 2, 3, 4, 5]))
    with pytest.raises(TransactionError):
        get_connection(ledger.name)


async def test_a_unit_that_shares_an_enlisted_database_ends_with_the_same_block(
    three: list[Any], heard: Heard
) -> None:
    orders, ledger, audit = three
    async with orders.transaction():
        await unit([orders, ledger], 1)()
        await unit([ledger, audit], 2)()
        assert heard.ended == []
    assert [name for name, _ in heard.ended] == [orders.name, ledger.name, audit.name]
    await assert_ids((orders, [1]), (ledger, [1, 2]), (audit, [2]))


async def test_of_several_shared_databases_the_outermost_decides(
    three: list[Any], heard: Heard
) -> None:
    orders, ledger, audit = three
    async with orders.transaction():
        async with ledger.transaction():
            await unit([ledger, orders, audit], 1)()
        assert heard.ended == [(ledger.name, "committed")]
    assert [name for name, _ in heard.ended] == [ledger.name, orders.name, audit.name]


async def test_a_unit_without_a_shared_database_stands_alone(
    three: list[Any], heard: Heard
) -> None:
    orders, ledger, audit = three
    async with orders.transaction():
        await unit([ledger, audit], 1)()
        assert [name for name, _ in heard.ended] == [ledger.name, audit.name]


async def test_read_only_members_end_with_the_unit(three: list[Any], heard: Heard) -> None:
    orders, ledger, _ = three

    @transactional_readonly(orders, ledger)
    async def read() -> None:
        await get_connection(ledger.name).fetch_all("SELECT id FROM items")

    async with orders.transaction():
        await read()
        assert heard.ended == [(ledger.name, "committed")]
        await nothing_held(ledger)


async def test_conflicts_name_who_decided(three: list[Any]) -> None:
    orders, ledger, _ = three
    async with orders.transaction(readonly=True):
        with pytest.raises(TransactionError, match="read-only one, which task"):
            await unit([orders, ledger], 1)()
        await nothing_held(ledger)


async def test_manual_control_is_refused_while_something_is_enlisted(three: list[Any]) -> None:
    orders, ledger, _ = three
    async with orders.transaction() as ctx:
        await unit([orders, ledger], 1)()
        with pytest.raises(TransactionError, match=f"{ledger.name!r} ends with this transaction"):
            await ctx.commit()
        with pytest.raises(TransactionError, match=f"ends with that of {orders.name!r}"):
            await get_connection(ledger.name).rollback()
    await assert_ids((orders, [1]), (ledger, [1]))


async def test_callbacks_run_after_all_commits(three: list[Any], heard: Heard) -> None:
    orders, ledger, _ = three
    called: list[int] = []

    @transactional(orders, ledger)
    async def work() -> None:
        get_connection(ledger.name).on_commit(lambda: called.append(len(heard.ended)))

    async with orders.transaction():
        await work()
        assert called == []
    assert called == [2]


async def test_retries_of_an_inner_unit_are_off(three: list[Any]) -> None:
    orders, ledger, _ = three
    calls: list[int] = []

    @transactional(orders, ledger, retries=3)
    async def work() -> None:
        calls.append(1)
        raise SerializationError("again")

    async with orders.transaction():
        with pytest.raises(SerializationError):
            await work()
    assert len(calls) == 1


async def test_a_plain_block_can_be_a_partial_commit(three: list[Any]) -> None:
    orders, ledger, _ = three
    fail_at_commit = ledger.driver.commit

    async def commit(connection: Any, *, reset: bool) -> bool:
        raise RuntimeError("on purpose")

    with pytest.raises(PartialCommitError) as caught:
        async with orders.transaction():
            await unit([orders, ledger], 1)()
            ledger.driver.commit = commit
    ledger.driver.commit = fail_at_commit
    assert caught.value.committed == (orders.name,)
    assert caught.value.failed == (ledger.name,)
    await assert_ids((orders, [1]), (ledger, []))


async def test_two_files_written_in_opposite_order_are_a_deadlock_at_once(
    world: Any, tmp_path: Path
) -> None:
    one, two = (
        await world.open(SQLITE, "one"),
        await world.open(SQLITE, "two", path=str(tmp_path / "two.db")),
    )
    both = asyncio.Barrier(2)

    @transactional(one)
    async def forwards() -> None:
        await both.wait()
        await unit([one, two], 1)()

    @transactional(two)
    async def backwards() -> None:
        await both.wait()
        await unit([two, one], 2)()

    for database in (one, two):
        await database.execute(TABLE)
    outcomes = await asyncio.gather(forwards(), backwards(), return_exceptions=True)
    assert sorted(type(outcome).__name__ for outcome in outcomes) == ["DeadlockError", "NoneType"]
    kept = await ids(one)
    assert kept in ([1], [2])
    assert await ids(two) == kept


async def test_a_savepoint_that_cannot_be_released_undoes_what_was_enlisted_in_it(
    three: list[Any],
) -> None:
    orders, ledger, _ = three
    inside, go = asyncio.Event(), asyncio.Event()

    async def stays_inside() -> None:
        async with orders.transaction():
            inside.set()
            await go.wait()

    async with orders.transaction() as ctx:
        await insert(ctx, 1)
        with pytest.raises(TransactionError, match="still inside"):
            async with orders.transaction():
                await unit([orders, ledger], 2)()
                task = asyncio.create_task(stays_inside())
                await inside.wait()
        await nothing_held(ledger)
        go.set()
        with pytest.raises(TransactionError, match="left first"):
            await task
    await assert_ids((orders, [1]), (ledger, []))


async def test_a_task_that_leaves_a_savepoint_after_its_block_undoes_what_was_enlisted_in_it(
    three: list[Any],
) -> None:
    orders, ledger, _ = three
    inside, go = asyncio.Event(), asyncio.Event()

    async def leaves_late() -> None:
        async with orders.transaction():
            await unit([orders, ledger], 1)()
            inside.set()
            await go.wait()

    with pytest.raises(TransactionError, match="still inside"):
        async with orders.transaction():
            task = asyncio.create_task(leaves_late())
            await inside.wait()
    go.set()
    with pytest.raises(TransactionError, match="left first"):
        await task
    await assert_ids((orders, []), (ledger, []))


async def test_a_level_that_was_left_takes_nothing_over(three: list[Any]) -> None:
    orders, ledger, audit = three
    inside, go = asyncio.Event(), asyncio.Event()

    @transactional(ledger, audit)
    async def ends_late() -> None:
        await insert(get_connection(ledger.name), 2)
        await insert(get_connection(audit.name), 2)
        inside.set()
        await go.wait()

    async with orders.transaction():
        await unit([orders, ledger], 1)()
        async with orders.transaction():
            task = asyncio.create_task(ends_late())
            await inside.wait()
        go.set()
        with pytest.raises(TransactionError, match="left first"):
            await task
        await nothing_held(audit)
    await assert_ids((orders, [1]), (ledger, [1]), (audit, []))


@pytest.mark.parametrize("passes", [0, 1, 2, 4, 8])
async def test_a_unit_that_ends_while_the_block_does_ends_with_it_or_not_at_all(
    three: list[Any], passes: int
) -> None:
    orders, ledger, audit = three

    async def late() -> None:
        for _ in range(passes):
            await asyncio.sleep(0)
        await unit([ledger, audit], 2)()

    tasks: list[asyncio.Task[None]] = []

    async def block() -> None:
        async with orders.transaction():
            await unit([orders, ledger], 1)()
            tasks.append(asyncio.create_task(late()))
            await asyncio.sleep(0)

    told = (await asyncio.gather(block(), return_exceptions=True))[0]
    await asyncio.gather(*tasks, return_exceptions=True)
    assert told is None or isinstance(told, TransactionError)
    assert not isinstance(told, PartialCommitError)
    assert await ids(orders) == ([1] if told is None else [])
    assert [id for id in await ids(ledger) if id != 2] == await ids(orders)
    assert [id for id in await ids(ledger) if id == 2] == await ids(audit)
    for database in three:
        await nothing_held(database)


async def test_rows_that_were_not_read_to_their_end_do_not_keep_the_block_from_committing(
    three: list[Any],
) -> None:
    orders, ledger, _ = three
    async with orders.transaction():
        await unit([orders, ledger], 1)()
        await insert(get_connection(ledger.name), 2)
        rows = get_connection(ledger.name).iterate("SELECT id FROM items", batch=1)
        async for _ in rows:
            break
    await assert_ids((orders, [1]), (ledger, [1, 2]))


async def test_inside_an_independent_transaction_what_was_enlisted_around_it_is_ambient(
    three: list[Any], heard: Heard
) -> None:
    orders, ledger, audit = sorted(three, key=lambda one: one.db_type != "postgres")
    with pytest.raises(KeyError):
        async with orders.transaction():
            await unit([orders, ledger], 1)()
            async with orders.transaction(independent=True) as ctx:
                await insert(ctx, 2)
                await insert(ledger, 2)
                await unit([ledger, audit], 3)()
            assert heard.ended == [(orders.name, "committed")]
            raise KeyError("on purpose")
    await assert_ids((orders, [2]), (ledger, []), (audit, []))


async def test_a_unit_in_an_independent_transaction_ends_with_that(three: list[Any]) -> None:
    orders, ledger, audit = sorted(three, key=lambda one: one.db_type != "postgres")
    with pytest.raises(KeyError):
        async with orders.transaction():
            await unit([orders, ledger], 1)()
            async with orders.transaction(independent=True):
                await unit([orders, audit], 2)()
            raise KeyError("on purpose")
    await assert_ids((orders, [2]), (ledger, []), (audit, [2]))


async def test_a_read_only_unit_leaves_an_enlisted_database_writable(three: list[Any]) -> None:
    orders, ledger, _ = three

    @transactional_readonly(orders, ledger)
    async def read() -> None:
        await get_connection(ledger.name).fetch_all("SELECT id FROM items")

    async with orders.transaction():
        await unit([orders, ledger], 1)()
        async with orders.transaction():
            await read()
            await insert(get_connection(ledger.name), 2)
    await assert_ids((orders, [1]), (ledger, [1, 2]))


async def test_callbacks_of_savepoints_that_were_handed_on_run_once_after_all_commits(
    three: list[Any], heard: Heard
) -> None:
    orders, ledger, audit = three
    called: list[str] = []

    def noting(name: str) -> Any:
        @transactional(orders, ledger, audit)
        async def work() -> None:
            for database in three:
                get_connection(database.name).on_commit(
                    lambda: called.append(f"{name} {len(heard.ended)}")
                )

        return work

    async with orders.transaction():
        await unit([orders, ledger], 1)()
        async with ledger.transaction():
            async with orders.transaction():
                await noting("kept")()
            with pytest.raises(KeyError):
                async with ledger.transaction():
                    await noting("undone")()
                    raise KeyError("on purpose")
        assert called == []
    assert called == ["kept 3"] * 3


async def test_a_generator_that_is_closed_early_tells_what_its_reader_wrote_in_a_unit(
    three: list[Any], caplog: pytest.LogCaptureFixture
) -> None:
    orders, ledger, _ = three

    async def read() -> Any:
        async with UnitOfWork([orders.transaction(), ledger.transaction()]):
            yield get_connection(ledger.name)

    reading = read()
    await insert(await anext(reading), 1)
    await reading.aclose()
    assert "wrote in the transaction that the generator at" in caplog.text
    await assert_ids((orders, []), (ledger, []))
