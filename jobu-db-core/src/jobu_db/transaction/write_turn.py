"""Entering the write gate of a database, where it has one (SQLite's writer queue)."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from jobu_db._aio.callsite import Callsite, note, where_asked
from jobu_db.driver import WriteGate
from jobu_db.errors import DatabaseError, TransactionError
from jobu_db.transaction import ambient

if TYPE_CHECKING:
    from jobu_db.database import BaseDatabase


async def enter_write_gate(database: BaseDatabase, timeout: float) -> WriteGate | None:
    """Wait for the turn to write, unless the code that asks holds it already.

    Returns:
        What is to be left afterwards; None where writers need not take turns.

    Raises:
        TransactionError: A writing transaction on the same file is open here: waiting for it
            would be waiting for ourselves.
            The same in a forked child: its parent has the turn.
        LockTimeoutError: Somebody else did not finish in time.
    """
    gate = database.driver.write_gate
    if gate is None:
        return None
    for context in ambient.bindings().values():
        if context.holds_gate(gate):
            raise TransactionError(
                f"{context.database.name!r} has a writing transaction open here on the same file, "
                "and a file has one writer at a time: write through that transaction instead",
                database=database.name,
            )
    asked = note(asyncio.current_task(), where_asked(with_stack=False))
    try:
        await gate.enter(Callsite(asked), timeout)
    except DatabaseError as error:
        error.database = error.database or database.name
        raise
    return gate
