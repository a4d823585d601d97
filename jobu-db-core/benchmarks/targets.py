"""Where jobu-db has to be: ratios of medians of one run, and the few absolute limits."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from outcome import Figure, Outcome

ALWAYS, NEVER = "jobu-db", "jobu-db, reset: never"
BARE = {
    "sqlite": "aiosqlite, one connection",
    "postgres": "asyncpg, one connection",
    "mysql": "asyncmy, one connection",
}

RATIOS: tuple[tuple[str, str, str, str, float], ...] = (
    # work, database, ours, beside, at most
    ("a", "postgres", ALWAYS, BARE["postgres"], 1.1),
    ("a", "postgres", ALWAYS, "asyncpg.Pool", 0.62),
    ("a", "postgres", NEVER, BARE["postgres"], 1.0),
    ("a", "postgres", NEVER, "asyncpg.Pool", 0.58),
    ("c", "postgres", ALWAYS, BARE["postgres"], 1.12),
    ("c", "postgres", ALWAYS, "asyncpg.Pool", 0.68),
    ("c", "postgres", NEVER, BARE["postgres"], 1.0),
    ("c", "postgres", NEVER, "asyncpg.Pool", 0.6),
    ("d", "postgres", ALWAYS, BARE["postgres"], 1.6),
    ("d", "postgres", ALWAYS, "asyncpg.Pool", 0.58),
    ("d", "postgres", NEVER, BARE["postgres"], 1.15),
    ("d", "postgres", NEVER, "asyncpg.Pool", 0.45),
    ("a", "mysql", ALWAYS, BARE["mysql"], 1.35),
    ("c", "mysql", ALWAYS, BARE["mysql"], 1.3),
    *(
        (work, "mysql", ours, beside, limit)
        for work in "ac"
        for ours, beside, limit in (
            (ALWAYS, "SQLAlchemy", 1 / 1.6),
            (NEVER, BARE["mysql"], 1.05),
            (NEVER, "SQLAlchemy", 1 / 1.6),
        )
    ),
    ("a", "sqlite", ALWAYS, BARE["sqlite"], 0.55),
    ("a", "sqlite", ALWAYS, "aiosqlitepool", 0.32),
    ("d", "sqlite", ALWAYS, BARE["sqlite"], 0.64),
    *(
        (work, kind, ALWAYS, BARE[kind], limit)
        for work, limit in (("f", 1.05), ("g", 1.05), ("h", 1.1))
        for kind in BARE
    ),
)
CROWDS = {("postgres", ALWAYS): 0.5}
"""(b): beside the best of those that do the same; 1 where nothing is said."""
MICROSECONDS = 5.0
"""(e): so much more than asyncmy.Pool at most."""
MEBIBYTES = 30.0
"""(h): so much memory above the start at most."""


@dataclass(frozen=True)
class Verdict:
    """A target and what was measured.

    Attributes:
        work, kind, ours, beside: What was compared.
        measured, limit: A ratio of medians, or what `unit` says.
        best: The ratio of the best tenths of the rounds, or None.
    """

    work: str
    kind: str
    ours: str
    beside: str
    measured: float
    limit: float
    unit: str = "×"
    best: float | None = None

    @property
    def reached(self) -> bool:
        return self.measured <= self.limit

    @property
    def key(self) -> str:
        """Names the comparison in ratios.json."""
        return " | ".join((self.work, self.kind, self.ours, self.beside, self.unit))


def verdicts(outcome: Outcome) -> Iterator[Verdict]:
    """Yield those that this comparison can tell."""
    for work, kind, ours, beside, limit in RATIOS:
        if (work, kind) == (outcome.letter, outcome.kind):
            yield from _ratio(outcome, ours, outcome.figure(beside), limit)
    if outcome.letter == "b":
        yield from _crowd(outcome)
    elif outcome.letter == "i":
        yield from _writers(outcome)
    elif outcome.letter == "e":
        yield from _borrowing(outcome)
    elif outcome.letter == "h":
        yield from _memory(outcome)


def _ratio(outcome: Outcome, ours: str, peer: Figure | None, limit: float) -> Iterator[Verdict]:
    mine = outcome.figure(ours)
    if mine and peer:
        measured, best = mine.median / peer.median, mine.best / peer.best
        yield Verdict(outcome.letter, outcome.kind, ours, peer.title, measured, limit, best=best)


def _crowd(outcome: Outcome) -> Iterator[Verdict]:
    """First of all that hand over fairly, and, where we reset, that reset too."""
    fair = [one for one in outcome.figures if one.sound and one.fair and not one.ours]
    for ours, peers in ((ALWAYS, [one for one in fair if one.resets]), (NEVER, fair)):
        best = min(peers, key=lambda one: one.median, default=None)
        if best is None and outcome.figure(ours):  # the first, and the only one
            yield Verdict("b", outcome.kind, ours, "nobody else does both", 0.0, 1.0)
        yield from _ratio(outcome, ours, best, CROWDS.get((outcome.kind, ours), 1.0))


def _writers(outcome: Outcome) -> Iterator[Verdict]:
    peers = [one for one in outcome.figures if one.sound and not one.ours and not one.limit]
    if peers:
        yield from _ratio(outcome, ALWAYS, min(peers, key=lambda one: one.median), 0.7)
    mine = outcome.figure(ALWAYS)
    if mine:
        for what in ("errors", "lost"):
            yield Verdict("i", outcome.kind, ALWAYS, "", mine.notes[what], 0, what)


def _borrowing(outcome: Outcome) -> Iterator[Verdict]:
    mine, peer = outcome.figure(ALWAYS), outcome.figure("asyncmy.Pool")
    if mine and peer:
        more = (mine.median - peer.median) * 1e6
        yield Verdict("e", outcome.kind, ALWAYS, peer.title, more, MICROSECONDS, "µs more")


def _memory(outcome: Outcome) -> Iterator[Verdict]:
    mine = outcome.figure(ALWAYS)
    if mine and "mebibytes" in mine.notes:
        used = mine.notes["mebibytes"]
        yield Verdict("h", outcome.kind, ALWAYS, "", used, MEBIBYTES, "MiB")
