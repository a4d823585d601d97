"""What this process knows of the atomic units of one database."""

from __future__ import annotations

from dataclasses import dataclass, field
from time import monotonic

from jobu_db.two_phase import Branch, Place


@dataclass(frozen=True, slots=True)
class Identity:
    """Who a database that decides is.

    Attributes:
        id: Part of the names of all branches that it decides.
        fingerprint: Of the database that was given this identity.
    """

    id: str
    fingerprint: str


@dataclass(frozen=True, slots=True)
class Waiting:
    """A prepared branch that waits for recovery.

    Attributes:
        since: When it was prepared, or seen first, in seconds on the monotonic clock.
        why: What it waits for.
    """

    branch: Branch
    since: float
    why: str

    @property
    def age(self) -> float:
        """Seconds."""
        return monotonic() - self.since


@dataclass(slots=True)
class TwoPhaseNotes:
    """Noted once, at the first unit, and at each round of recovery.

    Attributes:
        place: Where the connections lead, or None as long as it was not asked for.
        identity: As a decider, or None.
        prepares: It was found fit to prepare.
        waiting: Branches that wait for recovery, by their names.
    """

    place: Place | None = None
    identity: Identity | None = None
    prepares: bool = False
    waiting: dict[str, Waiting] = field(default_factory=dict)

    def note(self, branch: Branch, why: str, age: float | None = None) -> Waiting:
        """Note that a branch waits; `age` in seconds if the server told it."""
        known = self.waiting.get(branch.name)
        # What the server says of its age is right; else it counts from when it was first seen here.
        since = monotonic() - (age or 0.0)
        if age is None and known is not None:
            since = known.since
        waiting = self.waiting[branch.name] = Waiting(branch, since, why)
        return waiting

    def forget(self, branch: Branch) -> None:
        """A branch has ended."""
        self.waiting.pop(branch.name, None)

    def figures(self) -> list[dict[str, object]]:
        """Return the branches that wait, for `stats()`; ages in seconds."""
        return [
            {"branch": name, "unit": one.branch.unit, "age": one.age, "why": one.why}
            for name, one in list(self.waiting.items())
        ]
