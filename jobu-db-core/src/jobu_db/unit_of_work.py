"""Several databases in one unit of work: best effort, no two-phase commit.

All begin in the order given and are checked before the first commit; they then commit in that
order. What can still go wrong is a commit that fails after another one succeeded, and that is
told exactly: `PartialCommitError`.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from types import TracebackType

from jobu_db import context as ambient
from jobu_db._outermost import COMMITTED, ROLLED_BACK, UNKNOWN, Outermost, run_callbacks
from jobu_db._savepoint import Savepoint
from jobu_db._shield import finish
from jobu_db.database import BaseDatabase
from jobu_db.errors import PartialCommitError, TransactionError
from jobu_db.transaction import note_what_stays
from jobu_db.transaction_context import Callback, TransactionContext

logger = logging.getLogger("jobu_db")

Level = Outermost | Savepoint


class UnitOfWork:
    """`async with` over one or several databases.

    Args:
        databases: In the order in which they begin and commit.
        readonly, isolation: As for `BaseDatabase.transaction`.

    Raises:
        TransactionError: A database is named twice.
    """

    def __init__(
        self,
        databases: Sequence[BaseDatabase],
        *,
        readonly: bool = False,
        isolation: str | None = None,
    ) -> None:
        names = [database.name for database in databases]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice or len(set(map(id, databases))) < len(databases):
            raise TransactionError(f"{', '.join(twice)}: named twice in one unit of work")
        self._transactions = [
            database.transaction(readonly=readonly, isolation=isolation) for database in databases
        ]
        self._levels: list[Level] = []
        self._bound: list[tuple[TransactionContext, TransactionContext | None]] = []

    @property
    def undone(self) -> bool:
        """True if certainly nothing was committed."""
        return all(level.outcome == ROLLED_BACK for level in self._levels)

    async def __aenter__(self) -> UnitOfWork:
        self._levels, self._bound = [], []
        try:
            for transaction in self._transactions:
                level = transaction.make_level()
                context = await level.open()
                self._levels.append(level)
                self._bound.append((context, ambient.bind(context)))
        except BaseException:
            self._unbind()
            await self._roll_back(self._levels)
            raise
        return self

    def _unbind(self) -> None:
        for context, before in reversed(self._bound):
            ambient.unbind(context, before)

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if error is None:
            await self._commit()
            return
        self._unbind()
        for level in self._levels:
            note_what_stays(level, error)
        await self._roll_back(self._levels)

    async def _commit(self) -> None:
        try:
            if len(self._levels) > 1:
                for level in self._levels:
                    await level.prepare()
        except BaseException:
            self._unbind()
            await self._roll_back(self._levels)
            raise
        self._unbind()
        cancelled, failure = await self._commit_each()
        callbacks = [callback for level in self._levels for callback in _due(level)]
        if callbacks:
            limit = self._levels[0].database.pool.config.cleanup_timeout
            called = await finish(run_callbacks(callbacks), limit, hurry=cancelled is not None)
            cancelled = cancelled or called.cancelled
            failure = failure or called.error
        if cancelled is not None:
            raise cancelled
        if failure is not None:
            raise failure

    async def _commit_each(self) -> tuple[BaseException | None, BaseException | None]:
        """Commit in order; return the cancellation that came meanwhile, and what failed."""
        cancelled: BaseException | None = None
        for position, level in enumerate(self._levels):
            failure: BaseException | None = None
            try:
                await level.commit(callbacks=False)
            except Exception as error:
                failure = error
            except BaseException as error:  # a cancellation: the commit itself was waited for
                cancelled = cancelled or error
                if level.outcome in (ROLLED_BACK, UNKNOWN):
                    failure = error
            if failure is not None:
                await self._roll_back(self._levels[position + 1 :])
                return cancelled, self._partial(level, failure)
        return cancelled, None

    def _partial(self, failed: Level, failure: BaseException) -> BaseException:
        """Tell who committed and who did not; the failure itself if nobody disagrees."""
        if all(level.outcome == ROLLED_BACK for level in self._levels):
            return failure
        if len(self._levels) == 1:
            return failure
        error = PartialCommitError(
            committed=self._names(COMMITTED, "released"),
            failed=[failed.database.name] if failed.outcome == ROLLED_BACK else [],
            rolled_back=[name for name in self._names(ROLLED_BACK) if name != failed.database.name],
            unknown=self._names(UNKNOWN),
        )
        error.__cause__ = failure
        return error

    def _names(self, *outcomes: str) -> list[str]:
        return [level.database.name for level in self._levels if level.outcome in outcomes]

    async def _roll_back(self, levels: Sequence[Level]) -> None:
        """Roll back all, last begun first, also if one is cancelled meanwhile."""
        cancelled: BaseException | None = None
        for level in reversed(levels):
            try:
                await level.rollback()
            except BaseException as error:
                cancelled = cancelled or error
        if cancelled is not None:
            raise cancelled


def _due(level: Level) -> list[Callback]:
    return list(level.context.callbacks) if level.outcome == COMMITTED else []
