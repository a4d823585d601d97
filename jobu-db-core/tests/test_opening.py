"""Opening a database: awaited, entered, or made a task; at once, or when its server is there."""

from __future__ import annotations

import asyncio
import logging
import os
from pathlib import Path
from time import monotonic
from typing import Any

import pytest

from jobu_db.errors import (
    ConfigurationError,
    ConnectionFailedError,
    ConnectionLostError,
    ConnectionPoolExhaustedError,
    PoolClosedError,
)
from jobu_db.testing.fake import FakeDatabase
from jobu_db.testing.fake_server import FakeServer


@pytest.fixture
def server() -> FakeServer:
    return FakeServer()


def create(server: FakeServer, wait: float | None = None, **pool: Any) -> Any:
    config = {"server": server, "pool": {"max_size": 1, **pool}}
    return FakeDatabase.create("main", config, wait=wait)


# -- create


async def test_it_can_be_awaited_entered_and_made_a_task(server: FakeServer) -> None:
    db = await create(server)
    await db.ping()
    await db.close()
    async with create(server) as db:
        await db.ping()
    assert db.pool.closed
    db = await asyncio.create_task(create(server))
    await db.close()
    first, second = await asyncio.gather(create(server), create(server))
    await asyncio.gather(first.close(), second.close())
    assert not server.sessions


async def test_a_block_closes_whatever_happens(server: FakeServer) -> None:
    with pytest.raises(KeyError):
        async with create(server) as db:
            raise KeyError
    with pytest.raises(PoolClosedError):
        await db.ping()


async def test_a_block_that_cannot_be_entered_raises_why(server: FakeServer) -> None:
    server.refuse()
    with pytest.raises(ConnectionFailedError):
        async with create(server):
            pytest.fail("it was entered")
    with pytest.raises(ConfigurationError):
        async with FakeDatabase.create("main", {"nothing": 1}):
            pytest.fail("it was entered")


async def test_the_end_of_a_block_waits_for_holders_as_long_as_it_is_told(
    server: FakeServer, caplog: pytest.LogCaptureFixture
) -> None:
    opening = FakeDatabase.create("main", {"server": server}, close_timeout=0.01)
    started = monotonic()
    async with opening as db:
        lease = await db.pool.acquire()
    assert monotonic() - started < 25, "the pool's own timeout is 30 s"
    assert "closed while in use" in caplog.text
    del lease


# -- a server that is still starting


async def test_waiting_is_only_done_when_it_is_asked_for(server: FakeServer) -> None:
    server.refuse()
    with pytest.raises(ConnectionFailedError, match="refused"):
        await create(server)
    assert server.calls["connect"] == 1


async def test_a_server_that_is_starting_is_waited_for(server: FakeServer) -> None:
    server.refuse()
    opening = asyncio.create_task(create(server, wait=60))
    async with asyncio.timeout(30):
        while server.calls["connect"] < 3:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    assert not opening.done()
    server.accept()
    async with asyncio.timeout(30):
        db = await opening
    await db.ping()
    await db.close()


async def test_when_the_time_is_over_the_last_failure_is_told(server: FakeServer) -> None:
    server.refuse()
    with pytest.raises(ConnectionFailedError, match="refused") as caught:
        await create(server, wait=0.2)
    assert server.calls["connect"] > 1
    assert caught.value.database == "main"
    assert not isinstance(caught.value.__cause__, TimeoutError)


async def test_who_waits_no_time_is_told_the_cause(server: FakeServer) -> None:
    server.refuse()
    with pytest.raises(ConnectionFailedError, match="refused"):
        await create(server, wait=0)
    assert server.calls["connect"] == 1


async def test_a_silent_server_costs_no_more_than_the_time_to_wait(server: FakeServer) -> None:
    server.hold("connect")
    with pytest.raises(ConnectionFailedError, match=r"no answer within 0\.05 s") as caught:
        await create(server, wait=0.05, timeout=600.0)
    assert caught.value.transient


async def test_what_waiting_does_not_mend_is_told_at_once(server: FakeServer) -> None:
    server.refuse(ConnectionFailedError("wrong password", transient=False))
    async with asyncio.timeout(30):
        with pytest.raises(ConnectionFailedError, match="wrong password"):
            await create(server, wait=600)
    assert server.calls["connect"] == 1


async def test_a_wait_that_is_cancelled_leaves_nothing_open(server: FakeServer) -> None:
    server.refuse()
    opening = asyncio.create_task(create(server, wait=600))
    await asyncio.sleep(0.01)
    opening.cancel()
    with pytest.raises(asyncio.CancelledError):
        await opening
    assert not server.sessions


# -- ping


@pytest.mark.parametrize("timeout", [0, -1.5])
async def test_a_ping_that_leaves_no_time_for_an_answer_is_refused(
    server: FakeServer, timeout: float
) -> None:
    async with create(server) as db:
        with pytest.raises(ValueError, match=f"timeout={timeout:g}: must be more than 0"):
            await db.ping(timeout=timeout)
        await db.ping()


async def test_a_ping_that_is_not_answered_ends_in_time(server: FakeServer) -> None:
    async with create(server, cleanup_timeout=0.05) as db:
        server.hold("ping", times=1)
        with pytest.raises(ConnectionLostError, match=r"did not answer within 0\.05 s") as caught:
            await db.ping(timeout=0.05)
        assert caught.value.database == "main"
        await db.ping(timeout=30)
        assert server.violations == []


async def test_a_ping_waits_for_a_connection_no_longer_than_it_is_told(server: FakeServer) -> None:
    async with create(server) as db, db.pool.connection():
        with pytest.raises(ConnectionPoolExhaustedError):
            await asyncio.create_task(db.ping(timeout=0.01))


async def test_without_a_limit_a_ping_has_the_pools(server: FakeServer) -> None:
    async with create(server, timeout=0.05, cleanup_timeout=0.05) as db:
        server.hold("ping", times=1)
        with pytest.raises(ConnectionLostError, match=r"within 0\.05 s"):
            await db.ping()


# -- init_sql


@pytest.mark.parametrize("kind", ["fifo", "zero", "missing", "folder", "binary"])
async def test_a_script_is_a_regular_file_of_text(
    server: FakeServer, tmp_path: Path, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    path = {"zero": Path("/dev/zero"), "folder": tmp_path}.get(kind, tmp_path / kind)
    if kind == "fifo":
        os.mkfifo(path)
    if kind == "binary":
        path.write_bytes(b"\xff\xfe")
    caplog.set_level(logging.CRITICAL)
    async with asyncio.timeout(30):
        with pytest.raises(ConfigurationError, match=r"databases\.main\.init_sql: "):
            await FakeDatabase.create("main", {"server": server, "init_sql": str(path)})
    assert not server.sessions
