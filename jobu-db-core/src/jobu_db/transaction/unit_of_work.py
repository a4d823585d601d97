"""Several databases in one unit of work: best effort, no two-phase commit.

All begin in the order given and are checked before the first commit; they then commit in that
order, those last that are savepoints here. Each waits for a lock at most as long as for a
connection, or as its server is set: two units that lock rows of two servers in opposite order are
a deadlock that neither server sees. What can still go wrong is a commit that fails after
another one succeeded, and that is told exactly: `PartialCommitError`.

Units compose. One that names a database with a transaction open here is part of that: it is
*enlisted*. Its members there are savepoints; those that it begins end with the block that began
the shared database (if several are shared: the outermost), so that both keep or lose their work
together. Until then they belong to the level in which the unit ran:

- Releasing that level hands them to the one around it, rolling it back rolls them back.
- In databases that were enlisted before, the unit's savepoints are kept for the same reason, unless
  the level is the block's own: whatever undoes that undoes everything.
- They are ambient for all code of that block. Read-only ones end with the unit.

A member that was opened elsewhere ends with its own block.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType
from typing import Any

from jobu_db.errors import TransactionError
from jobu_db.transaction import ambient
from jobu_db.transaction.block import ManagedTransaction
from jobu_db.transaction.context import TransactionContext
from jobu_db.transaction.group import Member, commit_all, end_together, with_enlisted
from jobu_db.transaction.outcome import LEFT_FIRST, abandon, conclude, roll_back
from jobu_db.transaction.root import RootTransaction
from jobu_db.transaction.savepoint import Savepoint


class UnitOfWork:
    """`async with` over several databases; over one, use its `transaction`.

    Args:
        transactions: One for each database, at least two, in the order in which they begin and
            commit.

    Raises:
        TransactionError: A database is named twice.
    """

    def __init__(self, transactions: Sequence[ManagedTransaction[Any]]) -> None:
        names = [transaction.name for transaction in transactions]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise TransactionError(f"{', '.join(twice)}: named twice in one unit of work")
        self._transactions = transactions
        self._members: list[Member] = []
        self._bound: list[tuple[TransactionContext, ambient.Bindings]] = []
        self._around: TransactionContext | None = None

    @property
    def undone(self) -> bool:
        """True if certainly nothing was committed."""
        return all(member.undone for member in with_enlisted(self._members))

    async def __aenter__(self) -> UnitOfWork:
        self._members, self._bound = [], []
        self._around = self._find_around()
        try:
            for transaction in self._transactions:
                context = await transaction.start()
                self._members.append(transaction.transaction)
                self._bound.append((context, ambient.bind(context)))
                await limit_lock_waits(transaction.transaction)
        except BaseException as error:
            self._unbind()
            await roll_back(self._members, error)
            raise
        return self

    def _find_around(self) -> TransactionContext | None:
        """Return the context in which this unit is enlisted: where several databases are open
        already, that of the transaction which was opened first. None: it stands alone."""
        found = [transaction.outer() for transaction in self._transactions]
        homes = [context.root.home for context in found if context is not None]
        if not homes:
            return None
        self._refuse_newcomers(found)
        home = min(homes, key=lambda root: root.serial)
        around = ambient.current(home.pool) or home.context
        assert isinstance(around, TransactionContext)
        return around

    def _refuse_newcomers(self, found: Sequence[TransactionContext | None]) -> None:
        """An atomic unit cannot take a database in later: what it decides is fixed."""
        if any(context is not None and context.root.unit for context in found):
            for context, transaction in zip(found, self._transactions, strict=True):
                if context is None and not transaction.mode.readonly:
                    raise TransactionError(
                        "it is not part of the atomic unit around, and cannot become so: name it "
                        "there, or give it a transaction of its own",
                        database=transaction.name,
                    )

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
        elif error is not None:
            await roll_back(self._members, error)
        elif self._around is None:
            await end_together(self._members)
        else:
            await self._hand_over(self._around)

    async def _hand_over(self, around: TransactionContext) -> None:
        """Keep the work as part of the level around; what can still be undone is handed to it."""
        try:
            for member in self._members:
                await member.prepare()
        except BaseException as refusal:
            await roll_back(self._members, refusal)
            raise
        if around.level.closed:  # by another task; whatever it took over now would never end
            late = TransactionError(f"not kept: {LEFT_FIRST}", database=around.pool.name)
            await roll_back(self._members, late)
            raise late
        enlisted = [member for member in self._members if _ends_with(member, around)]
        ended_here = [member for member in self._members if member not in enlisted]
        # First, so that a block that another task leaves meanwhile ends all of it or none.
        for member in enlisted:
            member.enlist(around.root.home, around.level)
        finished = await commit_all(ended_here)
        if finished.error is not None:
            left = [member for member in enlisted if not member.level.closed]
            for member in left:
                around.level.enlisted.remove(member)
            await roll_back(left, finished.error, hurry=finished.cancelled is not None)
        await conclude(ended_here, finished)


def _ends_with(member: Member, around: TransactionContext) -> bool:
    """Say whether a member of an enlisted unit must stay open until the level around it ends."""
    if isinstance(member, RootTransaction):
        return not member.mode.readonly
    home = around.root.home
    enlisted_before = member.root is not home and member.root.home is home
    return isinstance(member, Savepoint) and enlisted_before and around.level is not home.level


async def limit_lock_waits(member: Member) -> None:
    """Have a member wait for locks no longer than for a connection."""
    session = member.session
    seconds = member.pool.config.timeout
    await session.call(
        member.level,
        "SET LOCAL lock_timeout",
        lambda: session.driver.limit_lock_waits(session.connection, seconds),
    )
