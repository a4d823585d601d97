"""Several databases that keep all of a unit's work or none of it, whatever fails.

The first database decides. The order, once the work is done:

1. The decider inserts the unit's row in its open transaction, and everything is checked.
2. Every other database that was written to prepares its branch.
3. The decider commits: that is the decision.
4. The branches are committed, and the row is deleted.

Until 3 anything that fails rolls all of it back; after it, nothing does any more. If the
connection is lost at 3, the decider is asked what became of the row (`decisions.decide`). What a
program that stops anywhere leaves behind, `recovery` ends, by the same question.

Invariants:
    Nothing is prepared before the row is inserted.
    A branch is committed only once the decider has certainly committed.
    A connection with a branch that may be prepared goes back to the pool only once that has ended;
    else it is closed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Coroutine, Sequence
from dataclasses import replace
from time import monotonic
from types import TracebackType
from typing import Any

from jobu_db._aio.shield import Finished, finish
from jobu_db.driver import TransactionMode
from jobu_db.errors import (
    CommitOutcomeUnknownError,
    ConnectionLostError,
    TransactionError,
)
from jobu_db.logs import logger_of
from jobu_db.pool.pool import AsyncConnectionPool
from jobu_db.transaction import ambient, decisions
from jobu_db.transaction.block import ManagedTransaction
from jobu_db.transaction.group import enter_block, prepare
from jobu_db.transaction.outcome import COMMITTED, ROLLED_BACK, UNKNOWN, conclude, roll_back
from jobu_db.transaction.root import RootTransaction
from jobu_db.transaction.session import Level
from jobu_db.transaction.unit_of_work import UnitOfWork, limit_lock_waits
from jobu_db.two_phase import Branch, End, Place, TwoPhase, new_id, participant_of

_CLEARING_LIMIT = 1.0
"""Seconds to wait for the deletion of a row. One that stays is recovery's to delete."""


class _Member(RootTransaction):
    """A transaction of an atomic unit, which ends with it and in no other way."""

    def __init__(self, pool: AsyncConnectionPool[Any], mode: TransactionMode, unit: str) -> None:
        super().__init__(pool, mode)
        self.unit = unit

    async def begin_again(self) -> None:
        raise self._refusal()

    async def end_manually(self, *, commit: bool) -> None:
        raise self._refusal()

    def _refusal(self) -> TransactionError:
        return TransactionError(
            "commit(), rollback() and begin() are refused in an atomic unit: leave its block",
            database=self.pool.name,
        )


class Decider(_Member):
    """The transaction whose commit decides.

    Attributes:
        entry: The INSERT of the unit's row; "" if nobody else writes.
    """

    entry = ""

    async def prepare(self) -> None:
        """Insert the row, and raise whatever a commit would raise."""
        if not self.entry:
            await super().prepare()
            return
        self.refuse_if_spoiled()
        session = self.session
        deciding = session.driver.deciding
        count = await session.call(
            self.level, self.entry, lambda: deciding.enter(session.connection, self.entry)
        )
        if count != 1:
            self.pool.two_phase.identity = None  # the next unit asks again
            raise TransactionError(
                "not committed: the database is not the one that was to decide when the unit "
                "began; was it replaced by another?",
                database=self.pool.name,
            )


