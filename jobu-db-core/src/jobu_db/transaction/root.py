"""The outermost level of a transaction: takes a connection, begins, commits or rolls back.

Invariant: whatever happens, the connection goes back to the pool exactly once, and only if no
transaction can be open on it; otherwise it is thrown away. The turn to write goes with it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Coroutine
from contextlib import suppress
from time import monotonic
from typing import TYPE_CHECKING, Any

from jobu_db._aio.shield import DONE, Finished, finish
from jobu_db.driver import TransactionMode, WriteGate
from jobu_db.errors import ConnectionLostError, TransactionError
from jobu_db.events import events
from jobu_db.transaction.context import TransactionContext
from jobu_db.transaction.fate import Fate
from jobu_db.transaction.outcome import COMMITTED, LEFT_FIRST, Callback, conclude
from jobu_db.transaction.session import Session
from jobu_db.transaction.statement_queue import task_name
from jobu_db.transaction.write_turn import enter_write_gate

if TYPE_CHECKING:
    from jobu_db.database import BaseDatabase
    from jobu_db.pool.lease import PooledConnection


class RootTransaction:
    """Owns the lease, the write gate, and the end of one transaction.

    Args:
        around: The transaction of the same database in which an independent one is opened.
    """

    def __init__(
        self,
        database: BaseDatabase,
        mode: TransactionMode,
        around: TransactionContext | None = None,
    ) -> None:
        self.database = database
        self.mode = mode
        self.context: TransactionContext
        self._around = around
        self._gate: WriteGate | None = None
        self._session: Session
        self._fate: Fate
        self._at_rest = False

    # -- beginning

    async def open(self) -> TransactionContext:
        """Take the turn to write, a connection, and begin; all within the pool's timeout."""
        deadline = monotonic() + self.database.pool.config.timeout
        if not self.mode.readonly and self.database.driver.write_gate is not None:
            await self._enter_gate(deadline)
        try:
            lease = await self._begin(deadline)
        except BaseException:
            self._leave_gate()
            raise
        self._session = session = Session(self, lease, self.mode)
        self._fate = Fate(session)
        self.context = self.database.context_class(
            session, readonly=self.mode.readonly, owner=task_name()
        )
        session.levels.append(self.context)
        return self.context

    async def _begin(self, deadline: float) -> PooledConnection[Any]:
        database, pool = self.database, self.database.pool
        started = monotonic()
        while True:
            lease = pool.acquire_nowait() or await pool.acquire(max(0.0, deadline - monotonic()))
            try:
                begin = database.driver.begin(lease.connection, self.mode)
                await pool.time_limits.within(deadline - monotonic(), begin)
            except BaseException as error:
                meaning = database.explain(error, "BEGIN")
                had_been_idle = lease.created_at < started
                pool.release(lease, discard="begin failed")
                if monotonic() >= deadline and isinstance(error, TimeoutError):
                    text = f"no answer to BEGIN within {pool.config.timeout:g} s"
                    meaning = ConnectionLostError(text, database=database.name)
                elif isinstance(meaning, ConnectionLostError) and had_been_idle:
                    continue  # it had died meanwhile: nobody need hear of that
                if meaning is None or meaning is error:
                    raise
                raise meaning from error
            return lease

    # -- the turn to write

    async def _enter_gate(self, deadline: float) -> None:
        self._loop = asyncio.get_running_loop()
        self._gate = await enter_write_gate(self.database, deadline - monotonic())

    def holds_gate(self, gate: WriteGate) -> bool:
        """True while this transaction, or one around it, has the turn to write there."""
        return self._gate is gate or (self._around is not None and self._around.holds_gate(gate))

    def _leave_gate(self) -> None:
        gate, self._gate = self._gate, None
        if gate is not None:
            gate.leave()

    def __del__(self) -> None:
        """A block that was abandoned must not keep all writers out for ever."""
        if self._gate is not None:
            with suppress(RuntimeError):  # its event loop is closed
                self._loop.call_soon_threadsafe(self._gate.leave)

    # -- ending

    @property
    def outcome(self) -> str:
        """What became of it: "committed", "rolled back" or "outcome unknown"."""
        return self._fate.outcome

    told = outcome

    @property
    def undone(self) -> bool:
        """True if certainly nothing was committed."""
        return self._fate.undone

    def due(self) -> list[Callback]:
        """Hand out the callbacks, if the transaction that they wait for is committed."""
        callbacks, self.context.callbacks = self.context.callbacks, []
        return callbacks if self._fate.outcome == COMMITTED else []

    async def prepare(self) -> None:
        """Raise now what a commit would raise, as far as can be known."""
        self._refuse_if_spoiled()
        if self.context.begun:
            session = self._session
            await session.call(
                self.context, "COMMIT", lambda: session.driver.prepare_commit(session.connection)
            )

    async def commit(self, *, hurry: bool = False) -> Finished:
        """Commit and give the connection back, also if cancelled meanwhile.

        Ends with a `CommitOutcomeUnknownError` if the connection was lost meanwhile, with another
        error if it could not be committed, and was rolled back.
        """
        if self._may_end_later():
            self._fate.outcome = COMMITTED
            self._give_back()
            return DONE
        return await self._end(self._commit(), hurry)

    async def rollback(self, *, hurry: bool = False) -> Finished:
        """Roll back and give the connection back; a failure is logged."""
        if self._may_end_later():
            self._give_back()
            return DONE
        return await self._end(self._rollback(), hurry)

    def _may_end_later(self) -> bool:
        """Say whether the connection can be given back first: read-only, sound, and at rest."""
        if not self.mode.readonly:
            return False
        session = self._session
        if session.readers or session.aborting or self.context.refusal or session.refusal:
            return False
        if not session.turns.take_now(session.levels[-1] is self.context):
            return False
        self._at_rest = self.context.closed = self._driver_ends_later()
        if not self._at_rest:
            session.turns.give()
        return self._at_rest

    def _driver_ends_later(self) -> bool:
        driver, connection = self._session.driver, self._session.connection
        try:
            return driver.in_transaction(connection) and driver.end_later(connection, self.mode)
        except Exception:  # ending it now meets that again, tells it, and gives the lease back
            return False

    def _end(self, work: Coroutine[Any, Any, None], hurry: bool) -> Awaitable[Finished]:
        session = self._session
        for level in session.levels:
            level.closed = True
        limit, taskless = self.database.pool.config.cleanup_timeout, session.taskless
        return finish(work, limit, hurry=hurry, taskless=taskless)

    async def _commit(self) -> None:
        try:
            self._at_rest = self._session.rest_now() or await self._session.come_to_rest()
            if self.context.begun:
                self._refuse_if_spoiled()
                await self._fate.commit(reset=self._resets)
        except BaseException as error:
            await self._fate.undo(error, reset=self._resets)
            raise
        finally:
            self._give_back()

    async def _rollback(self) -> None:
        try:
            self._at_rest = self._session.rest_now() or await self._session.come_to_rest()
            await self._fate.undo(reset=self._resets)
        except BaseException as error:
            self._session.give_up(error)
            raise
        finally:
            self._give_back()

    @property
    def _resets(self) -> bool:
        return self.database.pool.config.reset == "always"

    def _refuse_if_spoiled(self) -> None:
        session = self._session
        reason = self.context.refusal or session.refusal
        if not reason and session.levels[-1] is not self.context:
            reason = f"{session.levels[-1].owner} is still inside a nested transaction"
        if reason:
            raise TransactionError(f"not committed: {reason}", database=self.database.name)

    def _give_back(self) -> None:
        session = self._session
        try:
            self.database.pool.release(
                session.lease, clean=self._fate.reset, discard=session.discard
            )
        finally:
            session.refusal = session.refusal or LEFT_FIRST
            self._leave_gate()
            if self._at_rest:
                session.turns.give()
        if self.context.begun:
            self._tell_end()

    def _tell_end(self) -> None:
        if events.transaction_end:
            seconds = monotonic() - self._session.started
            name = self.database.name
            events.tell(
                "transaction_end", database=name, outcome=self._fate.outcome, seconds=seconds
            )

    # -- manual control

    async def begin_again(self) -> None:
        """Begin after a manual commit or rollback, on the same connection."""
        session, context = self._session, self.context
        if not self.mode.readonly:
            await self._enter_gate(monotonic() + self.database.pool.config.timeout)
        self._fate.begin_again()
        session.started = monotonic()
        context.begun = True
        try:
            await session.call(
                context, "BEGIN", lambda: session.driver.begin(session.connection, self.mode)
            )
        except Exception:  # a BEGIN that was cancelled may take place: that is to be rolled back
            self._ended()
            raise

    async def end_manually(self, *, commit: bool) -> None:
        """Commit or roll back before the block ends."""
        session, limit = self._session, self.database.pool.config.cleanup_timeout
        await session.take_turn(self.context)
        try:
            self.context.check_control()
            if commit:
                self.context.check()
        except TransactionError:
            session.turns.give()
            raise
        work = self._end_now(commit)
        await conclude([self], await finish(work, limit, taskless=session.taskless))

    async def _end_now(self, commit: bool) -> None:
        session = self._session
        try:
            await session.quiet()
            if commit:
                self._refuse_if_spoiled()
                await self._fate.commit(reset=False)
            else:
                await self._fate.undo(reset=False)
        except BaseException as error:
            await self._fate.undo(error, reset=False)
            raise
        finally:
            self._ended()
            self._tell_end()
            session.turns.give()

    def _ended(self) -> None:
        if self._session.discard is None:
            self.context.refusal = self._session.refusal = ""
        self.context.begun = False
        self._leave_gate()
