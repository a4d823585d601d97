"""The server has no connection or no disk space left, under load; see `Load`."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from numbered_rows import whole_within_two_seconds
from server_suites.faults import POOL

from jobu_db.testing.servers import Server
from jobu_db.testing.servers.private import PrivateServer
from jobu_db.testing.servers.processes import wait_gone

pytestmark = pytest.mark.faults


@pytest.mark.one_server
async def test_no_connection_is_free_on_the_server(
    open_db: Any, start_postgres: Callable[..., Server], eventually: Any, make_load: Any
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
    load = make_load(db)
    async with load.running():
        # What six, less one reserved and three in use, leave.
        await eventually(lambda: db.pool.size == 2)
        await load.progress(200)
        assert db.pool.size <= 2
        for other in others:
            await other.close()
        await eventually(lambda: db.pool.size == 4)
        await load.progress(200)
    assert not load.failed, "whoever waits gets a connection that is there already"
    await db.close()  # so that there is room for the connection that checks
    await load.check(server.url)
    await admin.close()


@contextmanager
def small_disk(server: Server) -> Iterator[Path]:
    """A file system of 100 MiB in the server's folder."""
    assert isinstance(server.control, PrivateServer)
    folder = server.control.folder
    disk = folder / "disk"
    disk.mkdir()
    options = f"size=100m,mode=0700,uid={folder.stat().st_uid}"
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(disk)])
    if mounted.returncode:
        pytest.skip("it takes the right to mount a small disk")
    try:
        yield disk
    finally:
        subprocess.run(["umount", "--lazy", str(disk)], check=True)


def fill(disk: Path) -> Path:
    block = disk / "block"
    block.write_bytes(b"x" * shutil.disk_usage(disk).free)
    return block


@pytest.mark.one_server
async def test_no_room_for_a_table(
    open_db: Any, start_postgres: Callable[..., Server], eventually: Any, make_load: Any
) -> None:
    """The log has room, so the server goes on and refuses to write."""
    server = start_postgres()
    with small_disk(server) as disk:
        admin = await asyncpg.connect(server.url)
        await admin.execute(f"CREATE TABLESPACE small LOCATION '{disk}'")
        await admin.execute("CREATE TABLE numbers (n int) TABLESPACE small")
        load = make_load(await open_db(url=server.url, pool=POOL))
        async with load.running():
            block = fill(disk)
            await eventually(lambda: load.failed)
            block.unlink()
            await load.progress()
        assert {getattr(error, "code", None) for error in load.failed.values()} == {"53100"}
        await load.check(server.url)
        await admin.close()


@pytest.mark.one_server
async def test_no_room_for_the_log(
    open_db: Any, start_postgres: Callable[..., Server], make_load: Any
) -> None:
    """The server crashes, and cannot start before there is room."""
    server = start_postgres()
    control = server.control
    assert isinstance(control, PrivateServer)
    with small_disk(server) as disk:
        await asyncio.to_thread(control.stop)
        await asyncio.to_thread(move_log, control.folder / "data" / "pg_wal", disk / "pg_wal")
        await asyncio.to_thread(control.start)
        pid, admin = control.pid, await asyncpg.connect(server.url)
        await admin.execute("CREATE TABLE numbers (n int)")
        db = await open_db(url=server.url, pool=POOL)
        load = make_load(db)
        async with load.running():
            block = fill(disk)
            with suppress(asyncpg.PostgresError):
                for _ in range(20):
                    await admin.execute(
                        "SELECT pg_switch_wal(), pg_logical_emit_message(false, '', '')"
                    )
            assert await asyncio.to_thread(wait_gone, [pid], 30), "the server goes on"
            block.unlink()
            await asyncio.to_thread(control.start)
            await whole_within_two_seconds(db)
            await load.progress()
        await load.check(server.url)


def move_log(log: Path, target: Path) -> None:
    owner = log.stat()
    shutil.move(log, target)
    for path in (target, *target.rglob("*")):
        os.chown(path, owner.st_uid, owner.st_gid)
    target.chmod(0o700)
    log.symlink_to(target)
