"""The pool under a crowd: fairness, cost per waiter, and acquire + release beside asyncmy's pool.

    .venv/bin/python jobu-db-core/benchmarks/pool.py [MYSQL_URL]

Prints figures, asserts nothing. With a URL, acquire + release is measured on MySQL beside
asyncmy's own pool; without one, on SQLite alone. Times are of the processor, in interleaved rounds.
"""

from __future__ import annotations

import asyncio
import statistics
import sys
import tracemalloc
from collections.abc import Awaitable, Callable
from time import perf_counter, process_time
from typing import Any
from urllib.parse import unquote, urlsplit

from jobu_db_sqlite import SQLiteDatabase

ROUNDS, TURNS = 15, 2000
FEW, MANY = 100, 10_000


async def crowd(db: Any, tasks: int, turns: int) -> list[float]:
    """Let many tasks borrow in turns; return how long each waited, in seconds."""
    waits: list[float] = []

    async def borrow() -> None:
        for _ in range(turns):
            started = perf_counter()
            async with db.pool.connection():
                waits.append(perf_counter() - started)
                await asyncio.sleep(0)

    await asyncio.gather(*(borrow() for _ in range(tasks)))
    return waits


async def per_acquire(db: Any, waiters: int) -> float:
    """Return microseconds of processor time per acquire while that many wait."""
    crowds, turns = MANY // waiters, 5
    started = process_time()
    for _ in range(crowds):
        await crowd(db, waiters, turns)
    return (process_time() - started) / (MANY * turns) * 1e6


async def cancelled_at_once(db: Any, waiters: int) -> float:
    """Return microseconds of processor time per waiter to queue up and be cancelled, at once."""
    held = [await db.pool.acquire() for _ in range(db.settings.pool.max_size)]
    started = process_time()
    for _ in range(MANY // waiters):
        tasks = [asyncio.create_task(db.pool.acquire()) for _ in range(waiters)]
        await asyncio.sleep(0)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    seconds = process_time() - started
    for lease in held:
        db.pool.release(lease)
    return seconds / MANY * 1e6


async def few_and_many(db: Any, cost: Callable[[Any, int], Awaitable[float]]) -> str:
    """Return the cost with few and with many waiters, in interleaved rounds, and the ratio."""
    rounds = [(await cost(db, FEW), await cost(db, MANY)) for _ in range(7)]
    few, many = (statistics.median(costs) for costs in zip(*rounds, strict=True))
    ratio = statistics.median(many / few for few, many in rounds)
    return f"{few:.1f} µs with {FEW} waiting, {many:.1f} µs with {MANY:,}: {ratio:.2f}"


async def memory_per_waiter(db: Any, waiters: int) -> float:
    """Return bytes per waiting task."""
    held = [await db.pool.acquire() for _ in range(db.settings.pool.max_size)]
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    tasks = [asyncio.create_task(db.pool.acquire()) for _ in range(waiters)]
    await asyncio.sleep(0)
    used = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    for lease in held:
        db.pool.release(lease)
    return used / waiters


async def beside_asyncmy(url: str) -> tuple[float, float]:
    """Return microseconds per acquire + release: asyncmy's pool, ours."""
    import asyncmy

    from jobu_db_mysql import MySQLDatabase

    parts = urlsplit(url)
    bare = await asyncmy.create_pool(
        host=parts.hostname,
        port=parts.port or 3306,
        user=unquote(parts.username or ""),
        password=unquote(parts.password or ""),
        minsize=1,
        maxsize=1,
    )
    db = await MySQLDatabase.create("ours", {"url": url, "pool": {"max_size": 1}})
    theirs, ours = [], []
    for _ in range(ROUNDS):
        started = process_time()
        for _ in range(TURNS):
            async with bare.acquire():
                pass
        theirs.append(process_time() - started)
        started = process_time()
        for _ in range(TURNS):
            async with db.pool.connection():
                pass
        ours.append(process_time() - started)
    bare.close()
    await bare.wait_closed()
    await db.close()
    return statistics.median(theirs) / TURNS * 1e6, statistics.median(ours) / TURNS * 1e6


async def main(url: str | None) -> None:
    config = {"path": ":memory:", "pool": {"timeout": 600.0}}
    db: Any = await SQLiteDatabase.create("crowd", config)
    print(f"per acquire: {await few_and_many(db, per_acquire)}")
    print(f"per cancelled waiter: {await few_and_many(db, cancelled_at_once)}")
    print(f"per waiting task: {await memory_per_waiter(db, 10_000):,.0f} bytes")
    waits = sorted(await crowd(db, 10_000, 3))
    rest = waits[len(waits) // 3 :]
    middle = statistics.median(rest)
    print(f"10,000 tasks, three turns: longest wait {waits[-1] / middle:.2f} times the median")
    await db.close()
    if url:
        theirs, ours = await beside_asyncmy(url)
        print(
            f"acquire + release: asyncmy {theirs:.2f} µs, ours {ours:.2f} µs: {ours - theirs:+.2f}"
        )


asyncio.run(main(sys.argv[1] if len(sys.argv) > 1 else None))
