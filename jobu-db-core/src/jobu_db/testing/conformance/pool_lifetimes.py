"""How long connections, pools and processes live. As in `pool`, docstrings name who had the bug."""

from __future__ import annotations

import asyncio
import gc
import os
import pickle
import subprocess
import sys

import pytest

from jobu_db.database import BaseDatabase
from jobu_db.errors import PoolClosedError
from jobu_db.testing.conformance.backend import (
    Backend,
    all_idle,
    all_usable,
    insert,
    sessions_are,
    with_items,
)

_LIMIT = 60

_FORGET = """
import asyncio, pickle, sys
kind, settings = pickle.load(sys.stdin.buffer)
kept = []
async def main():
    kept.append(await kind.create("main", settings))
    kept.append(await kept[0].pool.acquire())
asyncio.run(main())
print("end", flush=True)
"""

_FORK = """
import asyncio, gc, os, pickle, sys, warnings
from jobu_db import DatabaseError
warnings.simplefilter("ignore", DeprecationWarning)  # forking a process with threads
kind, settings = pickle.load(sys.stdin.buffer)
async def main():
    db = await kind.create("main", settings)
    lease = await db.pool.acquire()
    lease.connection
    child = os.fork()
    if not child:
        try:
            db.pool.acquire_nowait()
        except DatabaseError as error:
            assert "cannot be used in process" in str(error), error
            db = lease = None
            gc.collect()
            os._exit(0)
        os._exit(1)
    _, status = os.waitpid(child, 0)
    assert status == 0, status
    await asyncio.sleep(0.1)  # what the child might have sent would be there by now
    await db.driver.ping(lease.connection)
    db.pool.release(lease)
    assert await db.pool.close() == []
asyncio.run(main())
print("end", flush=True)
"""


