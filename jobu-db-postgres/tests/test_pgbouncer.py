"""Behind a real PgBouncer in transaction mode, with the settings that the documentation gives."""

from __future__ import annotations

import asyncio
import shutil
import socket
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import suppress
from time import monotonic
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest

from jobu_db import (
    ConnectionFailedError,
    DatabaseError,
    ForeignKeyViolationError,
    QueryTimeoutError,
    ReadOnlyTransactionError,
    TransactionError,
    UniqueViolationError,
)
from jobu_db.testing.servers import Server, debian
from jobu_db.testing.servers.private import PrivateServer
from jobu_db_postgres import PostgresDatabase

pytestmark = pytest.mark.xdist_group("pgbouncer")

DOCUMENTED: dict[str, Any] = {
    "pool": {"max_size": 8, "timeout": 10.0, "reset": "never"},
    "options": {"statement_cache_size": 0, "timezone": "UTC", "application_name": "jobs"},
}

INI = """
[databases]
* = host={host} port={port}
[pgbouncer]
pool_mode = transaction
default_pool_size = 2
max_client_conn = 100
listen_addr = 127.0.0.1
listen_port = {own_port}
unix_socket_dir =
auth_type = scram-sha-256
auth_file = {folder}/users
"""


def program() -> str:
    """Find PgBouncer; where a server may be installed for the tests, it may be, too."""
    if not shutil.which("pgbouncer", path="/usr/sbin:/usr/bin:/usr/local/bin"):
        if not debian.can_install():
            pytest.fail("PgBouncer is missing: install it (on Debian: apt-get install pgbouncer)")
        debian.install_packages("pgbouncer", print)
    return shutil.which("pgbouncer", path="/usr/sbin:/usr/bin:/usr/local/bin") or "pgbouncer"