class Participant(_Member):
    """A transaction that prepares before the decision.

    Attributes:
        branch: Its name.
        ended: Its branch is certainly over on the server.
        ended_here: It was there, and ended as ordered here, not by somebody else.
    """

    def __init__(
        self,
        pool: AsyncConnectionPool[Any],
        mode: TransactionMode,
        branch: Branch,
        two_phase: TwoPhase[Any],
    ) -> None:
        super().__init__(pool, replace(mode, branch=branch), branch.unit)
        self.branch = branch
        self.ended = self.ended_here = False
        self._two_phase = two_phase
        self._asked = False  # to prepare, and not refused
        self._prepared = False

    def _end(self, work: Coroutine[Any, Any, None], hurry: bool) -> Awaitable[Finished]:
        for level in self.session.levels:
            level.closed = True
        return finish(work, self.pool.config.cleanup_timeout, hurry=hurry)

    async def prepare(self) -> None:
        """Nothing but a look: `vote` raises whatever a commit would."""
        self.refuse_if_spoiled()
        session = self.session
        if session.replaceable_until is not None:  # nothing was sent: has it died while idle?
            await session.call(
                self.level,
                "SELECT 1",
                lambda: session.driver.fetch_val(session.connection, "SELECT 1", None),
            )

    async def vote(self) -> Finished:
        """Prepare the branch. After an error it is not, or that is unknown; roll back then."""
        return await self._end(self._vote(), hurry=False)

    async def _vote(self) -> None:
        session = self.session
        try:
            self._has_turn = session.rest_now() or await session.come_to_rest()
            self.refuse_if_spoiled()
            if session.readers:
                await session.close_readers()
                self.refuse_if_spoiled()
            if not self._is_open():
                await self._refuse_if_ended()
            await self._prepare_on_server()
        except BaseException as error:
            self._failure = error
            raise

    async def _prepare_on_server(self) -> None:
        session = self.session
        # Before it is sent: from here on it may be prepared, whatever cuts us off.
        self._asked = True
        session.lease.expect_answer(monotonic())
        try:
            with self.pool.translating("PREPARE TRANSACTION"):
                await self._two_phase.prepare(session.connection, self.branch)
            self._prepared = True
        except BaseException as error:
            if self._leaves_unknown(error):
                session.lose("the connection was lost during PREPARE TRANSACTION")
            else:
                self._asked = False
            if type(error) is TransactionError:  # on account of what failed before
                error.retryable = error.retryable or session.may_pass
            raise
        finally:
            session.lease.expect_answer(None)

    async def _commit(self) -> None:
        await self._end_branch(commit=True)

    async def _rollback(self) -> None:
        if self._prepared:
            await self._end_branch(commit=False)
        elif self._asked:  # it may still be under way, so that nothing else can be sent
            self._leave("it is unknown whether it was prepared")
        # The vote took the turn, and failed before the server was asked: it is not taken twice.
        elif self._has_turn:
            try:
                await self._undo(reset=self._resets)
            except BaseException as error:
                self.session.give_up(error)
                raise
            finally:
                self._give_back()
        else:
            await super()._rollback()

    def leave(self) -> None:
        """Leave the branch prepared: it is recovery's to end."""
        self.outcome = UNKNOWN
        self._leave("its decision is unknown")

    async def _end_branch(self, *, commit: bool) -> None:
        session, word = self.session, "COMMIT" if commit else "ROLLBACK"
        why = f"the connection was lost before {word} PREPARED"
        try:
            if session.discard is None:
                session.lease.expect_answer(monotonic())
                with self.pool.translating(f"{word} PREPARED"):
                    end = await self._two_phase.end(session.connection, self.branch, commit=commit)
                    # UNKNOWN is no proof that it is over: another session may only have it just
                    # now.
                    self.ended_here = end is End.DONE
                    self.ended = end in (End.DONE, End.EMPTY) or not await self._is_listed()
        except BaseException as error:
            why = str(error) or repr(error)
            if not isinstance(error, Exception):
                raise
        finally:
            session.lease.expect_answer(None)
            if commit and self.pool.positions is not None:
                # By the order its work is committed, whose answer tells no position.
                self.pool.positions.lost()
            if self.ended:
                self._give_back()
            else:
                self._leave(why)

    async def _is_listed(self) -> bool:
        """Say whether the branch is still there: a recovery that ran beside may have ended it."""
        listed = await self._two_phase.prepared(self.session.connection)
        return any(one.branch == self.branch for one in listed)

    def _leave(self, why: str) -> None:
        session = self.session
        # So it is closed, and never reset: after that, MariaDB hides the prepared branch.
        session.lose("a prepared branch is left to recovery")
        waiting = self.pool.two_phase.note(self.branch, why)
        logger_of(self.pool.name).warning(
            "%s: branch %s of an atomic unit is left to recovery: %s",
            self.pool.name, waiting.branch.name, why,
        )  # fmt: skip
        self._give_back()


