"""Transactions that begin with their first statement: what they are to notice, and to undo."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import pytest
from asyncmy.constants.CLIENT import DEPRECATE_EOF
from asyncmy.cursors import SSCursor
from asyncmy.errors import MySQLError
from waiting import eventually

from jobu_db.driver import READ_ONLY, TransactionMode
from jobu_db.errors import (
    CommitOutcomeUnknownError,
    ConnectionLostError,
    DatabaseError,
    DeadlockError,
    LockTimeoutError,
    ReadOnlyTransactionError,
    SQLSyntaxError,
    TransactionError,
    UndefinedTableError,
    UniqueViolationError,
)
from jobu_db.testing.proxy import TcpProxy
from jobu_db_mysql import MySQLDatabase, implicit_commit
from jobu_db_mysql.driver import MySQLDriver
from jobu_db_mysql.session import MySQLConnection

from .conftest import OpenDatabase, ids


@pytest.fixture
async def procedures(observer: Any, things: str) -> None:
    await observer.execute(
        "CREATE PROCEDURE commits() BEGIN COMMIT; INSERT INTO things VALUES (90, 'after'); END"
    )
    await observer.execute("CREATE PROCEDURE writes() INSERT INTO things VALUES (80, 'within')")
    await observer.execute(
        "CREATE PROCEDURE fails() BEGIN INSERT INTO things VALUES (70, 'x'); COMMIT; "
        "INSERT INTO things VALUES (71, 'x'); INSERT INTO things VALUES (71, 'x'); END"
    )


# -- what texts do, by their words


@pytest.mark.parametrize(
    ("sql", "stays"),
    [
        ("SELECT 1", True),
        (" (select 1)", True),
        ("/* c */ insert into t values (1)", True),
        ("-- c\nUPDATE t SET a = 1", True),
        ("WITH a AS (SELECT 1) SELECT * FROM a", True),
        ("COMMIT", False),
        ("CALL p()", False),
        ("CREATE TABLE t (a INT)", False),
        ("SET autocommit = 1", False),
        ("BEGIN", False),
        ("EXECUTE p", False),
        ("/*!99999 SELECT */ COMMIT", False),
        ("/*M! SELECT */ COMMIT", False),
        ("SELECTED", False),
        ("", False),
    ],
)
def test_only_what_is_known_to_stay_inside_rides(sql: str, stays: bool) -> None:
    assert implicit_commit.stays_inside(sql) is stays


@pytest.mark.parametrize(
    ("sql", "may"),
    [
        ("CALL p()", True),
        ("/*!50000 CALL p() */", True),
        ("/*!99999 SELECT */ COMMIT AND CHAIN", True),
        ("IF 1 THEN COMMIT; DO 1; END IF", True),
        ("SET STATEMENT max_statement_time = 1 FOR CALL p()", True),
        ("set statement max_statement_time = 1 for select 1", True),
        ("SET @a = 1", False),
        ("SET statements = 1", False),
        ("INSERT INTO t VALUES (1)", False),
        ("CREATE TABLE t (a INT)", False),
        ("SAVEPOINT a", False),
        ("RELEASE SAVEPOINT a", False),
    ],
)
def test_what_is_not_known_may_end_the_transaction(sql: str, may: bool) -> None:
    assert implicit_commit.may_end_unseen(sql) is may


def test_going_back_to_a_savepoint_ends_nothing() -> None:
    for sql in ("ROLLBACK TO a", "rollback work to savepoint a"):
        assert not implicit_commit.may_end_unseen(sql)
        assert implicit_commit.uses_savepoints(f"SELECT 1; {sql}")
    assert implicit_commit.uses_savepoints("SELECT 1; savepoint a")
    for sql in ("ROLLBACK", "ROLLBACK AND CHAIN", "rollback work"):
        assert implicit_commit.may_end_unseen(sql)
        assert not implicit_commit.uses_savepoints(sql)


# -- errors


@pytest.mark.parametrize("readonly", [False, True])
async def test_a_first_statement_that_fails_leaves_the_transaction_as_it_was(
    db: MySQLDatabase, observer: Any, things: str, readonly: bool
) -> None:
    for sql, error in (("SELEC 1", SQLSyntaxError), ("SELECT * FROM nowhere", UndefinedTableError)):
        async with db.transaction(readonly=readonly) as ctx:
            with pytest.raises(error):
                await ctx.execute(sql)
            assert ctx.in_transaction
            if not readonly:
                await ctx.execute("INSERT INTO things VALUES (1, 'a')")
                assert await ids(observer) == []
                await ctx.execute("DELETE FROM things")
            assert await ctx.fetch_val("SELECT COUNT(*) FROM things") == 0


async def test_a_first_statement_that_fails_halfway_is_undone_and_the_rest_counts(
    db: MySQLDatabase, observer: Any, things: str
) -> None:
    await observer.execute("INSERT INTO things VALUES (1, 'a')")
    async with db.transaction() as ctx:
        with pytest.raises(UniqueViolationError):
            await ctx.execute("INSERT INTO things VALUES (2, 'b'), (1, 'b')")
        await ctx.execute("INSERT INTO things VALUES (3, 'c')")
    assert await ids(observer) == [1, 3]


@pytest.mark.parametrize("isolation", [None, "serializable"])
async def test_a_deadlock_in_the_first_statement_ends_the_transaction(
    db: MySQLDatabase, observer: Any, things: str, isolation: str | None
) -> None:
    """It has undone nothing else; but whoever goes on after a deadlock is told, as ever."""
    await observer.execute(f"INSERT INTO things VALUES {rows(1, 2)}")
    update = "UPDATE things SET note = %s WHERE id = %s"

    async def first() -> None:
        async with db.transaction() as ctx:
            for number in range(3, 30):  # the server gives up the transaction that has done less
                await ctx.execute("INSERT INTO things VALUES (%s, 'x')", [number])
            await ctx.execute(update, ["x", 2])
            held.set()
            await eventually(lambda: is_locked(observer, 1))
            await ctx.execute(update, ["x", 1])

    async def second() -> None:
        await held.wait()
        async with db.transaction(isolation=isolation) as ctx:
            with pytest.raises(DeadlockError):
                await ctx.execute("UPDATE things SET note = 'y' WHERE id IN (1, 2)")
            assert not ctx.in_transaction
            await ctx.execute("SELECT 1")

    held = asyncio.Event()
    results = await asyncio.gather(first(), second(), return_exceptions=True)
    assert results[0] is None
    assert isinstance(results[1], TransactionError)
    assert results[1].retryable


def rows(*numbers: int) -> str:
    return ", ".join(f"({number}, 'a')" for number in numbers)


async def is_locked(observer: Any, number: int) -> bool:
    """Seen by its lock: a statement that the server has begun may not have one yet."""
    sql = "SELECT id FROM things WHERE id = %s FOR UPDATE SKIP LOCKED"
    return not await observer.fetch(sql, number)


async def test_an_error_that_was_swallowed_on_the_raw_connection_is_asked_about_at_once(
    db: MySQLDatabase, observer: Any, things: str
) -> None:
    """Else what follows a swallowed deadlock would begin another transaction, and be committed."""
    await observer.execute(f"INSERT INTO things VALUES {rows(1, 2)}")

    for run in ("cursor", "prepared"):
        both = asyncio.Barrier(2)

        async def work(first: int, second: int, run: str, both: asyncio.Barrier) -> None:
            async with db.transaction() as ctx, ctx.connection.cursor() as cursor:
                await cursor.execute("INSERT INTO things VALUES (%s, 'before')", [100 + first])
                update = "UPDATE things SET note = CONCAT(note, '.') WHERE id = "
                await cursor.execute(f"{update}{first}")
                later = await ctx.connection.prepare(f"{update}{second}")
                await both.wait()
                with suppress(MySQLError):
                    await (
                        later.execute()
                        if run == "prepared"
                        else cursor.execute(f"{update}{second}")
                    )
                await cursor.execute("INSERT INTO things VALUES (%s, 'after')", [200 + first])

        results = await asyncio.gather(
            work(1, 2, run, both), work(2, 1, run, both), return_exceptions=True
        )
        (error,) = [result for result in results if result is not None]
        assert isinstance(error, TransactionError)
        left = await ids(observer)
        assert len(left) == 4, f"both rows of the winner, none of the victim's: {left}"
        await observer.execute("DELETE FROM things WHERE id > 2")


ASKING: dict[str, Callable[[Any], Awaitable[Any]]] = {
    "show_warnings": lambda connection: connection.show_warnings(),
    "autocommit": lambda connection: connection.autocommit(False),
    "prepare": lambda connection: connection.prepare("SELECT 1"),
}


@pytest.mark.parametrize("pipelining", [True, False])
@pytest.mark.parametrize("how", ASKING)
async def test_what_tells_nothing_of_the_transaction_does_not_hide_its_end(
    open_db: OpenDatabase, observer: Any, things: str, how: str, pipelining: bool
) -> None:
    db = await open_db(options={"pipelining": pipelining})
    await observer.execute(f"INSERT INTO things VALUES {rows(1, 2)}")
    both = asyncio.Barrier(2)

    async def work(first: int, second: int) -> None:
        async with db.transaction() as ctx, ctx.connection.cursor() as cursor:
            await cursor.execute("INSERT INTO things VALUES (%s, 'before')", [100 + first])
            update = "UPDATE things SET note = CONCAT(note, '.') WHERE id = "
            await cursor.execute(f"{update}{first}")
            await both.wait()
            try:
                await cursor.execute(f"{update}{second}")
            except MySQLError:
                await ASKING[how](ctx.connection)
                assert not ctx.in_transaction

    results = await asyncio.gather(work(1, 2), work(2, 1), return_exceptions=True)
    (error,) = [result for result in results if result is not None]
    assert isinstance(error, TransactionError), "the victim's work is gone"
    assert len(await ids(observer)) == 3


async def test_a_lock_timeout_of_the_first_statement_keeps_the_transaction(
    open_db: OpenDatabase, observer: Any, things: str
) -> None:
    db = await open_db(options={"lock_timeout": 1000})
    await observer.execute("INSERT INTO things VALUES (1, 'a')")
    await observer.execute("BEGIN")
    await observer.execute("UPDATE things SET note = 'x' WHERE id = 1")
    async with db.transaction() as ctx:
        with pytest.raises(LockTimeoutError):
            await ctx.execute("DELETE FROM things")
        await ctx.execute("INSERT INTO things VALUES (2, 'b')")
    await observer.execute("ROLLBACK")
    assert await ids(observer) == [1, 2]


# -- statements that end the transaction, and may begin another


@pytest.mark.parametrize(
    "sql",
    [
        "COMMIT",
        "COMMIT AND CHAIN",
        "ROLLBACK AND CHAIN",
        "CALL commits()",
        "EXECUTE committing",
        "EXECUTE calling",
    ],
)
@pytest.mark.parametrize("first", [False, True])
async def test_what_ends_the_transaction_is_noticed_at_once(
    db: MySQLDatabase, observer: Any, procedures: None, sql: str, first: bool
) -> None:
    with pytest.raises(TransactionError, match="ended by"):
        async with db.transaction() as ctx:
            if sql.startswith("EXECUTE"):
                await ctx.execute("PREPARE committing FROM 'COMMIT'")
                await ctx.execute("PREPARE calling FROM 'CALL commits()'")
            if not first:
                await ctx.execute("INSERT INTO things VALUES (1, 'a')")
            await ctx.execute(sql)
    assert 90 not in await ids(observer), "what came after is undone"


COMPOUND = "COMMIT; INSERT INTO things VALUES (90, 'after'); END"


@pytest.mark.parametrize(
    "sql",
    [
        f"IF 1 THEN {COMPOUND} IF",
        f"FOR i IN 1..1 DO {COMPOUND} FOR",
        "SET STATEMENT max_statement_time = 9 FOR CALL commits()",
        "/*! CALL commits() */",
    ],
)
async def test_what_mariadb_takes_outside_of_procedures_is_noticed(
    db: MySQLDatabase, observer: Any, procedures: None, mariadb: bool, sql: str
) -> None:
    if not mariadb and not sql.startswith("/*!"):
        pytest.skip("MariaDB alone takes that")
    with pytest.raises((TransactionError, ZeroDivisionError)) as caught:
        async with db.transaction() as ctx:
            await ctx.execute("INSERT INTO things VALUES (1, 'a')")
            if sql.startswith("SET"):
                with pytest.warns(RuntimeWarning, match="SET STATEMENT"):
                    await ctx.execute(sql)
            else:
                await ctx.execute(sql)
            raise ZeroDivisionError
    noted = any("not undone" in note for note in getattr(caught.value, "__notes__", ()))
    assert noted or "ended by" in str(caught.value)


async def test_savepoints_of_a_script_outlive_it(
    db: MySQLDatabase, observer: Any, things: str
) -> None:
    async with db.transaction() as ctx:
        await ctx.execute_script("INSERT INTO things VALUES (1, 'a'); SAVEPOINT mine")
        await ctx.execute("INSERT INTO things VALUES (2, 'a')")
        await ctx.execute("ROLLBACK TO SAVEPOINT mine")
    assert await ids(observer) == [1]


@pytest.mark.parametrize("body", ["INSERT INTO things VALUES (3, 'a')", "COMMIT"])
async def test_unread_rows_of_a_call_are_dropped_at_the_end(
    db: MySQLDatabase, observer: Any, things: str, body: str
) -> None:
    await observer.execute(
        f"CREATE PROCEDURE shows() BEGIN {body}; SELECT 1 UNION SELECT 2 FROM things; END"
    )

    async def work() -> None:
        async with db.transaction() as ctx:
            await ctx.execute("INSERT INTO things VALUES (1, 'a')")
            cursor = ctx.connection.cursor(SSCursor)
            await cursor.execute("CALL shows()")
            await cursor.fetchone()

    if body == "COMMIT":
        with pytest.raises(TransactionError, match="had ended before"):
            await work()
        assert await ids(observer) == [1]
    else:
        await work()
        assert await ids(observer) == [1, 3]


@pytest.mark.parametrize("deprecate_eof", [True, False])
@pytest.mark.parametrize("how", ["fetch", "iterate", "cursor"])
async def test_locks_of_a_first_select_outlast_a_savepoint(
    open_db: OpenDatabase,
    observer: Any,
    things: str,
    monkeypatch: pytest.MonkeyPatch,
    how: str,
    deprecate_eof: bool,
) -> None:
    """START TRANSACTION ahead of the savepoint would give them up."""
    if not deprecate_eof:
        greeted = MySQLConnection._get_server_information

        async def greet(self: Any) -> None:
            await greeted(self)
            self.server_capabilities &= ~DEPRECATE_EOF

        monkeypatch.setattr(MySQLConnection, "_get_server_information", greet)
    db = await open_db()
    await observer.execute("INSERT INTO things VALUES (1, 'a')")
    await observer.execute("SET innodb_lock_wait_timeout = 1")
    sql = "SELECT * FROM things WHERE id = 1 FOR UPDATE"
    async with db.transaction() as ctx:
        if how == "fetch":
            await ctx.fetch_all(sql)
        elif how == "iterate":
            assert [row["id"] async for row in ctx.iterate(sql)] == [1]
        else:
            async with ctx.connection.cursor(SSCursor) as cursor:
                await cursor.execute(sql)
                assert [row[0] async for row in cursor] == [1]
        async with db.transaction():
            pass
        with pytest.raises(MySQLError, match="Lock wait timeout"):
            await observer.execute("UPDATE things SET note = 'b'")


@pytest.mark.parametrize("sql", ["BEGIN", "START TRANSACTION", "LOCK TABLES things WRITE"])
async def test_what_commits_and_begins_another_is_an_implicit_commit(
    db: MySQLDatabase, observer: Any, things: str, sql: str
) -> None:
    with pytest.raises(ZeroDivisionError) as caught:
        async with db.transaction() as ctx:
            await ctx.execute("INSERT INTO things VALUES (1, 'committed')")
            with pytest.warns(RuntimeWarning, match=sql):
                await ctx.execute(sql)
            await ctx.execute("INSERT INTO things VALUES (2, 'rolled back')")
            raise ZeroDivisionError
    assert any(sql in note for note in caught.value.__notes__)
    assert await ids(observer) == [1]


@pytest.mark.parametrize("how", ["cursor", "callproc", "query", "script"])
async def test_a_call_that_commits_on_the_raw_connection_is_noticed_at_the_end(
    db: MySQLDatabase, observer: Any, procedures: None, how: str
) -> None:
    with pytest.raises(TransactionError):
        async with db.transaction() as ctx:
            await ctx.execute("INSERT INTO things VALUES (1, 'a')")
            connection = ctx.connection
            if how == "cursor":
                await connection.cursor().execute("CALL commits()")
            elif how == "callproc":
                await connection.cursor().callproc("commits")
            elif how == "query":
                await connection.query("CALL commits()")
            else:
                await connection.run_all("SELECT 1; CALL commits(); SELECT 2")
            await ctx.connection.cursor().execute("INSERT INTO things VALUES (91, 'later')")
    assert await ids(observer) == [1]


async def test_a_call_that_only_writes_belongs_to_the_transaction(
    db: MySQLDatabase, observer: Any, procedures: None
) -> None:
    async with db.transaction() as ctx:
        await ctx.execute("CALL writes()")
        assert await ids(observer) == []
        async with db.transaction() as inner:
            with pytest.raises(UniqueViolationError):
                await inner.execute("CALL writes()")
    assert await ids(observer) == [80]
    with pytest.raises(ZeroDivisionError):
        async with db.transaction() as ctx:
            await ctx.execute("DELETE FROM things")
            await ctx.connection.cursor().callproc("writes")
            raise ZeroDivisionError
    assert await ids(observer) == [80]


async def test_a_call_that_commits_and_fails_is_told(
    db: MySQLDatabase, observer: Any, procedures: None
) -> None:
    with pytest.raises(UniqueViolationError):
        async with db.transaction() as ctx:
            await ctx.execute("INSERT INTO things VALUES (1, 'a')")
            with pytest.raises(UniqueViolationError):
                await ctx.execute("CALL fails()")
            assert not ctx.in_transaction
            with pytest.raises(TransactionError):
                await ctx.execute("INSERT INTO things VALUES (2, 'a')")
            raise UniqueViolationError("as before")
    assert await ids(observer) == [1, 70]


async def test_what_begins_behind_start_transaction_read_write_only_reads_again(
    db: MySQLDatabase, observer: Any, things: str
) -> None:
    async with db.transaction(readonly=True) as ctx:
        with pytest.warns(RuntimeWarning, match="READ WRITE"):
            await ctx.execute("START TRANSACTION READ WRITE")
        with pytest.raises(ReadOnlyTransactionError):
            await ctx.execute("INSERT INTO things VALUES (1, 'a')")
    assert await ids(observer) == []


@pytest.mark.parametrize("script", [False, True])
async def test_a_reader_that_lets_its_session_write_is_undone_before_what_comes_next(
    open_db: OpenDatabase, observer: Any, things: str, script: bool
) -> None:
    db = await open_db(pool={"max_size": 1, "reset": "never"})
    sql = "SET SESSION TRANSACTION READ WRITE"
    async with db.transaction(readonly=True) as ctx:
        await (ctx.execute_script(f"{sql}; DO 1") if script else ctx.execute(sql))
        with pytest.warns(RuntimeWarning, match="FLUSH"):
            await ctx.execute("FLUSH STATUS")
        with pytest.raises(ReadOnlyTransactionError):
            await ctx.execute("INSERT INTO things VALUES (1, 'a')")
        await (ctx.execute_script(f"{sql}; DO 1") if script else ctx.execute(sql))
    async with db.transaction(readonly=True) as ctx:
        with pytest.raises(ReadOnlyTransactionError):
            await ctx.execute("INSERT INTO things VALUES (1, 'a')")
    await db.execute("INSERT INTO things VALUES (2, 'b')")
    assert await ids(observer) == [2]


async def test_ddl_first_commits_nothing_and_the_block_goes_on(
    db: MySQLDatabase, observer: Any, things: str
) -> None:
    with pytest.raises(ZeroDivisionError):
        async with db.transaction() as ctx:
            with pytest.warns(RuntimeWarning, match="CREATE TABLE more"):
                await ctx.execute("CREATE TABLE more (a INT)")
            await ctx.execute("INSERT INTO things VALUES (2, 'rolled back')")
            raise ZeroDivisionError
    assert await ids(observer) == []


async def test_autocommit_that_is_switched_on_commits_and_the_block_goes_on(
    db: MySQLDatabase, observer: Any, things: str
) -> None:
    with pytest.raises(ZeroDivisionError):
        async with db.transaction() as ctx:
            await ctx.execute("INSERT INTO things VALUES (1, 'committed')")
            with pytest.warns(RuntimeWarning, match="SET autocommit = 1"):
                await ctx.execute("SET autocommit = 1")
            await ctx.execute("INSERT INTO things VALUES (2, 'rolled back')")
            raise ZeroDivisionError
    async with db.transaction() as ctx:
        await ctx.connection.autocommit(False)
        with pytest.raises(TransactionError, match="would commit"):
            await ctx.connection.autocommit(True)
        await ctx.execute("INSERT INTO things VALUES (3, 'committed')")
        assert await ids(observer) == [1]
    assert await ids(observer) == [1, 3]


async def test_a_savepoint_may_come_first_and_anything_in_it(
    db: MySQLDatabase, observer: Any, procedures: None
) -> None:
    for number, sql in enumerate(("SELECT 1", "SET @a = 1", "SELECT * FROM things", "DO 1")):
        async with db.transaction() as ctx:
            with suppress(ZeroDivisionError):
                async with db.transaction() as inner:
                    await inner.execute(sql)
                    await inner.execute("INSERT INTO things VALUES (%s, 'undone')", [100 + number])
                    raise ZeroDivisionError
            async with db.transaction() as inner:
                await inner.execute(sql)
            await ctx.execute("INSERT INTO things VALUES (%s, 'kept')", [number])
    assert await ids(observer) == [0, 1, 2, 3]


# -- what is sent ahead


@pytest.mark.parametrize("mode", [READ_ONLY, TransactionMode(isolation="serializable")])
async def test_what_fails_ahead_is_told_as_what_it_is_and_nothing_counts(
    driver: MySQLDriver,
    connection: MySQLConnection,
    observer: Any,
    things: str,
    monkeypatch: pytest.MonkeyPatch,
    mode: TransactionMode,
) -> None:
    """The statement has run by then, and its connection is closed with what it did."""
    assert driver.begin_later(connection, mode)
    owed = connection._owed
    monkeypatch.setattr(connection, "_owed", lambda sql: [*owed(sql), "SELEC"], raising=False)
    with pytest.raises(MySQLError) as caught:
        await driver.execute(connection, "INSERT INTO things VALUES (1, 'a')", None)
    assert caught.value.args[0] == 1064
    assert not driver.is_alive(connection)
    driver.terminate(connection)
    assert await ids(observer) == []


async def test_a_statement_alone_is_committed_once_also_behind_a_reader(
    open_db: OpenDatabase, observer: Any, things: str
) -> None:
    for number, reset in enumerate(("always", "never")):
        db = await open_db(f"db{number}", pool={"max_size": 1, "reset": reset})
        async with db.transaction(readonly=True) as ctx:
            await ctx.fetch_val("SELECT COUNT(*) FROM things")
        await db.execute("INSERT INTO things VALUES (%s, 'a')", [number])
        with pytest.raises(UniqueViolationError):
            await db.execute("INSERT INTO things VALUES (%s, 'a')", [number])
        await db.execute("CREATE TABLE IF NOT EXISTS more (a INT)")
        await db.execute("SET autocommit = 0")
        await db.execute("INSERT INTO things VALUES (%s, 'a')", [10 + number])
    assert await ids(observer) == [0, 1, 10, 11]


async def test_completion_type_of_the_server_does_not_matter(
    open_db: OpenDatabase,
    observer: Any,
    things: str,
    set_global: Callable[..., Awaitable[None]],
) -> None:
    """By CHAIN, the COMMIT behind a statement would begin another transaction."""
    await set_global("completion_type", "CHAIN")
    db = await open_db()
    await db.execute("INSERT INTO things VALUES (1, 'a')")
    assert await ids(observer) == [1]


async def test_a_statement_alone_that_opens_a_transaction_is_refused(
    db: MySQLDatabase, observer: Any, procedures: None
) -> None:
    for sql in ("BEGIN", "START TRANSACTION", "XA START 'x'"):
        with pytest.raises(TransactionError, match="opened a transaction"):
            await db.execute(sql)
    await db.execute("CALL commits()")
    await db.execute("CALL writes()")
    with pytest.raises(UniqueViolationError):
        await db.execute("CALL fails()")
    assert await ids(observer) == [70, 71, 80, 90], "each of its statements commits by itself"


@pytest.mark.parametrize("lost_at", [b"INSERT", b"COMMIT"])
@pytest.mark.parametrize("answered", [False, True])
async def test_a_statement_alone_that_is_lost_is_unknown_and_not_sent_again(
    open_db: OpenDatabase,
    proxied_url: str,
    proxy: TcpProxy,
    observer: Any,
    lost_at: bytes,
    answered: bool,
) -> None:
    await observer.execute("CREATE TABLE notes (note INT)")
    db = await open_db(url=proxied_url, pool={"max_size": 2})
    proxy.cut_at(lost_at, answered=answered)
    with pytest.raises(CommitOutcomeUnknownError):
        await db.execute("INSERT INTO notes VALUES (1)")
    await eventually(lambda: is_idle(observer))
    count = await observer.value("SELECT COUNT(*) FROM notes")
    assert count <= answered, "the server may hear of the loss before it comes to the COMMIT"


# -- raw connections


@pytest.mark.parametrize("reset", ["always", "never"])
@pytest.mark.parametrize("autocommit", [True, False])
async def test_a_raw_connection_finds_autocommit_as_the_option_says(
    open_db: OpenDatabase, observer: Any, things: str, autocommit: bool, reset: str
) -> None:
    db = await open_db(pool={"max_size": 1, "reset": reset}, options={"autocommit": autocommit})

    async def by_cursor(connection: Any, sql: str) -> None:
        await connection.cursor().execute(sql)

    async def by_statement(connection: Any, sql: str) -> None:
        await (await connection.prepare(sql)).execute()

    ways: list[Callable[[Any, str], Awaitable[None]]] = [
        by_cursor,
        by_statement,
        lambda connection, sql: connection.query(sql),
        lambda connection, sql: connection.run(sql),
        lambda connection, sql: connection.run_all(f"{sql}; SELECT 1"),
    ]
    for number, run in enumerate(ways):
        async with db.transaction(readonly=number % 2 == 0) as ctx:
            await ctx.fetch_val("SELECT COUNT(*) FROM things")
        async with db.pool.connection() as lease:
            assert lease.connection.get_autocommit() is autocommit
            await run(lease.connection, f"INSERT INTO things VALUES ({number}, 'raw')")
            assert lease.connection.get_autocommit() is autocommit
            assert (number in await ids(observer)) is autocommit
            await lease.connection.commit()
        async with db.pool.connection() as lease:
            await lease.connection.begin()
            await run(lease.connection, f"INSERT INTO things VALUES ({100 + number}, 'raw')")
            assert lease.connection.get_transaction_status()
            await lease.connection.rollback()
    assert await ids(observer) == [0, 1, 2, 3, 4]


async def test_prepare_takes_what_stays_inside_the_transaction(db: MySQLDatabase) -> None:
    async with db.transaction() as ctx:
        for sql in ("COMMIT", "CREATE TABLE made (a INT)"):
            with pytest.raises(DatabaseError, match="by a cursor"):
                await ctx.connection.prepare(sql)
        assert ctx.in_transaction


async def test_a_prepared_statement_may_come_first_in_a_transaction_that_was_begun_again(
    db: MySQLDatabase, observer: Any, things: str
) -> None:
    await observer.execute("INSERT INTO things VALUES (1, 'a')")
    await observer.execute("SET innodb_lock_wait_timeout = 1")
    async with db.transaction(isolation="serializable") as ctx:
        kept = await ctx.connection.prepare("SELECT note FROM things WHERE id = 1")
        for _ in range(2):
            await kept.execute()
            with pytest.raises(MySQLError, match="Lock wait timeout"):
                await observer.execute("UPDATE things SET note = 'b'")
            await ctx.commit()
            await ctx.begin()


async def test_only_what_stays_inside_may_be_sent_to_another_connection(
    driver: MySQLDriver, connection: MySQLConnection
) -> None:
    assert driver.repeatable(connection, "INSERT INTO things VALUES (1, 'a')")
    assert not driver.repeatable(connection, "CALL writes()")
    assert not driver.repeatable(connection, "CREATE TABLE made (a INT)")


async def test_a_session_that_may_only_read_says_so_of_itself(
    db: MySQLDatabase, observer: Any, things: str
) -> None:
    async with db.session() as session:
        async with session.transaction(readonly=True) as ctx:
            assert await ctx.fetch_val("SELECT COUNT(*) FROM things") == 0
            with pytest.raises(ReadOnlyTransactionError):
                await ctx.execute("INSERT INTO things VALUES (1, 'a')")
        kept = await session.connection.prepare("INSERT INTO things VALUES (?, 'b')")
        await kept.execute((2,))
        assert await ids(observer) == [2], "autocommit is on in a session"
        async with session.transaction(readonly=True) as ctx:
            await ctx.fetch_val("SELECT COUNT(*) FROM things")
        await kept.execute((3,))
        assert await ids(observer) == [2, 3]
        assert await session.fetch_val("SELECT @@autocommit") == 1


# -- connections that died while they were idle


async def read(rows: Any) -> None:
    async for _ in rows:
        pass


async def nested(ctx: Any, db: MySQLDatabase) -> None:
    async with db.transaction():
        pass


FIRST: dict[str, tuple[bytes, Callable[[Any, MySQLDatabase], Awaitable[Any]]]] = {
    "execute": (b"INSERT", lambda ctx, db: ctx.execute("INSERT INTO things VALUES (50, 'a')")),
    "fetch": (b"SELECT COUNT", lambda ctx, db: ctx.fetch_val("SELECT COUNT(*) FROM things")),
    "iterate": (b"SELECT id", lambda ctx, db: read(ctx.iterate("SELECT id FROM things"))),
    "savepoint": (b"SAVEPOINT", nested),
    "executemany": (
        b"INSERT",
        lambda ctx, db: ctx.executemany("INSERT INTO things VALUES (%s, 'a')", [[50], [51]]),
    ),
    "CALL": (b"START TRANSACTION", lambda ctx, db: ctx.execute("CALL writes()")),
    "cursor": (
        b"INSERT",
        lambda ctx, db: ctx.connection.cursor().execute("INSERT INTO things VALUES (50, 'a')"),
    ),
    "query": (
        b"INSERT",
        lambda ctx, db: ctx.connection.query("INSERT INTO things VALUES (50, 'a')"),
    ),
    "prepare": (
        b"SELECT",
        lambda ctx, db: ctx.connection.prepare("SELECT COUNT(*) FROM things"),
    ),
}


@pytest.mark.parametrize("answered", [False, True])
@pytest.mark.parametrize("what", FIRST)
async def test_a_connection_that_died_while_it_was_idle_costs_nobody_an_error(
    open_db: OpenDatabase,
    proxied_url: str,
    proxy: TcpProxy,
    observer: Any,
    procedures: None,
    what: str,
    answered: bool,
) -> None:
    """Whether or not the server has run the statement by then."""
    db = await open_db(url=proxied_url, pool={"max_size": 2, "timeout": 30.0})
    at, first = FIRST[what]
    before = await db.fetch_val("SELECT CONNECTION_ID()")
    await eventually(lambda: db.stats()["idle"] == 1)
    proxy.cut_at(at, answered=answered)
    async with db.transaction() as ctx:
        await first(ctx, db)
        assert await ctx.fetch_val("SELECT CONNECTION_ID()") != before
        await ctx.execute("INSERT INTO things VALUES (1, 'a')")
    wanted = {"execute": [1, 50], "executemany": [1, 50, 51], "CALL": [1, 80], "cursor": [1, 50]}
    wanted["query"] = [1, 50]
    assert await ids(observer) == wanted.get(what, [1])


async def test_a_cursor_made_before_goes_on_with_the_other_connection(
    open_db: OpenDatabase, proxied_url: str, proxy: TcpProxy, observer: Any, things: str
) -> None:
    db = await open_db(url=proxied_url, pool={"max_size": 2, "timeout": 30.0})
    await db.ping()
    proxy.cut_at(b"INSERT", answered=True)
    async with db.transaction() as ctx, ctx.connection.cursor() as cursor:
        await cursor.execute("INSERT INTO things VALUES (1, 'a')")
        await cursor.execute("SELECT id FROM things")
        assert await cursor.fetchall() == ((1,),)
        await ctx.execute("INSERT INTO things VALUES (2, 'b')")
    assert await ids(observer) == [1, 2]


@pytest.mark.parametrize("what", ["execute", "cursor"])
async def test_what_was_answered_is_never_lost_with_its_connection(
    open_db: OpenDatabase,
    proxied_url: str,
    proxy: TcpProxy,
    observer: Any,
    things: str,
    what: str,
) -> None:
    db = await open_db(url=proxied_url, pool={"max_size": 2, "timeout": 30.0})
    await db.ping()
    proxy.cut_at(b"UPDATE", answered=True)
    with pytest.raises(ConnectionLostError):
        async with db.transaction() as ctx:
            await FIRST[what][1](ctx, db)
            await ctx.execute("UPDATE things SET note = 'b'")
    assert await ids(observer) == []


async def test_what_may_commit_is_not_sent_twice(
    open_db: OpenDatabase, proxied_url: str, proxy: TcpProxy, observer: Any, procedures: None
) -> None:
    db = await open_db(url=proxied_url, pool={"max_size": 2, "timeout": 30.0})
    await db.ping()
    proxy.cut_at(b"CALL", answered=True)
    with pytest.raises(ConnectionLostError):
        async with db.transaction() as ctx:
            await ctx.execute("CALL commits()")
    await eventually(lambda: is_idle(observer))
    assert await ids(observer) == []


@pytest.mark.parametrize("what", ["script", "executemany"])
async def test_what_took_effect_is_not_sent_once_more_if_what_is_behind_it_was_not(
    open_db: OpenDatabase,
    observer: Any,
    things: str,
    monkeypatch: pytest.MonkeyPatch,
    what: str,
) -> None:
    """The connection dies behind an answer, before the next command is written."""
    await observer.execute("CREATE TABLE notes (note LONGTEXT)")
    await observer.execute(
        "CREATE PROCEDURE notes(text LONGTEXT) BEGIN INSERT INTO notes VALUES (text); COMMIT; END"
    )
    db = await open_db(pool={"max_size": 2})
    await db.ping()
    run_all = MySQLConnection.run_all

    async def run_and_lose(self: Any, *args: Any) -> int:
        count: int = await run_all(self, *args)
        self.terminate()
        return count

    monkeypatch.setattr(MySQLConnection, "run_all", run_and_lose)
    with pytest.raises(DatabaseError) as caught:
        if what == "script":
            await db.execute_script("INSERT INTO notes VALUES ('a'); CREATE TABLE made (a INT)")
        else:
            async with db.transaction() as ctx:
                await ctx.executemany("CALL notes(%s)", [["a"], ["a" * 200_000], ["a" * 200_000]])
    assert isinstance(caught.value, CommitOutcomeUnknownError | ConnectionLostError)
    assert await observer.value("SELECT COUNT(*) FROM notes WHERE note = 'a'") == 1


async def is_idle(observer: Any) -> bool:
    return not await observer.statements()
