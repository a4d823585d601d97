"""The turn to write, where a database has one writer at a time (SQLite's file)."""

from __future__ import annotations

import asyncio
from typing import Any

from jobu_db._aio.callsite import Callsite, note, where_asked
from jobu_db.driver import WriteGate
from jobu_db.errors import DatabaseError, TransactionError
from jobu_db.pool.pool import AsyncConnectionPool
from jobu_db.transaction import ambient


async def take_write_turn(pool: AsyncConnectionPool[Any], timeout: float) -> WriteGate | None:
    """Wait for the turn to write, unless the code that asks has it already.

    Args:
        pool: Of the database that is to be written to.
        timeout: Seconds.

    Returns:
        The gate, which is to be left afterwards; None where writers need not take turns.

    Raises:
        TransactionError: A writing transaction on the same file is open here: waiting for it
            would be waiting for ourselves.
            The same where it is open in a generator that is suspended, whose reader asks.
        The same in a forked child: its parent has the turn.
        DeadlockError: Another writer waits for a turn that is held here.
        LockTimeoutError: Another writer did not finish in time.
    """
    gate = pool.driver.write_gate
    if gate is None:
        return None
    # As a rule nothing is open where the turn is asked for, and there is nothing to look through.
    holding = _held_here(pool, gate) if ambient.bindings() else set()
    caller = Callsite(note(asyncio.current_task(), where_asked(with_stack=False)))
    try:
        if holding:
            await gate.enter(caller, timeout, holding)
        else:
            await gate.enter(caller, timeout)
    except DatabaseError as error:
        error.database = error.database or pool.name
        raise
    return gate


def _held_here(pool: AsyncConnectionPool[Any], gate: WriteGate) -> set[WriteGate]:
    """Return the gates in which the transactions that are open here have the turn; refuse if this
    is one of them."""
    for level in ambient.levels():
        if level.holds_gate(gate):
            raise TransactionError(
                f"{level.pool.name!r} has a writing transaction open here on the same file, "
                "and a file has one writer at a time: write through that transaction instead",
                database=pool.name,
            )
    for level in ambient.suspended():
        if level.holds_gate(gate):
            raise TransactionError(
                f"the generator at {level.suspended_at} holds the write lock of this file and "
                "is suspended: its reader would wait for itself; read it to its end first, close "
                "it with aclose(), or have it open its transaction with readonly=True",
                database=pool.name,
            )
    return {held for level in ambient.levels() if (held := level.held_gate) is not None}
