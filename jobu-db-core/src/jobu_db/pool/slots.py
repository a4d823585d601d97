"""One place in the pool, where its connection is, and what can be done about it.

A `Slot` is one place: it exists from the decision to open a connection until that is gone from
the server, so that the server never sees more than `max_size`. Its `phase` says where the
connection is. The actions at the end are what the state tells the runner to do.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
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


class Ending(Enum):
    """How a transaction is to end for which its holder did not wait."""

    COMMIT = "commit"
    ROLLBACK = "rollback"


COMMIT = Ending.COMMIT


class Slot(Generic[C]):
    """One place in the pool and the connection in it. Times are seconds on the monotonic clock.

    Only `PoolState` changes these:
        phase, since: Where the connection is, and since when.
        connection: None while it is being opened.
        expires_at: The end of its lifetime.
        proven_at: When it was last known to answer.
        suspect: Another one was lost since, so that it must be proven whenever it answered.
        last_used_at, uses: When it last came back, and how often.

    These are the runner's and the pool's:
        task: What works on the connection, if anything does.
        asked: Who leased it, as `callsite.note` returns it, or None.
        scoped: It was leased for the length of a block, so that only the task in that block can
            give it back.
        unanswered_since: When a commit, or a statement outside a transaction, was sent that has
            no answer yet, in seconds on the monotonic clock, or None.
        interrupted_at: When a call on it was cancelled that may still run, in seconds on the
            monotonic clock; None if none was.
        ends: How the transaction that is open on it is to end before it is lent again, or None.
            While it is leased: ahead of the BEGIN of its holder, who has not begun yet.
        leak_reported: The holder was reported to hold it for too long.
        session: Tells the session that has it, or had it since the last reset, that the pool is
            closing: what was set in a session is undone whatever the settings say. None otherwise.
    """

    __slots__ = (
        "asked",
        "connection",
        "created_at",
        "ends",
        "expires_at",
        "id",
        "interrupted_at",
        "last_used_at",
        "leak_reported",
        "phase",
        "proven_at",
        "scoped",
        "session",
        "since",
        "suspect",
        "task",
        "unanswered_since",
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
        self.suspect = False
        self.last_used_at = now
        self.uses = 0
        self.task: Any = None
        self.asked: Any = None
        self.scoped = False
        self.unanswered_since: float | None = None
        self.interrupted_at: float | None = None
        self.ends: Ending | None = None
        self.leak_reported = False
        self.session: weakref.WeakMethod[Callable[[], None]] | None = None


class Waiter(Protocol[C]):
    """Somebody in the queue.

    Attributes:
        slot: What it was granted.
        deadline: Until when it waits, in seconds on the monotonic clock.
        begins: It opens a transaction, ahead of whose BEGIN the end of another one can travel.
    """

    slot: Slot[C] | None
    deadline: float
    begins: bool


# -- what the state tells the runner to do


@dataclass(frozen=True, slots=True)
class Open:
    slot: Slot[Any]


@dataclass(frozen=True, slots=True)
class Check:
    slot: Slot[Any]


@dataclass(frozen=True, slots=True)
class Reset:
    slot: Slot[Any]


@dataclass(frozen=True, slots=True)
class Owe:
    """Have `PoolState.send_owed` called in the next pass of the event loop."""

    slot: Slot[Any]


@dataclass(frozen=True, slots=True)
class Close:
    slot: Slot[Any]
    reason: str


@dataclass(frozen=True, slots=True)
class Grant:
    """The waiter's `slot` is leased to it."""

    waiter: Waiter[Any]


@dataclass(frozen=True, slots=True)
class Refuse:
    """`cause` is the failed connect, or None where the pool is closing."""

    waiter: Waiter[Any]
    cause: BaseException | None


@dataclass(frozen=True, slots=True)
class Expire:
    """The waiter's time is up; `waiting` were in the queue then, itself included."""

    waiter: Waiter[Any]
    waiting: int


@dataclass(frozen=True, slots=True)
class WakeAt:
    """Tick at that time, in seconds on the monotonic clock."""

    when: float


Actions = list[Open | Check | Reset | Owe | Close | Grant | Refuse | Expire | WakeAt]
