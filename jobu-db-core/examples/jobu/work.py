"""The unit of work: what is done for one execution, in both databases or in neither."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextvars import ContextVar

from claims import RETRIES
from executions import Execution, Hand
from runs import Run

from jobu_db import TransactionContext, get_connection, transactional

in_unit_of_work: ContextVar[bool] = ContextVar("in_unit_of_work", default=False)
"""True for what happens during a unit of work and at its end."""

Perform = Callable[[Execution], Awaitable[None]]


class PlannedFailureError(Exception):
    """The work came to nothing, as was planned for this attempt."""


def unit_of_work(run: Run, hand: Hand) -> Perform:
    """Return the function that does the work for one execution.

    The two databases commit one after the other, in the order given here. A worker that dies in
    between leaves the first one committed and the second one not. So the order matters: the
    ledger comes first, because it can tell later, by its unique key, that the work is done; the
    queue still says RUNNING then, which asks for somebody to look again (`recovery.py`). The
    other way round, the queue would say SUCCESS and the missing booking would not be noticed.

    In an atomic unit there is no in between: the first one decides for both, and what a worker
    leaves behind is ended without asking anybody (`recovery.end_prepared`).
    """
    queue, ledger = run.databases.queue, run.databases.ledger

    @transactional(*run.databases.in_order, retries=RETRIES, atomic=run.databases.atomic)
    async def perform(execution: Execution) -> None:
        await book(get_connection(ledger.name), run.batch, execution)
        await hand.succeed(get_connection(queue.name), execution)
        if execution.attempt < execution.failures:
            # Both databases have the work by now, and both will roll it back.
            raise PlannedFailureError(f"attempt {execution.attempt + 1} failed as planned")

    async def marked(execution: Execution) -> None:
        token = in_unit_of_work.set(True)
        try:
            await perform(execution)
        finally:
            in_unit_of_work.reset(token)

    return marked


async def book(tx: TransactionContext, batch: str, execution: Execution) -> None:
    """Enter the amount and add it to the job's balance: an addition must not happen twice."""
    await tx.execute(
        "INSERT INTO entries (batch, execution_id, job, amount) "
        "VALUES (:batch, :id, :job, :amount)",
        {
            "batch": batch,
            "id": execution.id,
            "job": execution.job,
            "amount": execution.amount,
        },
    )
    await tx.execute(
        "UPDATE balances SET bookings = bookings + 1, total = total + :amount "
        "WHERE batch = :batch AND job = :job",
        {"batch": batch, "job": execution.job, "amount": execution.amount},
    )
