"""Several databases in one unit of work: best effort, no two-phase commit.

All begin in the order given and are checked before the first commit; they then commit in that
order, those last that are savepoints here. Each waits for a lock at most as long as for a
connection, or as its server is set: two units that lock rows of two servers in opposite order are
a deadlock that neither server sees. What can still go wrong is a commit that fails after
another one succeeded, and that is told exactly: `PartialCommitError`.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType

from jobu_db._aio.shield import Finished
from jobu_db.errors import PartialCommitError, TransactionError
from jobu_db.transaction import ambient
from jobu_db.transaction.block import ManagedTransaction
from jobu_db.transaction.context import TransactionContext
from jobu_db.transaction.outcome import COMMITTED, ROLLED_BACK, UNKNOWN, conclude, roll_back
from jobu_db.transaction.root import RootTransaction
from jobu_db.transaction.savepoint import RELEASED, Savepoint

Level = RootTransaction | Savepoint


class UnitOfWork:
    """`async with` over several databases; over one, use its `transaction`.

    Args:
        transactions: One for each database, at least two, in the order in which they begin and
            commit.

    Raises:
        TransactionError: A database is named twice.
    """

    def __init__(self, transactions: Sequence[ManagedTransaction]) -> None:
        names = [transaction.name for transaction in transactions]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise TransactionError(f"{', '.join(twice)}: named twice in one unit of work")
        self._transactions = transactions
        self._levels: list[Level] = []
        self._bound: list[tuple[TransactionContext, ambient.Bindings]] = []

    @property
    def undone(self) -> bool:
        """True if certainly nothing was committed."""
        return all(level.undone for level in self._levels)

    async def __aenter__(self) -> UnitOfWork:
        self._levels, self._bound = [], []
        try:
            for transaction in self._transactions:
                level = transaction.make_level()
                context = await level.open()
                self._levels.append(level)
                self._bound.append((context, ambient.bind(context)))
                await _limit_lock_waits(context)
        except BaseException as error:
            self._unbind()
            await roll_back(self._levels, error)
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
        self._unbind()
        if error is not None:
            await roll_back(self._levels, error)
            return
        try:
            await self._prepare()
        except BaseException as refusal:
            await roll_back(self._levels, refusal)
            raise
        await conclude(self._levels, await self._commit())

    async def _prepare(self) -> None:
        for level in self._levels:
            await level.prepare()

    async def _commit(self) -> Finished:
        """Commit one after another; after a failure, roll back those that are left."""
        # A savepoint that is kept can still be undone by the block around it; nothing else can.
        levels = sorted(self._levels, key=lambda level: isinstance(level, Savepoint))
        cancelled = None
        failed: tuple[Level, BaseException] | None = None
        for level in levels:
            end = level.commit if failed is None else level.rollback
            finished = await end(hurry=cancelled is not None)
            cancelled = cancelled or finished.cancelled
            if failed is None and finished.error is not None:
                failed = level, finished.error
        return Finished(None if failed is None else self._disagreement(*failed), cancelled)

    def _disagreement(self, failed: Level, failure: BaseException) -> BaseException:
        """Tell who committed and who did not; the failure itself if nobody disagrees."""
        rolled_back = self._names(ROLLED_BACK)
        if len(rolled_back) == len(self._levels):
            return failure
        name = failed.database.name
        error = PartialCommitError(
            committed=self._names(COMMITTED, RELEASED),
            failed=[name] if name in rolled_back else [],
            rolled_back=[other for other in rolled_back if other != name],
            unknown=self._names(UNKNOWN),
        )
        error.__cause__ = failure
        return error

    def _names(self, *outcomes: str) -> list[str]:
        return [level.database.name for level in self._levels if level.outcome in outcomes]


async def _limit_lock_waits(context: TransactionContext) -> None:
    session = context.session
    seconds = session.database.pool.config.timeout
    await session.call(
        context,
        "SET LOCAL lock_timeout",
        lambda: session.driver.limit_lock_waits(session.connection, seconds),
    )