class PgBouncer(PrivateServer):
    """A throw-away PgBouncer before one server."""

    account = "postgres"

    def __init__(self, url: str) -> None:
        self._behind = urlsplit(url)
        self._program = program()
        parts = self._behind
        user, password = unquote(parts.username or ""), unquote(parts.password or "")
        super().__init__(files={"users": f'"{user}" "{password}"\n'})

    def initialize(self) -> None:
        (self.folder / "data").mkdir()

    def command(self) -> Sequence[str]:
        path = self.folder / "pgbouncer.ini"
        host, port = self._behind.hostname, self._behind.port
        path.write_text(INI.format(host=host, port=port, own_port=self.port, folder=self.folder))
        return [self._program, str(path)]

    def answers(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    @property
    def url(self) -> str:
        login = self._behind.netloc.rpartition("@")[0]
        return self._behind._replace(netloc=f"{login}@127.0.0.1:{self.port}").geturl()


@pytest.fixture(scope="module")
def bouncer(postgres_server: Server) -> Iterator[PgBouncer]:
    bouncer = PgBouncer(postgres_server.url)
    yield bouncer
    bouncer.close()


@pytest.fixture
def bounced_url(bouncer: PgBouncer, postgres_url: str) -> str:
    return urlsplit(bouncer.url)._replace(path=urlsplit(postgres_url).path).geturl()


@pytest.fixture
async def bounced(open_db: Any, bounced_url: str) -> AsyncIterator[PostgresDatabase]:
    pool = DOCUMENTED["pool"] | {"timeout": 60.0}  # many clients, on a machine that may be busy
    db = await open_db("bounced", url=bounced_url, **DOCUMENTED | {"pool": pool})
    await db.execute("CREATE TABLE things (id int PRIMARY KEY, note text)")
    yield db
    await db.close()


INSERT = "INSERT INTO things VALUES ($1, $2)"


async def test_more_clients_than_server_connections_work_together(
    bounced: PostgresDatabase,
) -> None:
    async def work(number: int) -> None:
        async with bounced.transaction() as ctx:
            first = await ctx.fetch_val("SELECT pg_backend_pid()")
            await ctx.execute(INSERT, number, "x")
            assert await ctx.fetch_val("SELECT pg_backend_pid()") == first
        assert await bounced.fetch_val("SELECT note FROM things WHERE id = $1", number) == "x"

    await asyncio.gather(*(work(number) for number in range(100)))
    assert await bounced.fetch_val("SELECT count(*) FROM things") == 100
    sessions = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
    assert await bounced.fetch_val(sessions) <= 2


async def test_options_that_pgbouncer_tracks_reach_the_server(bounced: PostgresDatabase) -> None:
    assert await bounced.fetch_val("SHOW timezone") == "UTC"
    assert await bounced.fetch_val("SHOW application_name") == "jobs"


async def test_an_option_that_it_does_not_track_is_refused_at_once(
    open_db: Any, bounced_url: str
) -> None:
    with pytest.raises(ConnectionFailedError, match="statement_timeout") as caught:
        await open_db(url=bounced_url, options={"statement_timeout": 1000})
    assert not caught.value.transient


async def test_timeouts_given_to_the_database_work(
    open_db: Any, bounced_url: str, observer: Any
) -> None:
    name = await observer.fetchval("SELECT current_database()")
    await observer.execute(f"ALTER DATABASE {name} SET statement_timeout = '50ms'")
    db = await open_db(url=bounced_url, **DOCUMENTED)
    with pytest.raises(QueryTimeoutError):
        await db.fetch_val("SELECT pg_sleep(5)")


async def test_read_only_and_isolation_hold(bounced: PostgresDatabase) -> None:
    with pytest.raises(ReadOnlyTransactionError):
        async with bounced.transaction(readonly=True) as ctx:
            await ctx.execute(INSERT, 1, "x")
    async with bounced.transaction(isolation="serializable") as ctx:
        assert await ctx.fetch_val("SHOW transaction_isolation") == "serializable"


async def test_savepoints_and_failed_transactions(bounced: PostgresDatabase) -> None:
    async with bounced.transaction() as ctx:
        await ctx.execute(INSERT, 1, "x")
        with pytest.raises(UniqueViolationError):
            async with bounced.transaction() as inner:
                await inner.execute(INSERT, 1, "x")
        async with ctx.connection.transaction():
            await ctx.execute(INSERT, 2, "x")
    with pytest.raises(TransactionError):
        async with bounced.transaction() as ctx:
            await ctx.execute(INSERT, 3, "x")
            with pytest.raises(UniqueViolationError):
                await ctx.execute(INSERT, 3, "x")
    assert await bounced.fetch_val("SELECT count(*) FROM things") == 2


async def test_a_deferred_constraint_fails_the_commit(bounced: PostgresDatabase) -> None:
    await bounced.execute("CREATE TABLE c (i int REFERENCES things DEFERRABLE INITIALLY DEFERRED)")
    with pytest.raises(ForeignKeyViolationError):
        async with bounced.transaction() as ctx:
            await ctx.execute("INSERT INTO c VALUES (9)")


async def test_cursors_leave_no_statement_behind_on_the_server(bounced: PostgresDatabase) -> None:
    """Another process would meet it: asyncpg counts its names from one in each of them."""

    async def read(number: int) -> None:
        async with bounced.transaction() as ctx:
            sql = "SELECT g FROM generate_series(1, $1) g"
            rows = [row["g"] async for row in ctx.iterate(sql, 95, batch=10)]
            assert rows == list(range(1, 96))
            assert await ctx.fetch_val("SELECT count(*) FROM pg_prepared_statements") == 0

    await asyncio.gather(*(read(number) for number in range(20)))


async def test_many_rows_and_names(bounced: PostgresDatabase) -> None:
    await bounced.executemany(INSERT, [(i, "m") for i in range(3000)])
    sql = "SELECT count(*) FROM things WHERE id >= :low AND note = :note::text"
    assert await bounced.fetch_val(sql, {"low": 1000, "note": "m"}) == 2000


async def test_unknown_types_are_looked_up(bounced: PostgresDatabase) -> None:
    await bounced.execute("CREATE TYPE mood AS ENUM ('sad', 'ok')")
    await bounced.execute("CREATE TYPE pair AS (a int, b mood)")
    async with bounced.transaction() as ctx:
        assert await ctx.fetch_val("SELECT $1::mood", "ok") == "ok"
        assert tuple(await ctx.fetch_val("SELECT (1, 'sad')::pair")) == (1, "sad")
    assert await bounced.fetch_val("SELECT ARRAY['ok'::mood]") == ["ok"]


async def test_json_is_decoded_and_encoded(open_db: Any, bounced_url: str) -> None:
    options = {**DOCUMENTED["options"], "json": True}
    db = await open_db("decoding", url=bounced_url, **{**DOCUMENTED, "options": options})
    values = [{"n": number} for number in range(20)]
    answers = (db.fetch_val("SELECT $1::jsonb", value) for value in values)
    assert await asyncio.gather(*answers) == values


async def test_a_cancelled_statement_stops(bounced: PostgresDatabase, observer: Any) -> None:
    for _ in range(3):
        with pytest.raises(QueryTimeoutError):
            async with bounced.transaction(timeout=0.2) as ctx:
                await ctx.fetch_val("SELECT pg_sleep(60)")
    running = (
        "SELECT count(*) FROM pg_stat_activity "
        "WHERE datname = current_database() AND query LIKE 'SELECT pg_sl%' AND state = $1"
    )
    assert await observer.fetchval(running, "active") == 0
    assert [await bounced.fetch_val("SELECT $1::int", i) for i in range(20)] == list(range(20))


async def test_the_schema_is_initialized(open_db: Any, bounced_url: str) -> None:
    opened = await asyncio.gather(
        *(open_db(f"{i}", url=bounced_url, init_sql=True, **DOCUMENTED) for i in range(4))
    )
    for db in opened:
        assert await db.fetch_val("SELECT count(*) FROM cron_jobs") == 0


async def test_a_reset_that_rides_with_the_commit_cleans_the_server_connection(
    open_db: Any, bounced_url: str
) -> None:
    """`reset: always` does no harm; only a reset of its own may reach another connection."""
    db = await open_db(url=bounced_url, options={"statement_cache_size": 0})
    async with db.transaction() as ctx:
        await ctx.execute("SET ROLE pg_monitor")
    async with asyncio.TaskGroup() as group:
        for _ in range(4):
            group.create_task(check_role(db))


async def check_role(db: PostgresDatabase) -> None:
    assert await db.fetch_val("SELECT current_user") != "pg_monitor"


async def test_a_server_that_is_down_can_be_waited_for(
    bouncer: PgBouncer, open_db: Any, start_postgres: Any
) -> None:
    server = start_postgres()
    own = PgBouncer(server.url)
    try:
        server.control.stop()
        with pytest.raises(ConnectionFailedError) as caught:
            await open_db(url=own.url, pool={"timeout": 3.0})
        assert caught.value.transient
    finally:
        own.close()


@pytest.mark.one_server
async def test_while_its_server_is_down_it_is_not_flooded_with_connections(
    open_db: Any, start_postgres: Callable[..., Server]
) -> None:
    """It lets every client in, and ends it at the first statement, which is one of ours."""
    server = start_postgres()
    bouncer = PgBouncer(server.url)
    try:
        settings = DOCUMENTED | {"pool": {"max_size": 10, "timeout": 60.0, "reset": "never"}}
        db = await open_db("down", url=bouncer.url, **settings)
        await db.execute("CREATE TABLE t (n int)")
        assert server.control is not None
        await asyncio.to_thread(server.control.kill)
        tried, until = attempts(db), monotonic() + 3.0
        told = 0

        async def ask() -> None:
            nonlocal told
            while monotonic() < until:
                with suppress(DatabaseError):
                    async with db.transaction(timeout=5.0) as ctx:
                        await ctx.execute("INSERT INTO t VALUES (1)")
                told += 1

        await asyncio.gather(*(ask() for _ in range(20)))
        assert told >= 20
        assert 0 < attempts(db) - tried <= 30
        await asyncio.to_thread(server.control.start)
        async with asyncio.timeout(60):
            while True:
                with suppress(DatabaseError):
                    assert await db.fetch_val("SELECT 1") == 1
                    break
    finally:
        bouncer.close()


def attempts(db: Any) -> int:
    """How often the pool has tried to connect, whatever came of it."""
    stats = db.stats()
    return int(stats["created"] + stats["errors"])
