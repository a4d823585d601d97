"""The outermost level of a transaction: takes a connection, begins, commits or rolls back.

Invariant: whatever happens, the connection goes back to the pool exactly once, and only if no
transaction can be open on it; otherwise it is thrown away.
"""

from __future__ import annotations

import inspect
from collections.abc import Coroutine
from time import monotonic
from typing import TYPE_CHECKING, Any

from jobu_db._gate import enter_gate
from jobu_db._session import Session
from jobu_db._shield import Finished, finish
from jobu_db._turns import task_name
from jobu_db.driver import TransactionMode, WriteGate
from jobu_db.errors import (
    CommitOutcomeUnknownError,
    ConnectionLostError,
    TransactionError,
)
from jobu_db.events import events
from jobu_db.transaction_context import Callback, TransactionContext

if TYPE_CHECKING:
    from jobu_db.database import BaseDatabase
    from jobu_db.pooled_connection import PooledConnection

COMMITTED, ROLLED_BACK, UNKNOWN = "committed", "rolled back", "outcome unknown"


class Outermost:
    """Owns the lease, the write gate, and the end of one transaction.

    Attributes:
        outcome: "committed", "rolled back" or "outcome unknown".
    """

    def __init__(self, database: BaseDatabase, mode: TransactionMode) -> None:
        self.database = database
        self.mode = mode
        self.outcome = ROLLED_BACK
        self.gate: WriteGate | None = None
        self.context: TransactionContext
        self._session: Session
        self._clean = False
        self._at_rest = False

    # -- beginning

    async def open(self) -> TransactionContext:
        """Take the turn to write, a connection, and begin; all within the pool's timeout."""
        deadline = monotonic() + self.database.pool.config.timeout
        await self._enter_gate(deadline)
        try:
            lease = await self._begin(deadline)
        except BaseException:
            self._leave_gate()
            raise
        self._session = Session(self, lease, self.mode)
        self.context = self.database.context_class(
            self._session, readonly=self.mode.readonly, owner=task_name()
        )
        self._session.levels.append(self.context)
        return self.context

    async def _enter_gate(self, deadline: float) -> None:
        if not self.mode.readonly:
            self.gate = await enter_gate(self.database, deadline - monotonic())

    def _leave_gate(self) -> None:
        gate, self.gate = self.gate, None
        if gate is not None:
            gate.leave()

    async def _begin(self, deadline: float) -> PooledConnection[Any]:
        pool = self.database.pool
        started = monotonic()
        while True:
            lease = pool.acquire_nowait() or await pool.acquire(max(0.0, deadline - monotonic()))
            try:
                await self.database.driver.begin(lease.connection, self.mode)
            except BaseException as error:
                meaning = self.database.explain(error, "BEGIN")
                had_been_idle = lease.created_at < started
                pool.release(lease, discard="begin failed")
                if isinstance(meaning, ConnectionLostError) and had_been_idle:
                    continue  # it had died meanwhile: nobody need hear of that
                if meaning is None or meaning is error:
                    raise
                raise meaning from error
            return lease

    # -- ending

    async def prepare(self) -> None:
        """Raise now what a commit would raise, as far as can be known."""
        self._refuse_if_spoiled()
        if self.context.begun:
            session = self._session
            await session.call(
                self.context, "COMMIT", lambda: session.driver.prepare_commit(session.connection)
            )

    async def commit(self, *, callbacks: bool = True) -> None:
        """Commit and give the connection back, also if cancelled meanwhile.

        Raises:
            CancelledError: After the end, with a note that tells it.
            CommitOutcomeUnknownError: The connection was lost meanwhile.
            TransactionError: It could not be committed, and was rolled back.
        """
        if self._may_end_later():
            self.context.closed = True
            self.outcome = COMMITTED
            self._give_back()
            if callbacks and self.context.callbacks:
                await run_callbacks(self.context.callbacks)
            return
        finished = await self._end(self._commit())
        if callbacks and self.outcome == COMMITTED:
            finished = await self._call_back(finished)
        self._raise(finished)

    async def _call_back(self, finished: Finished) -> Finished:
        callbacks, self.context.callbacks = self.context.callbacks, []
        if not callbacks:
            return finished
        limit = self.database.pool.config.cleanup_timeout
        hurry = finished.cancelled is not None
        after = await finish(run_callbacks(callbacks), limit, hurry=hurry)
        return Finished(after.error, finished.cancelled or after.cancelled)

    async def rollback(self) -> None:
        """Roll back and give the connection back; a failure is logged, never raised."""
        if self._may_end_later():
            self.context.closed = True
            self._give_back()
            return
        self._raise(await self._end(self._rollback()))

    def _may_end_later(self) -> bool:
        """Say whether the connection can be given back first: read-only, sound, and at rest."""
        if not self.mode.readonly:
            return False
        session = self._session
        sound = not (session.readers or session.aborting or self.context.refusal or session.refusal)
        if not (sound and session.driver.in_transaction(session.connection)):
            return False
        if not session.turns.take_now(session.levels[-1] is self.context):
            return False
        self._at_rest = True
        return session.driver.end_later(session.connection, self.mode)

    async def _end(self, work: Coroutine[Any, Any, None]) -> Finished:
        for level in self._session.levels:
            level.closed = True
        return await finish(work, self.database.pool.config.cleanup_timeout)

    def _raise(self, finished: Finished) -> None:
        if finished.cancelled is not None:
            why = f" ({finished.error})" if finished.error else ""
            finished.cancelled.add_note(f"{self.database.name}: {self.outcome}{why}")
            raise finished.cancelled
        if finished.error is not None:
            raise finished.error

    async def _commit(self) -> None:
        try:
            await self._come_to_rest()
            self._refuse_if_spoiled()
            if self.context.begun:
                await self._commit_now(reset=self.database.pool.config.reset == "always")
        except BaseException:
            await self._undo()
            raise
        finally:
            self._give_back()

    async def _come_to_rest(self) -> None:
        """Take the last turn, once: no statement of any task runs after this."""
        if not self._at_rest:
            await self._session.turns.take_last()
            self._at_rest = True
        await self._session.quiet()

    def _refuse_if_spoiled(self) -> None:
        session = self._session
        reason = self.context.refusal or session.refusal
        if session.levels[-1] is not self.context:
            reason = f"{session.levels[-1].owner} is still inside a nested transaction"
        if reason:
            raise TransactionError(f"not committed: {reason}", database=self.database.name)

    async def _commit_now(self, *, reset: bool) -> None:
        session = self._session
        await session.close_readers()
        await session.refuse_if_ended()
        self.outcome = UNKNOWN
        try:
            self._clean = await session.driver.commit(session.connection, reset=reset)
            self.outcome = COMMITTED
        except BaseException as error:
            meaning = session.explain(error, "COMMIT")
            lost = isinstance(meaning, ConnectionLostError) or not isinstance(error, Exception)
            if lost or not session.driver.is_alive(session.connection):
                session.lose("the connection was lost during COMMIT")
                raise CommitOutcomeUnknownError(
                    "the connection was lost during COMMIT: whether it took place is unknown",
                    database=self.database.name,
                ) from error
            self.outcome = ROLLED_BACK
            if meaning is None or meaning is error:
                raise
            raise meaning from error

    async def _rollback(self) -> None:
        try:
            await self._undo()
        finally:
            self._give_back()

    async def _undo(self) -> None:
        if self._session.discard is None:
            await self._session.clean_up(self._undo_now(), "rollback")

    async def _undo_now(self) -> None:
        session = self._session
        await self._come_to_rest()
        if session.discard is None:
            await session.close_readers()
            await session.driver.rollback(session.connection)

    def _give_back(self) -> None:
        session = self._session
        self.database.pool.release(session.lease, clean=self._clean, discard=session.discard)
        self._leave_gate()
        session.turns.give()
        if events.transaction_end:
            seconds = monotonic() - session.started
            name = self.database.name
            events.tell("transaction_end", database=name, outcome=self.outcome, seconds=seconds)

    # -- manual control

    async def begin_again(self) -> None:
        """Begin after a manual commit or rollback, on the same connection."""
        session = self._session
        await self._enter_gate(monotonic() + self.database.pool.config.timeout)
        self.context.begun = True
        try:
            await session.call(
                self.context, "BEGIN", lambda: session.driver.begin(session.connection, self.mode)
            )
        except BaseException:
            self.context.begun = False
            self._leave_gate()
            raise

    async def end_manually(self, *, commit: bool) -> None:
        """Commit or roll back before the block ends."""
        if commit:
            self.context.check()
        finished = await finish(self._end_now(commit), self.database.pool.config.cleanup_timeout)
        self._leave_gate()
        if self.outcome == COMMITTED:
            finished = await self._call_back(finished)
        self._raise(finished)

    async def _end_now(self, commit: bool) -> None:
        session, context = self._session, self.context
        self.outcome = ROLLED_BACK
        await session.turns.take_last()
        try:
            await session.quiet()
            if commit:
                self._refuse_if_spoiled()
                await self._commit_now(reset=False)
        finally:
            if self.outcome != COMMITTED and session.discard is None:
                await session.clean_up(self._roll_back_now(), "rollback")
            context.begun = False
            session.turns.give()

    async def _roll_back_now(self) -> None:
        session = self._session
        await session.close_readers()
        await session.driver.rollback(session.connection)
        self.context.refusal = session.refusal = ""


async def run_callbacks(callbacks: list[Callback]) -> None:
    """Call all of them, then raise what the first one raised, or a group of what several did."""
    errors: list[Exception] = []
    for callback in callbacks:
        try:
            result = callback()
            if inspect.isawaitable(result):
                await result
        except Exception as error:
            error.add_note("raised by an on_commit callback: the transaction is committed")
            errors.append(error)
    if len(errors) > 1:
        raise ExceptionGroup("on_commit callbacks failed; the transaction is committed", errors)
    if errors:
        raise errors[0]
