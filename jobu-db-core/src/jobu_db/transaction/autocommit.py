"""One statement outside a transaction: it commits by itself.

It is sent once. If its connection turns out to have died while idle, and nothing was sent, it is
sent on another one; if the connection is lost once it was sent, its outcome is unknown.
"""

from __future__ import annotations

from time import monotonic
from typing import Any

from jobu_db.errors import (
    CommitOutcomeUnknownError,
    ConnectionLostError,
    ReadOnlyTransactionError,
    TransactionError,
)
from jobu_db.pool.lease import PooledConnection
from jobu_db.pool.observer import Observation
from jobu_db.pool.pool import AsyncConnectionPool
from jobu_db.statements import start
from jobu_db.transaction.write_turn import take_write_turn


async def run_autocommit(
    pool: AsyncConnectionPool[Any],
    operation: str,
    sql: str,
    parameters: Any,
    observation: Observation | None,
) -> Any:
    """Run one statement on a connection taken for it.

    Where writers take turns, a fetch is tried read-only first, so that readers never wait for
    writers; if the server refuses it (`INSERT … RETURNING`), it takes the turn and runs again.

    Args:
        pool: Where.
        operation: Name of the driver's method, such as "fetch_one".
        sql, parameters: As the driver takes them.
        observation: Who is to hear when the statement is sent, or None.

    Raises:
        CommitOutcomeUnknownError: The connection was lost while the statement was under way.
        DatabaseError: What the driver's exception means.
    """
    deadline = monotonic() + pool.config.timeout
    has_gate = pool.driver.write_gate is not None
    if has_gate and operation.startswith("fetch"):
        try:
            return await _run(
                pool, operation, sql, parameters, observation, deadline, readonly=True
            )
        except ReadOnlyTransactionError:
            # What has passed was the reader's wait. It runs as a writer now, with a writer's time.
            deadline = monotonic() + pool.config.timeout
    # Before the connection: writers in line must not hold those that readers need.
    gate = await take_write_turn(pool, deadline - monotonic()) if has_gate else None
    try:
        return await _run(pool, operation, sql, parameters, observation, deadline, readonly=False)
    finally:
        if gate is not None:
            gate.leave()


async def _run(
    pool: AsyncConnectionPool[Any],
    operation: str,
    sql: str,
    parameters: Any,
    observation: Observation | None,
    deadline: float,
    *,
    readonly: bool,
) -> Any:
    driver = pool.driver

    async def first(lease: PooledConnection[Any]) -> tuple[Any, bool]:
        connection = lease.connection
        driver.autocommit(connection, readonly=readonly)
        if observation is not None:
            observation.sent(connection)
        lease.expect_answer(monotonic())
        try:
            result = await start(driver, connection, operation, sql, parameters)
        except BaseException:
            # It may have taken effect all the same.
            if pool.positions is not None:
                pool.positions.lost()
            raise
        finally:
            lease.expect_answer(None)
        if pool.positions is not None:
            lease.expect_answer(monotonic())
            try:
                await pool.positions.ask(connection)
            finally:
                lease.expect_answer(None)
        # Looked at here: given back, the connection is rolled back, and nothing tells any more.
        return result, driver.in_transaction(connection)

    try:
        lease, (result, opened) = await pool.acquire_for(first, deadline, statement=sql)
    except ConnectionLostError as error:
        if not error.sent:
            raise
        raise CommitOutcomeUnknownError(
            "the connection was lost while a statement outside a transaction was under way: "
            "whether it took effect is unknown",
            database=pool.name,
            statement=sql,
        ) from (error.__cause__ or error)
    pool.release(lease)
    if opened:
        raise TransactionError(
            "the statement opened a transaction, which was rolled back: use transaction()",
            database=pool.name,
            statement=sql,
        )
    return result