class AtomicUnit(UnitOfWork):
    """`async with` over several databases that commit all or nothing.

    Where all of them are open in one atomic unit already, or in a test's transactions, it is a
    unit inside that one.

    Args:
        transactions: One for each database, at least two. The first one decides.

    Raises:
        TransactionError: A database is named twice, or cannot take part in its place.
    """

    def __init__(self, transactions: Sequence[ManagedTransaction[Any]]) -> None:
        super().__init__(transactions)
        first, *others = transactions
        self._writers = [one for one in others if not one.mode.readonly]
        if first.mode.readonly and self._writers:
            raise TransactionError(
                "atomic=True: the first database decides, and writes for that: it cannot be "
                "readonly",
                database=first.name,
            )
        _refuse_who_cannot_prepare(first, self._writers)
        if self._writers:
            first.pool.driver.capabilities.decides.demand("atomic=True", first.name)
        self._inside = False
        self._place: Place | None = None

    async def __aenter__(self) -> AtomicUnit:
        self._members = []
        self._inside = self._is_inside()
        if self._inside:
            await super().__aenter__()
            return self
        try:
            for transaction, root in zip(self._transactions, await self._roots(), strict=True):
                await transaction.start_as(root)
                self._members.append(root)
                ambient.bind(root.level)
                await limit_lock_waits(root)
        except BaseException as error:
            self._unbind()
            await roll_back(self._members, error)
            raise
        enter_block(self._members)
        return self

    def _is_inside(self) -> bool:
        """Say whether this is part of an atomic unit, or of a test, around it."""
        outer = [transaction.outer() for transaction in self._transactions]
        around = [level for level in outer if level is not None]
        if not around:
            return False
        whole = len(around) == len(outer)
        units = {level.root.unit for level in around}
        if whole and len(units) == 1 and (any(units) or _of_test(around)):
            return True
        names = ", ".join(repr(level.pool.name) for level in around)
        raise TransactionError(
            f"atomic=True is refused inside a transaction of {names}: what that one does later "
            "could not be decided together with this; make the outer one atomic, with all databases"
        )

    async def _roots(self) -> list[RootTransaction]:
        """Make the root transactions, once everybody was found fit for its part."""
        first, *others = self._transactions
        decider = Decider(first.pool, first.mode, unit := new_id())
        roots: list[RootTransaction] = [decider]
        taking_part: dict[str, str] = {}
        if self._writers:
            # Before any of its transactions begins: the first time it creates tables, on another
            # connection, which on SQLite takes the turn to write.
            identity = await decisions.identify(first.pool)
        for transaction in others:
            pool, mode = transaction.pool, transaction.mode
            if mode.readonly:
                roots.append(_Member(pool, mode, unit))
                continue
            two_phase, participant = await _fit_to_prepare(pool)
            if participant in taking_part:
                raise TransactionError(
                    f"atomic=True: {taking_part[participant]!r} and {pool.name!r} are the same "
                    "database: name it once"
                )
            taking_part[participant] = pool.name
            branch = Branch(identity.id, unit, participant)
            roots.append(Participant(pool, mode, branch, two_phase))
        if self._writers:
            self._place = first.pool.two_phase.place
            assert self._place is not None
            decider.entry = decisions.entry(self._place, identity.id, unit, taking_part)
        return roots

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        here = all(member.pool.is_here() for member in self._members)
        if self._inside or error is not None or not here:
            await super().__aexit__(kind, error, traceback)
            return
        self._unbind()
        self._members[0].level.block.left = True
        try:
            await prepare(self._members)
        except BaseException as refusal:
            await roll_back(self._members, refusal)
            raise
        ending = _Ending(self._place, self._members)
        await conclude(self._members, await ending.run())


def _of_test(levels: Sequence[Level]) -> bool:
    return all(level.of_test for level in levels)


def _refuse_who_cannot_prepare(
    first: ManagedTransaction[Any], writers: Sequence[ManagedTransaction[Any]]
) -> None:
    """Raise, naming an order that would work if there is one."""
    unable = [one for one in writers if not one.pool.driver.capabilities.two_phase]
    if not unable:
        return
    reason = unable[0].pool.driver.capabilities.two_phase.because
    if len(unable) == 1 and first.pool.driver.capabilities.two_phase:
        rest = [one.name for one in (first, *writers) if one is not unable[0]]
        order = ", ".join(repr(name) for name in (unable[0].name, *rest))
        fix = f"this order would work: {order}"
    else:
        cannot = [*unable, *([] if first.pool.driver.capabilities.two_phase else [first])]
        names = ", ".join(repr(one.name) for one in cannot)
        fix = f"no order would work: of {names} only one can come first"
    raise TransactionError(f"atomic=True: {reason}; {fix}", database=unable[0].name)


async def _fit_to_prepare(pool: AsyncConnectionPool[Any]) -> tuple[TwoPhase[Any], str]:
    """Return how a database prepares, and under which name it takes part.

    Raises:
        TransactionError: It cannot prepare, as its server is set up.
    """
    two_phase, notes = pool.driver.two_phase, pool.two_phase
    assert two_phase is not None, "a backend that declares `two_phase` has it"
    if not notes.prepares:
        await decisions.ask(pool, "SELECT", two_phase.check)
        notes.prepares = True
    place = notes.place or await decisions.place_of(pool)
    return two_phase, participant_of(place.fingerprint)


