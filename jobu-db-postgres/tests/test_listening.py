"""Notifications: what is heard, over what, and until when."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from jobu_db import ConnectionFailedError
from jobu_db.testing.proxy import TcpProxy
from jobu_db_postgres import Notification, PostgresDatabase

END_OTHERS = (
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
    " WHERE pid <> pg_backend_pid() AND datname = current_database()"
)


@asynccontextmanager
async def heard(db: PostgresDatabase, *channels: str) -> AsyncIterator[asyncio.Queue[Notification]]:
    """Listen in a task, which must have come to its end by itself when the block is left."""
    queue: asyncio.Queue[Notification] = asyncio.Queue()

    async def hear() -> None:
        async for notification in db.listen(*channels):
            queue.put_nowait(notification)

    async with asyncio.timeout(60):
        async with asyncio.TaskGroup() as group:  # which ends the block if listening fails
            group.create_task(hear())
            assert (await queue.get()).began
            yield queue


async def test_they_are_heard_over_a_lost_connection(db: PostgresDatabase, observer: Any) -> None:
    async with heard(db, "jobs", "Other Channel") as queue:
        await observer.execute("SELECT pg_notify('jobs', 'one')")
        notification = await queue.get()
        assert notification[:2] == ("jobs", "one")
        assert notification.pid > 0
        assert not notification.began
        await db.execute("SELECT pg_notify('Other Channel', '')")
        assert (await queue.get())[:2] == ("Other Channel", "")
        for _ in range(3):
            await observer.execute(END_OTHERS)
            assert (await queue.get()).began
        await observer.execute("SELECT pg_notify('jobs', 'two')")
        assert (await queue.get()).payload == "two"
        await db.close()


async def test_closing_the_database_ends_it_at_once(db: PostgresDatabase) -> None:
    async with heard(db, "jobs"):
        async with asyncio.timeout(20):  # less than the pool's timeout
            assert await db.pool.close(timeout=30) == []


async def test_leaving_the_loop_gives_the_connection_back(open_db: Any) -> None:
    db = await open_db(pool={"max_size": 1})
    async for notification in db.listen("jobs"):
        assert notification.began
        break
    async with asyncio.timeout(30):
        while db.stats()["in_use"]:  # noqa: ASYNC110  # the event loop closes the generator
            await asyncio.sleep(0.01)
    assert await db.fetch_val("SELECT count(*) FROM pg_listening_channels()") == 0

    listening = db.listen("jobs")
    assert (await anext(listening)).began
    assert db.stats()["in_use"] == 1
    await listening.aclose()
    assert await db.fetch_val("SELECT count(*) FROM pg_listening_channels()") == 0


async def test_it_can_be_cancelled(open_db: Any) -> None:
    db = await open_db(pool={"max_size": 1})
    began = asyncio.Event()

    async def hear() -> None:
        async for _ in db.listen("jobs"):
            began.set()

    hearing = asyncio.create_task(hear())
    await began.wait()
    hearing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await hearing
    assert await db.fetch_val("SELECT count(*) FROM pg_listening_channels()") == 0


async def test_it_waits_for_a_server_that_is_away(
    open_db: Any, proxy: TcpProxy, proxied_url: str
) -> None:
    db = await open_db(url=proxied_url, pool={"timeout": 2.0})
    async with heard(db, "jobs") as queue:
        await proxy.refuse()
        proxy.cut()
        with pytest.raises(ConnectionFailedError):  # longer than the pool's timeout
            await db.fetch_val("SELECT 1")
        await proxy.accept()
        assert (await queue.get()).began
        await db.close()


async def test_what_cannot_be_is_refused(db: PostgresDatabase) -> None:
    for channels in ((), ("jobs", ""), ("x" * 64,)):
        with pytest.raises(ValueError, match="channel"):
            db.listen(*channels)
