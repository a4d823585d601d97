"""Where jobu-db has to be: ratios of medians of one run, and the few absolute limits.

A ratio depends on what is beside the work of the library: on one processor everything counts, and
behind a network the round trips alone. So there are limits for each way to measure.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from figures import APART, NETWORK, PINNED, Run
from outcome import Figure, Outcome

ALWAYS, NEVER = "jobu-db", "jobu-db, reset: never"
BARE = {
    "sqlite": "aiosqlite, one connection",
    "postgres": "asyncpg, one connection",
    "mysql": "asyncmy, one connection",
    "mariadb": "asyncmy, one connection",
}
COLUMNS = {PINNED: 0, "free": 0, APART: 1, NETWORK: 2}
"""Which of the limits hold. Where the processors are left to the system, the widest do."""

Limits = tuple[float | None, float | None, float | None]
"""With one processor, with another for the servers, with a network; None where there is none."""


@dataclass(frozen=True)
class Target:
    """How long one kind of work may take beside a peer.

    Attributes:
        work, product, ours, beside: What is compared; `product` as in outcome.py.
        limits: Ratios of medians, at most.
    """

    work: str
    product: str
    ours: str
    beside: str
    limits: Limits


_ = None
RATIOS: tuple[Target, ...] = (
    Target("a", "postgres", ALWAYS, BARE["postgres"], (1.10, 0.75, 0.42)),
    Target("a", "postgres", ALWAYS, "asyncpg.Pool", (0.62, 0.50, 0.32)),
    Target("a", "postgres", NEVER, BARE["postgres"], (1.00, 0.65, 0.42)),
    Target("a", "postgres", NEVER, "asyncpg.Pool", (0.58, 0.45, 0.32)),
    Target("b", "postgres", ALWAYS, "asyncpg.Pool", (0.50, 1.00, 0.30)),
    Target("c", "postgres", ALWAYS, BARE["postgres"], (1.12, 0.98, 0.72)),
    Target("c", "postgres", ALWAYS, "asyncpg.Pool", (0.68, 0.70, 0.55)),
    Target("c", "postgres", NEVER, BARE["postgres"], (1.00, 0.88, 0.72)),
    Target("c", "postgres", NEVER, "asyncpg.Pool", (0.60, 0.65, 0.55)),
    Target("d", "postgres", ALWAYS, BARE["postgres"], (1.60, _, _)),
    Target("d", "postgres", ALWAYS, "asyncpg.Pool", (0.58, _, _)),
    Target("d", "postgres", NEVER, BARE["postgres"], (1.15, _, _)),
    Target("d", "postgres", NEVER, "asyncpg.Pool", (0.45, _, _)),
    Target("a", "mariadb", ALWAYS, BARE["mysql"], (1.35, 0.75, 0.40)),
    Target("a", "mysql", ALWAYS, BARE["mysql"], (1.45, 1.00, 0.40)),
    Target("c", "mariadb", ALWAYS, BARE["mysql"], (1.30, 1.00, 0.74)),
    Target("c", "mysql", ALWAYS, BARE["mysql"], (1.35, 1.05, 0.74)),
    *(
        Target(work, product, ours, beside, limits)
        for product in ("mariadb", "mysql")
        for work, ours, beside, limits in (
            ("a", ALWAYS, "SQLAlchemy", (1 / 1.6, _, 0.36)),
            ("a", NEVER, BARE["mysql"], (1.05, _, _)),
            ("a", NEVER, "SQLAlchemy", (1 / 1.6, _, _)),
            ("c", ALWAYS, "SQLAlchemy", (1 / 1.6, _, 0.70)),
            ("c", NEVER, BARE["mysql"], (1.05, _, _)),
            ("c", NEVER, "SQLAlchemy", (1 / 1.6, _, _)),
        )
    ),
    Target("a", "sqlite", ALWAYS, BARE["sqlite"], (0.55, _, _)),
    Target("a", "sqlite", ALWAYS, "aiosqlitepool", (0.32, _, _)),
    Target("d", "sqlite", ALWAYS, BARE["sqlite"], (0.64, _, _)),
    *(
        Target(work, product, ALWAYS, beside, (limit, _, _))
        for work, limit in (("f", 1.05), ("g", 1.05), ("h", 1.1))
        for product, beside in BARE.items()
    ),
)
WRITERS = 0.7
"""(i): beside the best of those that lose nothing."""
MICROSECONDS = 5.0
"""(e): so much more than asyncmy.Pool at most."""
MEBIBYTES = 30.0
"""(h): so much memory above the start at most."""


@dataclass(frozen=True)
class Verdict:
    """A target and what was measured.

    Attributes:
        work, product, ours, beside: What was compared.
        measured, limit: A ratio of medians, or what `unit` says.
        best: The ratio of the best tenths of the rounds, or None.
        floor: The ratio of what sends our messages and does nothing else; None if that did not run.
    """

    work: str
    product: str
    ours: str
    beside: str
    measured: float
    limit: float
    unit: str = "×"
    best: float | None = None
    floor: float | None = None

    @property
    def reached(self) -> bool:
        return self.measured <= self.limit

    @property
    def key(self) -> str:
        """Names the comparison in ratios.json."""
        return " | ".join((self.work, self.product, self.ours, self.beside, self.unit))


def judged(run: Run) -> list[Verdict]:
    """Return all that the run can tell; of ratios, only where its way to measure has limits."""
    return [verdict for outcome in run.outcomes for verdict in verdicts(outcome, run.mode)]


def verdicts(outcome: Outcome, mode: str) -> Iterator[Verdict]:
    """Yield those that this comparison can tell."""
    column = COLUMNS.get(mode)
    if column is not None:
        yield from _ratios(outcome, column)
    if outcome.letter == "i":
        yield from _lost(outcome)
    elif outcome.letter == "e":
        yield from _borrowing(outcome)
    elif outcome.letter == "h":
        yield from _memory(outcome)


def _ratios(outcome: Outcome, column: int) -> Iterator[Verdict]:
    for one in RATIOS:
        limit = one.limits[column]
        if limit is not None and (one.work, one.product) == (outcome.letter, outcome.product):
            yield from _ratio(outcome, one.ours, outcome.figure(one.beside), limit)
    if outcome.letter == "b":
        yield from _crowd(outcome)
    elif outcome.letter == "i":
        peers = [one for one in outcome.figures if one.sound and one.peer and not one.limit]
        best = min(peers, key=lambda one: one.median, default=None)
        yield from _ratio(outcome, ALWAYS, best, WRITERS)


def _ratio(outcome: Outcome, ours: str, peer: Figure | None, limit: float) -> Iterator[Verdict]:
    mine = outcome.figure(ours)
    if mine and peer:
        floor = outcome.floor(mine)
        yield Verdict(
            outcome.letter, outcome.product, ours, peer.title, mine.median / peer.median, limit,
            best=mine.best / peer.best,
            floor=floor.median / peer.median if floor else None,
        )  # fmt: skip


def _crowd(outcome: Outcome) -> Iterator[Verdict]:
    """First of all that hand over fairly, and, where we reset, that reset too; where nothing else
    is said of (b)."""
    said = {(one.product, one.ours) for one in RATIOS if one.work == "b"}
    fair = [one for one in outcome.figures if one.sound and one.fair and one.peer]
    for ours, peers in ((ALWAYS, [one for one in fair if one.resets]), (NEVER, fair)):
        if (outcome.product, ours) in said:
            continue
        best = min(peers, key=lambda one: one.median, default=None)
        if best is None and outcome.figure(ours):  # the first, and the only one
            yield Verdict("b", outcome.product, ours, "nobody else does both", 0.0, 1.0)
        yield from _ratio(outcome, ours, best, 1.0)


def _lost(outcome: Outcome) -> Iterator[Verdict]:
    mine = outcome.figure(ALWAYS)
    if mine:
        for what in ("errors", "lost"):
            yield Verdict("i", outcome.product, ALWAYS, "", mine.notes[what], 0, what)


def _borrowing(outcome: Outcome) -> Iterator[Verdict]:
    mine, peer = outcome.figure(ALWAYS), outcome.figure("asyncmy.Pool")
    if mine and peer:
        more = (mine.median - peer.median) * 1e6
        yield Verdict("e", outcome.product, ALWAYS, peer.title, more, MICROSECONDS, "µs more")


def _memory(outcome: Outcome) -> Iterator[Verdict]:
    mine = outcome.figure(ALWAYS)
    if mine and "mebibytes" in mine.notes:
        used = mine.notes["mebibytes"]
        yield Verdict("h", outcome.product, ALWAYS, "", used, MEBIBYTES, "MiB")
