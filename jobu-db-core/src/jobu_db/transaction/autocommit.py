"""One statement outside a transaction: it commits by itself."""

from __future__ import annotations

from time import monotonic
from typing import TYPE_CHECKING, Any

from jobu_db.errors import (
    CommitOutcomeUnknownError,
    ConnectionLostError,
    ReadOnlyTransactionError,
    TransactionError,
)
from jobu_db.statements import start
from jobu_db.transaction.write_turn import enter_write_gate

if TYPE_CHECKING:
    from jobu_db.database import BaseDatabase
    from jobu_db.pool.lease import PooledConnection


async def run_autocommit(database: BaseDatabase, operation: str, sql: str, parameters: Any) -> Any:
    """Run one statement on a connection of its own.

    Where writers take turns, a fetch is tried read-only first, so that readers never wait for
    writers; if the server refuses it (`INSERT … RETURNING`), it takes the turn and runs again.

    Raises:
        CommitOutcomeUnknownError: The connection was lost while the statement was under way.
    """
    deadline = monotonic() + database.pool.config.timeout
    has_gate = database.driver.write_gate is not None
    if has_gate and operation.startswith("fetch"):
        try:
            return await _run(database, operation, sql, parameters, deadline, readonly=True)
        except ReadOnlyTransactionError:
            deadline = monotonic() + database.pool.config.timeout
    gate = await enter_write_gate(database, deadline - monotonic()) if has_gate else None
    try:
        return await _run(database, operation, sql, parameters, deadline, readonly=False)
    finally:
        if gate is not None:
            gate.leave()


async def _run(
    database: BaseDatabase,
    operation: str,
    sql: str,
    parameters: Any,
    deadline: float,
    *,
    readonly: bool,
) -> Any:
    pool, driver = database.pool, database.driver
    started = monotonic()
    while True:
        lease = pool.acquire_nowait() or await pool.acquire(max(0.0, deadline - monotonic()))
        connection = lease.connection
        try:
            driver.autocommit(connection, readonly=readonly)
            result = await start(driver, connection, operation, sql, parameters)
            opened = driver.in_transaction(connection)
        except BaseException as error:
            meaning = database.explain(error, sql)
            unsent = isinstance(meaning, ConnectionLostError) and not meaning.sent
            retry = unsent and lease.created_at < started
            _give_back(database, lease, error, meaning)
            if retry:
                continue  # it had died while idle, and nothing was sent
            if isinstance(meaning, ConnectionLostError) and meaning.sent:
                raise _unknown(database, sql) from error
            if meaning is None or meaning is error:
                raise
            raise meaning from error
        pool.release(lease)
        if opened:
            raise TransactionError(
                "the statement opened a transaction, which was rolled back: use transaction()",
                database=database.name,
                statement=sql,
            )
        return result


def _give_back(
    database: BaseDatabase,
    lease: PooledConnection[Any],
    error: BaseException,
    meaning: BaseException | None,
) -> None:
    lease.interrupted = not isinstance(error, Exception)
    lost = isinstance(meaning, ConnectionLostError)
    database.pool.release(lease, discard="lost" if lost else None)


def _unknown(database: BaseDatabase, sql: str) -> CommitOutcomeUnknownError:
    return CommitOutcomeUnknownError(
        "the connection was lost while a statement outside a transaction was under way: whether "
        "it took effect is unknown",
        database=database.name,
        statement=sql,
    )
