"""What each layer of the hot path costs: microseconds of processor time, on a driver that does
nothing at all, so that all that is measured is jobu-db's core.

    .venv/bin/python jobu-db-core/benchmarks/layers.py
    .venv/bin/python jobu-db-core/benchmarks/layers.py --lines a sqlite     which functions take it
    .venv/bin/python jobu-db-core/benchmarks/layers.py --lines d postgres URL

With --lines, one kind of work runs under Python's profiler, whose own cost is in its figures:
compare them with each other, not with those of the benchmarks.
"""

from __future__ import annotations

import asyncio
import cProfile
import pstats
import statistics
import sys
from collections.abc import Awaitable, Callable
from time import process_time
from typing import Any

from compare import Order, contestants
from nothing import NothingDatabase
from ours import Ours
from places import database_class, fresh_place
from works import WORKS, sizes

from jobu_db import get_connection, transactional
from jobu_db.events import events
from jobu_db.plugins import hookimpl
from jobu_db.transaction import ambient

ROUNDS, CALLS = 25, 400
SQL, NAMED = "SELECT 1 WHERE 1 = ?", "SELECT 1 WHERE 1 = :id"
PROFILED = 10
"""Samples under the profiler."""
Step = Callable[[], Awaitable[Any]]


class Listener:
    """Hears of every statement."""

    @hookimpl
    def jobu_db_statement(self, database: str, statement: str, seconds: float) -> None:
        """Do nothing."""


async def layers(rounds: int) -> list[tuple[str, float]]:
    """Return what each layer costs, in microseconds: by difference where it can't be alone."""
    db = await NothingDatabase.create("nothing", {})
    async with db.transaction():
        outer = ambient.current(db.pool)
    steps = await measured(InlineTask(db, outer).all(), rounds)
    await db.close()
    cost = {name: steps[name] - steps["nothing"] for name in steps}
    acquire, transaction, one = cost["acquire"], cost["transaction"], cost["one statement"]
    inside = (cost["two statements"] - one, cost["with a listener"] - cost["registering"])
    return [
        ("acquire + release", acquire),
        ("context variable: bind, look up, unbind", cost["context variable"]),
        ("transaction, beyond acquire and context variable",
         transaction - acquire - cost["context variable"]),
        ("a transaction as a whole", transaction),
        ("the same, read-only", cost["read-only transaction"]),
        ("@transactional, beyond the transaction", cost["decorator"] - transaction),
        ("get_connection()", cost["get_connection"] - cost["decorator"]),
        ("one statement in a transaction", inside[0]),
        (":name placeholders", cost["names"] - one),
        ("asking for listeners, per statement", cost["events"]),
        ("one listener, per statement", inside[1] / 2),
        ("a savepoint", cost["savepoint"] - transaction),
        ("one statement alone, acquire included", cost["alone"]),
    ]  # fmt: skip


class InlineTask:
    """What is timed; what a layer costs is a difference between two of them."""

    def __init__(self, db: Any, outer: Any) -> None:
        self._db, self._outer = db, outer
        self._listener = Listener()

        @transactional(db)
        async def decorated() -> None:
            pass

        @transactional(db)
        async def asking() -> None:
            get_connection(db.name)

        self.decorated, self.asking = decorated, asking

    def all(self) -> dict[str, Step]:
        """Return them by name."""
        return {
            "nothing": self.nothing,
            "acquire": self.acquire,
            "context variable": self.context_variable,
            "transaction": self.transaction,
            "read-only transaction": self.readonly,
            "savepoint": self.savepoint,
            "decorator": self.decorated,
            "get_connection": self.asking,
            "one statement": lambda: self.transaction(1),
            "two statements": lambda: self.transaction(2),
            "names": lambda: self.transaction(1, NAMED, {"id": 1}),
            "events": self.asking_for_listeners,
            "with a listener": self.listening,
            "registering": self.registering,
            "alone": lambda: self._db.fetch_one(SQL, (1,)),
        }

    async def nothing(self) -> None:
        return

    async def acquire(self) -> None:
        async with self._db.pool.connection():
            pass

    async def context_variable(self) -> None:
        ambient.bind(self._outer)
        ambient.current(self._db.pool)
        ambient.unbind(self._outer)

    async def transaction(self, statements: int = 0, sql: str = SQL, given: Any = (1,)) -> None:
        async with self._db.transaction() as ctx:
            for _ in range(statements):
                await ctx.fetch_one(sql, given)

    async def readonly(self) -> None:
        async with self._db.transaction(readonly=True):
            pass

    async def savepoint(self) -> None:
        async with self._db.transaction(), self._db.transaction():
            pass

    async def listening(self) -> None:
        events.register(self._listener)
        try:
            await self.transaction(2)
        finally:
            events.unregister(self._listener)

    async def registering(self) -> None:
        events.register(self._listener)
        events.unregister(self._listener)
        await self.transaction(2)

    async def asking_for_listeners(self) -> None:
        if events.statement:
            raise AssertionError


async def measured(steps: dict[str, Step], rounds: int) -> dict[str, float]:
    """Return microseconds for each step: medians of interleaved rounds."""
    samples: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(rounds):
        for name, step in steps.items():
            started = process_time()
            for _ in range(CALLS):
                await step()
            samples[name].append((process_time() - started) / CALLS * 1e6)
    return {name: statistics.median(taken) for name, taken in samples.items()}


async def lines(letter: str, kind: str, url: str | None) -> None:
    """Print which functions the time of one kind of work goes to, beside the bare driver's."""
    work = WORKS[letter]
    size = sizes(work, quick=False)
    makes = [
        make for make in contestants(Order(letter, kind, url, 1)) if make is Ours or make.limit
    ]
    async with fresh_place(kind, url, size.rows) as place:
        server = await database_class(kind).create("server", place.config())
        for make in makes[:2]:
            contestant = make(place, size)
            await contestant.open()
            await work.sample(contestant, work.calls, {"server": server})
            profile = cProfile.Profile()
            profile.enable()
            for _ in range(PROFILED):
                await work.sample(contestant, work.calls, {"server": server})
            profile.disable()
            await contestant.close()
            print(f"\n{contestant.title}: {PROFILED} samples", flush=True)
            pstats.Stats(profile).sort_stats("tottime").print_stats(30)
        await server.close()


def main() -> None:
    if sys.argv[1:2] == ["--lines"]:
        letter, kind, *url = sys.argv[2:]
        asyncio.run(lines(letter, kind, url[0] if url else None))
        return
    print("| layer | µs |\n|---|---:|")
    for name, cost in asyncio.run(layers(1 if "--quick" in sys.argv else ROUNDS)):
        print(f"| {name} | {cost:.2f} |")


if __name__ == "__main__":
    main()
