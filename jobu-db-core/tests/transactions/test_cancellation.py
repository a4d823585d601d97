"""Transactions cancelled at every await, and at every turn of the loop: nothing is ever lost.

Invariant checked after each run: no connection is held, no rule of the seam was broken, and
what the notes of the cancellation tell is what the server has.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest

from jobu_db import TransactionError, transactional
from jobu_db.testing.cancellation import cancel_at_every_await
from jobu_db.testing.conformance.backend import ids, insert, nothing_held
from jobu_db.testing.fake import FakeDatabase

Scenario = Callable[[FakeDatabase], Coroutine[Any, Any, Any]]


async def plain(db: FakeDatabase) -> None:
    async with db.transaction() as ctx:
        await insert(ctx, 1)


async def reading(db: FakeDatabase) -> None:
    async with db.transaction(readonly=True) as ctx:
        await ids(ctx)


async def failing(db: FakeDatabase) -> None:
    with suppress(KeyError):
        async with db.transaction() as ctx:
            await insert(ctx, 1)
            raise KeyError


async def nested(db: FakeDatabase) -> None:
    async with db.transaction() as outer:
        await insert(outer, 1)
        async with db.transaction() as inner:
            await insert(inner, 2)
        with suppress(KeyError):
            async with db.transaction() as inner:
                await insert(inner, 3)
                raise KeyError
        await insert(outer, 4)


async def by_hand(db: FakeDatabase) -> None:
    async with db.transaction() as ctx:
        await insert(ctx, 1)
        await ctx.commit()
        await ctx.begin()
        await insert(ctx, 2)
        await ctx.rollback()
        await ctx.begin()
        await insert(ctx, 3)


async def with_children(db: FakeDatabase) -> None:
    async def child(number: int) -> None:
        async with db.transaction() as ctx:
            await insert(ctx, number)

    async with db.transaction() as ctx, asyncio.TaskGroup() as group:
        for number in range(3):
            group.create_task(child(number))
        group.create_task(ids(ctx))


async def piece_by_piece(db: FakeDatabase) -> None:
    async with db.transaction() as ctx:
        await insert(ctx, 1)
        await insert(ctx, 2)
        stream = ctx.iterate("SELECT id FROM items", batch=1)
        async for _ in stream:
            await ids(ctx)
        stream = ctx.iterate("SELECT id FROM items", batch=1)
        await anext(stream)
        await stream.aclose()


async def timed(db: FakeDatabase) -> None:
    async with db.transaction(timeout=20) as ctx:
        await insert(ctx, 1)


async def called_back(db: FakeDatabase) -> None:
    async def callback() -> None:
        await ids(db)

    async with db.transaction() as ctx:
        await insert(ctx, 1)
        ctx.on_commit(callback)


async def alone(db: FakeDatabase) -> None:
    await insert(db, 1)
    await ids(db)
    await db.executemany("INSERT INTO items (id, name) VALUES (?, ?)", [(2, "b"), (3, "c")])


async def swallowing(db: FakeDatabase) -> None:
    """A user whose block goes on after a statement of a nested one was cut off."""
    async with db.transaction() as outer:
        await insert(outer, 1)
        with suppress(TransactionError):
            async with db.transaction() as inner:
                with suppress(TimeoutError):
                    async with asyncio.timeout(0):
                        await insert(inner, 2)
        await insert(outer, 3)


SCENARIOS = [
    plain, reading, failing, nested, by_hand, with_children, piece_by_piece, timed, called_back,
    alone, swallowing,
]  # fmt: skip


def told(error: BaseException | None) -> str:
    notes = getattr(error, "__notes__", [])
    return notes[-1] if notes else ""


@asynccontextmanager
async def emptied(db: FakeDatabase) -> AsyncIterator[None]:
    yield
    while db.stats()["in_use"]:  # noqa: ASYNC110
        await asyncio.sleep(0)  # something given up winds up in the background
    await nothing_held(db)
    assert db.server.violations == []
    await db.execute("DELETE FROM items")


@pytest.mark.parametrize("scenario", SCENARIOS)
async def test_cancelled_at_every_await_nothing_is_lost(
    db: FakeDatabase, scenario: Scenario
) -> None:
    async def check() -> None:
        async with asyncio.timeout(5), emptied(db):
            pass

    assert await cancel_at_every_await(lambda: scenario(db), check)


@pytest.mark.parametrize("scenario", SCENARIOS)
async def test_cancelled_at_every_turn_of_the_loop_nothing_is_lost(
    db: FakeDatabase, cancelled_after: Any, scenario: Scenario
) -> None:
    for turns in range(1, 1000):
        async with asyncio.timeout(5), emptied(db):
            task = await cancelled_after(lambda: scenario(db), turns)
        if not task.cancelled():
            assert turns > 5, "the scenario was never cancelled"
            return task.result()
    raise AssertionError("the scenario was always cancelled")


@pytest.mark.parametrize("scenario", SCENARIOS)
@pytest.mark.parametrize("broken", ["commit", "rollback", "abort", "reset"])
async def test_cancelled_at_every_turn_nothing_is_lost_though_the_server_hangs(
    open_db: Any, cancelled_after: Any, scenario: Scenario, broken: str
) -> None:
    db = await open_db(cleanup_timeout=0.005)
    for turns in range(1, 60, 2):
        db.server.hold(broken, times=1)
        async with asyncio.timeout(5), emptied(db):
            await cancelled_after(lambda: scenario(db), turns)
            db.server.heal()


@pytest.mark.parametrize("scenario", [plain, failing, nested, called_back])
async def test_what_a_cancellation_tells_is_what_the_server_has(
    db: FakeDatabase, cancelled_after: Any, committed: Any, scenario: Scenario
) -> None:
    seen = set()
    for turns in range(1, 200):
        async with emptied(db):
            task = await cancelled_after(lambda: scenario(db), turns)
            note = told(_error_of(task))
            seen.add(note)
            kept = bool(committed(db))
            if note == "main: committed":
                assert kept, turns
            elif task.cancelled():
                assert not kept, (turns, note)
        if not task.cancelled():
            break
    assert "main: rolled back" in seen
    assert "main: committed" in seen or scenario is failing


async def test_a_unit_of_work_cancelled_at_every_turn_tells_of_each_database(
    open_db: Any, cancelled_after: Any, committed: Any
) -> None:
    one, two = await open_db("one"), await open_db("two")

    @transactional(one, two)
    async def work() -> None:
        await insert(one, 1)
        await insert(two, 1)

    seen = set()
    for turns in range(1, 400):
        async with emptied(one), emptied(two):
            task = await cancelled_after(work, turns)
            notes = getattr(_error_of(task), "__notes__", [])
            seen.add(tuple(notes))
            for db in (one, two):
                kept = f"{db.name}: committed" in notes or not task.cancelled()
                assert bool(committed(db)) is kept, (turns, notes)
        if not task.cancelled():
            break
    assert ("one: committed", "two: committed") in seen
    assert ("one: rolled back", "two: rolled back") in seen


async def test_a_unit_of_work_cancelled_at_every_await_loses_nothing(open_db: Any) -> None:
    one, two = await open_db("one"), await open_db("two")

    @transactional(one, two)
    async def work() -> None:
        await insert(one, 1)
        await insert(two, 1)

    async def check() -> None:
        async with emptied(one), emptied(two):
            assert len(await ids(one)) == len(await ids(two))

    assert await cancel_at_every_await(work, check) > 10


def _error_of(task: asyncio.Task[Any]) -> BaseException | None:
    try:
        return task.exception()
    except asyncio.CancelledError as error:
        return error
