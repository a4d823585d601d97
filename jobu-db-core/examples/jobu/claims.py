"""How an execution gets to one worker, and to one only."""

from __future__ import annotations

import random

from executions import HANDLER, Execution, Hand
from runs import Run

from jobu_db import get_connection, transactional, transactional_readonly

RETRIES = 10
"""How often to run a transaction again that got in the way of another one."""

_WAITING = """
    SELECT e.id, e.params, e.retry_count, j.name AS job, j.max_retry
    FROM job_executions e JOIN cron_jobs j ON j.id = e.job_id
    WHERE e.status = 'PENDING' AND e.handler_name = :handler
    ORDER BY e.scheduled_time, e.id
    LIMIT :most
"""


class Claims:
    """Claims executions for one worker.

    Attributes:
        lost: How often another worker was faster.
    """

    def __init__(self, run: Run, hand: Hand, workers: int) -> None:
        self.lost = 0
        queue = run.databases.queue
        most = 4 * workers

        @transactional_readonly(queue, retries=RETRIES)
        async def waiting() -> list[Execution]:
            query = {"handler": HANDLER, "most": most}
            return await get_connection(queue.name).fetch_all(_WAITING, query, into=Execution.found)

        @transactional(queue, retries=RETRIES)
        async def claim(execution: Execution) -> bool:
            return await hand.claim(get_connection(queue.name), execution)

        self._waiting = waiting
        self._claim = claim

    async def next(self) -> Execution | None:
        """Claim one of the next executions; None if none is waiting.

        Looking comes first and locks nothing, so what was seen may be gone by the time of the
        claim: only the claim's count of rows tells. All workers see the same few executions, and
        each picks one of them at random, so that they rarely reach for the same one.
        """
        while waiting := await self._waiting():
            execution = random.choice(waiting)
            if await self._claim(execution):
                return execution
            self.lost += 1
        return None