class _Ending:
    """The end of one unit, once everything is checked and the row inserted.

    Args:
        place: Where its row is; None if nobody but the first one writes.
        members: All transactions of the unit, the decider first.
    """

    def __init__(self, place: Place | None, members: Sequence[Any]) -> None:
        self._decider: RootTransaction = members[0]
        self._place = place
        self._members = members
        self._participants = [one for one in members if isinstance(one, Participant)]
        self._cancelled: asyncio.CancelledError | None = None
        self._claimed = False  # the decider was asked, and had no row of the unit

    async def run(self) -> Finished:
        """Prepare, decide, and tell the participants."""
        failure = await self._prepare()
        if failure is not None:
            # Those that only read, and have ended by then, have no lease any more.
            left = [one for one in self._members if one.session.lease.in_use]
            await roll_back(left, failure, hurry=self._cancelled is not None)
            told = None if failure is self._cancelled else failure
            return Finished(told, self._cancelled)
        failure = await self._decide()
        if self._decider.outcome == COMMITTED:
            await self._commit_participants()
            return Finished(None, self._cancelled)
        if self._decider.outcome == ROLLED_BACK:
            assert failure is not None
            await roll_back(self._participants, failure, hurry=self._cancelled is not None)
            if self._claimed and not any(one.ended_here for one in self._participants):
                failure = self._forgotten(failure)
        else:
            for one in self._participants:
                one.leave()
        return Finished(failure, self._cancelled)

    def _forgotten(self, failure: BaseException) -> BaseException:
        """Nobody holds a branch any more: somebody else has ended the unit, and its row may have
        been deleted after a commit as well as never been there."""
        for one in (self._decider, *self._participants):
            one.outcome = UNKNOWN
        unknown = CommitOutcomeUnknownError(
            "the connection was lost while an atomic unit was decided, and a recovery has made all "
            "its databases agree before they were asked: on which outcome is unknown",
            database=self._decider.pool.name,
        )
        unknown.__cause__ = failure.__cause__
        return unknown

    async def _prepare(self) -> BaseException | None:
        """Prepare all, after those that only read have ended; return what went wrong."""
        for one in self._members[1:]:
            ends = one.vote() if isinstance(one, Participant) else one.commit()
            failure, self._cancelled = await ends
            if failure is not None or self._cancelled is not None:
                return failure or self._cancelled
        return None

    async def _decide(self) -> BaseException | None:
        """Commit the decider's transaction; if that is unknown, learn what became of it."""
        failure, self._cancelled = await self._decider.commit()
        if self._decider.outcome != UNKNOWN or not self._participants:
            return failure
        learned = await self._within(self._learn(), self._decider.pool.config.cleanup_timeout)
        if self._decider.outcome == COMMITTED:
            return None
        if self._decider.outcome == ROLLED_BACK:
            error = ConnectionLostError(
                "the connection was lost during COMMIT, and nothing was committed",
                database=self._decider.pool.name,
            )
            error.__cause__ = failure
            return error
        unknown = CommitOutcomeUnknownError(
            "the connection was lost while an atomic unit was decided: recovery will make all its "
            "databases agree, on which outcome is unknown"
            + (f" ({learned.error})" if learned.error is not None else ""),
            database=self._decider.pool.name,
        )
        unknown.__cause__ = failure
        return unknown

    async def _learn(self) -> None:
        decider, branch = self._decider, self._participants[0].branch
        assert self._place is not None
        committed = await decisions.decide(decider.pool, self._place, branch.decider, branch.unit)
        if committed is not None:
            decider.outcome = COMMITTED if committed else ROLLED_BACK
            self._claimed = not committed

    async def _commit_participants(self) -> None:
        for one in self._participants:
            one.outcome = COMMITTED  # whatever becomes of the order to do so
        for one in self._participants:
            finished = await one.commit(hurry=self._cancelled is not None)
            self._cancelled = self._cancelled or finished.cancelled
        # The row proves the commit. As long as a branch may be prepared, recovery needs it.
        if self._place is not None and all(one.ended for one in self._participants):
            unit = self._participants[0].branch.unit
            cleared = await self._within(
                decisions.forget(self._decider.pool, self._place, unit), _CLEARING_LIMIT
            )
            if cleared.error is not None:
                logger_of(self._decider.pool.name).info(
                    "%s: the row of unit %s is left to recovery: %r",
                    self._decider.pool.name, unit, cleared.error,
                )  # fmt: skip

    async def _within(self, work: Any, limit: float) -> Finished:
        """Run work within a time limit, also if the caller is cancelled."""
        finished = await finish(work, limit, hurry=True)
        self._cancelled = self._cancelled or finished.cancelled
        return finished
