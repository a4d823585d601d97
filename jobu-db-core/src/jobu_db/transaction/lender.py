"""Where the connection of a transaction comes from, and goes back to."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Protocol, TypeVar

from jobu_db.pool.lease import PooledConnection
from jobu_db.pool.slots import Ending

T = TypeVar("T")


class Lender(Protocol):
    """From whom a root transaction has its connection: a pool, a session, or several replicas.

    Attributes:
        resets: The reset may travel with the end: what was set need not hold any longer.
        ends_transactions: One for whose end nobody waits may be left open, for the lender to end.
        replaces: What failed because its connection had died may be tried on another one.
    """

    @property
    def resets(self) -> bool: ...

    @property
    def ends_transactions(self) -> bool: ...

    @property
    def replaces(self) -> bool: ...

    async def acquire_for(
        self,
        first: Callable[[PooledConnection[Any]], Awaitable[T]],
        deadline: float,
        *,
        statement: str = "BEGIN",
        repeatable: bool = False,
        begins: bool = False,
    ) -> tuple[PooledConnection[Any], T]:
        """Lend a connection on which `first` was run; arguments as for
        `AsyncConnectionPool.acquire_for`."""

    def release(
        self,
        lease: PooledConnection[Any],
        *,
        clean: bool = False,
        discard: str | None = None,
        ends: Ending | None = None,
    ) -> object:
        """Take it back, at once; arguments as for `AsyncConnectionPool.release`."""

    def may_repeat(
        self,
        error: BaseException,
        lease: PooledConnection[Any],
        started: float,
        *,
        repeatable: bool,
    ) -> bool:
        """Say whether what was sent first may be tried on another connection that is borrowed
        here; arguments as for `AsyncConnectionPool.may_repeat`. Asked only if it `replaces`."""
