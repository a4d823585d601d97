"""A connection on loan from the pool."""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import TYPE_CHECKING, Generic, TypeVar

from jobu_db._pool_state import Slot
from jobu_db.errors import DatabaseError

if TYPE_CHECKING:
    from jobu_db.pool import AsyncConnectionPool

C = TypeVar("C")

_OVER = "this connection has been released to its pool already"


class PooledConnection(Generic[C]):
    """A connection on loan. It belongs to its holder until released, and is of no use after.

    Attributes:
        interrupted: Set if a call on it was cancelled, so that the pool stops what still runs.
    """

    __slots__ = ("_pool", "_slot", "_touched", "interrupted")

    def __init__(self, pool: AsyncConnectionPool[C], slot: Slot[C]) -> None:
        self._pool = pool
        self._slot: Slot[C] | None = slot
        self._touched = False
        self.interrupted = False

    @property
    def connection(self) -> C:
        """The driver's own connection.

        Raises:
            DatabaseError: The loan is over.
        """
        slot = self._slot
        if slot is None or slot.connection is None:
            raise DatabaseError(_OVER)
        self._touched = True
        return slot.connection

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
    def fresh(self) -> bool:
        """True if nobody held it before."""
        return self._live_slot.uses == 0

    @property
    def _live_slot(self) -> Slot[C]:
        if self._slot is None:
            raise DatabaseError(_OVER)
        return self._slot

    def __del__(self) -> None:
        if self._slot is not None:
            self._pool._reclaim(self._slot)


class Loan(Generic[C]):
    """`async with pool.connection() as conn`."""

    __slots__ = ("_lease", "_pool", "_timeout")

    def __init__(self, pool: AsyncConnectionPool[C], timeout: float | None) -> None:
        self._pool = pool
        self._timeout = timeout

    async def __aenter__(self) -> PooledConnection[C]:
        pool = self._pool
        self._lease = pool.acquire_nowait() or await pool.acquire(self._timeout)
        return self._lease

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None
    ) -> None:
        self._lease.interrupted |= isinstance(error, asyncio.CancelledError)
        self._pool.release(self._lease)
