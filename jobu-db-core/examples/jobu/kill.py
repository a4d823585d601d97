"""Kills the demo on purpose, the way a power cut would: nothing is cleaned up."""

from __future__ import annotations

import os
import signal
from types import TracebackType
from typing import Self

from arguments import Arguments
from progress import Progress
from runs import Run
from work import in_unit_of_work

from jobu_db import events, hookimpl


class Killer:
    """Waits for the moment that the arguments ask for; `async` code never sees it coming.

    The moment between two commits is an event of jobu-db: any object with a method named and
    marked like the one below hears when a transaction has ended on one of the databases. In the
    unit of work that is when the first one has committed and the other has not yet.
    """

    def __init__(self, arguments: Arguments, run: Run, progress: Progress) -> None:
        left = run.total - run.finished
        self._first = run.databases.in_order[0].name
        self._second = run.databases.in_order[1].name
        self._progress = progress
        self._finishes = arguments.kill_after
        self._commits = max(1, left // 3) if arguments.kill_between_commits else None

    def __enter__(self) -> Self:
        if self._commits is not None:
            events.register(self)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._commits is not None:
            events.unregister(self)

    def execution_finished(self) -> None:
        """Take note that one more execution is finished."""
        if self._finishes is not None:
            self._finishes -= 1
            if self._finishes == 0:
                self._kill("as --kill-after asked for")

    @hookimpl
    def jobu_db_transaction_end(self, database: str, outcome: str) -> None:
        """Take note that a transaction has ended."""
        committed = (database, outcome) == (self._first, "committed")
        if self._commits is not None and committed and in_unit_of_work.get():
            self._commits -= 1
            if self._commits == 0:
                self._kill(f"{self._first} has committed, {self._second} has not")

    def _kill(self, why: str) -> None:
        self._progress.interrupt(f"Killing this process now: {why}. Run it again to resume.")
        os.kill(os.getpid(), signal.SIGKILL)
