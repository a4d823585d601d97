"""What cannot be atomic is refused, in words that help; what can be, inside one, works."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from asyncmy.errors import MySQLError

from jobu_db import DatabaseError, TransactionError, get_connection, transactional
from jobu_db.driver import READ_WRITE
from jobu_db.plugins import database_class
from jobu_db.testing.conformance.backend import TABLE, ids, insert, nothing_held
from jobu_db.testing.servers import Server
from jobu_db.transaction import AtomicUnit, decisions
from jobu_db.two_phase import new_id

from .atomic import agreed, prepared, recover, rows_of_units, unit
from .conftest import MYSQL, POSTGRES, SQLITE, World

ORDERS = ((SQLITE, POSTGRES, MYSQL), (POSTGRES, MYSQL), (MYSQL, POSTGRES))


async def refused(databases: list[Any]) -> str:
    """Return why a unit of these is refused; nothing may have been begun."""
    with pytest.raises(TransactionError, match="atomic=True") as caught:
        await unit(databases)()
    for database in databases:
        await nothing_held(database)
    return str(caught.value)


# -- who may take part, and in what order


async def test_an_order_that_would_do_is_named(world: World) -> None:
    databases = await world.open_all((POSTGRES, SQLITE, MYSQL))
    assert "this order would work: 'sqlite', 'postgres', 'mysql'" in await refused(databases)


async def test_two_that_cannot_prepare_have_no_order(world: World, tmp_path: Path) -> None:
    one = await world.open(SQLITE)
    two = await database_class(SQLITE).create("other", {"path": str(tmp_path / "other.db")})
    (postgres,) = await world.open_all((POSTGRES,))
    try:
        assert "no order would work" in await refused([one, two])
        assert "'other', 'sqlite' only one can come first" in await refused([one, postgres, two])
    finally:
        await two.close()


async def test_one_database_under_two_names_is_refused(world: World) -> None:
    sqlite, postgres = await world.open_all((SQLITE, POSTGRES))
    again = await world.open(POSTGRES, "again")
    assert "'postgres' and 'again' are the same database" in await refused(
        [sqlite, postgres, again]
    )


async def test_the_first_one_cannot_be_readonly(world: World) -> None:
    sqlite, postgres = await world.open_all((SQLITE, POSTGRES))
    with pytest.raises(TransactionError, match="it cannot be readonly"):
        AtomicUnit([sqlite.transaction(readonly=True), postgres.transaction()])


@pytest.mark.parametrize("order", [(SQLITE, POSTGRES, MYSQL), (POSTGRES, MYSQL)], ids="-".join)
async def test_who_only_reads_prepares_nothing(world: World, order: tuple[str, ...]) -> None:
    databases = await world.open_all(order)
    await insert(databases[-1], 7)
    transactions = [one.transaction() for one in databases[:-1]]
    async with AtomicUnit([*transactions, databases[-1].transaction(readonly=True)]):
        for database in databases[:-1]:
            await insert(get_connection(database.name), 1)
        assert await ids(get_connection(databases[-1].name)) == [7]
        with pytest.raises(DatabaseError):
            async with databases[-1].transaction(readonly=True) as ctx:
                await insert(ctx, 1)
    assert await agreed(databases[:-1])
    assert await ids(databases[-1]) == [7]


async def test_a_whole_unit_may_read(world: World) -> None:
    databases = await world.open_all((SQLITE, POSTGRES, MYSQL))
    async with transactional(*databases, readonly=True, atomic=True):
        assert [await ids(get_connection(one.name)) for one in databases] == [[], [], []]


async def test_one_database_alone_is_a_plain_transaction(world: World) -> None:
    (sqlite,) = await world.open_all((SQLITE,))
    await unit([sqlite])()
    assert await ids(sqlite) == [1]


# -- inside other units, and others inside


@pytest.mark.parametrize("order", ORDERS[:2], ids="-".join)
async def test_an_atomic_unit_inside_a_plain_one_is_refused(
    world: World, order: tuple[str, ...]
) -> None:
    databases = await world.open_all(order)
    async with databases[-1].transaction():
        with pytest.raises(TransactionError, match="refused inside a transaction of 'mysql'"):
            await unit(databases)()
    async with transactional(*databases):
        with pytest.raises(TransactionError, match="refused inside a transaction of"):
            await unit(databases)()


@pytest.mark.parametrize("order", ORDERS, ids="-".join)
async def test_units_inside_an_atomic_one_are_savepoints(
    world: World, order: tuple[str, ...]
) -> None:
    databases = await world.open_all(order)

    @transactional(*databases)
    async def plain(number: int, fail: bool) -> None:
        for database in databases:
            await insert(get_connection(database.name), number)
        if fail:
            raise KeyError

    async with transactional(*databases, atomic=True):
        with pytest.raises(KeyError):
            await plain(1, fail=True)
        await plain(2, fail=False)
        await unit(databases, 3)()
        async with databases[-1].transaction() as ctx:
            await insert(ctx, 4)
            await ctx.execute("DELETE FROM items WHERE id = 4")
    assert [await ids(one) for one in databases] == [[2, 3]] * len(databases)


async def test_a_plain_unit_that_brings_another_database_in_is_refused_by_name(
    world: World,
) -> None:
    sqlite, postgres, mysql = await world.open_all((SQLITE, POSTGRES, MYSQL))
    async with transactional(sqlite, postgres, atomic=True):
        with pytest.raises(TransactionError, match="mysql: it is not part of the enclosing"):
            async with transactional(postgres, mysql):
                pass
        await insert(get_connection("sqlite"), 1)
        await insert(get_connection("postgres"), 1)
    assert await agreed([sqlite, postgres])


@pytest.mark.parametrize("order", ORDERS, ids="-".join)
async def test_manual_control_is_refused(world: World, order: tuple[str, ...]) -> None:
    databases = await world.open_all(order)
    async with transactional(*databases, atomic=True):
        for database in databases:
            context = get_connection(database.name)
            await insert(context, 1)
            for control in (context.commit, context.rollback):
                with pytest.raises(TransactionError, match="refused in an atomic unit"):
                    await control()
            with pytest.raises(TransactionError, match="a transaction is open already"):
                await context.begin()
    assert await agreed(databases)


# -- what servers refuse


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE TEMPORARY TABLE passing (id INTEGER)",
        "LISTEN passing",
        "DECLARE passing CURSOR WITH HOLD FOR SELECT 1",
    ],
    ids=["temporary", "listen", "hold"],
)
async def test_what_postgres_cannot_prepare_is_told_at_prepare_and_undone(
    world: World, statement: str
) -> None:
    databases = await world.open_all((SQLITE, POSTGRES))
    with pytest.raises(DatabaseError, match="PREPARE") as caught:
        async with transactional(*databases, atomic=True):
            for database in databases:
                await insert(get_connection(database.name), 1)
            await get_connection(POSTGRES).execute(statement)
    assert caught.value.code == "0A000"
    assert not await agreed(databases)
    assert await prepared(databases) == []
    for database in databases:
        await nothing_held(database)


async def test_a_failed_statement_that_was_caught_is_not_prepared(world: World) -> None:
    """PREPARE TRANSACTION of a failed transaction is answered with ROLLBACK, without an error."""
    databases = await world.open_all((SQLITE, POSTGRES))
    with pytest.raises(TransactionError, match="the server answered PREPARE TRANSACTION with"):
        async with transactional(*databases, atomic=True):
            for database in databases:
                await insert(get_connection(database.name), 1)
            with pytest.raises(DatabaseError):
                await get_connection(POSTGRES).execute("SELECT 1/0")
    assert not await agreed(databases)
    assert await prepared(databases) == []


@pytest.mark.parametrize(
    "statement", ["CREATE TABLE another (id INTEGER)", "COMMIT", "START TRANSACTION"]
)
async def test_mysql_refuses_what_would_commit_and_goes_on(world: World, statement: str) -> None:
    databases = await world.open_all((SQLITE, MYSQL))
    async with transactional(*databases, atomic=True):
        for database in databases:
            await insert(get_connection(database.name), 1)
        context = get_connection(MYSQL)
        with pytest.raises(DatabaseError) as caught:
            await context.execute(statement)
        assert caught.value.code == "1399"
        assert context.in_transaction
        async with context.connection.cursor() as cursor:
            with pytest.raises(MySQLError, match="1399"):
                await cursor.execute(statement)
        await context.execute("DELETE FROM items WHERE id = 2")
    assert await agreed(databases)


async def test_a_commit_in_the_text_is_noticed(world: World) -> None:
    databases = await world.open_all((SQLITE, POSTGRES))
    with pytest.raises(TransactionError, match="ended by 'COMMIT', not by its block"):
        async with transactional(*databases, atomic=True):
            for database in databases:
                await insert(get_connection(database.name), 1)
            await get_connection(POSTGRES).execute("COMMIT")
    assert await ids(databases[0]) == []
    assert await prepared(databases) == []


@pytest.mark.parametrize("order", [(SQLITE, MYSQL), (POSTGRES, MYSQL)], ids="-".join)
async def test_the_victim_of_a_deadlock_is_rolled_back_and_may_run_again(
    world: World, order: tuple[str, ...]
) -> None:
    databases = await world.open_all(order)
    mysql = databases[-1]
    for number in (1, 2):
        await insert(mysql, number)
    both = asyncio.Barrier(2)
    met = 0

    async def update(context: Any, number: int) -> None:
        await context.execute("UPDATE items SET name = :name WHERE id = :id",
                              {"name": f"new {number}", "id": number})  # fmt: skip

    @transactional(*databases, atomic=True, retries=5)
    async def work() -> None:
        nonlocal met
        met += 1
        await insert(get_connection(databases[0].name), 1)
        await update(get_connection(MYSQL), 1)
        if met == 1:
            await both.wait()
        await update(get_connection(MYSQL), 2)

    async def against() -> None:
        async with mysql.transaction() as ctx:
            await update(ctx, 2)
            # Heavier than the unit, so that it is the unit that InnoDB rolls back.
            for number in range(100, 120):
                await insert(ctx, number)
            await both.wait()
            await update(ctx, 1)

    async with asyncio.timeout(60), asyncio.TaskGroup() as group:
        group.create_task(work())
        group.create_task(against())
    assert met == 2
    assert await ids(databases[0]) == [1]
    assert await prepared(databases) == []
    for database in databases:
        await nothing_held(database)


# -- durability, roles and privileges, checked before anything is begun


@pytest.mark.parametrize("synchronous", ["OFF", "NORMAL"])
async def test_an_sqlite_decider_that_is_not_durable_is_refused(
    world: World, synchronous: str
) -> None:
    sqlite = await world.open(SQLITE, options={"synchronous": synchronous})
    (postgres,) = await world.open_all((POSTGRES,))
    assert "synchronous is less than FULL" in await refused([sqlite, postgres])


async def test_an_sqlite_decider_in_memory_is_refused(world: World) -> None:
    (postgres,) = await world.open_all((POSTGRES,))
    async with database_class(SQLITE).create("memory", {"path": ":memory:"}) as sqlite:
        assert "a database in memory keeps no decision" in await refused([sqlite, postgres])


@pytest.mark.parametrize("mode", ["OFF", "MEMORY"])
async def test_an_sqlite_decider_whose_journal_is_not_on_disk_is_refused(
    world: World, mode: str
) -> None:
    sqlite = await world.open(SQLITE, options={"journal_mode": mode})
    (postgres,) = await world.open_all((POSTGRES,))
    assert f"with journal_mode {mode} a crash may destroy" in await refused([sqlite, postgres])


async def test_an_sqlite_decider_that_cannot_be_written_is_refused(
    world: World, tmp_path: Path
) -> None:
    await world.open(SQLITE)  # makes the file
    path = str(tmp_path / "test.db")
    (postgres,) = await world.open_all((POSTGRES,))
    async with database_class(SQLITE).create("still", {"path": path, "mode": "ro"}) as still:
        assert "the file is read-only" in await refused([still, postgres])


@pytest.mark.parametrize(
    ("before", "inside"), [("off", "on"), ("local", "on"), ("remote_write", "on"), ("on", "on"),
                           ("remote_apply", "remote_apply")],
)  # fmt: skip
async def test_the_decision_of_postgres_is_synchronous_whatever_is_set(
    world: World, before: str, inside: str
) -> None:
    (database,) = await world.open_all((POSTGRES,))
    pool, driver = database.pool, database.driver
    identity = await decisions.identify(pool)
    entry = decisions.entry(pool.two_phase.place, identity.id, "0" * 32, ["1" * 32])
    async with pool.connection() as lease:
        await lease.connection.execute(f"SET synchronous_commit = {before}")
        await driver.begin(lease.connection, READ_WRITE)
        await driver.deciding.enter(lease.connection, entry)
        assert await lease.connection.fetchval("SHOW synchronous_commit") == inside
        await driver.rollback(lease.connection)


async def test_a_postgres_that_prepares_nothing_is_refused(
    world: World, start_postgres: Any
) -> None:
    server = await asyncio.to_thread(start_postgres, {"max_prepared_transactions": "0"})
    sqlite = await world.open(SQLITE)
    async with database_class(POSTGRES).create("bare", {"url": server.url}) as bare:
        assert "set max_prepared_transactions" in await refused([sqlite, bare])
        await sqlite.execute(TABLE)
        await bare.execute(TABLE)
        async with bare.transaction() as ctx:
            await ctx.fetch_val("SELECT 1")
        mysql = await world.open(MYSQL)
        await mysql.execute(TABLE)
        await unit([bare, mysql])()  # it can decide all the same
        assert await agreed([bare, mysql])


async def test_a_postgres_that_can_prepare_no_more_undoes_the_unit(
    world: World, start_postgres: Any
) -> None:
    server = await asyncio.to_thread(start_postgres, {"max_prepared_transactions": "1"})
    world.add(POSTGRES, server.url)
    databases = await world.open_all((SQLITE, POSTGRES))
    async with databases[1].pool.connection() as lease:
        await lease.connection.execute("BEGIN; INSERT INTO items VALUES (9, 'x')")
        await lease.connection.execute("PREPARE TRANSACTION 'somebody elses'")
        with pytest.raises(DatabaseError, match="maximum number of prepared transactions"):
            await unit(databases)()
        await lease.connection.execute("ROLLBACK PREPARED 'somebody elses'")
    assert not await agreed(databases)
    assert await prepared(databases) == []
    await unit(databases)()
    assert await agreed(databases)


async def test_a_postgres_that_takes_no_writes_is_refused(world: World) -> None:
    sqlite = await world.open(SQLITE)
    still = {"server_settings": {"default_transaction_read_only": "on"}}
    postgres = await world.open(POSTGRES, options=still)
    assert "the server takes no writes: connect to the primary" in await refused([sqlite, postgres])
    assert not (await decisions.place_of(postgres.pool)).writable


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"innodb-flush-log-at-trx-commit": "2"}, "innodb_flush_log_at_trx_commit is 2"),
        ({"innodb-flush-log-at-trx-commit": "0"}, "innodb_flush_log_at_trx_commit is 0"),
        ({"log-bin": "bin", "server-id": "7", "sync-binlog": "0"}, "sync_binlog is 0"),
    ],
    ids=["flush 2", "flush 0", "binlog"],
)
async def test_a_mysql_that_is_not_durable_is_refused_in_any_place(
    world: World, start_mysql: Any, settings: dict[str, str], told: str
) -> None:
    server = await asyncio.to_thread(start_mysql, settings)
    (postgres,) = await world.open_all((POSTGRES,))
    async with database_class(MYSQL).create("lax", {"url": server.url}) as lax:
        await lax.execute(TABLE)
        assert told in await refused([postgres, lax])
        assert told in await refused([lax, postgres])


@pytest.mark.parametrize("version", ["10.4.34-MariaDB", "8.0.40"])
async def test_a_version_whose_xa_transactions_may_be_lost_only_decides(
    world: World, mysql_server: Server, start_mysql: Any, version: str
) -> None:
    if mysql_server.kind != "mariadb":
        pytest.skip("only MariaDB can be made to name another version")
    server = await asyncio.to_thread(start_mysql, {"version": version})  # what it says that it is
    sqlite = await world.open(SQLITE)
    async with database_class(MYSQL).create("old", {"url": server.url}) as old:
        told = await refused([sqlite, old])
        assert f"XA transactions are not safe on version {version}" in told
        assert "MySQL from 8.4 and MariaDB from 10.5 on take part" in told
        await decisions.identify(old.pool)


async def test_a_server_that_takes_no_writes_neither_prepares_nor_recovers(
    world: World, start_mysql: Any
) -> None:
    """Checked by us: MySQL itself lets XA pass under super_read_only."""
    server = await asyncio.to_thread(start_mysql, {})
    (postgres,) = await world.open_all((POSTGRES,))
    async with database_class(MYSQL).create("still", {"url": server.url}) as still:
        await still.execute("SET GLOBAL read_only = 1")
        assert "the server is read-only" in await refused([postgres, still])
        place = await decisions.place_of(still.pool)
        assert not place.writable


async def test_without_the_privilege_to_list_mysql_is_refused(world: World) -> None:
    mysql = await world.open(MYSQL)
    if "MariaDB" in await mysql.fetch_val("SELECT VERSION()"):
        return  # where everybody may
    name = f"nobody_{new_id()[:8]}"
    parts = urlsplit((await world.settings(MYSQL))["url"])
    netloc = f"{name}:secret@{parts.hostname}:{parts.port}"
    url = parts._replace(netloc=netloc, path="/information_schema").geturl()  # open to everybody
    sqlite = await world.open(SQLITE)
    await mysql.execute(f"CREATE USER {name} IDENTIFIED BY 'secret'")
    try:
        async with database_class(MYSQL).create("nobody", {"url": url}) as nobody:
            assert "GRANT XA_RECOVER_ADMIN" in await refused([sqlite, nobody])
    finally:
        await mysql.execute(f"DROP USER {name}")


@pytest.mark.parametrize("order", ORDERS, ids="-".join)
async def test_a_decider_that_is_a_copy_is_refused_until_that_is_said(
    world: World, order: tuple[str, ...]
) -> None:
    databases = await world.open_all(order)
    await unit(databases, 0)()
    decider = databases[0]
    place = decider.pool.two_phase.place
    await decider.execute(f"UPDATE {place.prefix}jobu_db_identity SET fingerprint = 'another'")
    decider.pool.two_phase.identity = None  # as in another process
    assert "which was given to 'another', but is" in await refused(databases)
    told = await recover({one.name: one for one in databases})
    assert list(told.mismatches) == [decider.name]
    await decisions.confirm_identity(decider.pool, renew=True)
    await unit(databases)()
    assert await agreed(databases)


@pytest.mark.parametrize("order", ORDERS, ids="-".join)
async def test_a_decider_that_was_replaced_meanwhile_decides_nothing(
    world: World, order: tuple[str, ...]
) -> None:
    databases = await world.open_all(order)
    await unit(databases, 0)()
    decider = databases[0]
    place = decider.pool.two_phase.place
    await decider.execute(f"UPDATE {place.prefix}jobu_db_identity SET id = '{new_id()}'")
    with pytest.raises(TransactionError, match="not the one that was to decide"):
        await unit(databases)()
    assert not await agreed(databases)
    assert await rows_of_units(decider) == []
    await unit(databases)()  # who it is now is known by now
    assert await agreed(databases)
