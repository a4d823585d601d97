"""A unit of work is cancelled at each of its awaits: all databases agree, or the error says so."""

from __future__ import annotations

import asyncio
import itertools
from typing import Any

import pytest

from jobu_db import PartialCommitError, get_connection, transactional
from jobu_db.testing.cancellation import cancel_at_every_await
from jobu_db.testing.conformance.backend import ids, insert, nothing_held

from .conftest import MYSQL, PAIRS, POSTGRES, SQLITE, TRIPLES, World

pytestmark = pytest.mark.one_server


@pytest.mark.parametrize("kinds", [*PAIRS[::2], TRIPLES[1]], ids="-".join)
async def test_cancelled_at_every_await_all_databases_agree(
    world: World, kinds: tuple[str, ...]
) -> None:
    databases = await world.open_all(kinds)
    numbers = itertools.count()

    @transactional(*databases)
    async def work() -> None:
        number = next(numbers)
        for database in databases:
            await insert(get_connection(database.name), number)

    async def check() -> None:
        """Committing cannot be cut short: all have a row or none, and nothing is held."""
        found = [await ids(database) for database in databases]
        assert all(rows == found[0] for rows in found), found
        for database in databases:
            await nothing_held(database)

    assert await cancel_at_every_await(work, check) > 2 * len(databases)


async def test_cancelled_at_any_turn_of_the_loop_all_databases_agree_and_it_is_told(
    world: World,
) -> None:
    """This meets the steps of the commits, too, which run in tasks of their own."""
    databases = await world.open_all((POSTGRES, SQLITE, MYSQL))
    numbers = itertools.count()

    @transactional(*databases)
    async def work() -> None:
        number = next(numbers)
        for database in databases:
            await insert(get_connection(database.name), number)

    turns, cancelled = 0, True
    while cancelled:
        before = [len(await ids(database)) for database in databases]
        cancelled, notes = await cancel_after(turns, work)
        after = [len(await ids(database)) for database in databases]
        added = {now - was for now, was in zip(after, before, strict=True)}
        assert added in ({0}, {1}), f"{turns} turns"
        outcome = "committed" if added == {1} else "rolled back"
        assert all(note.endswith(f": {outcome}") for note in notes), f"{turns} turns: {notes}"
        for database in databases:
            await nothing_held(database)
        turns += 1 + turns // 10
    assert turns > 10


async def cancel_after(turns: int, work: Any) -> tuple[bool, list[str]]:
    """Cancel after that many turns of the loop; return whether it was in time, and the notes."""
    task = asyncio.create_task(work())
    for _ in range(turns):
        await asyncio.sleep(0)
    task.cancel()
    async with asyncio.timeout(20):
        await asyncio.wait({task})
    try:
        task.result()
    except asyncio.CancelledError as error:
        return True, getattr(error, "__notes__", [])
    return False, []


async def test_nested_units_cancelled_at_every_await_all_databases_agree(world: World) -> None:
    databases = await world.open_all((SQLITE, POSTGRES))
    numbers = itertools.count()

    @transactional(*databases)
    async def inner() -> None:
        number = next(numbers)
        for database in databases:
            await insert(get_connection(database.name), number)

    @transactional(*databases)
    async def outer() -> None:
        await inner()

    async def check() -> None:
        assert await ids(databases[0]) == await ids(databases[1])
        for database in databases:
            await nothing_held(database)

    await cancel_at_every_await(outer, check)


@pytest.mark.parametrize("silent", [POSTGRES, MYSQL])
async def test_a_commit_that_hangs_is_waited_for_within_its_limit(
    world: World, silent: str
) -> None:
    """It may have taken place: it is told as unknown, and those after it are rolled back."""
    kinds = (SQLITE, silent, MYSQL if silent == POSTGRES else POSTGRES)
    databases = await world.open_all(kinds, pool={"cleanup_timeout": 0.3})

    @transactional(*databases)
    async def work() -> None:
        for database in databases:
            await insert(get_connection(database.name), 1)

    proxy = world.proxies[silent]
    proxy.stall_at(b"COMMIT", answered=True)
    task = asyncio.create_task(work())
    await proxy.sprung()
    task.cancel()
    await asyncio.wait({task}, timeout=10)
    with pytest.raises(asyncio.CancelledError) as caught:
        await task
    assert caught.value.__notes__ == [
        f"{SQLITE}: committed",
        f"{silent}: outcome unknown",
        f"{kinds[2]}: rolled back",
    ]
    cause = caught.value.__cause__
    assert isinstance(cause, PartialCommitError)
    assert (cause.committed, cause.unknown) == ((SQLITE,), (silent,))
    assert (cause.failed, cause.rolled_back) == ((), (kinds[2],))
    proxy.cut()
    proxy.resume()
    assert [await ids(database) for database in databases] == [[1], [1], []]
    for database in databases:
        await nothing_held(database)


async def test_cancelled_once_committing_has_begun_all_commit(world: World) -> None:
    databases = await world.open_all((POSTGRES, MYSQL, SQLITE))

    @transactional(*databases)
    async def work() -> None:
        for database in databases:
            await insert(get_connection(database.name), 1)

    proxy = world.proxies[POSTGRES]
    proxy.stall_at(b"COMMIT", answered=True)
    task = asyncio.create_task(work())
    await proxy.sprung()
    for _ in range(3):
        task.cancel()
        await asyncio.sleep(0)
    proxy.resume()
    with pytest.raises(asyncio.CancelledError) as caught:
        await task
    assert caught.value.__notes__ == [f"{database.name}: committed" for database in databases]
    assert caught.value.__cause__ is None
    for database in databases:
        assert await ids(database) == [1]
        await nothing_held(database)


async def test_each_commit_after_the_cancellation_has_its_limit(world: World) -> None:
    """The one that was under way ends well; the next one hangs, and nobody cancels again."""
    databases = await world.open_all((POSTGRES, MYSQL, SQLITE), pool={"cleanup_timeout": 1.0})

    @transactional(*databases)
    async def work() -> None:
        for database in databases:
            await insert(get_connection(database.name), 1)

    first, second = world.proxies[POSTGRES], world.proxies[MYSQL]
    first.stall_at(b"COMMIT", answered=True)
    second.stall_at(b"COMMIT", answered=True)
    task = asyncio.create_task(work())
    await first.sprung()
    task.cancel()
    await asyncio.sleep(0)
    first.resume()
    async with asyncio.timeout(20):
        await asyncio.wait({task})
    with pytest.raises(asyncio.CancelledError) as caught:
        await task
    assert caught.value.__notes__ == [
        f"{POSTGRES}: committed",
        f"{MYSQL}: outcome unknown",
        f"{SQLITE}: rolled back",
    ]
    second.cut()
    second.resume()
    assert [await ids(database) for database in databases] == [[1], [1], []]
