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
from jobu_db.transaction.outcome import (
    COMMITTED,
    ROLLED_BACK,
    UNKNOWN,
    abandon,
    conclude,
    roll_back,
)
from jobu_db.transaction.root import RootTransaction
from jobu_db.transaction.savepoint import RELEASED, Savepoint

Member = RootTransaction | Savepoint


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
        self._members: list[Member] = []
        self._bound: list[tuple[TransactionContext, ambient.Bindings]] = []

    @property
    def undone(self) -> bool:
        """True if certainly nothing was committed."""
        return all(member.undone for member in self._members)

    async def __aenter__(self) -> UnitOfWork:
        self._members, self._bound = [], []
        try:
            for transaction in self._transactions:
                context = await transaction.start()
                self._members.append(transaction.transaction)
                self._bound.append((context, ambient.bind(context)))
                await _limit_lock_waits(transaction.transaction)
        except BaseException as error:
            self._unbind()
            await roll_back(self._members, error)
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
        if not all(member.pool.is_here() for member in self._members):
            abandon(self._members, error)
            return
        if error is not None:
            await roll_back(self._members, error)
            return
        try:
            await self._prepare()
        except BaseException as refusal:
            await roll_back(self._members, refusal)
            raise
        await conclude(self._members, await self._commit())

    async def _prepare(self) -> None:
        for member in self._members:
            await member.prepare()

    async def _commit(self) -> Finished:
        """Commit one after another; after a failure, roll back those that are left."""
        # A savepoint that is kept can still be undone by the block around it; nothing else can.
        members = sorted(self._members, key=lambda member: isinstance(member, Savepoint))
        cancelled = None
        failed: tuple[Member, BaseException] | None = None
        for member in members:
            end = member.commit if failed is None else member.rollback
            finished = await end(hurry=cancelled is not None)
            cancelled = cancelled or finished.cancelled
            if failed is None and finished.error is not None:
                failed = member, finished.error
        return Finished(None if failed is None else self._disagreement(*failed), cancelled)

    def _disagreement(self, failed: Member, failure: BaseException) -> BaseException:
        """Tell who committed and who did not; the failure itself if nobody disagrees."""
        rolled_back = self._names(ROLLED_BACK)
        if len(rolled_back) == len(self._members):
            return failure
        name = failed.pool.name
        error = PartialCommitError(
            committed=self._names(COMMITTED, RELEASED),
            failed=[name] if name in rolled_back else [],
            rolled_back=[other for other in rolled_back if other != name],
            unknown=self._names(UNKNOWN),
        )
        error.__cause__ = failure
        return error

    def _names(self, *outcomes: str) -> list[str]:
        return [one.pool.name for one in self._members if one.outcome in outcomes]


async def _limit_lock_waits(member: Member) -> None:
    session = member.session
    seconds = member.pool.config.timeout
    await session.call(
        member.level,
        "SET LOCAL lock_timeout",
        lambda: session.driver.limit_lock_waits(session.connection, seconds),
    )
