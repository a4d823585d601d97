"""What to do with executions of which nobody knows whether their work was done.

A process that dies leaves its executions RUNNING. Their work was either rolled back as a whole,
or, if the process died between the two commits, is in the ledger. So the ledger is asked, and
the queue is brought into agreement with it. Doing that twice does no harm.

The demo takes every RUNNING execution that it finds at its start for one of a dead process, for
it is the only program on its queue. Where several run side by side, let each claim carry a time
limit that its holder extends, and look again only at those whose time is up.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass

from claims import RETRIES
from executions import HANDLER, ClaimLostError, Execution, Hand
from rich.console import Console
from runs import Run

from jobu_db import DatabaseRegistry, TransactionError, get_connection, transactional

_RUNNING = """
    SELECT e.id, e.params, e.retry_count, j.name AS job, j.max_retry
    FROM job_executions e JOIN cron_jobs j ON j.id = e.job_id
    WHERE e.status = 'RUNNING' AND e.handler_name = :handler
"""
_IS_BOOKED = "SELECT COUNT(*) FROM entries WHERE batch = :batch AND execution_id = :id"


@dataclass(frozen=True, slots=True)
class Recovered:
    """What was found.

    Attributes:
        done: So many had been done, and only the queue did not know.
        given_back: So many had not, and wait again.
    """

    done: int
    given_back: int


async def end_prepared(console: Console) -> None:
    """Have the decider of each atomic unit say how what was left prepared is to end."""
    told = await DatabaseRegistry.recover()
    for one in told.found:
        console.print(f"{one.database}: a prepared transaction of {one.decider}: {one.fate.value}.")
    if not told.complete:
        raise TransactionError("not all that was left prepared could be ended: try again")


async def recover(run: Run) -> Recovered:
    """Look again at everything that is under way: before any worker of this run begins."""
    running = await run.databases.queue.fetch_all(
        _RUNNING, {"handler": HANDLER}, into=Execution.found
    )
    answers = [await look_again(run, Hand(run.number), execution) for execution in running]
    return Recovered(done=sum(answers), given_back=len(answers) - sum(answers))


async def look_again(run: Run, hand: Hand, execution: Execution) -> bool:
    """Finish an execution if the ledger has it, else give it back; say which.

    Also for a process that lives, but was told that the outcome of its commits is unknown.
    """
    queue = run.databases.queue
    # What is RUNNING after an atomic unit is not booked. There is nothing to look up.
    booked = False if run.databases.atomic else await is_booked(run, execution)

    @transactional(queue, retries=RETRIES)
    async def settle() -> None:
        tx = get_connection(queue.name)
        if not booked:
            await hand.give_back(tx, execution)
            return
        with suppress(ClaimLostError):  # its commit had reached the queue after all
            await hand.succeed(tx, execution)

    await settle()
    return booked


async def is_booked(run: Run, execution: Execution) -> bool:
    """Ask the ledger whether the work was done."""
    which = {"batch": run.batch, "id": execution.id}
    return bool(await run.databases.ledger.fetch_val(_IS_BOOKED, which))
