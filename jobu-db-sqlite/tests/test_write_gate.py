"""Writers take turns, first come first served, and no turn is ever lost."""

from __future__ import annotations

import asyncio
import gc
import os
import random
import re
import threading
import weakref
from collections.abc import Awaitable, Callable
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any

import pytest

from jobu_db import ConnectionFailedError, LockTimeoutError, TransactionError
from jobu_db.write_gate import WriteGate
from jobu_db_sqlite import SQLiteDatabase
from jobu_db_sqlite.arrivals import arrivals_at, wake
from jobu_db_sqlite.database_file import DatabaseFile
from jobu_db_sqlite.driver import SQLiteDriver
from jobu_db_sqlite.settings import SQLiteOptions
from jobu_db_sqlite.write_gate import gate_of

if TYPE_CHECKING:
    from .conftest import OpenDatabase


@pytest.fixture
def gate() -> WriteGate:
    return WriteGate()


async def _in_line(gate: WriteGate, name: str, timeout: float = 5) -> asyncio.Task[None]:
    task = asyncio.ensure_future(gate.enter(name, timeout))
    await asyncio.sleep(0)
    return task


async def test_first_come_first_served(gate: WriteGate) -> None:
    await gate.enter("first", 1)
    order: list[int] = []

    async def write(number: int) -> None:
        await gate.enter(f"writer {number}", 5)
        order.append(number)
        gate.leave()

    tasks = [asyncio.ensure_future(write(number)) for number in range(20)]
    await asyncio.sleep(0)
    gate.leave()
    await asyncio.gather(*tasks)
    assert order == list(range(20))


async def test_the_next_writer_goes_on_in_the_turn_of_the_loop_in_which_a_commit_arrives(
    driver: SQLiteDriver,
) -> None:
    gate, loop, order = driver.write_gate, asyncio.get_running_loop(), []
    assert gate is not None
    await gate.enter("first", 1)

    async def write() -> None:
        await gate.enter("second", 5)
        order.append("second")

    def arrive() -> None:
        loop.call_soon(order.append, "next turn")
        gate.leave()

    writing = asyncio.ensure_future(write())
    await asyncio.sleep(0)
    arrivals_at(loop).put(arrive)
    async with asyncio.timeout(10):
        await writing
        await asyncio.sleep(0)
    assert order == ["second", "next turn"]


async def test_a_turn_that_one_who_is_gone_was_about_to_hear_of_is_passed_on() -> None:
    gate = WriteGate(wake)
    await gate.enter("first", 1)
    second, third = await _in_line(gate, "second"), await _in_line(gate, "third")

    def arrive() -> None:
        gate.leave()
        second.cancel()

    arrivals_at(asyncio.get_running_loop()).put(arrive)
    async with asyncio.timeout(10):
        await third
    assert second.cancelled()


async def test_a_latecomer_cannot_take_the_turn_that_is_being_handed_over(
    gate: WriteGate,
) -> None:
    await gate.enter("first", 1)
    second = await _in_line(gate, "second")
    gate.leave()
    third = await _in_line(gate, "third")
    await second
    assert not third.done()
    gate.leave()
    await third


async def test_time_runs_out_and_the_holder_is_named(gate: WriteGate) -> None:
    await gate.enter("the nightly import", 1)
    other = await _in_line(gate, "other")
    with pytest.raises(LockTimeoutError) as caught:
        await gate.enter("me", 0.02)
    assert re.search(r"held by the nightly import for \d+\.\d\d s", str(caught.value))
    assert "1 more wait" in str(caught.value)
    assert caught.value.retryable
    gate.leave()
    await other


async def test_each_has_the_time_it_was_given_whoever_came_before(gate: WriteGate) -> None:
    await gate.enter("first", 1)
    patient = await _in_line(gate, "patient", 60)
    started, ended = monotonic(), {}

    async def wait(seconds: float) -> None:
        with pytest.raises(LockTimeoutError, match=f"waited {seconds:.2f} s"):
            await gate.enter("hurried", seconds)
        ended[seconds] = monotonic() - started

    async with asyncio.timeout(10):
        await asyncio.gather(*(wait(seconds) for seconds in (0.06, 0.02, 0.1, 0.02)))
    assert all(took >= seconds for seconds, took in ended.items()), ended
    assert list(ended) == [0.02, 0.06, 0.1]
    gate.leave()
    await patient


