"""One comparison in a process of its own: interleaved rounds of one kind of work.

    python compare.py '{"work": "a", "kind": "sqlite", "url": null, "rounds": 5, "quick": true,
                        "only": null}'

Prints the samples as JSON: main.py starts it and reads that.
"""

from __future__ import annotations

import asyncio
import gc
import json
import random
import resource
import sys
import traceback
from dataclasses import asdict, dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

from contestant import Contestant, Size
from ours import Ours, OursWithoutReset
from places import Place, database_class, fresh_place
from units import UNITS
from watched import WATCHED
from works import WORKS, Work, sizes

MODULES = {"sqlite": "sqlite_peers", "postgres": "postgres_peers", "mysql": "mysql_peers"}
FLOORS = {"postgres": "postgres_floor", "mysql": "mysql_floor"}
WATCHED_IN = "acde"
"""The work in which jobu-db also runs watched."""

SETTLE = 0.003
"""Seconds between two samples, for what one contestant left to be done in the background."""


@dataclass(frozen=True)
class Order:
    """What to compare.

    Attributes:
        work, kind, url: A key of WORKS; which database; where its server is.
        rounds, quick: How often; with little work.
        only: Titles of the contestants, or None for all.
        floor: Also what sends jobu-db's messages and nothing else.
        memory: Measure one contestant's memory instead: its title.
    """

    work: str
    kind: str
    url: str | None
    rounds: int
    quick: bool = False
    only: list[str] | None = None
    floor: bool = False
    memory: str | None = None


@dataclass
class Result:
    """How a contestant did: seconds per call, one for each round."""

    title: str
    limit: bool
    floor: str
    resets: bool
    samples: list[float] = field(default_factory=list)
    notes: dict[str, Any] = field(default_factory=dict)
    error: str | None = None

    @classmethod
    def of(cls, contestant: Contestant) -> Result:
        """Begin one."""
        return cls(contestant.title, contestant.limit, contestant.floor, contestant.resets)


def contestants(order: Order) -> list[type[Contestant]]:
    """Return those that are asked for, ours first."""
    found: list[type[Contestant]] = [Ours, OursWithoutReset]
    if order.work == "l":
        found = list(UNITS)
    if order.work in WATCHED_IN:
        found += WATCHED
    if order.floor and order.kind in FLOORS:
        found += import_module(FLOORS[order.kind]).FLOORS
    found += import_module(MODULES[order.kind]).PEERS
    library = import_module("library_peers")
    found += library.PEERS
    if order.work == "i":
        found.insert(-2, library.SQLAlchemyImmediate)
    if order.only is not None:
        found = [one for one in found if one.title in order.only]
    needs = WORKS[order.work].needs
    able = [one for one in found if all(hasattr(one, method) for method in needs)]
    return [one for one in able if (order.work, order.kind) not in one.skips]


async def run(order: Order) -> list[Result]:
    """Compare; a contestant that fails is told and left out."""
    work = WORKS[order.work]
    size = sizes(work, quick=order.quick)
    async with fresh_place(order.kind, order.url, size.rows) as place:
        server = await database_class(place.kind).create("server", place.config())
        try:
            return await compare(order, work, size, place, server)
        finally:
            await server.close()


async def compare(order: Order, work: Work, size: Size, place: Place, server: Any) -> list[Result]:
    calls = work.quick_calls if order.quick else work.calls
    results: dict[Contestant, Result] = {}
    for make in contestants(order):
        contestant = make(place, size)
        result = Result.of(contestant)
        results[contestant] = result
        result.notes["server"] = server
        await attempt(result, prepare(work, contestant, result))
    gc.collect()
    gc.freeze()  # what is there now belongs to nobody's sample
    for number in range(min(order.rounds, work.rounds)):
        for contestant in in_turn(list(results), number):
            if results[contestant].error is None:
                await asyncio.sleep(SETTLE)
                await attempt(results[contestant], sample(work, contestant, calls, results))
    for contestant, result in results.items():
        if work.opened and result.error is None:
            await attempt(result, contestant.close())
        del result.notes["server"]
    return list(results.values())


def in_turn(everybody: list[Contestant], number: int) -> list[Contestant]:
    """Return them in an order of its own for each round, the same in each run."""
    order = list(everybody)
    random.Random(number).shuffle(order)
    return order


async def prepare(work: Work, contestant: Contestant, result: Result) -> None:
    if work.opened:
        await contestant.open()
    # Once before it counts: caches fill, servers fork, statements are prepared.
    await work.sample(contestant, max(work.quick_calls // 2, 1), result.notes)
    server = result.notes.pop("server")
    result.notes.clear()
    result.notes["server"] = server


async def sample(
    work: Work, contestant: Contestant, calls: int, results: dict[Contestant, Result]
) -> None:
    result = results[contestant]
    with contestant.sampling():
        result.samples.append(await work.sample(contestant, calls, result.notes))


async def attempt(result: Result, what: Any) -> None:
    """Await it; what goes wrong belongs to this contestant alone."""
    try:
        async with asyncio.timeout(120):
            await what
    except Exception as error:
        traceback.print_exc(file=sys.stderr)
        result.error = f"{type(error).__name__}: {error}".splitlines()[0][:120]


async def memory(order: Order) -> list[Result]:
    """Measure how much more memory one contestant's stream takes at its peak."""
    work = WORKS[order.work]
    size = sizes(work, quick=order.quick)
    async with fresh_place(order.kind, order.url, size.rows) as place:
        (make,) = contestants(order)
        await stream_once(make(place, Size(size.rows, 1, size.pool)))
        before = forget_peak()
        contestant = make(place, size)
        await stream_once(contestant)
        result = Result.of(contestant)
        result.notes["mebibytes"] = round((peak() - before) / 1024, 1)
    return [result]


async def stream_once(contestant: Contestant) -> None:
    await contestant.open()
    await contestant.stream()  # type: ignore[attr-defined]
    await contestant.close()


def forget_peak() -> int:
    """Return the memory that this process has now, in KiB, and have the peak begin there."""
    clear = Path("/proc/self/clear_refs")
    if not clear.exists():
        return peak()  # not Linux: what came before can hide some of what comes
    clear.write_text("5")
    return peak()


def peak() -> int:
    """Return the most memory that this process has had, in KiB."""
    status = Path("/proc/self/status")
    if status.exists():
        (line,) = (one for one in status.read_text().splitlines() if one.startswith("VmHWM"))
        return int(line.split()[1])
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most // 1024 if sys.platform == "darwin" else most


def main() -> None:
    order = Order(**json.loads(sys.argv[1]))
    if order.memory is not None:
        order = Order(**{**asdict(order), "only": [order.memory]})
        results = asyncio.run(memory(order))
    else:
        results = asyncio.run(run(order))
    json.dump([asdict(result) for result in results], sys.stdout)


if __name__ == "__main__":
    main()
