"""Several databases in one unit of work: best effort, no two-phase commit.

All begin in the order given and are checked before the first commit; they then commit in that
order, those last that are savepoints here. Each waits for a lock at most as long as for a
connection, or as its server is set: two units that lock rows of two servers in opposite order are
a deadlock that neither server sees. What can still go wrong is a commit that fails after
another one succeeded, and that is told exactly: `PartialCommitError`.

Units compose. One that names a database with a transaction open here is part of that: it is
*enlisted*. Its members there are savepoints; those that it begins end with the block that began
the shared database (if several are shared: the outermost), so that both keep or lose their work
together, also where a savepoint around the unit fails: `group` says how. Until then they are
ambient for all code of that block. Read-only ones end with the unit.

A member that was opened elsewhere, by a block or a unit that stands alone, ends with that.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType
from typing import Any

from jobu_db.driver import Driver
from jobu_db.errors import TransactionError
from jobu_db.transaction import ambient
from jobu_db.transaction.block import ManagedTransaction
from jobu_db.transaction.group import Member, enter_block, leave_block
from jobu_db.transaction.outcome import abandon, roll_back, tell_reader, with_enlisted
from jobu_db.transaction.time_limit import TimeLimit


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

    @property
    def undone(self) -> bool:
        """True if certainly nothing was committed."""
        return all(member.undone for member in with_enlisted(self._members))

    async def __aenter__(self) -> UnitOfWork:
        self._members = []
        self._refuse_newcomers()
        try:
            for transaction in self._transactions:
                await transaction.start()
                self._members.append(transaction.transaction)
                # One by one: what begins next finds it, and an error unbinds just those.
                ambient.bind(transaction.transaction.level)
                await limit_lock_waits(transaction.transaction)
        except BaseException as error:
            self._unbind()
            await roll_back(self._members, error)
            raise
        enter_block(self._members)
        return self

    def _refuse_newcomers(self) -> None:
        """An atomic unit cannot take a database in later: what it decides is fixed."""
        found = [transaction.outer() for transaction in self._transactions]
        if any(level is not None and level.root.unit for level in found):
            for level, transaction in zip(found, self._transactions, strict=True):
                if level is None and not transaction.mode.readonly:
                    raise TransactionError(
                        "it is not part of the enclosing atomic unit and cannot join it later: "
                        "name it there, or give it a transaction of its own",
                        database=transaction.name,
                    )

    def _unbind(self) -> None:
        for member in reversed(self._members):
            ambient.unbind(member.level)

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._unbind()
        members = self._members
        members[0].level.block.left = True
        if not all(member.pool.is_here() for member in members):
            abandon(members, error)
        elif error is None:
            await leave_block(members)
        else:
            if isinstance(error, GeneratorExit):
                for member in members:
                    tell_reader(member)
            await roll_back(members, error)


class LimitedUnit:
    """A unit of work with one limit in time: for beginning all of it and for its body.

    Args:
        unit: Which is not begun yet.
        seconds: Commits are not cut short.
    """

    def __init__(self, unit: UnitOfWork, seconds: float) -> None:
        self._unit = unit
        self._limit = TimeLimit(seconds, "unit of work")

    @property
    def undone(self) -> bool:
        """True if certainly nothing was committed."""
        return self._unit.undone

    async def __aenter__(self) -> UnitOfWork:
        return await self._limit.begin(self._unit.__aenter__())

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        late = await self._limit.end(error)
        if late is None:
            await self._unit.__aexit__(kind, error, traceback)
            return
        await self._unit.__aexit__(type(late), late, None)
        raise late


async def limit_lock_waits(member: Member) -> None:
    """Have a member wait for locks no longer than for a connection."""
    session = member.session
    driver, seconds = session.driver, member.pool.config.timeout
    if type(driver).limit_lock_waits is Driver.limit_lock_waits:
        return  # nothing to send: the first statement may still be tried on another connection
    await session.call(
        member.level,
        "SET LOCAL lock_timeout",
        lambda: driver.limit_lock_waits(session.connection, seconds),
    )