class PoolLifetimesConformance:
    async def test_no_connection_is_lent_past_its_lifetime(self, backend: Backend) -> None:
        """node-mysql2 #4384: with no limit, new replicas never got any load."""
        db = await backend.open(max_size=1, max_lifetime=0.1)
        async with db.pool.connection() as lease:
            first = lease.id
        await asyncio.sleep(0.1)
        async with db.pool.connection() as lease:
            await backend.raw(lease.connection, "SELECT 1")
            assert lease.id != first
        await sessions_are(backend, 1)

    async def test_drain_replaces_every_connection(self, backend: Backend) -> None:
        """psycopg_pool has it, for a change of role or password; asyncpg expires them alike."""
        db = await backend.open(max_size=3)
        await all_usable(backend, db, 3)
        held = await db.pool.acquire()
        db.pool.drain()
        await backend.raw(held.connection, "SELECT 1")
        before = held.id
        db.pool.release(held)
        await all_usable(backend, db, 3)
        assert db.stats()["closed"] == {"drained": 3}
        async with db.pool.connection() as lease:
            assert lease.id > before
        await sessions_are(backend, 3)

    async def test_check_proves_the_idle_connections(self, backend: Backend) -> None:
        db = await backend.open(min_size=3, max_size=3)
        await db.pool.wait()
        assert db.pool.size == 3
        async with asyncio.timeout(_LIMIT):
            await db.pool.check()
        assert db.stats()["closed"] == {}
        await all_usable(backend, db, 3)

    async def test_lifetimes_end_at_different_times(self, backend: Backend) -> None:
        """sqlx #2854, PostHog #49745: all connections expired together."""
        db = await backend.open(max_size=5, max_lifetime=1000)
        await all_usable(backend, db, 5)
        lifetimes = {slot.expires_at - slot.created_at for slot in db.pool._state.slots}
        assert len(lifetimes) == 5
        assert min(lifetimes) >= 900
        assert max(lifetimes) <= 1000

    async def test_max_idle_counts_idle_time_only(self, backend: Backend) -> None:
        """httpcore counted all connections where it meant the idle ones; a connection that was
        held for long has not been idle for long."""
        db = await backend.open(min_size=0, max_size=2, max_idle=0.3)
        async with db.pool.connection():
            await asyncio.sleep(0.4)
        await all_idle(db)
        assert (db.stats()["idle"], db.stats()["closed"]) == (1, {})
        async with asyncio.timeout(10):
            while db.stats()["closed"] != {"idle": 1}:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        await sessions_are(backend, 0)

    async def test_min_size_is_filled_again(self, backend: Backend) -> None:
        db = await backend.open(min_size=3, max_size=3)
        await sessions_are(backend, 3)
        lease = await db.pool.acquire()
        db.pool.release(lease, discard="lost")
        await sessions_are(backend, 3)
        await all_usable(backend, db, 3)

    async def test_the_figures_add_up(self, backend: Backend) -> None:
        """honcho #1054: the figures went blind."""
        db = await backend.open(max_size=3)
        before = db.stats()["acquired"]

        async def use(*, lose: bool) -> None:
            lease = await db.pool.acquire()
            await backend.raw(lease.connection, "SELECT 1")
            db.pool.release(lease, discard="lost" if lose else None)

        await asyncio.gather(*(use(lose=number % 5 == 0) for number in range(20)))
        await all_idle(db)
        stats = db.stats()
        assert stats["acquired"] == before + 20
        assert stats["acquired"] == stats["wait"]["count"] == stats["use"]["count"]
        assert stats["closed"] == {"lost": 4}
        assert stats["created"] == stats["size"] + 4
        assert (stats["in_use"], stats["waiting"], stats["errors"], stats["timeouts"]) == (0,) * 4

    async def test_close_refuses_waiters_at_once_and_ends_every_session(
        self, backend: Backend
    ) -> None:
        """Seen in several pools: waiters sat out their timeout under a running transaction."""
        db = await with_items(backend, max_size=1, timeout=3600)
        async with db.transaction() as ctx:
            waiter = asyncio.create_task(db.pool.acquire())
            await asyncio.sleep(0)
            closing = asyncio.create_task(db.close())
            with pytest.raises(PoolClosedError):
                await waiter
            await insert(ctx, 1)
        await closing
        await sessions_are(backend, 0)

    async def test_close_ends_the_sessions_of_those_who_hold_on(self, backend: Backend) -> None:
        db = await backend.open(max_size=2)
        lease = await db.pool.acquire()
        (held,) = await db.pool.close(timeout=0.05)
        assert "pool_lifetimes.py:" in held
        await sessions_are(backend, 0)
        db.pool.release(lease)

    async def test_an_abandoned_pool_ends_its_sessions(self, backend: Backend) -> None:
        db = await backend.open(min_size=2, max_size=2)
        await sessions_are(backend, 2)
        abandoned = [await type(db).create("other", db.settings)]
        await sessions_are(backend, 4)
        with pytest.warns(ResourceWarning, match="other: the pool was never closed"):
            _abandon(abandoned)
        await sessions_are(backend, 2)
        await all_usable(backend, db, 2)

    async def test_a_program_that_forgets_to_close_ends(self, backend: Backend) -> None:
        """aiosqlite's threads are not daemons: the process hung."""
        out, told = await _run(backend, _FORGET)
        assert out == "end\n", told
        assert "ResourceWarning: main: the pool was never closed" in told
        await sessions_are(backend, 0)

    if hasattr(os, "fork"):

        async def test_a_forked_child_is_refused_and_harms_nobody(self, backend: Backend) -> None:
            """Seen in several pools: parent and child spoke over one socket."""
            out, told = await _run(backend, _FORK)
            assert out == "end\n", told


def _abandon(databases: list[BaseDatabase]) -> None:
    databases.clear()
    gc.collect()


async def _run(backend: Backend, program: str) -> tuple[str, str]:
    """Run a program on the backend's database; return what it printed, and its complaints."""
    db = await backend.open(max_size=1)
    await db.close()  # an embedded database may belong to one process at a time
    process = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-W", "default", "-c", program],
        input=pickle.dumps((type(db), db.settings)),
        capture_output=True,
        timeout=_LIMIT,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        check=False,
    )
    return process.stdout.decode(), process.stderr.decode()
