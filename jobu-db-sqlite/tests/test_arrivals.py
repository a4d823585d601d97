"""How results come back from the threads: in order, all of them, and to whoever waits."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import os
import sqlite3
import threading
import weakref
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

import pytest

from jobu_db_sqlite.arrivals import Arrivals, arrivals_at
from jobu_db_sqlite.call import Call
from jobu_db_sqlite.driver import SQLiteDriver
from jobu_db_sqlite.proxy import Connection

here = contextvars.ContextVar("here", default="nowhere")


def _in_a_thread(work: Callable[[], object]) -> None:
    thread = threading.Thread(target=work)
    thread.start()
    thread.join(10)


@pytest.fixture(params=["eventfd", "call_soon_threadsafe"])
async def arrivals(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Arrivals:
    if request.param != "eventfd":
        monkeypatch.delattr(os, "eventfd", raising=False)
    elif not hasattr(os, "eventfd"):
        pytest.skip("this system has no eventfd")
    return Arrivals(asyncio.get_running_loop())


async def _turns(number: int = 3) -> None:
    for _ in range(number):
        await asyncio.sleep(0.001)


async def test_functions_are_called_in_order_in_the_thread_of_the_loop(arrivals: Arrivals) -> None:
    called: list[tuple[int, int]] = []

    def put() -> None:
        for number in range(1000):
            arrivals.put(lambda n=number: called.append((n, threading.get_ident())))  # type: ignore[misc]

    _in_a_thread(put)
    await _turns()
    assert called == [(number, threading.get_ident()) for number in range(1000)]


async def test_what_comes_while_functions_are_called_does_not_keep_the_loop_from_others(
    arrivals: Arrivals,
) -> None:
    calls = 0

    def again() -> None:
        nonlocal calls
        calls += 1
        arrivals.put(again)

    again()
    async with asyncio.timeout(10):
        while calls < 100:  # noqa: ASYNC110
            await asyncio.sleep(0)


def test_a_function_that_ends_the_program_keeps_none_of_the_others_away() -> None:
    called: list[int] = []
    loop = asyncio.new_event_loop()
    arrivals = Arrivals(loop)

    def interrupt() -> None:
        raise KeyboardInterrupt

    for function in (lambda: called.append(1), interrupt, lambda: called.append(2)):
        arrivals.put(function)
    with pytest.raises(KeyboardInterrupt):
        loop.run_until_complete(_turns())
    loop.run_until_complete(_turns())
    assert called == [1, 2]
    loop.close()


def test_a_closed_loop_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for _ in range(2):
        loop = asyncio.new_event_loop()
        arrivals = Arrivals(loop)
        loop.close()
        arrivals.put(lambda: pytest.fail("called"))
        monkeypatch.delattr(os, "eventfd", raising=False)


@pytest.mark.skipif(not hasattr(os, "eventfd"), reason="this system has no eventfd")
def test_the_eventfd_goes_with_the_loop_and_not_while_a_thread_may_write_to_it() -> None:
    loop = asyncio.new_event_loop()
    arrivals = arrivals_at(loop)
    assert arrivals_at(loop) is arrivals
    gone = weakref.ref(loop)
    number = arrivals._eventfd
    assert number is not None
    loop.close()
    del loop
    gc.collect()
    assert gone() is None
    os.fstat(number)
    arrivals.put(lambda: None)
    del arrivals
    gc.collect()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(number)


async def test_the_loop_does_not_keep_what_its_first_caller_had_in_context() -> None:
    here.set("with the first")
    arrivals = Arrivals(asyncio.get_running_loop())
    seen: list[str] = []
    arrivals.put(lambda: seen.append(here.get()))
    await _turns()
    if arrivals._eventfd is not None:
        assert seen == ["nowhere"]


# -- whom an arrival wakes


async def _wait(future: asyncio.Future[None], goes_on: Callable[[], object]) -> None:
    await future
    goes_on()


async def test_whom_an_arrival_wakes_goes_on_in_the_same_turn(arrivals: Arrivals) -> None:
    loop = asyncio.get_running_loop()
    order: list[str] = []
    futures: list[asyncio.Future[None]] = [loop.create_future() for _ in range(3)]

    def first() -> None:
        order.append("first")
        arrivals.wake(futures[1])  # behind which nobody can keep the loop from others

    def arrive() -> None:
        loop.call_soon(order.append, "next turn")
        arrivals.wake(futures[0])
        order.append("arrived")

    async with asyncio.timeout(10), asyncio.TaskGroup() as group:
        group.create_task(_wait(futures[0], first))
        group.create_task(_wait(futures[1], lambda: order.append("second")))
        group.create_task(_wait(futures[2], lambda: order.append("third")))
        await asyncio.sleep(0)
        arrivals.put(arrive)
        await futures[1]
        arrivals.wake(futures[2])
        order.append("not by an arrival")
    assert order == ["arrived", "first", "next turn", "second", "not by an arrival", "third"]


async def test_one_who_is_gone_is_not_woken(arrivals: Arrivals) -> None:
    future: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def arrive() -> None:
        arrivals.wake(future)
        future.cancel()

    arrivals.put(arrive)
    await _turns()
    assert future.cancelled()
    arrivals.wake(future)


def test_one_who_ends_the_program_keeps_none_of_the_others_from_waking() -> None:
    woken: list[int] = []
    loop = asyncio.new_event_loop()
    arrivals = Arrivals(loop)
    futures: list[asyncio.Future[None]] = [loop.create_future() for _ in range(3)]

    def go_on(which: int) -> None:
        if which == 1:
            raise KeyboardInterrupt
        woken.append(which)

    tasks = [loop.create_task(_wait(one, partial(go_on, n))) for n, one in enumerate(futures)]

    def arrive() -> None:
        for future in futures:
            arrivals.wake(future)

    arrivals.put(arrive)
    with pytest.raises(KeyboardInterrupt):
        loop.run_until_complete(_turns())
    loop.run_until_complete(_turns())
    assert woken == [0, 2]
    assert isinstance(tasks[1].exception(), KeyboardInterrupt)
    loop.close()


# -- calls


def _call(function: Callable[[Call], object]) -> Call:
    loop = asyncio.get_running_loop()
    return Call(loop, arrivals_at(loop), None, function)


async def test_who_waits_goes_on_in_the_turn_in_which_the_result_arrives() -> None:
    order: list[str] = []
    call = _call(lambda _: "result")

    async def wait() -> None:
        here.set("with the waiting task")
        order.append(await call.future)
        order.append(here.get())

    task = asyncio.create_task(wait())
    await asyncio.sleep(0)
    arrivals = arrivals_at(asyncio.get_running_loop())
    _in_a_thread(call.run)
    arrivals.put(lambda: order.append("what arrived next"))
    await task
    await _turns()
    assert order == ["result", "with the waiting task", "what arrived next"]


async def test_a_callback_needs_no_context() -> None:
    call = _call(lambda _: "result")
    told: list[str] = []
    call.future.add_done_callback(lambda done: told.append(done.result()), context=None)
    _in_a_thread(call.run)
    await _turns()
    assert told == ["result"]


async def test_several_who_wait_are_told_in_the_order_in_which_they_asked() -> None:
    told: list[int] = []
    call = _call(lambda _: None)
    for number in range(3):
        call.future.add_done_callback(lambda _, n=number: told.append(n))  # type: ignore[misc]
    _in_a_thread(call.run)
    await _turns()
    assert told == [0, 1, 2]


async def test_who_waits_no_more_is_not_told() -> None:
    call = _call(lambda _: None)

    def told(_: object) -> None:
        pytest.fail("told")

    call.future.add_done_callback(told)
    call.future.remove_done_callback(told)
    _in_a_thread(call.run)
    await _turns()
    assert call.future.done()


async def test_a_result_that_comes_after_a_cancellation_is_dropped() -> None:
    call = _call(lambda _: "result")
    waiting = asyncio.create_task(asyncio.wait({call.future}))
    await asyncio.sleep(0)
    _in_a_thread(call.run)
    call.future.cancel()
    await waiting
    await _turns()
    assert call.future.cancelled()


async def test_a_task_cancelled_just_as_the_result_arrives_is_cancelled() -> None:
    call = _call(lambda _: "result")

    async def wait() -> None:
        await call.future

    task = asyncio.create_task(wait())
    await asyncio.sleep(0)
    call.future.add_done_callback(lambda _: task.cancel())
    cancel: Any = task.cancel
    arrivals_at(asyncio.get_running_loop()).put(cancel)
    _in_a_thread(call.run)
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_connection_keeps_nothing_of_what_it_was_given_or_returned(
    driver: SQLiteDriver, connection: Connection
) -> None:
    class Row(list[object]):
        """One that can be referred to weakly."""

    class Values(list[object]):
        """The same."""

    connection.row_factory = lambda _, row: Row(row)  # type: ignore[assignment]
    values = Values([1])
    row = await driver.fetch_one(connection, "SELECT ?", values)
    given, returned = weakref.ref(values), weakref.ref(row)
    del values, row
    await connection.call(lambda _: None)  # the thread is done with the one before
    assert given() is None
    assert returned() is None


async def test_what_an_error_leaves_behind_never_makes_the_event_loop_wait(
    driver: SQLiteDriver, connection: Connection, endless: str
) -> None:
    """Freeing a cursor waits until SQLite is done with what runs on its connection."""
    fails = "SELECT abs(value) FROM json_each('[1, -9223372036854775808]')"
    for work in (driver.execute, driver.fetch_one, driver.fetch_all, driver.fetch_val):
        with suppress(sqlite3.Error):
            await work(connection, fails, None)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(work(connection, endless, None), 0.02)
        await driver.abort(connection)
    with pytest.raises(sqlite3.Error):
        await driver.open_cursor(connection, fails, None, batch=10)
    running = asyncio.ensure_future(driver.fetch_val(connection, endless, None))
    await asyncio.sleep(0.02)
    gc.collect()  # would hang here
    running.cancel()
    await asyncio.wait({running})
    await driver.abort(connection)
    assert await driver.fetch_val(connection, "SELECT 1", None) == 1
