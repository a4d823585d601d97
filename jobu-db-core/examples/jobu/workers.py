"""The workers: each claims an execution, does its work, and goes on until none is waiting."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from time import perf_counter

from claims import RETRIES, Claims
from executions import Execution, Hand
from kill import Killer
from progress import Progress
from recovery import look_again
from runs import Run
from work import PlannedFailureError, unit_of_work

from jobu_db import (
    CommitOutcomeUnknownError,
    PartialCommitError,
    get_connection,
    transactional,
)


@dataclass(slots=True)
class Tally:
    """What the workers of this run did.

    Attributes:
        seconds: How long it took.
        finished: Executions that reached a final state.
        failures: Attempts that failed on purpose and were rolled back.
        lost_claims: How often another worker was faster.
        looked_again: How often the outcome of the commits was unknown.
        claims, work: Seconds for each claim, and for each unit of work.
    """

    seconds: float = 0.0
    finished: int = 0
    failures: int = 0
    lost_claims: int = 0
    looked_again: int = 0
    claims: list[float] = field(default_factory=list)
    work: list[float] = field(default_factory=list)


async def work_off(run: Run, workers: int, progress: Progress, killer: Killer) -> Tally:
    """Let the workers do all that is waiting; one that breaks down stops the others."""
    tally = Tally()
    started = perf_counter()
    async with asyncio.TaskGroup() as group:
        for number in range(1, workers + 1):
            worker = Worker(run, Hand(run.number, number), workers, tally)
            group.create_task(worker.work(progress, killer), name=f"worker {number}")
    tally.seconds = perf_counter() - started
    return tally


class Worker:
    """One of them."""

    def __init__(self, run: Run, hand: Hand, workers: int, tally: Tally) -> None:
        queue = run.databases.queue
        self._run = run
        self._hand = hand
        self._tally = tally
        self._claims = Claims(run, hand, workers)
        self._perform = unit_of_work(run, hand)

        @transactional(queue, retries=RETRIES)
        async def record_failure(execution: Execution, error: Exception) -> bool:
            return await hand.fail(get_connection(queue.name), execution, error)

        self._record_failure = record_failure

    async def work(self, progress: Progress, killer: Killer) -> None:
        """Go on until nothing waits. What other workers hold, and may put back, they see to."""
        while (execution := await self._claim()) is not None:
            if await self._finish(execution):
                self._tally.finished += 1
                progress.advance()
                killer.execution_finished()
        self._tally.lost_claims += self._claims.lost

    async def _claim(self) -> Execution | None:
        started = perf_counter()
        execution = await self._claims.next()
        if execution is not None:
            self._tally.claims.append(perf_counter() - started)
        return execution

    async def _finish(self, execution: Execution) -> bool:
        """Do the work; say whether the execution is in a final state now."""
        started = perf_counter()
        try:
            await self._perform(execution)
            return True
        except PlannedFailureError as error:
            self._tally.failures += 1
            return await self._record_failure(execution, error)
        except (PartialCommitError, CommitOutcomeUnknownError):
            self._tally.looked_again += 1
            return await look_again(self._run, self._hand, execution)
        finally:
            self._tally.work.append(perf_counter() - started)
