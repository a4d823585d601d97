"""`db.replica`: reads outside a transaction, from a replica."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from jobu_db.pool.pool import AsyncConnectionPool
from jobu_db.statements import ParameterStatements, Statements
from jobu_db.transaction import ambient
from jobu_db.transaction.block import ManagedTransaction
from jobu_db.transaction.time_limit import of_statement


class ReplicaStatements(Statements):
    """Statements, each in a read-only transaction of its own, which the server enforces.

    Inside a transaction of the database they run in that.

    Args:
        pool: Of the primary.
        transaction: Makes a transaction on a replica, with a limit in seconds or None.
    """

    __slots__ = ("_pool", "_transaction")

    def __init__(
        self,
        pool: AsyncConnectionPool[Any],
        transaction: Callable[[float | None], ManagedTransaction[Any]],
    ) -> None:
        self._pool = pool
        self._transaction = transaction

    @property
    def _database_name(self) -> str:
        return self._pool.name

    async def _run(self, operation: str, sql: str, parameters: Any) -> Any:
        level: Any = ambient.current(self._pool)
        # What is open here may write, and is on the primary: elsewhere, its own rows could not be
        # seen.
        if level is not None:
            return await level.face._run(operation, sql, parameters)
        async with self._transaction(None) as context:
            return await context._run(operation, sql, parameters)

    async def _run_in_time(self, seconds: float, operation: str, sql: str, parameters: Any) -> Any:
        level: Any = ambient.current(self._pool)
        if level is not None:
            return await level.face._run_in_time(seconds, operation, sql, parameters)
        with of_statement(sql, seconds):
            async with self._transaction(seconds) as context:
                return await context._run(operation, sql, parameters)


class ParameterReplicaStatements(ParameterStatements, ReplicaStatements):
    """The same for backends whose statements take `(sql, parameters)`."""

    __slots__ = ()
