"""`async with db.transaction(readonly=True, replica=True)`: a transaction where a replica is."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from time import monotonic
from typing import Any, Generic, TypeVar

from jobu_db.driver import TransactionMode
from jobu_db.errors import ConnectionLostError
from jobu_db.pool.lease import PooledConnection
from jobu_db.pool.pool import AsyncConnectionPool
from jobu_db.pool.slots import Ending
from jobu_db.replicas.choice import Replicas
from jobu_db.transaction.block import Context, ManagedTransaction
from jobu_db.transaction.root import RootTransaction
from jobu_db.transaction.session import Level

T = TypeVar("T")


class ReplicaTransaction(ManagedTransaction[Context], Generic[Context]):
    """Read-only, on a replica that has what the running task has committed, or on the primary.

    Inside another transaction of the same database it is a savepoint there, as any.

    Args:
        pool: Of the primary.
        replicas: From which one is chosen.
        what: True, or a position to be reached besides the task's own writes.
        mode, context_class, timeout, independent: As for `ManagedTransaction`.
    """

    def __init__(
        self,
        pool: AsyncConnectionPool[Any],
        replicas: Replicas,
        what: bool | str,
        mode: TransactionMode,
        context_class: Callable[[RootTransaction, Level], Context],
        *,
        timeout: float | None = None,
        independent: bool = False,
    ) -> None:
        super().__init__(pool, mode, context_class, timeout=timeout, independent=independent)
        self._replicas = replicas
        self._what = what

    async def start(self) -> Context:
        """Begin on a replica, or set a savepoint in the transaction that is open here."""
        outer = self.outer()
        if outer is not None and not self._independent:
            return await super().start()
        self._transaction = None
        lender = _Lender(self._pool, self._replicas, self._what)
        root = RootTransaction(self._pool, self._mode, around=outer, lender=lender)
        return await self._open(root, root)


class _Lender:
    """A replica, or the primary; and another one, as long as nothing was read.

    A replica that cannot be reached, or whose connection was lost though it had just answered, is
    not asked again for the same transaction: so the search ends, at the fallback. What has broken
    one server may be tried on a second one, and not on a third.
    """

    replaces = True

    def __init__(
        self, primary: AsyncConnectionPool[Any], replicas: Replicas, what: bool | str
    ) -> None:
        self._primary = primary
        self._replicas = replicas
        self._what = what
        self._pool = primary  # that lent last
        self._counted = ""
        self._broke_one = False  # as it seems: a connection that had just answered was lost
        self._gone: set[AsyncConnectionPool[Any]] = set()

    @property
    def resets(self) -> bool:
        return self._pool.resets

    @property
    def ends_transactions(self) -> bool:
        return self._pool.ends_transactions

    async def acquire_for(
        self,
        first: Callable[[PooledConnection[Any]], Awaitable[T]],
        deadline: float,
        *,
        statement: str = "BEGIN",
        repeatable: bool = False,
        begins: bool = False,
    ) -> tuple[PooledConnection[Any], T]:
        async def lend(pool: AsyncConnectionPool[Any]) -> tuple[PooledConnection[Any], T]:
            # Each pool has its own timeout, and the block's limit holds for all of them together.
            limit = min(deadline, monotonic() + pool.config.timeout)
            return await pool.acquire_for(
                first, limit, statement=statement, repeatable=repeatable, begins=begins
            )

        if self._counted:  # lent before, and nothing was read there: it counts where it is read
            self._replicas.answers[self._counted] -= 1
        used = await self._replicas.use(self._what, lend, self._gone)
        self._counted, (lease, result) = used
        self._pool = lease.pool
        return lease, result

    def release(
        self,
        lease: PooledConnection[Any],
        *,
        clean: bool = False,
        discard: str | None = None,
        ends: Ending | None = None,
    ) -> None:
        self._pool.release(lease, clean=clean, discard=discard, ends=ends)

    def may_repeat(
        self,
        error: BaseException,
        lease: PooledConnection[Any],
        started: float,
        *,
        repeatable: bool,
    ) -> bool:
        pool = self._pool
        # First what the pool itself would repeat: a connection that died while idle says nothing of
        # the replica, and does not count as the one that broke.
        if pool.may_repeat(error, lease, started, repeatable=repeatable):
            return True
        if pool is self._primary or not isinstance(error, ConnectionLostError) or not repeatable:
            return False
        if error.sent and self._broke_one:
            return False
        self._broke_one |= error.sent
        self._gone.add(pool)
        return True
