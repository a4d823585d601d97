"""A connection on loan from the pool."""

from __future__ import annotations

from time import monotonic
from typing import Any, Generic, Protocol, TypeVar

from jobu_db._aio.callsite import Asked
from jobu_db.errors import DatabaseError
from jobu_db.pool.slots import Slot

C = TypeVar("C")

_OVER = "this connection has been released to its pool already"


class Lender(Protocol):
    """A pool, as far as a lease asks."""

    name: str

    def reclaim(self, slot: Slot[Any], *, in_generator: bool) -> None:
        """Take back what a garbage-collected lease held."""


class PooledConnection(Generic[C]):
    """A connection on loan. It belongs to its holder until released, and is of no use after.

    Attributes:
        interrupted_at: See `interrupted`; in seconds on the monotonic clock, or None.
        touched: The driver's connection was asked for, so that it may need a reset.
        answered: False if certainly nothing was sent on it, so that it did not prove to be alive.
        in_generator: An async generator holds it, which the event loop closes if it is dropped.
        behind: The end of the transaction before is sent with what its holder sends first.
    """

    __slots__ = (
        "_pool",
        "_slot",
        "answered",
        "behind",
        "in_generator",
        "interrupted_at",
        "touched",
    )

    def __init__(self, pool: Lender, slot: Slot[C]) -> None:
        self._slot: Slot[C] | None = None
        self._pool = pool
        self.touched = False
        self.answered = True
        self.interrupted_at: float | None = None
        self.in_generator = False
        self.behind = False
        self._slot = slot  # last: Ctrl-C may strike in between, and `__del__` needs the rest

    @property
    def interrupted(self) -> bool:
        """Set it if a call on it was cancelled, so that the pool stops what still runs."""
        return self.interrupted_at is not None

    @interrupted.setter
    def interrupted(self, interrupted: bool) -> None:
        self.interrupted_at = monotonic() if interrupted else None

    @property
    def connection(self) -> C:
        """The driver's own connection.

        Raises:
            DatabaseError: The loan is over.
        """
        slot = self._slot
        if slot is None or slot.connection is None:
            raise DatabaseError(_OVER)
        # Asked for counts as used: what its holder does with it is not seen here.
        self.touched = True
        connection: C = slot.connection
        return connection

    @property
    def pool(self) -> Any:
        """The pool that lent it, for the core's own use."""
        return self._pool

    @property
    def asked(self) -> Asked | None:
        """Who borrowed it, for `Callsite`; None once it is over."""
        return None if self._slot is None else self._slot.asked

    @property
    def in_use(self) -> bool:
        """True until released."""
        return self._slot is not None

    @property
    def id(self) -> int:
        """Number of the connection, unique in its pool."""
        return self._live_slot.id

    @property
    def created_at(self) -> float:
        """When it was opened, in seconds on the monotonic clock."""
        return self._live_slot.created_at

    @property
    def last_used_at(self) -> float:
        """When it was last released, in seconds on the monotonic clock."""
        return self._live_slot.last_used_at

    @property
    def _live_slot(self) -> Slot[C]:
        if self._slot is None:
            raise DatabaseError(_OVER)
        return self._slot

    @property
    def slot(self) -> Slot[C] | None:
        """The slot while it lasts; for the pool's own use."""
        return self._slot

    def slot_of(self, pool: Lender) -> Slot[C]:
        """Return the slot, for the pool's own use.

        Raises:
            DatabaseError: It is over already, or of another pool.
        """
        if self._pool is not pool:
            raise DatabaseError(f"this connection belongs to the pool of {self._pool.name!r}")
        if self._slot is None:
            raise DatabaseError(_OVER)
        return self._slot

    def take_owed(self) -> bool:
        """Say whether a transaction is yet to be ended on the connection, which is the holder's
        business from here on."""
        slot = self._slot
        if slot is None or slot.ends is None:
            return False
        slot.ends = None
        self.behind = True
        return True

    def expect_answer(self, since: float | None) -> None:
        """Note since when a commit, or a statement outside a transaction, is unanswered, in
        seconds on the monotonic clock; None once it is answered."""
        if self._slot is not None:
            self._slot.unanswered_since = since

    def end(self) -> None:
        """The connection is back; for the pool's own use."""
        self._slot = None

    def __del__(self) -> None:
        if self._slot is not None:
            # In any thread, and when the program ends: `reclaim` leaves the work to the loop.
            self._pool.reclaim(self._slot, in_generator=self.in_generator)
