"""Commands take turns, whatever task they run in, and none runs into what another left behind."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from asyncmy.cursors import SSCursor
from asyncmy.errors import MySQLError

from jobu_db.driver import READ_WRITE
from jobu_db_mysql.commands import Turn
from jobu_db_mysql.driver import MySQLDriver
from jobu_db_mysql.session import MySQLConnection

MakeDriver = Callable[..., MySQLDriver]


def begun(work: Coroutine[Any, Any, Any]) -> asyncio.Future[Any]:
    """Take the first step here, in whatever task this is, and the others in none."""
    ended = asyncio.get_running_loop().create_future()

    def step(_: object = None) -> None:
        try:
            waited_for = work.send(None)
        except StopIteration as end:
            ended.set_result(end.value)
        except Exception as error:
            ended.set_exception(error)
        else:
            waited_for._asyncio_future_blocking = False
            waited_for.add_done_callback(step)

    step()
    return ended


async def test_a_reset_begun_by_a_stranger_keeps_the_turn_from_that_task(
    connection: MySQLConnection,
) -> None:
    """A handle kept too long must not send while the answers to the reset are read."""
    await connection.run("SET @mine = 5")
    reset = begun(connection.reset())
    assert (await connection.run("SELECT @mine")).rows == ((None,),)
    assert reset.done()


async def test_a_reset_that_must_wait_for_its_turn_needs_no_task(
    connection: MySQLConnection,
) -> None:
    running = asyncio.create_task(connection.run("SELECT SLEEP(0.1)"))
    await asyncio.sleep(0)
    await begun(connection.reset())
    assert running.done()


@pytest.mark.parametrize("text", ["SELECT 111; SELECT 222;", "SELECT 111; SELECT nonsense;"])
async def test_a_rollback_without_a_task_reads_what_a_holder_left_unread(
    driver: MySQLDriver, connection: MySQLConnection, text: str
) -> None:
    await connection.run(f"CREATE PROCEDURE two() BEGIN {text} END")
    await connection.query("CALL two()")
    ended = begun(driver.rollback(connection, reset=True))
    if "nonsense" in text:
        with pytest.raises(MySQLError, match="nonsense"):
            await ended
    else:
        assert await ended
        assert (await connection.run("SELECT 333")).rows == ((333,),)


async def test_a_rollback_without_a_task_drops_unread_rows(
    driver: MySQLDriver, connection: MySQLConnection
) -> None:
    await SSCursor(connection).execute("SELECT 1 FROM information_schema.columns")
    assert await begun(driver.rollback(connection, reset=True))
    assert (await connection.run("SELECT 333")).rows == ((333,),)


async def test_turns_go_to_whoever_waited_longest() -> None:
    turn, order = Turn(), []

    async def take(number: int) -> None:
        async with turn:
            order.append(number)

    assert turn.take_now()
    waiting = [asyncio.create_task(take(number)) for number in range(3)]
    await asyncio.sleep(0)
    assert not turn.take_now()
    turn.give()
    assert not turn.take_now(), "it is handed over, and nobody can come in between"
    await asyncio.gather(*waiting)
    assert order == [0, 1, 2]
    assert turn.take_now()


async def test_a_turn_that_was_waited_for_in_vain_is_lost_to_nobody() -> None:
    for cancel_before_it_is_given in (True, False):
        turn = Turn()
        assert turn.take_now()
        waiting = asyncio.create_task(turn.take())
        await asyncio.sleep(0)
        if cancel_before_it_is_given:
            waiting.cancel()
            await asyncio.sleep(0)
        turn.give()
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert turn.take_now()


async def test_a_turn_that_nobody_waits_for_any_more_is_given_to_the_next() -> None:
    turn = Turn()
    assert turn.take_now()
    given_up = turn.take()
    given_up.send(None)
    waiting = asyncio.create_task(turn.take())
    await asyncio.sleep(0)
    given_up.close()
    turn.give()
    await asyncio.wait_for(waiting, 5)


# -- COMMIT and the reset are sent together


async def begin_writing(driver: MySQLDriver, connection: MySQLConnection) -> None:
    await driver.begin(connection, READ_WRITE)
    await connection.run("SET @mine = 5")
    await connection.run("INSERT INTO things VALUES (1, 'kept')")


async def count(observer: Any) -> int:
    return int(await observer.value("SELECT COUNT(*) FROM things"))


async def test_a_commit_leaves_nothing_to_reset(
    driver: MySQLDriver, connection: MySQLConnection, observer: Any, things: str
) -> None:
    await begin_writing(driver, connection)
    assert await driver.commit(connection, reset=True)
    assert await count(observer) == 1
    assert not driver.needs_reset(connection)
    assert (await connection.run("SELECT @mine")).rows == ((None,),)


async def test_a_refused_commit_raises_and_the_reset_takes_place(
    driver: MySQLDriver, connection: MySQLConnection, observer: Any, things: str
) -> None:
    await connection.run("XA START 'another kind of transaction'")
    await connection.run("SET @mine = 5")
    await connection.run("INSERT INTO things VALUES (1, 'lost')")
    with pytest.raises(MySQLError, match="XAER"):
        await driver.commit(connection, reset=True)
    assert not driver.in_transaction(connection)
    assert (await connection.run("SELECT @mine")).rows == ((None,),)
    assert await count(observer) == 0


async def test_a_commit_whose_reset_is_refused_is_a_commit_and_costs_the_connection(
    make_driver: MakeDriver, mysql_url: str, observer: Any, things: str
) -> None:
    own = await observer.value("SELECT DATABASE()")
    await observer.execute(f"CREATE DATABASE {own}_gone")
    driver = make_driver(url=f"{mysql_url}_gone")
    connection = await driver.connect()
    await driver.begin(connection, READ_WRITE)
    await connection.run(f"INSERT INTO {own}.things VALUES (1, 'kept')")
    await observer.execute(f"DROP DATABASE {own}_gone")
    assert not await driver.commit(connection, reset=True)
    assert not driver.is_alive(connection)
    assert await count(observer) == 1
    driver.terminate(connection)
