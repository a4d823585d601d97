"""Reads from replicas of MariaDB and MySQL: each shows what its reader has committed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextvars import Context
from functools import partial
from typing import Any
from urllib.parse import urlsplit

import asyncmy
import pytest
from waiting import eventually

from jobu_db import ConnectionFailedError, ReadOnlyTransactionError, TransactionError
from jobu_db.testing.servers import Server, ServerError
from jobu_db.testing.servers.mysql import PrivateMySQL, find_programs, identify
from jobu_db_mysql import MySQLDatabase

pytestmark = [
    pytest.mark.usefixtures("start_mysql"),  # so that they are run where servers are private
    pytest.mark.xdist_group("replicas of MySQL"),
]

Open = Callable[..., Any]
PORT = "SELECT @@port"


class Cluster:
    """A primary, and two replicas that follow it."""

    def __init__(self, servers: list[PrivateMySQL]) -> None:
        self.primary, *self.replicas = servers
        self.mariadb = self.primary.kind == "mariadb"
        self.replica = "SLAVE" if self.mariadb else "REPLICA"  # the word, in its statements

    async def ask(self, server: PrivateMySQL, *statements: str) -> Any:
        parts = urlsplit(server.server().url)
        connection = await asyncmy.connect(
            host="127.0.0.1",
            port=server.port,
            user=parts.username,
            password=parts.password,
            autocommit=True,
        )
        try:
            async with connection.cursor() as cursor:
                for statement in statements:
                    await cursor.execute(statement)
                return await cursor.fetchall()
        finally:
            connection.close()

    async def make_whole(self) -> None:
        """Start what was killed, begin a new history, and have both replicas follow it."""
        reset = "RESET MASTER" if self.mariadb else "RESET BINARY LOGS AND GTIDS"
        for server in (self.primary, *self.replicas):
            try:
                _ = server.pid
            except ServerError:
                await asyncio.to_thread(server.start)
            await self.ask(
                server,
                f"STOP {self.replica}",
                f"RESET {self.replica} ALL",
                "SET GLOBAL read_only = OFF",
                "DROP DATABASE IF EXISTS jobu",
                reset,
                *(["SET GLOBAL gtid_slave_pos = ''"] if self.mariadb else []),
            )
        await self.ask(
            self.primary,
            "CREATE DATABASE jobu",
            "CREATE USER IF NOT EXISTS reader@'%' IDENTIFIED BY 'jobu_dev'",
            "GRANT ALL ON jobu.* TO reader@'%'",
        )
        for replica in self.replicas:
            await self.follow(replica, self.primary)
        await self.catch_up()

    async def follow(self, replica: PrivateMySQL, primary: PrivateMySQL, delay: int = 0) -> None:
        """Have one follow another server, so many seconds behind it."""
        login = "{0}_USER='jobu', {0}_PASSWORD='jobu_dev', {0}_CONNECT_RETRY=1"
        text = f"{{0}}_HOST='127.0.0.1', {{0}}_PORT={primary.port}, {{0}}_DELAY={delay}, {login}"
        if self.mariadb:
            follow = f"CHANGE MASTER TO {text}, {{0}}_USE_GTID=slave_pos".format("MASTER")
        else:
            follow = f"CHANGE REPLICATION SOURCE TO {text}, {{0}}_AUTO_POSITION=1".format("SOURCE")
            follow += ", GET_SOURCE_PUBLIC_KEY=1"
        await self.ask(
            replica,
            f"STOP {self.replica}",
            follow,
            f"START {self.replica}",
            "SET GLOBAL read_only = ON",
        )

    async def catch_up(self) -> None:
        """Wait until the replicas have all that the primary has written."""
        name, wait = "gtid_executed", "WAIT_FOR_EXECUTED_GTID_SET"
        if self.mariadb:
            name, wait = "gtid_binlog_pos", "MASTER_GTID_WAIT"
        ((written,),) = await self.ask(self.primary, f"SELECT @@global.{name}")
        for replica in self.replicas:
            assert await self.ask(replica, f"SELECT {wait}('{written}', 60)") == ((0,),)

    async def pause(self) -> None:
        for replica in self.replicas:
            await self.ask(replica, f"STOP {self.replica} SQL_THREAD")

    async def resume(self) -> None:
        for replica in self.replicas:
            await self.ask(replica, f"START {self.replica} SQL_THREAD")


@pytest.fixture(scope="module")
def servers(mysql_server: Server) -> Iterator[list[PrivateMySQL]]:
    """Three private servers of that kind, for all tests: MySQL takes seconds to start one."""
    (program,) = (one for one in find_programs() if identify(one)[0] == mysql_server.kind)
    settings = {"log-bin": "binlog", "log-slave-updates": "ON"}
    if mysql_server.kind == "mysql":
        settings |= {"gtid-mode": "ON", "enforce-gtid-consistency": "ON"}
    started: list[PrivateMySQL] = []
    try:
        for number in (1, 2, 3):
            started.append(PrivateMySQL(program, {**settings, "server-id": str(number)}))
        yield started
    finally:
        for server in started:
            server.close()


@pytest.fixture
async def cluster(servers: list[PrivateMySQL]) -> Cluster:
    cluster = Cluster(servers)
    await cluster.make_whole()
    return cluster


@pytest.fixture
def open_cluster(open_db: Any, cluster: Cluster) -> Open:
    """`await open_cluster(wait=…)`: a database with a table `numbers`, which all servers have.

    With `moves=True`, the primary is whichever server is one, and the others are its replicas.
    """

    async def open_cluster(*, moves: bool = False, **replicas: Any) -> MySQLDatabase:
        hosts = [f"127.0.0.1:{one.port}" for one in cluster.replicas]
        where: dict[str, Any] = {"host": "127.0.0.1", "port": cluster.primary.port}
        own: dict[str, Any] = {"hosts": hosts}
        if moves:
            where = {"hosts": [f"127.0.0.1:{cluster.primary.port}", *hosts]}
            where["target_session_attrs"] = "primary"
            own = {}
        db = await open_db(
            url=None,
            **where,
            user="reader",
            password="jobu_dev",
            database="jobu",
            # Generous, for a machine that is busy.
            connect_timeout=30.0,
            pool={"max_size": 5, "timeout": 60.0, "check_timeout": 30.0},
            replicas={**own, "max_lag": 60, **replicas},
        )
        await db.execute("CREATE TABLE IF NOT EXISTS numbers (n INT)")
        await cluster.catch_up()
        return db

    return open_cluster


def fallbacks(db: MySQLDatabase) -> dict[str, int]:
    figures: dict[str, int] = db.stats()["replicas"]["fallbacks"]
    return {reason: number for reason, number in figures.items() if number}


async def count(db: MySQLDatabase) -> int:
    return int(await db.replica.fetch_val("SELECT count(*) FROM numbers"))


async def test_own_writes_are_seen_in_whatever_way_they_were_committed(
    open_cluster: Open, cluster: Cluster
) -> None:
    db = await open_cluster(wait=0.05)
    replicas = {one.port for one in cluster.replicas}
    async with db.transaction(readonly=True, replica=True) as ctx:
        assert await ctx.fetch_val(PORT) in replicas
        with pytest.raises(ReadOnlyTransactionError):
            await ctx.execute("INSERT INTO numbers VALUES (0)")
    await cluster.pause()
    insert, rows = "INSERT INTO numbers VALUES (%s)", 0

    async def alone() -> None:
        await db.execute(insert, [1])

    async def in_a_block() -> None:
        async with db.transaction() as ctx:
            await ctx.execute(insert, [1])

    async def by_hand() -> None:
        async with db.transaction() as ctx:
            await ctx.execute(insert, [1])
            await ctx.commit()

    async def at_once() -> None:
        await db.executemany(insert, [[1]])

    async def by_a_fetch() -> None:
        if cluster.mariadb:
            assert await db.fetch_val("INSERT INTO numbers VALUES (1) RETURNING n") == 1
        else:
            await alone()

    async def on_the_connection() -> None:
        async with db.transaction() as ctx:
            cursor = ctx.connection.cursor()
            await cursor.execute(insert, (1,))
            await cursor.close()

    async def in_a_session() -> None:
        async with db.session() as session:
            await session.execute(insert, [1])

    async def implicitly() -> None:
        with pytest.raises(ZeroDivisionError):
            async with db.transaction() as ctx:
                await ctx.execute(insert, [1])
                with pytest.warns(RuntimeWarning, match="implicitly"):
                    await ctx.execute("CREATE TABLE IF NOT EXISTS others (n INT)")
                raise ZeroDivisionError

    async def on_the_connection_of_a_session() -> None:
        async with db.session() as session:
            await session.connection.query(insert % 1)

    for write in (
        *(alone, in_a_block, by_hand, at_once, by_a_fetch),
        *(on_the_connection, in_a_session, on_the_connection_of_a_session, implicitly, alone),
    ):

        async def seen(write: Callable[[], Any] = write) -> int:
            await write()
            return await count(db)

        rows += 1
        # What was written once would keep its family of tasks from the replicas.
        assert await _in_a_new_family(seen) == rows, write.__name__
    assert fallbacks(db) == {"behind": rows}
    await alone()
    rows += 1
    async with db.transaction() as ctx:
        await ctx.fetch_val("SELECT 1")
    await cluster.resume()
    token = await db.position()
    there = await open_cluster(wait=50)
    async with there.transaction(readonly=True, replica=token) as ctx:
        assert await ctx.fetch_val("SELECT count(*) FROM numbers") == rows
        assert await ctx.fetch_val(PORT) in replicas
    assert fallbacks(there) == {}
    with pytest.raises(TransactionError, match="not a position"):
        async with db.transaction(readonly=True, replica="hello"):
            pass


@pytest.mark.parametrize(
    ("wait", "answering"),
    [(0.02, "behind"), (50.0, "reads")],
    ids=["by the primary", "by a replica, two seconds later"],
)
async def test_own_writes_are_read_though_replicas_are_two_seconds_behind(
    open_cluster: Open, cluster: Cluster, wait: float, answering: str
) -> None:
    """A hundred writes, each followed by a read of its row."""
    tasks, pairs = 50, 2
    db = await open_cluster(wait=wait)
    for replica in cluster.replicas:
        await cluster.follow(replica, cluster.primary, delay=2)

    async def write_and_read(task: int) -> None:
        for n in range(task * pairs, (task + 1) * pairs):
            await db.execute("INSERT INTO numbers VALUES (%s)", [n])
            found = "SELECT count(*) FROM numbers WHERE n = %s"
            assert await db.replica.fetch_val(found, [n]) == 1, "a stale read"

    works = (_in_a_new_family(partial(write_and_read, n)) for n in range(tasks))
    await asyncio.gather(*works)
    figures = db.stats()["replicas"]
    counted = {"reads": figures["reads"], **figures["fallbacks"]}
    assert counted[answering] > tasks * pairs / 2, counted


async def test_servers_tell_positions_only_where_there_are_replicas(
    open_cluster: Open, open_db: Any, cluster: Cluster
) -> None:
    told, word = "SELECT @@session.session_track_gtids", "OWN_GTID"
    if cluster.mariadb:
        told, word = "SELECT @@session.session_track_system_variables", "last_gtid"
    assert word in await (await open_cluster()).fetch_val(told)
    assert word not in await (await open_db("without")).fetch_val(told)


async def test_reads_and_transactions_that_wrote_nothing_wait_for_nothing(
    open_cluster: Open, cluster: Cluster
) -> None:
    writer, reader = await open_cluster(), await open_cluster(wait=0.05)
    await count(reader)
    await cluster.pause()
    await writer.execute("INSERT INTO numbers VALUES (1)")
    assert await reader.fetch_val("SELECT count(*) FROM numbers") == 1
    async with reader.transaction() as ctx:
        assert await ctx.fetch_val("SELECT count(*) FROM numbers") == 1
    known = fallbacks(reader)
    assert await count(reader) == 0, "it has written nothing since the replicas were paused"
    assert fallbacks(reader) == known


async def test_the_replicas_themselves_wait_for_what_was_written(
    open_cluster: Open, cluster: Cluster
) -> None:
    db = await open_cluster(wait=50)
    await count(db)
    await cluster.pause()
    await db.execute("INSERT INTO numbers VALUES (1)")
    reading = asyncio.create_task(count(db))
    asked = (
        "SELECT count(*) FROM information_schema.processlist WHERE info LIKE 'SELECT MASTER_GTID%'"
        " OR info LIKE 'SELECT WAIT_FOR_EXECUTED_GTID_SET%'"
    )

    async def is_waited_for() -> bool:
        return all([(await cluster.ask(one, asked))[0][0] for one in cluster.replicas])

    await eventually(is_waited_for, 40)
    assert not reading.done()
    await cluster.resume()
    assert await reading == 1
    assert fallbacks(db) == {}


async def test_a_replica_that_is_lost_or_promoted_is_left_alone(
    open_cluster: Open, cluster: Cluster
) -> None:
    db = await open_cluster()
    lost, promoted = cluster.replicas
    await asyncio.to_thread(lost.kill)
    for _ in range(30):
        assert await db.replica.fetch_val(PORT) == promoted.port
    await cluster.ask(promoted, f"STOP {cluster.replica}", "SET GLOBAL read_only = OFF")
    host = f"127.0.0.1:{promoted.port}"

    def is_noticed() -> bool:
        return any(one["host"] == host and one["role"] == "primary" for one in db.stats()["hosts"])

    await eventually(is_noticed, 60)
    for _ in range(30):
        assert await db.replica.fetch_val(PORT) == cluster.primary.port
    assert fallbacks(db) == {"unavailable": 30}


async def test_what_a_failover_has_lost_keeps_no_replica_away(
    open_cluster: Open, cluster: Cluster
) -> None:
    """The new primary never has it, so that no replica of that one can come to have it."""
    db = await open_cluster(moves=True, max_lag=2, wait=0.05)
    promoted, other = cluster.replicas
    for replica in cluster.replicas:
        await cluster.ask(replica, f"STOP {cluster.replica}")
    await db.execute("INSERT INTO numbers VALUES (1)")
    await eventually(lambda: all(one["lag"] or one["fault"] for one in _replicas(db)), 60)
    await asyncio.to_thread(cluster.primary.kill)
    await cluster.ask(promoted, "SET GLOBAL read_only = OFF")
    await cluster.follow(other, promoted)
    host = f"127.0.0.1:{promoted.port}"

    def is_noticed() -> bool:
        return any(one["host"] == host and one["role"] == "primary" for one in db.stats()["hosts"])

    await eventually(is_noticed, 60)
    await _in_a_new_family(lambda: db.execute("INSERT INTO numbers VALUES (2)"))

    async def has_followed() -> bool:
        async with db.transaction(readonly=True, replica=True) as ctx:
            rows = await ctx.fetch_all("SELECT n FROM numbers")
            return [row["n"] for row in rows] == [2] and await ctx.fetch_val(PORT) == other.port

    until = asyncio.get_running_loop().time() + 3 * 2

    async def goes_on() -> None:
        """It does also when the time has passed after which one that is behind is left alone."""
        await eventually(has_followed, 60)
        while asyncio.get_running_loop().time() < until:
            assert await has_followed(), db.stats()
            await asyncio.sleep(0.1)

    await _in_a_new_family(goes_on)
    if cluster.mariadb:
        return  # its numbers go on where those of the lost ones began
    before = fallbacks(db)
    assert await db.replica.fetch_val(PORT) == promoted.port, "it wrote what is lost"
    after = fallbacks(db)
    assert after.pop("behind") == before.pop("behind", 0) + 1
    assert after == before


async def _in_a_new_family(work: Callable[[], Any]) -> Any:
    """Run where nothing of this database was used before."""
    return await asyncio.get_running_loop().create_task(work(), context=Context())


async def test_reads_go_on_as_servers_die_before_anything_was_read(
    open_cluster: Open, cluster: Cluster
) -> None:
    """First the primary, then one replica after the other, while the event loop, which would
    notice, stands still; at last there is nobody left."""
    db = await open_cluster(fallback="error", wait=30)
    async with db.transaction() as ctx:
        await ctx.execute("INSERT INTO numbers VALUES (1)")
    assert await count(db) == 1
    assert db._replicas is not None
    pools = [each.pool for each in db._replicas._replicas]

    async def all_connect() -> bool:
        await asyncio.gather(*(db.replica.fetch_val(PORT) for _ in range(8)))
        return all(one.size > 1 for one in pools)

    async def have_idle_connections() -> None:
        await eventually(all_connect, 60)
        await eventually(lambda: all(one.available == one.config.max_size for one in pools), 60)

    await have_idle_connections()
    await asyncio.to_thread(cluster.primary.kill)
    ports = {one.port: one for one in cluster.replicas}
    async with db.transaction(readonly=True, replica=True) as ctx:
        doomed = ports.pop(int(ctx._root.session.pool.name.rpartition(":")[2]))
        doomed.kill()
        assert await ctx.fetch_val(PORT) in ports
        assert await ctx.fetch_val("SELECT count(*) FROM numbers") == 1
    assert doomed.port not in ports
    await asyncio.to_thread(doomed.start)
    await cluster.ask(doomed, "SET GLOBAL read_only = ON")
    await eventually(lambda: all(not one["fault"] for one in _replicas(db)), 60)
    await have_idle_connections()
    (last,) = ports.values()
    last.kill()
    assert set(await asyncio.gather(*(count(db) for _ in range(8)))) == {1}
    assert await db.replica.fetch_val(PORT) == doomed.port
    doomed.kill()
    with pytest.raises(ConnectionFailedError, match="no replica can be used") as caught:
        await count(db)
    assert caught.value.retryable
    assert all(one.busy == 0 for one in pools), "what was lent is back"


def _replicas(db: MySQLDatabase) -> list[Any]:
    """The figures of the replicas; the primary is first."""
    return list(db.stats()["hosts"][1:])
