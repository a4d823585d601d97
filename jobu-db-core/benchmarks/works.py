"""The work to compare, (a) to (l): what one sample of each is, and what it needs."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from time import perf_counter
from typing import Any

from claim_loop import claim_loop
from contestant import Contestant, Size

CALLERS = 100
WRITERS = 50
WARM = 3
"""Calls before a sample."""

Notes = dict[str, Any]
Sample = Callable[[Contestant, int, Notes], Awaitable[float]]
"""Do the work so many times; return seconds for one, and leave figures in the notes."""


@dataclass(frozen=True)
class Work:
    """One kind of work.

    Attributes:
        title: For people.
        needs: Methods of the contestant.
        sample: Does and times it.
        calls, quick_calls: How often per sample.
        pool: Connections.
        unit: Of what is printed: "µs" or "ms".
        opened: The contestants are open before; else the work opens them.
        kinds: The databases it is for.
        rounds: How many at most, for what takes long.
    """

    title: str
    needs: tuple[str, ...]
    sample: Sample
    calls: int
    quick_calls: int
    pool: int = 2
    unit: str = "µs"
    opened: bool = True
    kinds: tuple[str, ...] = ("sqlite", "postgres", "mysql")
    rounds: int = 1000


def repeat(method: str) -> Sample:
    """One caller, one call after the other, each for another row."""

    async def sample(contestant: Contestant, calls: int, _: Notes) -> float:
        work = getattr(contestant, method)
        rows = contestant.size.rows
        keys = [random.randint(1, rows) for _ in range(calls)]
        for key in keys[:WARM]:  # not timed: the others have just had the processor's caches
            await work(key)
        started = perf_counter()
        for key in keys:
            await work(key)
        return (perf_counter() - started) / calls

    return sample


def whole(method: str) -> Sample:
    """A call that takes long: once, as a rule."""

    async def sample(contestant: Contestant, calls: int, _: Notes) -> float:
        work = getattr(contestant, method)
        started = perf_counter()
        for _ in range(calls):
            await work()
        return (perf_counter() - started) / calls

    return sample


async def crowd(contestant: Contestant, turns: int, notes: Notes) -> float:
    """A hundred tasks that read in turns.

    Notes `behind`: how many turns the slowest task still had before it when the first had done
    all of its own, in percent of them; 0 where connections are handed over fairly.
    """
    done = [0] * CALLERS
    behind = 0
    rows = contestant.size.rows

    async def caller(number: int) -> None:
        nonlocal behind
        for turn in range(turns):
            await contestant.read(1 + (number * turns + turn) % rows)  # type: ignore[attr-defined]
            done[number] += 1
        behind = behind or turns - min(done)

    started = perf_counter()
    await asyncio.gather(*(caller(number) for number in range(CALLERS)))
    seconds = perf_counter() - started
    notes["behind"] = max(notes.get("behind", 0), round(100 * behind / turns))
    return seconds / (CALLERS * turns)


async def borrow(contestant: Contestant, calls: int, _: Notes) -> float:
    """Acquire and release, nothing else."""
    connection: Any = contestant.connection  # type: ignore[attr-defined]
    started = perf_counter()
    for _ in range(calls):
        async with connection():
            pass
    return (perf_counter() - started) / calls


async def insert_many(contestant: Contestant, _: int, notes: Notes) -> float:
    """`executemany`, into an empty table."""
    rows = [(key, 0, f"name of {key}") for key in range(contestant.size.rows)]
    await notes["server"].execute("DELETE FROM fresh")
    started = perf_counter()
    await contestant.insert_many(rows)  # type: ignore[attr-defined]
    return perf_counter() - started


async def stream(contestant: Contestant, _: int, notes: Notes) -> float:
    """Rows one by one."""
    started = perf_counter()
    count = await contestant.stream()  # type: ignore[attr-defined]
    seconds = perf_counter() - started
    assert count == contestant.size.rows * contestant.size.factor, f"{count} rows"
    return seconds


async def writers(contestant: Contestant, turns: int, notes: Notes) -> float:
    """Fifty tasks that count up one number. Notes `lost` updates and `errors`, of all rounds."""
    server = notes["server"]
    await server.execute("UPDATE items SET counter = 0 WHERE id = 1")
    errors: Counter[str] = Counter()

    async def writer() -> None:
        for _ in range(turns):
            try:
                await contestant.add(1)  # type: ignore[attr-defined]
            except Exception as error:  # told in the table
                errors[f"{type(error).__name__}: {error}"[:80]] += 1

    started = perf_counter()
    await asyncio.gather(*(writer() for _ in range(WRITERS)))
    seconds = perf_counter() - started
    counted = await server.fetch_val("SELECT counter FROM items WHERE id = 1")
    failed = sum(errors.values())
    notes["errors"] = notes.get("errors", 0) + failed
    notes["lost"] = notes.get("lost", 0) + WRITERS * turns - failed - counted
    return seconds / (WRITERS * turns)


async def open_pool(contestant: Contestant, _: int, notes: Notes) -> float:
    """Open, and hold as many connections at once as the pool has."""
    everybody = asyncio.Barrier(contestant.size.pool)

    async def hold() -> None:
        async with contestant.connection():  # type: ignore[attr-defined]
            await everybody.wait()

    started = perf_counter()
    await contestant.open()
    await asyncio.gather(*(hold() for _ in range(contestant.size.pool)))
    seconds = perf_counter() - started
    await contestant.close()
    return seconds


WORKS = {
    "a": Work("a one-row SELECT in a read-only transaction", ("read",), repeat("read"), 20, 20),
    "b": Work(
        "the same, 100 tasks on 10 connections",
        ("read", "connection"),
        crowd,
        10,
        2,
        pool=10,
        rounds=15,
    ),
    "c": Work("a one-row UPDATE transaction", ("write",), repeat("write"), 20, 20),
    "d": Work("one statement without a transaction", ("single",), repeat("single"), 20, 20),
    "e": Work("acquire + release, no SQL", ("connection",), borrow, 100, 100),
    "f": Work(
        "fetch_all of 10,000 rows", ("fetch_many",), whole("fetch_many"), 2, 1, unit="ms", rounds=30
    ),
    "g": Work(
        "executemany of 10,000 rows", ("insert_many",), insert_many, 1, 1, unit="ms", rounds=20
    ),
    "h": Work("iterate over 1,000,000 rows", ("stream",), stream, 1, 1, unit="ms", rounds=5),
    "i": Work(
        "50 writers on one file", ("add",), writers, 20, 2, pool=5, kinds=("sqlite",), rounds=10
    ),
    "j": Work(
        "opening a pool of 10",
        ("connection",),
        open_pool,
        1,
        1,
        pool=10,
        unit="ms",
        opened=False,
        rounds=15,
    ),
    "k": Work(
        "the demo's claim loop, 8 workers",
        ("transaction",),
        claim_loop,
        200,
        20,
        pool=10,
        rounds=10,
    ),
    "l": Work(
        "a unit of work over SQLite and the server",
        ("both",),
        repeat("both"),
        20,
        20,
        kinds=("postgres", "mysql"),
        rounds=30,
    ),
}


def sizes(work: Work, *, quick: bool) -> Size:
    """Return how much there is to do."""
    return Size(rows=500 if quick else 10_000, factor=4 if quick else 100, pool=work.pool)
