"""The connections of a pool, where each of them is, and how many there may be."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from math import inf
from typing import Any, Generic, Protocol, TypeVar

C = TypeVar("C")


@dataclass(slots=True)
class Limits:
    """The settings that decisions depend on, in seconds; `inf` means off."""

    min_size: int
    max_size: int
    max_waiting: int | None = None
    max_idle: float = inf
    max_lifetime: float = inf
    check_after: float = inf


class Phase(Enum):
    """Where a connection is."""

    OPENING = "opening"
    IDLE = "idle"
    CHECKING = "checking"
    LEASED = "leased"
    RESETTING = "resetting"
    CLOSING = "closing"


# The phases of every acquire and release: Python 3.11 is slow to look up a member of an Enum.
IDLE, LEASED = Phase.IDLE, Phase.LEASED


class Slot(Generic[C]):
    """One place in the pool and the connection in it. Times are seconds on the monotonic clock.

    Only `PoolState` changes these:
        phase, since: Where the connection is, and since when.
        connection: None while it is being opened.
        expires_at: The end of its lifetime.
        proven_at: When it was last known to answer.
        last_used_at, uses: When it last came back, and how often.

    These are the runner's and the pool's:
        task: What works on the connection, if anything does.
        asked: Who leased it, as `_holder` notes it, or None.
        interrupted: A call on it was cancelled and may still run.
        leak_reported: The holder was reported to hold it for too long.
    """

    __slots__ = (
        "asked",
        "connection",
        "created_at",
        "expires_at",
        "id",
        "interrupted",
        "last_used_at",
        "leak_reported",
        "phase",
        "proven_at",
        "since",
        "task",
        "uses",
    )

    def __init__(self, id: int, now: float) -> None:
        self.id = id
        self.phase = Phase.OPENING
        self.since = now
        self.connection: Any = None
        self.created_at = now
        self.expires_at = inf
        self.proven_at = now
        self.last_used_at = now
        self.uses = 0
        self.task: Any = None
        self.asked: Any = None
        self.interrupted = False
        self.leak_reported = False


class Waiter(Protocol[C]):
    """Somebody in the queue. `slot` is set by a grant."""

    slot: Slot[C] | None


class Slots(Generic[C]):
    """Keeps the books, and decides nothing.

    Attributes:
        slots: All places that are taken.
        idle: The idle ones, least recently used first.
        staying: How many are not being closed.
    """

    def __init__(self) -> None:
        self.slots: set[Slot[C]] = set()
        self.idle: list[Slot[C]] = []
        self.staying = 0
        self._next_id = 1

    def add(self, now: float) -> Slot[C]:
        """Take a place, for a connection that is yet to be opened."""
        slot: Slot[C] = Slot(self._next_id, now)
        self._next_id += 1
        self.slots.add(slot)
        self.staying += 1
        return slot

    def move(self, slot: Slot[C], phase: Phase, now: float) -> None:
        """Note where a connection went. The idle ones are the caller's to take out."""
        slot.phase = phase
        slot.since = now

    def park(self, slot: Slot[C], now: float) -> None:
        """Put a connection among the idle ones, in its place by last use."""
        slot.phase = IDLE
        slot.since = now
        idle = self.idle
        at = len(idle)
        while at and idle[at - 1].last_used_at > slot.last_used_at:
            at -= 1
        idle.insert(at, slot)

    def retire(self, slot: Slot[C], now: float) -> None:
        """Note that a connection is being closed."""
        self.move(slot, Phase.CLOSING, now)
        self.staying -= 1

    def remove(self, slot: Slot[C]) -> None:
        """Free a place."""
        self.slots.remove(slot)
        if slot.phase is not Phase.CLOSING:
            self.staying -= 1

    # -- figures

    @property
    def established(self) -> int:
        """Number of connections that the server has accepted and that are not being closed."""
        return self.staying - self.count(Phase.OPENING)

    def count(self, phase: Phase) -> int:
        """Number of connections in a phase."""
        return sum(slot.phase is phase for slot in self.slots)

    def leased(self) -> list[Slot[C]]:
        """The leases, longest first."""
        held = [slot for slot in self.slots if slot.phase is Phase.LEASED]
        return sorted(held, key=lambda slot: slot.since)
