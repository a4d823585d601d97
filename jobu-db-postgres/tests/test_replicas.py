"""Reads from standbys: each shows what its reader has committed, or goes elsewhere."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import pytest

from jobu_db import (
    ConnectionFailedError,
    ConnectionPoolExhaustedError,
    DatabaseRegistry,
    ReadOnlyTransactionError,
    SQLSyntaxError,
    TransactionError,
    get_connection,
    transactional,
    transactional_readonly,
)
from jobu_db.events import events
from jobu_db.plugins import hookimpl
from jobu_db.testing.proxy import TcpProxy
from jobu_db.testing.servers import Server
from jobu_db.testing.servers.postgres import PrivatePostgres, PrivateStandby
from jobu_db_postgres import PostgresDatabase

pytestmark = pytest.mark.one_server

Cluster = tuple[PrivatePostgres, list[PrivateStandby]]
Open = Callable[..., Any]
PORT = "SELECT inet_server_port()"


@pytest.fixture
def cluster(start_postgres: Callable[..., Server]) -> Iterator[Cluster]:
    """A primary with two standbys."""
    primary = start_postgres().control
    assert isinstance(primary, PrivatePostgres)
    standbys: list[PrivateStandby] = []
    try:
        for _ in range(2):
            standbys.append(PrivateStandby(primary))
        yield primary, standbys
    finally:
        for standby in standbys:
            standby.close()


@pytest.fixture
def open_cluster(open_db: Any, cluster: Cluster, eventually: Any) -> Open:
    """`await open_cluster(wait=…)`: a database with a table `numbers`, which all servers have."""
    primary, standbys = cluster
    parts = urlsplit(primary.server().url)

    async def open_cluster(hosts: list[int] | None = None, **replicas: Any) -> PostgresDatabase:
        where: dict[str, Any] = {"host": "127.0.0.1", "port": primary.port}
        own = {"hosts": [f"127.0.0.1:{one.port}" for one in standbys]}
        if hosts is not None:
            where = {"hosts": [f"127.0.0.1:{port}" for port in hosts]}
            where["target_session_attrs"] = "primary"
            own = {}
        db = await open_db(
            url=None,
            **where,
            user=parts.username,
            password=parts.password,
            database=parts.path[1:],
            # Generous, for a machine that is busy: a server that is gone is noticed all the same.
            connect_timeout=30.0,
            pool={"max_size": 5, "timeout": 60.0, "check_timeout": 30.0},
            replicas={**own, "max_lag": 60, **replicas},
        )
        await db.execute("CREATE TABLE IF NOT EXISTS numbers (n int)")
        token = await db.position()
        for standby in standbys:
            await eventually(lambda one=standby: _has_replayed(one, token), 30)
        # What it knows of them may be a second old, and one that is not known to have what this
        # task has written is passed over.
        for watch in _watches(db):
            await watch.next_look()
        return db

    return open_cluster


async def _ask(server: PrivatePostgres, sql: str) -> Any:
    connection = await asyncpg.connect(server.server().url)
    try:
        return await connection.fetchval(sql)
    finally:
        await connection.close()


async def _has_replayed(standby: PrivateStandby, token: str) -> bool:
    _, _, high, low = token.split("/")
    return bool(await _ask(standby, f"SELECT pg_last_wal_replay_lsn() >= '{high}/{low}'"))


async def pause(standbys: list[PrivateStandby]) -> None:
    """From here on, they receive what is written, and do not show it."""
    for standby in standbys:
        await _ask(standby, "SELECT pg_wal_replay_pause()")


async def resume(standbys: list[PrivateStandby]) -> None:
    for standby in standbys:
        await _ask(standby, "SELECT pg_wal_replay_resume()")


def fallbacks(db: PostgresDatabase) -> dict[str, int]:
    figures: dict[str, int] = db.stats()["replicas"]["fallbacks"]
    return {reason: number for reason, number in figures.items() if number}


def faults(db: PostgresDatabase, standby: PrivateStandby) -> str:
    (fault,) = (
        each["fault"] for each in db.stats()["hosts"] if each["host"].endswith(f":{standby.port}")
    )
    return str(fault)


async def count(db: PostgresDatabase) -> int:
    return int(await db.replica.fetch_val("SELECT count(*) FROM numbers"))


async def test_who_asks_for_a_replica_gets_one_and_nobody_else(
    open_cluster: Open, cluster: Cluster
) -> None:
    primary, standbys = cluster
    replicas = {one.port for one in standbys}
    db = await open_cluster()
    assert await db.replica.fetch_val(PORT) in replicas
    assert await db.replica.fetch_all("SELECT $1::int AS n", 7) == [(7,)]
    assert await db.replica.fetch_one("SELECT :n::int AS n", {"n": 7}) == (7,)
    async with db.transaction(readonly=True, replica=True) as ctx:
        one = await ctx.fetch_val(PORT)
        async with db.transaction(readonly=True, replica=True, independent=True) as other:
            assert {one, await other.fetch_val(PORT)} == replicas, "the least busy one"
        assert get_connection("main") is ctx
        assert await db.fetch_val(PORT) == await db.replica.fetch_val(PORT) == one
        with pytest.raises(ReadOnlyTransactionError):
            async with db.transaction(readonly=True) as inner:
                await inner.execute("INSERT INTO numbers VALUES (1)")
        assert await ctx.fetch_val(PORT) == one
    with pytest.raises(TransactionError, match="read-only"):
        async with db.transaction(readonly=True, replica=True), db.transaction():
            pass
    for plain in (db.transaction(readonly=True), db.transaction()):
        async with plain as ctx:
            assert await ctx.fetch_val(PORT) == primary.port
    async with db.transaction() as ctx:
        await ctx.execute("INSERT INTO numbers VALUES (1)")
        async with db.transaction(readonly=True, replica=True) as inner:
            assert await inner.fetch_val("SELECT count(*) FROM numbers") == 1
        assert await count(db) == 1, "the block's own transaction is used"
    with pytest.raises(TransactionError, match="readonly=True"):
        db.transaction(replica=True)
    with pytest.raises(TransactionError, match="not a position"):
        async with db.transaction(readonly=True, replica="7712/1"):
            pass
    figures = {each["host"]: each for each in db.stats()["hosts"]}
    assert figures[f"127.0.0.1:{primary.port}"]["role"] == "primary"
    for port in replicas:
        figure = figures[f"127.0.0.1:{port}"]
        assert figure["role"] == "standby"
        assert figure["fault"] == ""
        assert figure["connections"] >= 1
    assert fallbacks(db) == {}


async def test_decorated_functions_read_from_replicas(
    open_cluster: Open, open_db: Any, cluster: Cluster
) -> None:
    db = await open_cluster()
    replicas = {one.port for one in cluster[1]}

    @transactional_readonly(db, replica=True)
    async def where() -> int:
        return int(await get_connection("main").fetch_val(PORT))

    @transactional(db, readonly=True, replica=True, retries=2)
    async def again() -> int:
        return int(await get_connection("main").fetch_val(PORT))

    assert await where() in replicas
    assert await again() in replicas
    other = await open_db("other")

    @transactional_readonly(db, other, replica=True)
    async def both() -> tuple[int, int]:
        first, second = get_connection("main"), get_connection("other")
        return await first.fetch_val(PORT), await second.fetch_val("SELECT 7")

    port, seven = await both()
    assert (port in replicas, seven) == (True, 7), "without replicas, the primary answers"
    assert await other.replica.fetch_val("SELECT 7") == 7
    assert await other.position() != ""


async def test_own_writes_are_seen_however_far_behind_the_replicas_are(
    open_cluster: Open, cluster: Cluster
) -> None:
    db = await open_cluster(wait=0.05)

    async def writes_nothing() -> tuple[int, int]:
        await begun.wait()
        return await count(db), await db.replica.fetch_val(PORT)

    begun, before = asyncio.Event(), await count(db)
    with_own_positions = asyncio.create_task(_in_a_new_family(writes_nothing))
    await pause(cluster[1])
    for number in range(1, 41):
        if number % 2:
            await db.execute("INSERT INTO numbers VALUES ($1)", number)
        else:
            async with db.transaction() as ctx:
                await ctx.execute("INSERT INTO numbers VALUES ($1)", number)
        assert await count(db) == before + number
    assert fallbacks(db) == {"behind": 40}
    begun.set()
    rows, port = await with_own_positions
    assert port != cluster[0].port, "others are not held back"
    assert rows == before
    await resume(cluster[1])
    token = await db.position()
    there = await open_cluster(wait=50)
    async with there.transaction(readonly=True, replica=token) as ctx:
        assert await ctx.fetch_val("SELECT count(*) FROM numbers") == before + 40
        assert await ctx.fetch_val(PORT) != cluster[0].port
    assert fallbacks(there) == {}


async def _in_a_new_family(work: Callable[[], Any]) -> Any:
    """Run where nothing of this database was used before."""
    import contextvars

    loop = asyncio.get_running_loop()
    return await loop.create_task(work(), context=contextvars.Context())


async def test_a_token_holds_for_whoever_has_it(open_cluster: Open, cluster: Cluster) -> None:
    writer, reader = await open_cluster(), await open_cluster(wait=0.05)
    await pause(cluster[1])
    await writer.execute("INSERT INTO numbers VALUES (1)")
    token = await writer.position()
    assert await count(reader) == 0, "it knows nothing of the other's writes"
    async with reader.transaction(readonly=True, replica=token) as ctx:
        assert await ctx.fetch_val("SELECT count(*) FROM numbers") == 1
    assert fallbacks(reader) == {"behind": 1}


async def test_tasks_see_what_their_children_have_written(
    open_cluster: Open, cluster: Cluster
) -> None:
    """Each in a family of tasks of its own: the first write keeps its family from the replicas."""
    db = await open_cluster(wait=0.01)
    await pause(cluster[1])

    async def write() -> None:
        async with db.transaction() as ctx:
            await ctx.execute("INSERT INTO numbers VALUES (1)")

    async def a_task() -> int:
        await count(db)
        await asyncio.create_task(write())
        return await count(db)

    async def several_and_read_by_another() -> int:
        await count(db)
        await asyncio.gather(write(), write())
        return await asyncio.create_task(count(db))

    async def with_a_limit() -> int:
        await count(db)
        await asyncio.wait_for(write(), 30)
        return await asyncio.wait_for(count(db), 30)

    async def at_first_use() -> int:
        await asyncio.wait_for(db.execute("INSERT INTO numbers VALUES (1)"), 30)
        return await count(db)

    async def in_a_session() -> int:
        async with db.session() as session:
            await asyncio.create_task(session.execute("INSERT INTO numbers VALUES (1)"))
        return await count(db)

    assert await _in_a_new_family(a_task) == 1
    assert await _in_a_new_family(several_and_read_by_another) == 3
    assert await _in_a_new_family(with_a_limit) == 4
    assert await _in_a_new_family(at_first_use) == 5
    assert await _in_a_new_family(in_a_session) == 6


async def test_what_was_committed_in_other_ways_is_asked_for(
    open_cluster: Open, cluster: Cluster
) -> None:
    """Each in a family of tasks of its own: the first write keeps its family from the replicas."""
    db = await open_cluster(wait=0.01)
    await pause(cluster[1])
    insert = "INSERT INTO numbers VALUES (1)"

    async def alone() -> None:
        await db.execute(insert)

    async def in_a_block() -> None:
        async with db.transaction() as ctx:
            await ctx.execute(insert)

    async def in_a_session() -> None:
        async with db.session() as session:
            await session.execute(insert)

    async def in_a_transaction_of_a_session() -> None:
        async with db.session() as session, session.transaction() as ctx:
            await ctx.execute(insert)

    async def by_text() -> None:
        with pytest.raises(TransactionError, match="COMMIT"):
            async with db.transaction() as ctx:
                await ctx.execute(insert)
                await ctx.execute("COMMIT")

    async def on_the_connection() -> None:
        async with db.transaction() as ctx:
            await ctx.connection.execute(insert)

    async def by_hand() -> None:
        async with db.transaction() as ctx:
            await ctx.execute(insert)
            await ctx.commit()
            assert await db.pool.driver.replication.look(_connection(ctx))  # the block goes on

    async def at_once() -> None:
        await db.executemany("INSERT INTO numbers VALUES ($1)", [(1,)])

    async def on_the_connection_of_a_session() -> None:
        async with db.session() as session:
            await session.connection.execute(insert)

    rows = 0
    for write in (
        *(alone, in_a_block, in_a_session, in_a_transaction_of_a_session, by_text),
        *(on_the_connection, by_hand, at_once, on_the_connection_of_a_session),
    ):

        async def seen(write: Callable[[], Any] = write) -> int:
            await write()
            return await count(db)

        rows += 1
        assert await _in_a_new_family(seen) == rows, write.__name__
    assert fallbacks(db) == {"behind": rows}

    async def while_the_session_goes_on() -> list[int]:
        async with db.session() as session:
            connection, found = session.connection, []
            for _ in range(2):
                await connection.execute(insert)
                found.append(await count(db))
            return found

    assert await _in_a_new_family(while_the_session_goes_on) == [rows + 1, rows + 2]


async def test_a_primary_that_falls_silent_before_it_tells_a_position_is_not_waited_for(
    open_db: Any, cluster: Cluster
) -> None:
    primary, standbys = cluster
    parts = urlsplit(primary.server().url)
    async with TcpProxy("127.0.0.1", primary.port) as proxy:
        db = await open_db(
            url=parts._replace(netloc=f"{parts.username}@{proxy.host}:{proxy.port}").geturl(),
            password=parts.password,
            pool={"commit_timeout": 1.0, "commit_limit": 30.0, "check_timeout": 1.0},
            replicas={"hosts": [f"127.0.0.1:{one.port}" for one in standbys]},
        )
        await db.execute("CREATE TABLE numbers (n int)")
        proxy.stall_at(b"pg_current_wal_insert_lsn", answered=False)
        async with asyncio.timeout(60):
            await db.execute("INSERT INTO numbers VALUES (1)")
        assert proxy.has_sprung, "the fault did not happen: this tested nothing"
        proxy.resume()
        assert await db.fetch_val("SELECT count(*) FROM numbers") == 1


def _connection(ctx: Any) -> Any:
    return ctx._root.session.connection


async def _flush_seldom(primary: PrivatePostgres) -> None:
    """From here on, only who commits flushes the log; else it is done every ten seconds."""
    await _ask(primary, "ALTER SYSTEM SET wal_writer_delay = '10s'")
    await _ask(primary, "SELECT pg_reload_conf()")


@pytest.mark.parametrize("setting", ["SET LOCAL", "SET"])
async def test_asynchronous_commits_are_seen_before_they_are_flushed(
    open_cluster: Open, cluster: Cluster, eventually: Any, setting: str
) -> None:
    """The standbys have all that is flushed: that position would tell them from nobody."""
    primary, standbys = cluster
    db = await open_cluster(wait=0.01)
    await _flush_seldom(primary)
    for number in range(1, 21):
        flushed = await _ask(primary, "SELECT pg_current_wal_flush_lsn()::text")
        for standby in standbys:
            await eventually(lambda one=standby, at=flushed: _has_replayed(one, f"//{at}"), 30)
        for watch in _watches(db):
            await watch.next_look()
        async with db.transaction() as ctx:
            await ctx.execute(f"{setting} synchronous_commit = off")
            await ctx.execute("INSERT INTO numbers VALUES ($1)", number)
        assert await count(db) == number
    assert fallbacks(db)["behind"] > 0, "each was flushed before it was read: this tested nothing"


async def test_other_commits_wait_for_nothing_that_others_have_not_flushed(
    open_cluster: Open, cluster: Cluster
) -> None:
    """No standby gets it before somebody flushes it, which may take longer than a read waits."""
    primary, _ = cluster
    db = await open_cluster(wait=5)
    await _flush_seldom(primary)
    other, unflushed = await asyncpg.connect(primary.server().url), 0
    try:
        await other.execute("BEGIN")
        for _ in range(10):
            await other.execute("INSERT INTO numbers VALUES (1)")
            # A COMMIT of what wrote nothing flushes nothing either.
            async with db.transaction() as ctx:
                await ctx.fetch_val("SELECT 1")
            unflushed += await _ask(
                primary, "SELECT (pg_current_wal_insert_lsn() > pg_current_wal_flush_lsn())::int"
            )
            assert await count(db) == 0
            assert fallbacks(db) == {}
    finally:
        await other.close()
    assert unflushed > 0, "all was flushed: this tested nothing"


async def test_positions_are_asked_for_only_where_there_are_replicas(
    open_db: Any, proxied_url: str, proxy: TcpProxy
) -> None:
    """Where there are, a test above finds the same words in what is sent."""
    insert = "INSERT INTO numbers VALUES ($1)"
    for reset in ("always", "never"):
        db = await open_db(reset, url=proxied_url, pool={"reset": reset})
        await db.execute("CREATE TABLE IF NOT EXISTS numbers (n int)")
        proxy.cut_at(b"pg_current_wal", answered=False)
        await db.execute(insert, 1)
        await db.executemany(insert, [(1,), (2,)])
        async with db.transaction() as ctx:
            await ctx.execute(insert, 1)
            await ctx.commit()
            await ctx.begin()
            await ctx.connection.execute(insert, 1)
        async with db.session() as session:
            await session.execute(insert, 1)
            async with session.transaction() as ctx:
                await ctx.execute(insert, 1)
        assert await db.replica.fetch_val("SELECT count(*) FROM numbers") > 0
        assert not proxy.has_sprung
        proxy.disarm()


async def test_reads_go_on_while_the_primary_is_away(
    open_cluster: Open, cluster: Cluster, eventually: Any
) -> None:
    primary, standbys = cluster
    db = await open_cluster(max_lag=2, wait=30)
    async with db.transaction() as ctx:
        await ctx.execute("INSERT INTO numbers VALUES (1)")
    assert await count(db) == 1
    await asyncio.to_thread(primary.kill)
    host = f"127.0.0.1:{primary.port}"
    await eventually(lambda: _role(db, host) is None, 30)
    until = asyncio.get_running_loop().time() + 4.0
    while asyncio.get_running_loop().time() < until:
        assert await count(db) == 1
        assert await db.replica.fetch_val(PORT) in {one.port for one in standbys}
    assert fallbacks(db) == {}


async def test_replicas_do_not_get_further_behind_while_the_primary_is_away(
    open_cluster: Open, cluster: Cluster, eventually: Any
) -> None:
    primary, standbys = cluster
    db = await open_cluster()
    await pause(standbys)
    await _ask(primary, "CREATE TABLE written_by_others (n int)")
    await eventually(lambda: all(_lag(db, one) for one in standbys), 30)
    await asyncio.to_thread(primary.kill)
    await eventually(lambda: _role(db, f"127.0.0.1:{primary.port}") is None, 30)
    known = [_lag(db, one) for one in standbys]
    # In that time, they are asked several times, and tell of a longer time each time.
    await asyncio.sleep(3)
    assert [_lag(db, one) for one in standbys] == known
    assert await db.replica.fetch_val(PORT) in {one.port for one in standbys}


def _lag(db: PostgresDatabase, server: PrivatePostgres) -> float | None:
    host = f"127.0.0.1:{server.port}"
    return next(each["lag"] for each in db.stats()["hosts"] if each["host"] == host)


def _role(db: PostgresDatabase, host: str) -> str | None:
    return next(each["role"] for each in db.stats()["hosts"] if each["host"] == host)


async def test_a_replica_that_is_lost_is_left_alone_until_it_is_well(
    open_cluster: Open, cluster: Cluster, eventually: Any
) -> None:
    primary, (first, second) = cluster
    db = await open_cluster()
    changes: list[tuple[str, str | None, str | None]] = []

    class Listener:
        @hookimpl
        def jobu_db_host_changed(self, host: str, role: str | None, before: str | None) -> None:
            changes.append((host, role, before))

    listener = Listener()
    events.register(listener)
    try:
        await asyncio.to_thread(first.kill)
        for _ in range(50):
            assert await db.replica.fetch_val(PORT) == second.port
        await asyncio.to_thread(second.kill)
        for _ in range(50):
            assert await db.replica.fetch_val(PORT) == primary.port
        await eventually(lambda: len(changes) == 2, 30)
        assert fallbacks(db) == {"unavailable": 50}
        await asyncio.to_thread(first.start)
        await eventually(lambda: not faults(db, first), 60)
        assert await db.replica.fetch_val(PORT) == first.port
        await asyncio.to_thread(second.start)
        await eventually(lambda: not faults(db, second), 60)
    finally:
        events.unregister(listener)
    for standby in (first, second):
        host = f"127.0.0.1:{standby.port}"
        told = [each for each in changes if each[0] == host]
        assert told == [(host, None, "standby"), (host, "standby", None)]


async def _by_fetching(ctx: Any) -> Any:
    return await ctx.fetch_val(PORT)


async def _by_iterating(ctx: Any) -> Any:
    return (await anext(ctx.iterate(PORT)))[0]


async def _by_the_driver(ctx: Any) -> Any:
    return await ctx.connection.fetchval(PORT)


async def test_a_replica_that_dies_before_anything_was_read_costs_no_error(
    open_cluster: Open, cluster: Cluster, eventually: Any
) -> None:
    """The event loop, which would notice, stands still while the server dies."""
    primary, (first, second) = cluster
    ports = {one.port: one for one in (first, second)}
    db = await open_cluster(wait=50)  # one that was just started has to catch up

    async def nested(ctx: Any) -> Any:
        async with db.transaction(readonly=True) as inner:
            return await inner.fetch_val(PORT)

    for use in (_by_fetching, _by_iterating, _by_the_driver, nested):
        before = db.stats()["replicas"]
        async with db.transaction(readonly=True, replica=True) as ctx:
            doomed = ports[int(ctx._root.session.pool.name.rpartition(":")[2])]
            doomed.kill()
            other = await use(ctx)
            assert other in ports.keys() - {doomed.port}, use.__name__
            assert await ctx.fetch_val(PORT) == other
        assert db.stats()["replicas"] == {**before, "reads": before["reads"] + 1}
        await asyncio.to_thread(doomed.start)
        await eventually(lambda one=doomed: not faults(db, one), 60)
        await _have_idle_connections(db, eventually)  # the first one was new
    for doomed, then in ((first, second), (second, primary)):
        doomed.kill()
        answers = await asyncio.gather(*(db.replica.fetch_val(PORT) for _ in range(8)))
        assert set(answers) == {then.port}
    assert fallbacks(db) == {"unavailable": 8}
    for pool in _replica_pools(db):
        assert pool.busy == 0, "what was lent is back"


async def _have_idle_connections(db: PostgresDatabase, eventually: Any) -> None:
    """Several to each replica, with nothing under way on them."""
    pools = _replica_pools(db)

    async def has_them() -> bool:
        await asyncio.gather(*(db.replica.fetch_val(PORT) for _ in range(8)))
        return all(pool.size > 1 for pool in pools)

    await eventually(has_them, 60)  # a server that came back is tried again after a while
    await eventually(lambda: all(pool.available == pool.config.max_size for pool in pools), 60)


def _replica_pools(db: PostgresDatabase) -> list[Any]:
    assert db._replicas is not None
    return [each.pool for each in db._replicas._replicas]


async def test_busy_replicas_are_waited_for_and_the_primary_does_not_take_over(
    open_cluster: Open, cluster: Cluster
) -> None:
    _, standbys = cluster
    # In that time, a connection is opened even where the machine is busy.
    db = await open_cluster(wait=30, pool={"max_size": 1, "timeout": 5.0})
    async with contextlib.AsyncExitStack() as blocks:
        for _ in standbys:
            # Independent: else the second would be in the first one's transaction.
            block = db.transaction(readonly=True, replica=True, independent=True)
            await (await blocks.enter_async_context(block)).fetch_val("SELECT 1")
        # Another task: this one, which holds them all, would be told at once.
        with pytest.raises(ConnectionPoolExhaustedError, match="@127"):
            await _in_a_new_family(lambda: db.replica.fetch_val("SELECT 1"))
    assert fallbacks(db) == {}
    assert await db.replica.fetch_val(PORT) in {one.port for one in standbys}


async def test_each_server_is_watched_over_one_connection_whoever_waits(
    open_cluster: Open, cluster: Cluster, eventually: Any
) -> None:
    primary, standbys = cluster
    db = await open_cluster(wait=60)
    await pause(standbys)

    async def write_and_read() -> int:
        await db.execute("INSERT INTO numbers VALUES (1)")
        return await count(db)

    sessions = (
        "SELECT count(*) FROM pg_stat_activity"
        " WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
    )

    async def each_has_one_beside_its_pool() -> bool:
        figures = {each["host"]: each["connections"] for each in db.stats()["hosts"]}
        return all(
            [
                await _ask(one, sessions) == figures[f"127.0.0.1:{one.port}"] + 1
                for one in (primary, *standbys)
            ]
        )

    for _ in range(2):
        reads = [asyncio.create_task(_in_a_new_family(write_and_read)) for _ in range(30)]
        await eventually(lambda: all(len(one._waiting) >= 30 for one in _watches(db)[1:]), 60)
        assert len(_watching()) == 3
        await eventually(each_has_one_beside_its_pool, 60)
        await resume(standbys)
        assert min(await asyncio.gather(*reads)) > 0
        for pool in (db.pool, *_replica_pools(db)):
            pool.resize(max_size=3)
            pool.drain()
        assert len(_watching()) == 3
        await eventually(each_has_one_beside_its_pool, 60)
        await pause(standbys)
    assert fallbacks(db) == {}


def _watching() -> list[asyncio.Task[Any]]:
    return [one for one in asyncio.all_tasks() if one.get_name().startswith("jobu-db main:")]


def _watches(db: PostgresDatabase) -> list[Any]:
    """That of the primary first."""
    assert db._replicas is not None
    return list(db._replicas._watches.values())


async def test_without_a_fallback_it_is_an_error_that_may_pass(
    open_cluster: Open, cluster: Cluster
) -> None:
    db = await open_cluster(wait=0.05, fallback="error")
    await pause(cluster[1])
    await db.execute("INSERT INTO numbers VALUES (1)")
    with pytest.raises(ConnectionFailedError, match=r"within 0\.05 s.*fallback is error") as caught:
        await count(db)
    assert caught.value.retryable
    assert caught.value.transient
    await resume(cluster[1])
    for standby in cluster[1]:
        await asyncio.to_thread(standby.kill)
    with pytest.raises(ConnectionFailedError, match="no replica can be used"):
        for _ in range(3):  # each may find one of them that was not missed yet
            await db.replica.fetch_val(PORT)


async def test_a_replica_that_lags_is_left_alone_until_it_has_caught_up(
    open_cluster: Open, cluster: Cluster, eventually: Any
) -> None:
    db = await open_cluster(max_lag=3)
    lagging, other = cluster[1]
    await pause([lagging])
    await _ask(cluster[0], "CREATE TABLE written_by_others (n int)")
    await eventually(lambda: "behind" in faults(db, lagging), 30)
    for _ in range(20):
        assert await db.replica.fetch_val(PORT) == other.port
    await resume([lagging])
    await eventually(lambda: not faults(db, lagging), 30)
    assert fallbacks(db) == {}


async def test_after_a_promotion_the_roles_are_others(
    open_cluster: Open, cluster: Cluster, eventually: Any
) -> None:
    """The replicas are those of the hosts that are standbys; a token of the former timeline is
    no proof of anything on the new one."""
    primary, (promoted, other) = cluster
    ports = [primary.port, promoted.port, other.port]
    db = await open_cluster(hosts=ports, wait=0.2)
    is_over = asyncio.Event()

    async def has_written_before() -> None:
        """It writes no more: reading on the new primary once is enough to be free of the past."""
        await db.execute("INSERT INTO numbers VALUES (1)")
        await is_over.wait()
        assert await db.replica.fetch_val(PORT) == promoted.port

        async def is_free() -> bool:
            return bool(await db.replica.fetch_val(PORT) == other.port)

        await eventually(is_free, 30)

    writer = asyncio.create_task(_in_a_new_family(has_written_before))
    await db.execute("INSERT INTO numbers VALUES (1)")
    token = await db.position()
    await eventually(lambda: _has_replayed(promoted, token), 30)
    assert await db.replica.fetch_val(PORT) in (promoted.port, other.port)
    await asyncio.to_thread(primary.kill)
    await _ask(promoted, "SELECT pg_promote()")
    await _ask(other, f"ALTER SYSTEM SET primary_conninfo = '{promoted.server().url}'")
    await asyncio.to_thread(other.stop)
    other.settings["primary_conninfo"] = promoted.server().url
    await asyncio.to_thread(other.start)
    host = f"127.0.0.1:{promoted.port}"
    await eventually(lambda: _role(db, host) == "primary", 30)
    await db.execute("INSERT INTO numbers VALUES (2)")
    await eventually(lambda: not faults(db, other), 60)

    async def on_the_new_timeline() -> bool:
        async with db.transaction(readonly=True, replica=True) as ctx:
            assert await ctx.fetch_val("SELECT count(*) FROM numbers") == 3
            return bool(await ctx.fetch_val(PORT) == other.port)

    await eventually(on_the_new_timeline, 60)
    # Nor do positions of the former timeline, which it never reaches, make it seem to be behind.
    await eventually(lambda: _lag(db, other) == 0.0, 30)
    known = fallbacks(db).get("timeline", 0)
    async with db.transaction(readonly=True, replica=token) as ctx:
        assert await ctx.fetch_val("SELECT count(*) FROM numbers") == 3
        assert await ctx.fetch_val(PORT) == promoted.port
    assert fallbacks(db)["timeline"] == known + 1
    is_over.set()
    await writer
    assert fallbacks(db)["timeline"] == known + 2
    (figure,) = (each for each in db.stats()["hosts"] if each["host"] == host)
    assert figure["last_failover"] is not None


async def test_a_database_that_is_closed_leaves_no_task(
    open_cluster: Open, open_db: Any, cluster: Cluster, tmp_path: Path
) -> None:
    script = tmp_path / "init.sql"
    script.write_text("CREATE TABEL misspelt ()")
    settings = {"url": cluster[0].server().url, "replicas": {"hosts": ["127.0.0.1:1"]}}
    with pytest.raises(SQLSyntaxError):
        await open_db(**settings, init_sql=str(script))
    db = await open_cluster()
    assert await db.replica.fetch_val("SELECT 1") == 1
    watching = _watching()
    assert len(watching) == 3
    await db.close()
    assert not [one for one in watching if not one.done()]
    assert DatabaseRegistry.get_all() == {}