async def test_time_runs_out_also_behind_one_who_had_his_turn(gate: WriteGate) -> None:
    await gate.enter("first", 1)
    second = await _in_line(gate, "second", 0.05)
    gate.leave()
    await second
    started = monotonic()
    with pytest.raises(LockTimeoutError, match="held by second"):
        await asyncio.wait_for(gate.enter("third", 0.05), 10)
    assert monotonic() - started >= 0.05


async def test_one_timer_serves_all_who_wait(
    gate: WriteGate, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop, timers = asyncio.get_running_loop(), 0
    call_later = loop.call_later

    def counting(*args: Any, **options: Any) -> asyncio.TimerHandle:
        nonlocal timers
        timers += 1
        return call_later(*args, **options)

    monkeypatch.setattr(loop, "call_later", counting)

    async def write() -> None:
        for _ in range(10):
            await gate.enter("writer", 60)
            await asyncio.sleep(0)
            gate.leave()

    await asyncio.gather(*(write() for _ in range(50)))
    assert timers == 1


async def test_a_timer_does_not_keep_the_gate() -> None:
    kept = weakref.ref(other := WriteGate())
    await other.enter("first", 1)
    second = await _in_line(other, "second", 60)
    second.cancel()
    await asyncio.wait({second})
    del other, second
    gc.collect()
    assert kept() is None


async def test_time_runs_out_in_each_event_loop_for_those_who_wait_there(gate: WriteGate) -> None:
    await gate.enter("first", 1)
    waits = await _in_line(gate, "here", 0.01)

    def elsewhere() -> None:
        with pytest.raises(LockTimeoutError, match=r"held by first .*, 1 more waiting"):
            asyncio.run(gate.enter("elsewhere", 0.05))

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join(10)  # by then time has run out here, too, where nobody has looked yet
    assert [turn.holder for turn in gate._waiting_turns()] == ["here"]
    with pytest.raises(LockTimeoutError, match=r"held by first .*, 0 more waiting"):
        await waits


async def test_no_time_at_all_is_enough_for_a_free_turn(gate: WriteGate) -> None:
    await gate.enter("first", 0)
    with pytest.raises(LockTimeoutError):
        await gate.enter("second", -1)
    gate.leave()
    await gate.enter("third", 0)


async def test_a_cancelled_waiter_leaves_the_line(gate: WriteGate) -> None:
    await gate.enter("first", 1)
    second, third = await _in_line(gate, "second"), await _in_line(gate, "third")
    second.cancel()
    await asyncio.wait({second})
    gate.leave()
    await third


async def test_a_turn_granted_to_a_task_that_is_cancelled_is_passed_on(
    gate: WriteGate,
) -> None:
    await gate.enter("first", 1)
    second, third = await _in_line(gate, "second"), await _in_line(gate, "third")
    gate.leave()
    second.cancel()  # in the same step: it has the turn, and does not know it yet
    await asyncio.wait({second})
    assert second.cancelled()
    await third


async def test_no_turn_is_lost_however_tasks_are_cancelled(gate: WriteGate) -> None:
    chance = random.Random(3)
    inside = 0

    async def write() -> None:
        nonlocal inside
        await gate.enter("writer", chance.choice([0.001, 5]))
        try:
            inside += 1
            assert inside == 1
            await asyncio.sleep(chance.choice([0, 0, 0.0005]))
        finally:
            inside -= 1
            gate.leave()

    for _ in range(30):
        tasks = [asyncio.ensure_future(write()) for _ in range(30)]
        for task in chance.sample(tasks, 20):
            await asyncio.sleep(0)
            task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        expected = (asyncio.CancelledError, LockTimeoutError, type(None))
        assert all(isinstance(result, expected) for result in results), results
    await gate.enter("last", 0)


def test_the_turn_passes_between_event_loops(gate: WriteGate) -> None:
    inside: list[int] = []

    async def write(thread: int) -> None:
        for _ in range(100):
            await gate.enter(f"thread {thread}", 20)
            inside.append(thread)
            assert inside == [thread]
            await asyncio.sleep(0)
            inside.remove(thread)
            gate.leave()

    threads = [threading.Thread(target=lambda n=n: asyncio.run(write(n))) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert not any(thread.is_alive() for thread in threads)
    asyncio.run(gate.enter("last", 0))


def test_a_waiter_whose_event_loop_is_closed_is_passed_over(gate: WriteGate) -> None:
    gone = asyncio.new_event_loop()
    living = asyncio.new_event_loop()
    living.run_until_complete(gate.enter("first", 1))
    waiters = [loop.create_task(gate.enter("waiter", 5)) for loop in (gone, living)]
    for loop in (gone, living):
        loop.run_until_complete(asyncio.sleep(0))
    gone.close()
    gate.leave()
    living.run_until_complete(waiters[1])
    living.close()
    waiters[0].get_coro().close()  # type: ignore[union-attr]


def test_a_holder_whose_event_loop_is_closed_has_left(gate: WriteGate) -> None:
    asyncio.run(gate.enter("gone", 1))
    asyncio.run(gate.enter("next", 0))


# -- one gate for each file


def _gate(path: Path | str) -> WriteGate | None:
    gate = SQLiteDriver(DatabaseFile(Path(path), SQLiteOptions())).write_gate
    assert gate is None or isinstance(gate, WriteGate)
    return gate


def test_one_gate_whatever_the_path(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gate = _gate(path)  # which is missing as yet
    symbolic, hard = path.with_name("symbolic.db"), path.with_name("hard.db")
    symbolic.symlink_to(path)
    os.link(path, hard)
    monkeypatch.chdir(path.parent)
    assert gate is not None
    for other in (path, symbolic, hard, "jobu.db", "../" + path.parent.name + "/jobu.db"):
        assert _gate(other) is gate
    assert _gate(path.with_name("other.db")) is not gate
    assert _gate(":memory:") is None


def test_a_gate_is_forgotten_with_the_last_who_knew_it(path: Path) -> None:
    gate = weakref.ref(gate_of(DatabaseFile(path, SQLiteOptions())))
    gc.collect()
    assert gate() is None


def test_a_file_that_cannot_be_created_is_told_before_the_queue(path: Path) -> None:
    path.write_text("in the way")
    driver = SQLiteDriver(DatabaseFile(path / "sub" / "jobu.db", SQLiteOptions()))
    with pytest.raises(ConnectionFailedError, match="directory cannot be created"):
        _ = driver.write_gate


async def test_two_names_for_one_file_take_turns(open_db: OpenDatabase, path: Path) -> None:
    alias = path.with_name("alias.db")
    alias.symlink_to(path)
    first, second = await open_db("first"), await open_db("second", path=str(alias))
    await first.execute("CREATE TABLE n (value)")
    await first.execute("INSERT INTO n VALUES (0)")

    async def increment(database: SQLiteDatabase) -> None:
        for _ in range(10):
            async with database.transaction() as ctx:
                value = await ctx.fetch_val("SELECT value FROM n")
                await ctx.execute("UPDATE n SET value = ?", [value + 1])

    await asyncio.gather(*(increment(database) for database in (first, second) * 5))
    assert await first.fetch_val("SELECT value FROM n") == 100


async def test_writing_twice_to_one_file_at_once_is_an_error_and_no_deadlock(
    open_db: OpenDatabase,
) -> None:
    first, second = await open_db("first"), await open_db("second")
    await first.execute("CREATE TABLE n (value)")
    started = monotonic()
    with pytest.raises(TransactionError, match="same file"):
        async with first.transaction(), second.transaction():
            pass
    assert monotonic() - started < 5
    async with first.transaction(), second.transaction(readonly=True) as reader:
        assert await reader.fetch_val("SELECT count(*) FROM n") == 0


async def test_readers_do_not_wait_for_the_writer(open_db: OpenDatabase) -> None:
    database = await open_db()
    await database.execute("CREATE TABLE n (value)")
    async with database.transaction() as writer:
        await writer.execute("INSERT INTO n VALUES (1)")

        async def read() -> object:
            async with database.transaction(readonly=True, independent=True) as reader:
                return await reader.fetch_val("SELECT count(*) FROM n")

        assert await asyncio.wait_for(read(), 5) == 0


async def test_the_turn_times_out_with_the_pools_timeout(open_db: OpenDatabase) -> None:
    database = await open_db(pool={"max_size": 5, "timeout": 1.0})
    await database.execute("CREATE TABLE n (value)")
    holding = asyncio.Event()

    async def hold() -> None:
        async with database.transaction():
            holding.set()
            await asyncio.sleep(30)

    holder = asyncio.create_task(hold(), name="the slow one")
    await holding.wait()
    for write in (lambda: database.execute("INSERT INTO n VALUES (1)"), _transaction(database)):
        with pytest.raises(LockTimeoutError, match="the slow one"):
            await write()
    assert await database.fetch_val("SELECT count(*) FROM n") == 0
    holder.cancel()
    await asyncio.wait({holder})
    await database.execute("INSERT INTO n VALUES (1)")


def _transaction(database: SQLiteDatabase) -> Callable[[], Awaitable[None]]:
    async def write() -> None:
        async with database.transaction():
            pass

    return write
