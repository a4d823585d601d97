"""Cancelled and late statements end on the server as well, and only they."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from waiting import eventually

from jobu_db.errors import ConnectionLostError, QueryTimeoutError, TransactionError
from jobu_db.testing.proxy import TcpProxy
from jobu_db.testing.servers import Server
from jobu_db_mysql import MySQLDatabase, kill
from jobu_db_mysql.driver import MySQLDriver
from jobu_db_mysql.session import MySQLConnection

from .conftest import OpenDatabase

MakeDriver = Callable[..., MySQLDriver]


async def start(observer: Any, work: Any, sql: str) -> asyncio.Task[Any]:
    """Start a statement and wait until the server runs it."""
    task = asyncio.ensure_future(work)

    async def running() -> bool:
        return any(sql in text for text in await observer.statements()) or task.done()

    await eventually(running)
    assert not task.done()
    return task


async def only_runs(observer: Any, sql: str) -> None:
    """Wait for the server to be done with what a connection that was closed had asked."""

    async def it_does() -> bool:
        return bool(await observer.statements() == [sql])

    await eventually(it_does)


async def stopped(observer: Any) -> None:
    async def nothing_runs() -> bool:
        return not await observer.statements()

    await eventually(nothing_runs, seconds=5)


async def cancel(task: asyncio.Task[Any]) -> None:
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


@pytest.mark.parametrize("alone", [True, False])
async def test_a_cancelled_statement_does_not_run_on(
    db: MySQLDatabase, observer: Any, things: str, alone: bool
) -> None:
    # Not one long SLEEP: it ends early when it is killed, and the INSERT would be complete.
    sql = "INSERT INTO things SELECT 2, 'x' FROM information_schema.columns WHERE SLEEP(0.05) = 1"

    async def work() -> None:
        if alone:
            await db.execute(sql)
            return
        async with db.transaction() as ctx:
            await ctx.execute("INSERT INTO things VALUES (1, 'x')")
            await ctx.execute(sql)

    await cancel(await start(observer, work(), sql))
    await stopped(observer)
    assert await observer.value("SELECT COUNT(*) FROM things") == 0


async def test_a_cancelled_wait_for_a_lock_does_not_write_later(
    db: MySQLDatabase, observer: Any, things: str
) -> None:
    await observer.execute("INSERT INTO things VALUES (1, 'a')")
    await observer.execute("BEGIN")
    await observer.execute("UPDATE things SET note = 'b'")
    sql = "UPDATE things SET note = 'never'"
    task = await start(observer, db.execute(sql), sql)
    await cancel(task)
    await stopped(observer)
    await observer.execute("COMMIT")
    assert await observer.value("SELECT note FROM things") == "b"


async def test_a_late_result_reaches_nobody(open_db: OpenDatabase) -> None:
    db = await open_db(pool={"max_size": 3, "timeout": 10.0})

    async def ask(number: int) -> Any:
        return await db.fetch_val("SELECT %s FROM (SELECT SLEEP(0.002)) AS t", [number])

    tasks = [asyncio.create_task(ask(number)) for number in range(300)]
    for number, task in enumerate(tasks):
        if number % 2:
            asyncio.get_running_loop().call_later(0.001 * number, task.cancel)
    for number, result in enumerate(await asyncio.gather(*tasks, return_exceptions=True)):
        assert result == number or isinstance(result, asyncio.CancelledError)


async def test_a_streams_session_is_stopped_too(
    db: MySQLDatabase, observer: Any, things: str
) -> None:
    sql = "SELECT SLEEP(0.2) FROM information_schema.columns"

    async def work() -> None:
        async with db.transaction() as ctx:
            async for _ in ctx.iterate(sql, batch=5):
                pass

    await cancel(await start(observer, work(), sql))
    await stopped(observer)


async def test_over_a_unix_socket(
    mysql_server: Server, make_driver: MakeDriver, observer: Any, mysql_url: str
) -> None:
    if mysql_server.socket is None:
        pytest.skip("the server's socket is not known")
    database = mysql_url.rpartition("/")[2]
    driver = make_driver(
        url=None, host=mysql_server.socket, user="jobu", password="jobu_dev", database=database
    )
    connection = await driver.connect()
    assert connection.peer == mysql_server.socket
    connection.opened_at += 3  # so that a server that has just been started counts as older
    work = connection.run("DO SLEEP(20)")
    await cancel(await start(observer, work, "DO SLEEP(20)"))
    with pytest.raises(ConnectionLostError, match="was killed"):
        await driver.abort(connection)
    await stopped(observer)


# -- whom not to kill


class Aborted:
    """A connection with a statement that was cancelled, before its abort."""

    def __init__(self, driver: MySQLDriver, connection: MySQLConnection) -> None:
        self.driver = driver
        self.connection = connection

    async def is_spared(self) -> bool:
        with pytest.raises(ConnectionLostError) as caught:
            await self.driver.abort(self.connection)
        return "not identified" in str(caught.value)


@pytest.fixture
async def aborted(make_driver: MakeDriver, observer: Any) -> Aborted:
    driver = make_driver()
    connection = await driver.connect()
    await cancel(await start(observer, connection.run("DO SLEEP(60)"), "DO SLEEP(60)"))
    return Aborted(driver, connection)


async def test_a_session_on_another_port_is_spared(aborted: Aborted, observer: Any) -> None:
    host, port = aborted.connection.local
    aborted.connection.local = (host, port + 1)
    assert await aborted.is_spared()
    await only_runs(observer, "DO SLEEP(60)")


async def test_a_session_of_another_number_is_spared(aborted: Aborted, observer: Any) -> None:
    aborted.connection.server_thread_id = (observer.connection.thread_id(),)
    assert await aborted.is_spared()
    assert await observer.value("SELECT 1") == 1


async def test_another_server_is_spared(aborted: Aborted, observer: Any) -> None:
    aborted.connection.peer = ("127.0.0.9", aborted.connection.peer[1])
    assert await aborted.is_spared()
    await only_runs(observer, "DO SLEEP(60)")


async def test_a_server_started_since_is_spared(aborted: Aborted, observer: Any) -> None:
    aborted.connection.peer = "/a/socket"  # where only the time of the start tells
    aborted.connection.opened_at -= 10_000_000
    side = await aborted.driver._open_side(aborted.connection)
    side.peer = "/a/socket"

    async def open_side(_: MySQLConnection) -> MySQLConnection:
        return side

    assert not await kill.kill(aborted.connection, "CONNECTION", open_side)
    await only_runs(observer, "DO SLEEP(60)")


async def test_behind_a_proxy_it_only_closes(
    make_driver: MakeDriver, proxied_url: str, proxy: TcpProxy, observer: Any
) -> None:
    driver = make_driver(url=proxied_url)
    connection = await driver.connect()
    await cancel(await start(observer, connection.run("DO SLEEP(3)"), "DO SLEEP(3)"))
    assert await Aborted(driver, connection).is_spared()


async def test_nothing_is_killed_where_nothing_was_sent(
    driver: MySQLDriver, connection: MySQLConnection
) -> None:
    async with connection.turn:
        waiting = asyncio.create_task(connection.run("SELECT 1"))
        await asyncio.sleep(0.05)
        await cancel(waiting)
    await driver.abort(connection)
    assert (await connection.run("SELECT 2")).rows == ((2,),)


async def test_an_unreachable_server_is_not_waited_for(
    make_driver: MakeDriver, proxied_url: str, proxy: TcpProxy
) -> None:
    driver = make_driver(url=proxied_url)
    connection = await driver.connect()
    proxy.stall()
    running = asyncio.create_task(connection.run("SELECT 1"))
    await asyncio.sleep(0.1)
    await cancel(running)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(kill.KILL_LIMIT + 3):
            await driver.abort(connection)
    proxy.resume()


# -- connecting


async def test_a_cancelled_connect_leaves_no_session(driver: MySQLDriver, observer: Any) -> None:
    for step in range(60):
        task = asyncio.create_task(driver.connect())
        await asyncio.sleep(0.0001 * step)
        task.cancel()
        result = (await asyncio.gather(task, return_exceptions=True))[0]
        if isinstance(result, MySQLConnection):
            result.terminate()

    async def none_left() -> bool:
        return not await observer.sessions()

    await eventually(none_left)


# -- statement_timeout


@pytest.fixture
async def spin(observer: Any) -> None:
    """A function that takes for ever. MariaDB's max_statement_time ends one SLEEP() in a thousand
    without an error, on a busy machine (seen with 10.11)."""
    await observer.execute(
        "CREATE FUNCTION spin() RETURNS INT DETERMINISTIC NO SQL BEGIN DECLARE i BIGINT DEFAULT 0; "
        "WHILE i < 2000000000000 DO SET i = i + 1; END WHILE; RETURN i; END"
    )


@pytest.mark.parametrize(
    "sql",
    [
        "UPDATE things SET note = 'b' WHERE SLEEP(60) = 0",
        "INSERT INTO things SELECT 9, SLEEP(60)",
        "CALL loops()",
        "SELECT * FROM things WHERE id = 2 FOR UPDATE",
        "SELECT SLEEP(60)",
    ],
)
@pytest.mark.usefixtures("spin")
async def test_any_statement_is_stopped_and_its_transaction_told(
    open_db: OpenDatabase, observer: Any, things: str, sql: str, mariadb: bool
) -> None:
    db = await open_db(options={"statement_timeout": 300})
    if mariadb:
        sql = sql.replace("SLEEP(60)", "spin()")
    await observer.execute("INSERT INTO things VALUES (1, 'a'), (2, 'a')")
    await observer.execute(
        "CREATE PROCEDURE loops() BEGIN "
        "DECLARE i INT DEFAULT 0; WHILE i < 2000000000 DO SET i = i + 1; END WHILE; END"
    )
    await observer.execute("BEGIN")
    await observer.execute("UPDATE things SET note = 'locked' WHERE id = 2")
    async with asyncio.timeout(40):
        with pytest.raises(QueryTimeoutError):
            async with db.transaction() as ctx:
                await ctx.execute("INSERT INTO things VALUES (3, 'a')")
                await ctx.execute(sql)
        await stopped(observer)
        if mariadb or not sql.startswith("INSERT"):  # MySQL commits that: see the next test
            with pytest.raises(QueryTimeoutError):
                await db.execute(sql)
    await observer.execute("ROLLBACK")
    assert await observer.value("SELECT COUNT(*) FROM things WHERE note = 'a'") == 2


@pytest.mark.usefixtures("spin")
async def test_a_late_statement_that_was_committed_has_succeeded(
    open_db: OpenDatabase, observer: Any, things: str, mariadb: bool
) -> None:
    """MySQL ends a killed SLEEP() early, and the statement around it without an error."""
    db = await open_db(options={"statement_timeout": 300})
    slow = "spin()" if mariadb else "SLEEP(600)"
    sql = f"INSERT INTO things SELECT 1, {slow}"
    if mariadb:
        with pytest.raises(QueryTimeoutError):
            await db.execute(sql)
    else:
        assert await db.execute(sql) == 1
    assert await observer.value("SELECT COUNT(*) FROM things") == (0 if mariadb else 1)
    with pytest.raises(QueryTimeoutError):  # not committed yet: it is undone
        async with db.transaction() as ctx:
            await ctx.execute(f"INSERT INTO things SELECT 2, {slow}")
    assert await observer.value("SELECT COUNT(*) FROM things WHERE id = 2") == 0


@pytest.mark.usefixtures("spin")
@pytest.mark.parametrize("fetch", ["fetch_one", "fetch_all", "fetch_val"])
async def test_a_late_statement_that_returned_no_rows_has_succeeded_too(
    open_db: OpenDatabase, observer: Any, things: str, mariadb: bool, fetch: str
) -> None:
    db = await open_db(options={"statement_timeout": 300})
    late = getattr(db, fetch)(
        f"INSERT INTO things SELECT 1, {'spin()' if mariadb else 'SLEEP(600)'}"
    )
    if mariadb:
        with pytest.raises(QueryTimeoutError):
            await late
    else:
        assert not await late
    assert await observer.value("SELECT COUNT(*) FROM things") == (0 if mariadb else 1)


@pytest.mark.usefixtures("spin")
async def test_what_a_late_procedure_committed_is_told(
    open_db: OpenDatabase, observer: Any, things: str, mariadb: bool
) -> None:
    db = await open_db(options={"statement_timeout": 300})
    await observer.execute(
        "CREATE PROCEDURE sleeps() BEGIN INSERT INTO things VALUES (1, 'a'); "
        f"SELECT {'spin()' if mariadb else 'SLEEP(600)'}; END"
    )
    with pytest.raises(QueryTimeoutError) as told:
        await db.execute("CALL sleeps()")
    committed = await observer.value("SELECT COUNT(*) FROM things") == 1
    assert mariadb or committed
    assert mariadb or "what it changed, if anything, is committed" in str(told.value)


async def test_late_ddl_that_was_done_has_succeeded(open_db: OpenDatabase, observer: Any) -> None:
    """Here the kill may come in time or not: what is told is true."""
    db = await open_db(options={"statement_timeout": 1})
    for number in range(30):
        try:
            await db.execute(f"CREATE TABLE late_{number} (id INT)")
            done = True
        except QueryTimeoutError:
            done = False
        exists = (
            f"SELECT COUNT(*) FROM information_schema.tables WHERE table_name = 'late_{number}'"
        )
        assert await observer.value(f"{exists} AND table_schema = DATABASE()") == done


async def test_a_late_statement_costs_neither_connection_nor_outer_transaction(
    open_db: OpenDatabase, observer: Any, things: str
) -> None:
    db = await open_db(options={"statement_timeout": 200}, pool={"max_size": 1, "timeout": 5.0})
    async with db.transaction() as ctx:
        number = await ctx.fetch_val("SELECT CONNECTION_ID()")
        await ctx.execute("INSERT INTO things VALUES (1, 'a')")
        for _ in range(3):
            with pytest.raises(QueryTimeoutError):
                async with db.transaction() as inner:
                    await inner.execute("INSERT INTO things VALUES (2, 'a')")
                    await inner.execute("UPDATE things SET note = 'b' WHERE SLEEP(10) = 0")
            assert await ctx.fetch_val("SELECT CONNECTION_ID()") == number
    assert await observer.fetch("SELECT id FROM things") == [{"id": 1}]


async def test_the_kill_of_a_late_statement_never_hits_the_next(
    open_db: OpenDatabase,
) -> None:
    # The limit holds for the statements behind, too: long enough for them on a busy machine.
    db = await open_db(options={"statement_timeout": 150}, pool={"max_size": 4})

    async def work(number: int) -> None:
        # Some end just before the limit, some just after it.
        with_timeout = db.execute("DO SLEEP(%s)", [0.140 + 0.0005 * (number % 40)])
        await asyncio.gather(with_timeout, return_exceptions=True)
        async with db.transaction() as ctx:
            for _ in range(5):
                assert await ctx.fetch_val("SELECT %s", [number]) == number

    await asyncio.gather(*(work(number) for number in range(80)))


async def test_a_statement_that_cannot_be_killed_costs_the_connection(
    open_db: OpenDatabase, proxied_url: str, mariadb: bool, observer: Any, things: str
) -> None:
    if mariadb:
        pytest.skip("MariaDB stops late statements by itself")
    db = await open_db(url=proxied_url, options={"statement_timeout": 200})
    async with asyncio.timeout(10):
        with pytest.raises((QueryTimeoutError, TransactionError)):
            async with db.transaction() as ctx:
                await ctx.execute("INSERT INTO things VALUES (1, 'a')")
                await ctx.execute("DO SLEEP(2)")
        assert await db.fetch_val("SELECT 1") == 1
    await stopped(observer)
    assert await observer.value("SELECT COUNT(*) FROM things") == 0
