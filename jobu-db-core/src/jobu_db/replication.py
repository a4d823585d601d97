"""How the servers of one database follow one another: the part of the seam that replicas need.

A backend whose servers replicate gives its driver a `Replication`. The core knows positions as
things that can be compared, merged and written down, and nothing of what is in them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, Self, TypeVar

C = TypeVar("C")
P = TypeVar("P", bound="Position")


class Position(ABC):
    """A place in what a primary has written, or several that are all to be reached. Immutable.

    `str` gives the text by which it is carried to another process; `Replication.parse` reads it.
    """

    @abstractmethod
    def covers(self, other: Self) -> bool:
        """Say whether a server that is here certainly has all that was written up to `other`."""

    @abstractmethod
    def may_reach(self, other: Self) -> bool:
        """Say whether a server that is here can come to cover `other` by following its primary.

        False where they belong to different histories: another cluster, or a promotion between.
        """

    @abstractmethod
    def merged(self, other: Self) -> Self:
        """Return what is reached where both are."""

    def after(self, earlier: Self) -> Self:
        """Return what is to be reached after `earlier` was seen, and then this, on the primary.

        Override where a primary that was promoted since makes the earlier one void: all that is
        left of what it told is on the new one.
        """
        return self.merged(earlier)


@dataclass(frozen=True, slots=True)
class HostState(Generic[P]):
    """What a server says of itself.

    Attributes:
        role: "primary" or "standby".
        position: What it has written, or replayed.
        lag: Seconds since what it replayed last was committed, None if it does not say. It means
            nothing on a server that has replayed all there is.
    """

    role: str
    position: P
    lag: float | None = None


class Replication(ABC, Generic[C, P]):
    """What a backend tells of its servers' positions; its driver's exceptions pass through.

    Class attributes:
        waits: A standby can be asked to wait for a position.
    """

    waits: ClassVar[bool] = False

    @abstractmethod
    def parse(self, text: str) -> P:
        """Read what `str` of a position gave.

        Raises:
            ValueError: It is none.
        """

    @abstractmethod
    def committed(self, connection: C) -> P | None:
        """Return the position of the commit that just ended on a connection; None if not known."""

    async def written(self, connection: C) -> P:
        """Return what a statement outside a transaction has committed, which just ended.

        Override where the answer to the statement has told that.
        """
        return await self.position(connection)

    @abstractmethod
    async def position(self, connection: C) -> P:
        """Ask a primary how far it has written; nothing that is committed lies beyond that."""

    @abstractmethod
    async def look(self, connection: C) -> HostState[P]:
        """Ask a server, in whatever role, for its state."""

    async def wait(self, connection: C, position: P, seconds: float) -> None:
        """Have a standby wait until it has replayed a position, at most so many seconds; to be
        called, and overridden, only where it `waits`."""
        raise NotImplementedError


AnyReplication = Replication[Any, Any]
