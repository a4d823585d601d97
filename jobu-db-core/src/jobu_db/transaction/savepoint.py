"""A nested level of a transaction: a savepoint on the connection of the root transaction.

Invariant: once its block is left, its savepoint is released or rolled back to, or the whole
transaction is doomed; what the outer levels did is left alone.
"""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any

from jobu_db._aio.callsite import task_name
from jobu_db._aio.shield import DONE, Finished, finish
from jobu_db.driver import TransactionMode
from jobu_db.errors import TransactionError
from jobu_db.transaction.outcome import LEFT_FIRST, ROLLED_BACK
from jobu_db.transaction.root import RootTransaction
from jobu_db.transaction.session import Block, Callback, Level, Session

RELEASED = "released"


class Savepoint:
    """Fails on its own: rolling it back leaves the work of the outer levels alone.

    Args:
        root: The root transaction, which is open.
        outer: The level in which it is opened.
        mode: What the block asked for.

    Attributes:
        outcome: "released" or "rolled back".
    """

    def __init__(self, root: RootTransaction, outer: Level, mode: TransactionMode) -> None:
        self.root = root
        self.session: Session = root.session
        self.pool = root.pool
        self.level: Level
        self.outcome = ROLLED_BACK
        self._outer = outer
        capabilities = self.session.driver.capabilities
        what = "a transaction inside another is a savepoint"
        capabilities.savepoints.demand(what, self.pool.name)
        self._refuse_other_mode(mode)
        enforced = mode.readonly and bool(capabilities.nested_readonly)
        self._readonly = enforced and not outer.readonly

    def _refuse_other_mode(self, mode: TransactionMode) -> None:
        if self._outer.readonly and not mode.readonly:
            raise TransactionError(
                "a writing transaction cannot be nested in a read-only one, which "
                f"{self._outer.owner} opened: open the outer one for writing, or this one with "
                "readonly=True",
                database=self.pool.name,
            )
        if self._outer.of_test:
            return  # the program takes this for an outermost transaction
        if mode.isolation and mode.isolation != self.session.mode.isolation:
            raise TransactionError(
                f"isolation={mode.isolation!r} cannot be had inside a transaction that began "
                f"with {self.session.mode.isolation or 'the default'!r}: "
                f"{self.session.levels[0].owner} decided that at the outermost level",
                database=self.pool.name,
            )

    async def open(self) -> Level:
        """Set the savepoint."""
        readonly = self._outer.readonly or self._readonly
        outer = self._outer
        self.level = Level(self.root, self.pool, task_name(), readonly, parent=outer)
        await self.session.call(self._outer, "SAVEPOINT", self._set)
        return self.level

    async def _set(self) -> None:
        session = self.session
        self._name = f"jobu_db_{len(session.levels)}"  # a level that is kept has its place there
        await session.driver.savepoint(session.connection, self._name, readonly=self._readonly)
        # Within the turn of SAVEPOINT, so that `levels` has the order that the server has.
        session.levels.append(self.level)

    # -- ending

    @property
    def told(self) -> str:
        """What became of it, for a note."""
        return f"savepoint {self.outcome}"

    @property
    def home(self) -> RootTransaction:
        """The first of the root transactions that end together with its own one."""
        return self.root.home

    @property
    def undone(self) -> bool:
        """True if certainly nothing was kept."""
        return self.outcome == ROLLED_BACK

    def due(self) -> list[Callback]:
        """Nothing: its callbacks wait for the root transaction."""
        return []

    async def prepare(self) -> None:
        """Raise if this level cannot be kept."""
        self.refuse_if_spoiled()

    async def commit(self, *, hurry: bool = False) -> Finished:
        """Keep the work, as part of the outer level; its callbacks go there too.

        Ends with a `TransactionError` if it could not be kept, and was rolled back.
        """
        if self.level.closed:  # by the block around it, which undoes it
            finished = Finished(self._not_kept(LEFT_FIRST))
        else:
            finished = await self._end(self._release(), hurry)
        if self.outcome == RELEASED:
            self._outer.callbacks.extend(self.level.callbacks)
        return finished

    def enlist(self, block: Block) -> None:
        """Stay open once its own block is left, and end with another one."""
        self.level.kept, self.level.block = True, block
        block.enlisted.append(self)

    async def rollback(self, *, hurry: bool = False) -> Finished:
        """Undo the work of this level; a failure is logged and dooms the outer levels."""
        return DONE if self.level.closed else await self._end(self._rollback(), hurry)

    async def _end(self, work: Coroutine[Any, Any, None], hurry: bool) -> Finished:
        levels = self.session.levels
        for level in levels[levels.index(self.level) :]:
            level.closed = True
        return await finish(work, self.session.pool.config.cleanup_timeout, hurry=hurry)

    async def _release(self) -> None:
        has_turn = False
        try:
            has_turn = await self.session.come_to_rest()
            await self.session.close_readers(self.level)
            self.refuse_if_spoiled()
            await self._release_on_server()
        except BaseException as error:
            await self._undo(error)
            raise
        finally:
            self._leave(has_turn)

    def refuse_if_spoiled(self) -> None:
        """Raise `TransactionError` if it can only be rolled back."""
        reason = self.session.obstacle_to_keeping(self.level)
        if self.level not in self.session.levels:
            reason = self.level.refusal or self.session.refusal or LEFT_FIRST
        if reason:
            raise self._not_kept(reason)

    def _not_kept(self, reason: str) -> TransactionError:
        return self.session.refused(self.level, f"rolled back: {reason}")

    async def _release_on_server(self) -> None:
        session = self.session
        with session.pool.translating("RELEASE SAVEPOINT"):
            await session.driver.release_savepoint(
                session.connection, self._name, readonly=self._readonly
            )
        self.outcome = RELEASED

    async def _rollback(self) -> None:
        has_turn = False
        try:
            has_turn = await self.session.come_to_rest()
            await self._undo()
        except BaseException as error:
            self.session.give_up(error)
            raise
        finally:
            self._leave(has_turn)

    async def _undo(self, error: BaseException | None = None) -> None:
        """Roll back to the savepoint, unless that is of no use any more. Has the turn."""
        session = self.session
        session.give_up(error)
        if self.level in session.levels and not session.refusal:
            await session.clean_up(self._roll_back_on_server(), "rollback to savepoint")

    async def _roll_back_on_server(self) -> None:
        session = self.session
        await session.quiet()
        if session.refusal:
            return
        # After some errors the whole transaction is rolled back, and the savepoint is gone with it.
        if not await session.driver.confirm_in_transaction(session.connection):
            session.refusal = "the database rolled the whole transaction back"
            return
        await session.close_readers(self.level)
        await session.driver.rollback_to_savepoint(
            session.connection, self._name, readonly=self._readonly
        )
        session.failed = session.may_pass = False  # what failed is undone

    def _leave(self, has_turn: bool) -> None:
        session = self.session
        if self.level in session.levels:
            # With those inside it, which are gone on the server, too; and before the turn is given,
            # since a task that waits for it looks at the deepest level.
            del session.levels[session.levels.index(self.level) :]
        self.level.face = None  # else the two know one another, see `RootTransaction._give_back`
        if has_turn:
            session.queue.give()
