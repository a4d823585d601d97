"""What the pool's state tells the runner to do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from jobu_db.pool.slots import Slot, Waiter


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
class WakeAt:
    """Tick at that time, in seconds on the monotonic clock."""

    when: float


Actions = list[Open | Check | Reset | Close | Grant | Refuse | WakeAt]
