"""A nested level of a transaction: a savepoint on the connection of the outermost one."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any

from jobu_db._aio.shield import DONE, Finished, finish
from jobu_db.driver import TransactionMode
from jobu_db.errors import TransactionError
from jobu_db.transaction.context import TransactionContext
from jobu_db.transaction.outcome import LEFT_FIRST, ROLLED_BACK, Callback
from jobu_db.transaction.session import Session
from jobu_db.transaction.statement_queue import task_name

if TYPE_CHECKING:
    from jobu_db.database import BaseDatabase

RELEASED = "released"


class Savepoint:
    """Fails on its own: rolling it back leaves the work of the outer levels alone.

    Attributes:
        outcome: "released" or "rolled back".
    """

    def __init__(
        self, database: BaseDatabase, outer: TransactionContext, mode: TransactionMode
    ) -> None:
        self.database = database
        self.outcome = ROLLED_BACK
        self.context: TransactionContext
        self._outer = outer
        self._session: Session = outer.session
        capabilities = database.driver.capabilities
        capabilities.savepoints.demand("a transaction inside another is a savepoint", database.name)
        self._refuse_other_mode(mode)
        enforced = mode.readonly and bool(capabilities.nested_readonly)
        self._readonly = enforced and not outer.readonly

    def _refuse_other_mode(self, mode: TransactionMode) -> None:
        if self._outer.readonly and not mode.readonly:
            raise TransactionError(
                "a writing transaction cannot be nested in a read-only one: open the outer one "
                "for writing, or this one with readonly=True",
                database=self.database.name,
            )
        if mode.isolation and mode.isolation != self._session.mode.isolation:
            raise TransactionError(
                f"isolation={mode.isolation!r} cannot be had inside a transaction that began "
                f"with {self._session.mode.isolation or 'the default'!r}: it is decided at the "
                "outermost level",
                database=self.database.name,
            )

    async def open(self) -> TransactionContext:
        """Set the savepoint."""
        session = self._session
        self._name = f"jobu_db_{len(session.levels)}"
        self.context = self.database.context_class(
            session, readonly=self._outer.readonly or self._readonly, owner=task_name()
        )
        await session.call(self._outer, "SAVEPOINT", self._set)
        return self.context

    async def _set(self) -> None:
        session = self._session
        self._name = f"jobu_db_{len(session.levels)}"
        await session.driver.savepoint(session.connection, self._name, readonly=self._readonly)
        session.levels.append(self.context)

    # -- ending

    @property
    def told(self) -> str:
        """What became of it, for a note."""
        return f"savepoint {self.outcome}"

    @property
    def undone(self) -> bool:
        """True if certainly nothing was kept."""
        return self.outcome == ROLLED_BACK

    def due(self) -> list[Callback]:
        """Nothing: its callbacks wait for the outermost level."""
        return []

    async def prepare(self) -> None:
        """Raise if this level cannot be kept."""
        self._refuse_if_spoiled()

    async def commit(self, *, hurry: bool = False) -> Finished:
        """Keep the work, as part of the outer level; its callbacks go there too.

        Ends with a `TransactionError` if it could not be kept, and was rolled back.
        """
        if self.context.closed:  # by the block around it, which undoes it
            return Finished(self._not_kept(LEFT_FIRST))
        finished = await self._end(self._release(), hurry)
        if self.outcome == RELEASED:
            self._outer.callbacks.extend(self.context.callbacks)
        return finished

    async def rollback(self, *, hurry: bool = False) -> Finished:
        """Undo the work of this level; a failure is logged and dooms the outer levels."""
        return DONE if self.context.closed else await self._end(self._rollback(), hurry)

    async def _end(self, work: Coroutine[Any, Any, None], hurry: bool) -> Finished:
        levels = self._session.levels
        for level in levels[levels.index(self.context) :]:
            level.closed = True
        return await finish(work, self.database.pool.config.cleanup_timeout, hurry=hurry)

    async def _release(self) -> None:
        at_rest = False
        try:
            at_rest = await self._session.come_to_rest()
            await self._session.close_readers(self.context)
            self._refuse_if_spoiled()
            await self._release_now()
        except BaseException as error:
            await self._undo(error)
            raise
        finally:
            self._leave(at_rest)

    def _refuse_if_spoiled(self) -> None:
        levels = self._session.levels
        reason = self.context.refusal or self._session.refusal
        if not reason and self.context not in levels:
            reason = LEFT_FIRST
        if not reason and levels[-1] is not self.context:
            reason = f"{levels[-1].owner} is still inside a nested transaction"
        if reason:
            raise self._not_kept(reason)

    def _not_kept(self, reason: str) -> TransactionError:
        return TransactionError(f"not kept: {reason}", database=self.database.name)

    async def _release_now(self) -> None:
        session = self._session
        try:
            await session.driver.release_savepoint(
                session.connection, self._name, readonly=self._readonly
            )
            self.outcome = RELEASED
        except Exception as error:
            meaning = session.explain(error, "RELEASE SAVEPOINT")
            if meaning is None or meaning is error:
                raise
            raise meaning from error

    async def _rollback(self) -> None:
        at_rest = False
        try:
            at_rest = await self._session.come_to_rest()
            await self._undo()
        except BaseException as error:
            self._session.give_up(error)
            raise
        finally:
            self._leave(at_rest)

    async def _undo(self, error: BaseException | None = None) -> None:
        """Roll back to the savepoint, unless that is of no use any more. Has the turn."""
        session = self._session
        session.give_up(error)
        if self.context in session.levels and not session.refusal:
            await session.clean_up(self._undo_now(), "rollback to savepoint")

    async def _undo_now(self) -> None:
        session = self._session
        await session.quiet()
        if session.refusal:
            return
        if not await session.driver.confirm_in_transaction(session.connection):
            session.refusal = "the database rolled the whole transaction back"
            return
        await session.close_readers(self.context)
        await session.driver.rollback_to_savepoint(
            session.connection, self._name, readonly=self._readonly
        )

    def _leave(self, at_rest: bool) -> None:
        session = self._session
        if self.context in session.levels:
            del session.levels[session.levels.index(self.context) :]
        if at_rest:
            session.turns.give()
