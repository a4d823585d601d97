"""The outermost level of a transaction: takes a connection, begins, commits or rolls back.

The order on the way in is: the turn to write, a connection, BEGIN, which may wait for the first
statement (`Driver.begin_later`); on the way out: the turn in which nothing else runs, the end on
the server, the connection back to its pool, the turn to write. All of the way out is shielded: a
caller who is cancelled then hears of it afterwards. Where the driver says that nobody need
wait (`Driver.end_later`), the connection goes back first, and the pool ends what is open on it.

Invariants:
    Whatever happens, the connection goes back to the pool exactly once, and only if no
    transaction can be open on it; otherwise it is thrown away. The turn to write goes with it.
    `outcome` is never better than what is certain, at whatever point a cancellation or an error
    ends the work.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Coroutine
from contextlib import suppress
from functools import partial
from time import monotonic
from typing import Any

from jobu_db._aio.callsite import Asked, task_name
from jobu_db._aio.shield import DONE, Finished, finish
from jobu_db.driver import TransactionMode, WriteGate
from jobu_db.errors import CommitOutcomeUnknownError, ConnectionLostError, TransactionError
from jobu_db.pool.pool import AsyncConnectionPool
from jobu_db.pool.slots import Ending
from jobu_db.transaction.lender import Lender
from jobu_db.transaction.outcome import COMMITTED, LEFT_FIRST, ROLLED_BACK, UNKNOWN, conclude
from jobu_db.transaction.session import OVER, Block, Callback, Level, Session, begin_in_time
from jobu_db.transaction.write_turn import take_write_turn

_serials = itertools.count()


class RootTransaction:
    """Owns the lease, the turn to write, and the end of one transaction.

    Args:
        pool: The database's.
        mode: How it begins.
        around: The transaction of the same pool in which an independent one is opened.
        lender: From whom the connection comes, and to whom it goes back; the pool if None. It may
            be another pool's, of a replica: `session.pool`.

    Attributes:
        session, level: Set by `open`.
        outcome: "committed", "rolled back" or "outcome unknown", of the transaction that is open
            or was last; "rolled back" as long as it is open.
        serial: Its place in the order in which root transactions were made.
        unit: The atomic unit that it is part of, or "".
    """

    unit = ""

    def __init__(
        self,
        pool: AsyncConnectionPool[Any],
        mode: TransactionMode,
        around: Level | None = None,
        lender: Lender | None = None,
    ) -> None:
        self.pool = pool
        self._lender: Lender = pool if lender is None else lender
        self.mode = mode
        self.session: Session
        self.level: Level
        self.outcome = ROLLED_BACK
        self._home: RootTransaction | None = None
        self.serial = next(_serials)
        self._around = around
        self._gate: WriteGate | None = None
        self._waited = 0.0
        self._failure: BaseException | None = None  # why it could not be committed
        self._kept = False  # something that was committed by hand before cannot be undone
        self._was_reset = False  # together with the commit or rollback
        self._ends: Ending | None = None  # by the pool, in the background
        self._has_turn = False  # the last one: nothing runs on the connection any more

    # -- beginning

    async def open(self) -> Level:
        """Take the turn to write, a connection, and begin; all within the pool's timeout.

        Raises:
            LockTimeoutError: Another writer did not finish in time.
            DatabaseError: As from `AsyncConnectionPool.acquire`, or what BEGIN raised.
        """
        pool = self.pool
        asked_at = monotonic()
        deadline = asked_at + pool.config.timeout
        # Before the connection: else writers in line could hold all connections, while the one
        # whose turn it is waits for one.
        if not self.mode.readonly and pool.driver.write_gate is not None:
            await self._take_write_turn(deadline)
        try:
            begin = partial(begin_in_time, mode=self.mode, deadline=deadline)
            lease, later = await self._lender.acquire_for(
                begin, deadline, repeatable=True, begins=True
            )
        except BaseException:
            self._leave_gate()
            raise
        self.session = session = Session(self._lender, lease, self.mode, asked_at)
        if later and self._lender.replaces:
            session.replaceable_until = deadline
        self._waited = session.started - asked_at
        self.level = level = Level(self, pool, task_name(), self.mode.readonly)
        session.levels.append(level)
        session.pool.observer.transaction_began(session, readonly=self.mode.readonly)
        return level

    # -- the turn to write

    async def _take_write_turn(self, deadline: float) -> None:
        self._loop = asyncio.get_running_loop()
        self._gate = await take_write_turn(self.pool, deadline - monotonic())

    @property
    def home(self) -> RootTransaction:
        """The first of the root transactions that end together; itself, if it ends alone."""
        return self if self._home is None else self._home

    @home.setter
    def home(self, first: RootTransaction) -> None:
        self._home = None if first is self else first  # for it would know itself, see `OVER`

    @property
    def held_gate(self) -> WriteGate | None:
        """The gate in which it has the turn to write itself, or None."""
        return self._gate

    def holds_gate(self, gate: WriteGate) -> bool:
        """True while this transaction, or one around it, has the turn to write there."""
        return self._gate is gate or (self._around is not None and self._around.holds_gate(gate))

    def _leave_gate(self) -> None:
        gate, self._gate = self._gate, None
        if gate is not None:
            gate.leave()

    def __del__(self) -> None:
        """A block that was abandoned must not keep all writers out."""
        if self._gate is not None and self.pool.in_its_process:
            # Garbage may be collected in any thread; the gate is left in the loop.
            with suppress(RuntimeError):  # its event loop is closed
                session = getattr(self, "session", None)
                if session is not None and session.lease.in_generator:
                    # The event loop closes the generator, which leaves the gate in its turn.
                    self._loop.call_soon_threadsafe(
                        self._loop.call_later, self.pool.time_to_close, self._leave_gate
                    )
                else:
                    self._loop.call_soon_threadsafe(self._gate.leave)

    # -- ending with another one

    def enlist(self, block: Block) -> None:
        """End with another block than its own, which is left."""
        self.level.kept, self.level.block = True, block
        block.enlisted.append(self)

    # -- ending

    @property
    def told(self) -> str:
        """What became of it, for a note."""
        return self.outcome

    @property
    def undone(self) -> bool:
        """True if certainly nothing was committed: at the end, by hand, or implicitly."""
        return not (self.outcome != ROLLED_BACK or self._kept or self.session.beyond_undo)

    def due(self) -> list[Callback]:
        """Hand out the callbacks, if the transaction that they wait for is committed."""
        callbacks, self.level.callbacks = self.level.callbacks, []
        return callbacks if self.outcome == COMMITTED else []

    async def prepare(self) -> None:
        """Raise now what a commit would raise, as far as can be known."""
        self.refuse_if_spoiled()
        if self.level.begun:
            session = self.session
            await session.call(
                self.level, "COMMIT", lambda: session.driver.prepare_commit(session.connection)
            )

    async def commit(self, *, hurry: bool = False) -> Finished:
        """Commit and give the connection back, also if cancelled in between.

        Ends with a `CommitOutcomeUnknownError` if the connection was lost then, with another
        error if it could not be committed, and was rolled back.
        """
        # Nothing awaits from this look to the release: no cancellation, and no statement of another
        # task, can come between.
        if self._may_end_later(Ending.COMMIT):
            self.outcome = COMMITTED
            self._give_back()
            return DONE
        return await self._end(self._commit(), hurry)

    async def rollback(self, *, hurry: bool = False) -> Finished:
        """Roll back and give the connection back; a failure is logged."""
        if self._may_end_later(Ending.ROLLBACK):
            self._give_back()
            return DONE
        return await self._end(self._rollback(), hurry)

    def _may_end_later(self, how: Ending) -> bool:
        """Say whether the connection can be given back first: sound, at rest, nothing to lose."""
        session = self.session
        if not self._lender.ends_transactions or session.failed or session.readers:
            return False
        if session.aborting or self.level.refusal or session.refusal:
            return False
        if not session.queue.take_now(session.levels[-1] is self.level):
            return False
        if self._driver_ends_later():
            self._ends = how
            self._has_turn = self.level.closed = True
        else:
            session.queue.give()
        return self._has_turn

    def _driver_ends_later(self) -> bool:
        session = self.session
        driver, connection = session.driver, session.connection
        try:
            # Nothing was sent, so that nobody noticed that the connection died: there is nothing to
            # end, and nothing to lend again.
            unsent = self.level.begun and session.replaceable_until is not None
            if unsent and not driver.is_alive(connection):
                session.discard = "lost"
                return True
            return driver.in_transaction(connection) and driver.end_later(connection, self.mode)
        except Exception:  # ending it now meets that again, tells it, and gives the lease back
            return False

    def _end(self, work: Coroutine[Any, Any, None], hurry: bool) -> Awaitable[Finished]:
        session = self.session
        # First: from here on `Session.check` lets no statement of any task in.
        for level in session.levels:
            level.closed = True
        limit, taskless = session.pool.config.cleanup_timeout, session.taskless
        return finish(work, limit, hurry=hurry, taskless=taskless)

    async def _commit(self) -> None:
        # Whatever fails here, the rest is undone, and the connection goes back either way.
        try:
            self._has_turn = self.session.rest_now() or await self.session.come_to_rest()
            if self.level.begun:
                self.refuse_if_spoiled()
                await self._commit_on_server(reset=self._resets)
        except BaseException as error:
            self._failure = error
            await self._undo(error, reset=self._resets)
            raise
        finally:
            self._give_back()

    async def _rollback(self) -> None:
        try:
            self._has_turn = self.session.rest_now() or await self.session.come_to_rest()
            await self._undo(reset=self._resets)
        except BaseException as error:
            self.session.give_up(error)
            raise
        finally:
            self._give_back()

    @property
    def _resets(self) -> bool:
        return self._lender.resets

    def refuse_if_spoiled(self) -> None:
        """Raise `TransactionError` if it can only be rolled back."""
        reason = self.session.obstacle_to_keeping(self.level)
        if reason:
            raise self.session.refused(self.level, f"not committed: {reason}")

    def _give_back(self) -> None:
        session, asked = self.session, self.session.lease.asked
        if self.pool.positions is not None and self._may_have_kept_more:
            self.pool.positions.lost()
        try:
            if session.lease.in_use:  # else it was lost, and no other could be had
                session.lease.answered = session.replaceable_until is None
                self._lender.release(
                    session.lease, clean=self._was_reset, discard=session.discard, ends=self._ends
                )
        finally:
            # In this order: who still waits for a statement of this transaction is to hear that
            # it is over, and the next writer begins only once its connection is back.
            session.refusal = session.refusal or LEFT_FIRST
            if session.guards:
                session.settled()
            self._leave_gate()
            if self._has_turn:
                session.queue.give()
        level = self.level
        if level.begun:
            self._tell_end(asked)
        # What knows this transaction lets go of it, so that all of it is freed at once, and by
        # nobody's garbage collection.
        self._failure = None  # which knows the frame that knows this
        level.root, level.face = OVER, None
        session.levels = []

    @property
    def _may_have_kept_more(self) -> bool:
        """True if something may have been committed by other means than our own commit."""
        session = self.session
        if self.mode.readonly or self.outcome == COMMITTED:  # which came later than all else
            return False
        elsewhere = session.refusal or session.beyond_undo or session.raw_used
        return self.outcome == UNKNOWN or bool(elsewhere)

    def _tell_end(self, asked: Asked | None) -> None:
        session = self.session
        session.pool.observer.transaction_ended(
            session,
            outcome=self.outcome,
            started=session.started,
            waited=self._waited,
            asked=asked,
            error=self._failure,
        )

    # -- the end on the server; the caller of these has the turn

    async def _commit_on_server(self, *, reset: bool) -> None:
        """Commit.

        Raises:
            CommitOutcomeUnknownError: The connection was lost before the answer.
            ConnectionLostError: The same where nothing can have been written.
            DatabaseError: It is not committed, and may still be open.
        """
        session = self.session
        if session.readers:
            await session.close_readers()
            self.refuse_if_spoiled()
        if not self._is_open():
            await self._refuse_if_ended()
        self.outcome = UNKNOWN  # from here on, until the server has answered
        session.lease.expect_answer(monotonic())
        try:
            with session.pool.translating("COMMIT"):
                self._was_reset = await session.driver.commit(session.connection, reset=reset)
            self.outcome = COMMITTED
            if self.pool.positions is not None and not self.mode.readonly:
                self.pool.positions.committed(session.connection)
        except BaseException as error:
            if isinstance(error, CommitOutcomeUnknownError):
                raise  # it is the server that cannot say
            if self._leaves_unknown(error):
                session.lose("the connection was lost during COMMIT")
                if self.mode.readonly and isinstance(error, Exception):
                    self.outcome = ROLLED_BACK
                    raise ConnectionLostError(
                        "the connection was lost at the end of a read-only transaction: nothing "
                        "was written",
                        database=self.pool.name,
                    ) from (error.__cause__ or error)
                raise CommitOutcomeUnknownError(
                    "the connection was lost during COMMIT: whether it took place is unknown",
                    database=self.pool.name,
                ) from (error.__cause__ or error)
            self.outcome = ROLLED_BACK
            if type(error) is TransactionError:  # on account of what failed before
                error.retryable = error.retryable or session.may_pass
            raise
        finally:
            session.lease.expect_answer(None)

    def _is_open(self) -> bool:
        # No round trip as a rule: the server is asked only where the driver's flag cannot be
        # trusted.
        session = self.session
        driver, connection = session.driver, session.connection
        trusted = not session.raw_used  # else errors may have passed that nobody here saw
        return trusted and driver.is_alive(connection) and driver.in_transaction(connection)

    async def _refuse_if_ended(self) -> None:
        """Raise unless the server says that the transaction is still the one that was begun."""
        session, name = self.session, self.pool.name
        if not session.driver.is_alive(session.connection):
            session.lose("the connection was lost")
        elif session.driver.in_transaction(session.connection) and await session.still_open():
            return
        if session.discard is not None:
            raise ConnectionLostError(f"{session.discard} before COMMIT", sent=False, database=name)
        if committed_by := session.driver.committed_by(session.connection):
            session.refusal = (
                f"{committed_by} on ctx.connection committed the transaction before its block "
                "ended: what came before is stored, and what came after did not belong to it; run "
                "such statements by ctx.execute, or outside a transaction"
            )
            raise TransactionError(session.refusal, database=name)
        session.refusal = "the transaction was not ended by its block"
        raise TransactionError(f"not committed: {session.refusal}", database=name)

    def _leaves_unknown(self, error: BaseException) -> bool:
        """Say whether a COMMIT that failed so may have taken place all the same."""
        if isinstance(error, ConnectionLostError):
            return error.sent
        cut_off = not isinstance(error, Exception)
        return cut_off or not self.session.driver.is_alive(self.session.connection)

    async def _undo(self, error: BaseException | None = None, *, reset: bool) -> None:
        """Roll back what is open, because of `error`; a failure is logged, the connection lost."""
        session = self.session
        session.give_up(error)
        if session.discard is None:
            await session.clean_up(self._roll_back_on_server(reset), "rollback")

    async def _roll_back_on_server(self, reset: bool) -> None:
        session = self.session
        await session.quiet()
        if session.discard is None:
            await session.close_readers()
            self._was_reset = await session.driver.rollback(session.connection, reset=reset)

    # -- manual control

    async def begin_again(self) -> None:
        """Begin after a manual commit or rollback, on the same connection."""
        session, level = self.session, self.level
        if not self.mode.readonly:
            await self._take_write_turn(monotonic() + self.pool.config.timeout)
        self._kept |= self.outcome != ROLLED_BACK
        self.outcome = ROLLED_BACK
        session.started, self._waited = monotonic(), 0.0
        level.begun = True
        session.pool.observer.transaction_began(session, readonly=self.mode.readonly)
        try:
            await session.call(level, "BEGIN", session.begin)
        except Exception:  # a BEGIN that was cancelled may take place: that is to be rolled back
            self._ended_manually()
            raise

    async def end_manually(self, *, commit: bool) -> None:
        """Commit or roll back before the block ends."""
        session = self.session
        await session.take_turn(self.level)
        try:
            session.check_control(self.level)
            if self.level.kept:
                raise TransactionError(
                    f"commit() and rollback() are refused here: a unit of work enlisted this "
                    f"transaction, which ends with that of {self.home.pool.name!r}",
                    database=self.pool.name,
                )
            if commit:
                session.check(self.level)
        except TransactionError:
            session.queue.give()
            raise
        limit = self.pool.config.cleanup_timeout
        finished = await finish(self._end_now(commit), limit, taskless=session.taskless)
        await conclude([self], finished)

    async def _end_now(self, commit: bool) -> None:
        session = self.session
        try:
            await session.quiet()
            if commit:
                self.refuse_if_spoiled()
                await self._commit_on_server(reset=False)
            else:
                await self._undo(reset=False)
        except BaseException as error:
            self._failure = error
            await self._undo(error, reset=False)
            raise
        finally:
            # The turn is given last: who has waited for it must find that there is no
            # transaction any more.
            self._ended_manually()
            self._tell_end(session.lease.asked)
            self._failure = None
            session.queue.give()

    def _ended_manually(self) -> None:
        if self.session.discard is None:
            self.level.refusal = self.session.refusal = ""
        self.level.begun = False
        self._leave_gate()
