"""The server is killed, stopped, cut off and full, under load: no hang, no lost or doubled row.

Each task writes numbered rows. What was reported committed must be there, once; what was reported
failed must not; what was reported unknown may be either.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import random
import shutil
import subprocess
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from time import monotonic
from typing import Any

import asyncpg
import pytest

from jobu_db import (
    CommitOutcomeUnknownError,
    ConnectionFailedError,
    ConnectionPoolExhaustedError,
    DatabaseError,
)
from jobu_db.testing.proxy import TcpProxy
from jobu_db.testing.servers import Control, Server
from jobu_db.testing.servers.private import PrivateServer
from jobu_db_postgres import PostgresDatabase

pytestmark = pytest.mark.faults

SIZE = 5
POOL = {"max_size": SIZE, "timeout": 3.0, "cleanup_timeout": 1.0}
WRITERS = 20
INSERT = "INSERT INTO numbers VALUES ($1)"


class Load:
    """Tasks that write numbers until told to stop, in transactions and outside of them."""

    def __init__(self, db: PostgresDatabase) -> None:
        self._db = db
        self._numbers = itertools.count()
        self._stopping = False
        self.committed: set[int] = set()
        self.failed: dict[int, BaseException] = {}
        self.unknown: set[int] = set()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        tasks = [asyncio.create_task(self._write()) for _ in range(WRITERS)]
        try:
            await self.progress(50)
            yield
        finally:
            self._stopping = True
            _, hanging = await asyncio.wait(tasks, timeout=30)
            assert not hanging, "a writer hangs"
            for task in tasks:
                task.result()

    async def progress(self, rows: int = 50) -> None:
        """Wait until so many more rows are committed."""
        goal = len(self.committed) + rows
        async with asyncio.timeout(30):
            while len(self.committed) < goal:  # noqa: ASYNC110
                await asyncio.sleep(0.005)

    async def _write(self) -> None:
        while not self._stopping:
            number = next(self._numbers)
            try:
                await (self._inside(number) if number % 4 else self._db.execute(INSERT, number))
            except CommitOutcomeUnknownError:
                self.unknown.add(number)
            except DatabaseError as error:
                self.failed[number] = error
            else:
                self.committed.add(number)

    async def _inside(self, number: int) -> None:
        async with self._db.transaction() as ctx:
            await ctx.fetch_val("SELECT $1::int", number)
            await ctx.execute(INSERT, number)

    async def check(self, url: str) -> None:
        """Compare what was reported with what is there."""
        connection = await asyncpg.connect(url)
        rows = Counter(row["n"] for row in await connection.fetch("SELECT n FROM numbers"))
        await connection.close()
        assert not [number for number, count in rows.items() if count > 1], "doubled"
        assert not self.committed - rows.keys(), "lost, though reported committed"
        assert not self.failed.keys() & rows.keys(), "there, though reported failed"
        assert rows.keys() <= self.committed | self.unknown


@pytest.fixture
async def url(postgres_url: str) -> str:
    connection = await asyncpg.connect(postgres_url)
    await connection.execute("CREATE TABLE numbers (n int)")
    await connection.close()
    return postgres_url


@pytest.fixture
async def db(open_db: Any, url: str) -> PostgresDatabase:
    return await open_db(url=url, pool=POOL)


async def whole_again(db: PostgresDatabase) -> None:
    """Use every connection of the pool at the same time."""
    together = asyncio.Barrier(SIZE)

    async def use() -> None:
        async with db.transaction() as ctx:
            await ctx.fetch_val("SELECT 1")
            await together.wait()

    async with asyncio.timeout(10), asyncio.TaskGroup() as group:
        for _ in range(SIZE):
            group.create_task(use())


async def whole_within_two_seconds(db: PostgresDatabase) -> None:
    started = monotonic()
    await whole_again(db)
    assert monotonic() - started < 2


def away(*calls: Callable[[], None]) -> Awaitable[None]:
    """Run blocking calls in a thread, one after the other."""
    return asyncio.to_thread(lambda: [call() for call in calls] and None)


async def test_killed_and_restarted(
    db: PostgresDatabase, url: str, postgres_control: Control
) -> None:
    load = Load(db)
    async with load.running():
        for _ in range(2):
            await away(postgres_control.kill)
            await asyncio.sleep(0.5)
            await away(postgres_control.start)
            await whole_within_two_seconds(db)
            await load.progress()
    await load.check(url)


async def test_restarted_politely(
    db: PostgresDatabase, url: str, postgres_control: Control
) -> None:
    load = Load(db)
    async with load.running():
        await away(postgres_control.restart)
        await whole_within_two_seconds(db)
        await load.progress()
    await load.check(url)


async def test_waiters_get_a_connection_when_the_server_is_back(
    db: PostgresDatabase, postgres_control: Control
) -> None:
    """While it is away they wait, and nobody else hears of it."""
    await away(postgres_control.kill)
    waiting = [asyncio.create_task(db.fetch_val("SELECT $1::int", i)) for i in range(50)]
    await asyncio.sleep(0.5)
    await away(postgres_control.start)
    assert await asyncio.gather(*waiting) == list(range(50))


async def test_a_server_that_stays_away_is_told_with_its_cause(
    open_db: Any, url: str, postgres_control: Control
) -> None:
    db = await open_db(url=url, pool={"timeout": 0.5})
    await away(postgres_control.kill)
    with pytest.raises((ConnectionFailedError, ConnectionPoolExhaustedError)) as caught:
        await db.fetch_val("SELECT 1")
    assert "refused" in str(caught.value)


async def test_stopped_and_continued(
    db: PostgresDatabase, url: str, postgres_control: Control
) -> None:
    load = Load(db)
    async with load.running():
        await away(postgres_control.pause)
        await asyncio.sleep(1.5)
        await away(postgres_control.resume)
        await whole_within_two_seconds(db)
        await load.progress()
    await load.check(url)


async def test_nothing_hangs_on_a_stopped_server(
    open_db: Any, url: str, postgres_control: Control
) -> None:
    db = await open_db(url=url, pool=POOL | {"timeout": 0.5, "cleanup_timeout": 0.3})
    await whole_again(db)
    await away(postgres_control.pause)
    started = monotonic()
    with pytest.raises(DatabaseError):
        async with db.transaction(timeout=0.5) as ctx:
            await ctx.fetch_val("SELECT 1")
    tasks = [asyncio.create_task(db.fetch_val("SELECT 1")) for _ in range(20)]
    await asyncio.sleep(0.5)
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks, timeout=5)
    assert all(task.done() for task in tasks)
    await db.close(0.5)
    assert monotonic() - started < 10
    await away(postgres_control.resume)


async def test_all_sessions_terminated_again_and_again(db: PostgresDatabase, url: str) -> None:
    killer = await asyncpg.connect(url)
    load = Load(db)
    async with load.running():
        for _ in range(20):
            await killer.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
            await load.progress(10)
        await whole_within_two_seconds(db)
    await killer.close()
    await load.check(url)


async def test_idle_sessions_that_were_terminated_fail_no_caller(db: PostgresDatabase) -> None:
    """Measured in other pools: 1 to 5 of the next 20 requests fail."""
    await whole_again(db)
    killer = await asyncpg.connect(**connect_arguments(db))
    for pause in (0.0, 0.5):
        await killer.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
        await asyncio.sleep(pause)
        for number in range(20):
            async with db.transaction() as ctx:
                assert await ctx.fetch_val("SELECT $1::int", number) == number
        await whole_again(db)
    await killer.close()


def connect_arguments(db: PostgresDatabase) -> dict[str, Any]:
    settings: Any = db.settings
    (address,) = settings.addresses
    return {
        "host": address.host,
        "port": address.port,
        "user": settings.user,
        "password": settings.password.get_secret_value(),
        "database": settings.database,
    }


@pytest.mark.one_server
async def test_no_connection_is_free_on_the_server(
    open_db: Any, start_postgres: Callable[..., Server], eventually: Any
) -> None:
    server = start_postgres(
        settings={"max_connections": "6", "superuser_reserved_connections": "1"}
    )
    admin = await asyncpg.connect(server.url)
    await admin.execute("CREATE ROLE worker LOGIN PASSWORD 'pw'; CREATE TABLE numbers (n int)")
    await admin.execute("GRANT ALL ON numbers TO worker")
    worker = server.url.replace("jobu:jobu_dev@", "worker:pw@")
    others = [await asyncpg.connect(server.url) for _ in range(2)]
    db = await open_db(url=worker, pool=POOL | {"max_size": 10})
    load = Load(db)
    async with load.running():
        await load.progress(200)
        assert db.pool.size == 2, "what six, less one reserved and three in use, leave"
        for other in others:
            await other.close()
        await eventually(lambda: db.pool.size == 4)
        await load.progress(200)
    assert not load.failed, "whoever waits gets a connection that is there already"
    await load.check(server.url)
    await admin.close()


async def test_the_network_is_cut_again_and_again(
    open_db: Any, url: str, proxy: TcpProxy, proxied_url: str
) -> None:
    db = await open_db(url=proxied_url, pool=POOL)
    chance = random.Random(7)
    load = Load(db)
    async with load.running():
        for _ in range(40):
            match chance.randrange(4):
                case 0:
                    proxy.cut()
                case 1:
                    proxy.cut_at(b"COMMIT", answered=chance.random() < 0.5)
                case 2:
                    proxy.cut_at(b"INSERT", answered=chance.random() < 0.5)
                case 3:
                    proxy.stall()
                    await asyncio.sleep(0.1)
                    proxy.cut()
                    proxy.resume()
            await load.progress(20)
    assert load.unknown, "no fault fell into a COMMIT"
    await load.check(url)
    await whole_within_two_seconds(db)


async def test_the_network_falls_silent_in_commit(
    open_db: Any, url: str, proxy: TcpProxy, proxied_url: str
) -> None:
    """The driver alone would wait for ever; what its callers get is their own timeout."""
    db = await open_db(url=proxied_url, pool=POOL | {"timeout": 1.0})
    load = Load(db)
    async with load.running():
        for answered in (True, False):
            proxy.stall_at(b"COMMIT", answered=answered)
            await asyncio.wait_for(proxy.sprung(), 10)
            await asyncio.sleep(0.3)
            proxy.resume()
            await load.progress()
    await load.check(url)
    await whole_within_two_seconds(db)


@contextmanager
def small_disk(folder: Path) -> Iterator[Path]:
    """A file system of 60 MiB that belongs to the folder's owner."""
    disk, owner = folder / "disk", folder.stat().st_uid
    disk.mkdir()
    options = f"size=60m,mode=0700,uid={owner}"
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(disk)], check=True)
    try:
        yield disk
    finally:
        subprocess.run(["umount", "--lazy", str(disk)], check=True)


@pytest.mark.one_server
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a small disk")
async def test_the_disk_is_full(
    open_db: Any, start_postgres: Callable[..., Server], eventually: Any
) -> None:
    server = start_postgres()
    assert isinstance(server.control, PrivateServer)
    with small_disk(server.control.folder) as disk:
        db = await open_db(url=server.url, pool=POOL)
        await fill_and_free(db, server.url, disk, eventually)


async def fill_and_free(
    db: PostgresDatabase, url: str, disk: Path, eventually: Callable[..., Awaitable[None]]
) -> None:
    """The tables lie on it and the WAL elsewhere, so the server goes on and refuses to write."""
    admin = await asyncpg.connect(url)
    await admin.execute(f"CREATE TABLESPACE small LOCATION '{disk}'")
    await admin.execute("CREATE TABLE numbers (n int) TABLESPACE small")
    load = Load(db)
    async with load.running():
        block = disk / "block"
        block.write_bytes(b"x" * shutil.disk_usage(disk).free)
        await eventually(lambda: load.failed)
        block.unlink()
        await load.progress()
    assert {getattr(error, "code", None) for error in load.failed.values()} == {"53100"}
    await load.check(url)
    await admin.close()
