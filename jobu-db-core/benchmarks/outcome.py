"""What came out of one comparison: medians, spread, ratios."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from works import WORKS, Work

FAIR = 25
"""Percent of its turns that a task may be behind in (b) where connections go by turns."""


@dataclass(frozen=True)
class Figure:
    """How one contestant did. Times are in seconds per call.

    Attributes:
        median, low, high: Of the rounds; the quartiles.
        limit, resets, floor: See contestant.py.
        best: What the best tenth of the rounds stayed below: a busy machine distorts it least.
        notes: Other figures, see works.py.
        error: Why there are none, or None.
    """

    title: str
    limit: bool
    floor: str
    resets: bool
    median: float
    low: float
    high: float
    best: float
    notes: Mapping[str, Any]
    error: str | None

    @classmethod
    def of(cls, result: Mapping[str, Any]) -> Figure:
        """Make one from what a comparison's process printed."""
        samples = result["samples"]
        best = low = high = median = float("nan")
        if samples:
            best = low = high = median = statistics.median(samples)
        if len(samples) > 1:
            low, _, high = statistics.quantiles(samples, n=4, method="inclusive")
            best = statistics.quantiles(samples, n=10, method="inclusive")[0]
        same = ("title", "limit", "floor", "resets", "notes", "error")
        fixed = {name: result[name] for name in same}
        return cls(median=median, low=low, high=high, best=best, **fixed)

    @property
    def sound(self) -> bool:
        """Did all the work, and did it right."""
        wrong = self.notes.get("errors", 0) or self.notes.get("lost", 0)
        return self.error is None and not wrong

    @property
    def fair(self) -> bool:
        """Nobody had to wait much longer than others in (b)."""
        return bool(self.notes.get("behind", 0) <= FAIR)

    @property
    def ours(self) -> bool:
        """It is jobu-db."""
        return self.title.startswith("jobu-db")

    @property
    def peer(self) -> bool:
        """It is something that could be used in place of jobu-db."""
        return not self.ours and not self.floor


@dataclass(frozen=True)
class Outcome:
    """One kind of work on one database.

    Attributes:
        letter: A key of WORKS.
        kind: "sqlite", "postgres" or "mysql".
        place: Name and version of the database.
        figures: One for each contestant.
    """

    letter: str
    kind: str
    place: str
    figures: tuple[Figure, ...]

    @property
    def work(self) -> Work:
        """What was done."""
        return WORKS[self.letter]

    def figure(self, title: str) -> Figure | None:
        """Return a contestant's figure, if it did the work."""
        found = [one for one in self.figures if one.title == title and one.error is None]
        return found[0] if found else None

    def floor(self, ours: Figure) -> Figure | None:
        """Return the figure of what sends the same messages and does nothing else, if it ran."""
        found = [one for one in self.figures if one.floor == ours.title and one.error is None]
        return found[0] if found else None

    @property
    def product(self) -> str:
        """The same as `kind`, with "mariadb" told from "mysql"."""
        return "mariadb" if "MariaDB" in self.place else self.kind

    @property
    def reference(self) -> Figure | None:
        """What the ratios in the table are to: the bare driver, else the first of the peers."""
        sound = [one for one in self.figures if one.error is None]
        ranked = sorted(sound, key=lambda one: (not one.limit, not one.peer))
        return ranked[0] if ranked else None
