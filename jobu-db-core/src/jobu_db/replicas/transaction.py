"""`async with db.transaction(readonly=True, replica=True)`: a transaction where a replica is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic

from jobu_db.driver import TransactionMode
from jobu_db.errors import ConnectionFailedError, ConnectionLostError
from jobu_db.pool.pool import AsyncConnectionPool
from jobu_db.replicas.choice import Replicas
from jobu_db.transaction.block import Context, ManagedTransaction
from jobu_db.transaction.root import RootTransaction
from jobu_db.transaction.session import Level


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

        async def begin(pool: AsyncConnectionPool[Any]) -> Context:
            root = RootTransaction(pool, self._mode, around=outer)
            if pool is self._pool:
                return await self._open(root, root)
            try:
                return await self._open(root, root)
            except ConnectionLostError as error:  # nothing was read: another one may begin
                raise ConnectionFailedError(error.message, transient=True) from error

        context: Context = await self._replicas.use(self._what, begin)
        return context
