"""An execution, its states, and the only statements that change them.

    PENDING -> RUNNING -> SUCCESS
                       -> PENDING   to be retried, or given back by a process that died
                       -> FAILED    after `max_retry` retries

Every change names the state it expects and the attempt it belongs to, in the UPDATE's own WHERE,
and counts its rows: 0 means that somebody else was faster, and that nothing was changed. In the
same transaction the change is written into a journal, which nothing ever updates. The journal
has no unique key on purpose: if an execution were claimed or finished twice, it would show.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from portable import from_json

from jobu_db import TransactionContext

HANDLER = "jobu_demo.transfer"
"""The demo's own executions: others in the same tables are left alone."""

CREATE_JOURNAL = """
    CREATE TABLE IF NOT EXISTS jobu_demo_journal (
        execution_id BIGINT NOT NULL,
        attempt INTEGER NOT NULL,
        event VARCHAR(16) NOT NULL,
        run INTEGER NOT NULL,
        worker INTEGER NOT NULL
    )
"""

_RUNNING = "WHERE id = :id AND status = 'RUNNING' AND retry_count = :attempt"

_CHANGES = {
    "CLAIMED": """
        UPDATE job_executions SET status = 'RUNNING', started_at = CURRENT_TIMESTAMP
        WHERE id = :id AND status = 'PENDING' AND retry_count = :attempt
    """,
    "SUCCESS": f"""
        UPDATE job_executions SET status = 'SUCCESS', finished_at = CURRENT_TIMESTAMP,
            error_message = NULL, result = :result
        {_RUNNING}
    """,
    "RETRY": f"""
        UPDATE job_executions SET status = 'PENDING', retry_count = retry_count + 1,
            error_message = :error
        {_RUNNING}
    """,
    "FAILED": f"""
        UPDATE job_executions SET status = 'FAILED', finished_at = CURRENT_TIMESTAMP,
            error_message = :error
        {_RUNNING}
    """,
    "GIVEN_BACK": f"UPDATE job_executions SET status = 'PENDING' {_RUNNING}",
}

_WRITE_JOURNAL = """
    INSERT INTO jobu_demo_journal (execution_id, attempt, event, run, worker)
    VALUES (:id, :attempt, :event, :run, :worker)
"""


class ClaimLostError(Exception):
    """The execution is not in the hands of this worker any more."""


@dataclass(frozen=True, slots=True)
class Execution:
    """What a worker has to know.

    Attributes:
        id: In job_executions.
        job: Name of the cron job.
        amount: What to book, in cents.
        failures: How many attempts are to fail on purpose.
        attempt: 0 for the first one; the table's retry_count.
        max_retry: How many more attempts there may be after the first one.
    """

    id: int
    job: str
    amount: int
    failures: int
    attempt: int
    max_retry: int

    @classmethod
    def found(cls, id: int, job: str, params: Any, retry_count: int, max_retry: int) -> Execution:
        """Make one from the columns of job_executions and its cron job: for `into`."""
        wanted = from_json(params)
        return cls(id, job, wanted["amount"], wanted["failures"], retry_count, max_retry)


@dataclass(frozen=True, slots=True)
class Hand:
    """Who changes an execution, for the journal: which run of the program, which worker."""

    run: int
    worker: int = 0

    async def claim(self, tx: TransactionContext, execution: Execution) -> bool:
        """Take a waiting execution; False if somebody else was faster."""
        return await self._change(tx, execution, "CLAIMED")

    async def succeed(self, tx: TransactionContext, execution: Execution) -> None:
        """Finish a claimed execution; ClaimLostError if it is not claimed any more."""
        result = json.dumps({"booked": execution.amount})
        self._insist(await self._change(tx, execution, "SUCCESS", result=result), execution)

    async def fail(self, tx: TransactionContext, execution: Execution, error: Exception) -> bool:
        """Have it retried, or finish it as failed; say whether it is finished."""
        event = "RETRY" if execution.attempt < execution.max_retry else "FAILED"
        self._insist(await self._change(tx, execution, event, error=str(error)), execution)
        return event == "FAILED"

    async def give_back(self, tx: TransactionContext, execution: Execution) -> None:
        """Let it be claimed again, as the same attempt: it was not the execution that failed."""
        self._insist(await self._change(tx, execution, "GIVEN_BACK"), execution)

    async def _change(
        self, tx: TransactionContext, execution: Execution, event: str, **values: Any
    ) -> bool:
        which = {"id": execution.id, "attempt": execution.attempt}
        result = await tx.execute(_CHANGES[event], {**which, **values})
        if result.rowcount == 0:
            return False
        entry = {**which, "event": event, "run": self.run, "worker": self.worker}
        await tx.execute(_WRITE_JOURNAL, entry)
        return True

    def _insist(self, changed: bool, execution: Execution) -> None:
        if not changed:
            raise ClaimLostError(f"execution {execution.id} is in other hands")
