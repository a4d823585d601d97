"""One leased connection in one outermost transaction, shared by the contexts of all its levels.

Invariant: calls of the driver follow one another, and after one that was cancelled comes its
`abort`, or none at all because the connection is given up (`lose`).
"""

from __future__ import annotations

import asyncio
import logging
import warnings
from collections.abc import Awaitable, Callable, Coroutine
from time import monotonic
from typing import TYPE_CHECKING, Any

from jobu_db.driver import TransactionMode
from jobu_db.errors import ConnectionLostError, DatabaseError, QueryTimeoutError, TransactionError
from jobu_db.transaction import ambient
from jobu_db.transaction.statement_queue import StatementQueue

if TYPE_CHECKING:
    from jobu_db.pool.lease import PooledConnection
    from jobu_db.transaction.context import TransactionContext
    from jobu_db.transaction.root import RootTransaction
    from jobu_db.transaction.rows import Reader

logger = logging.getLogger("jobu_db")


class Session:
    """What is true of the connection and its transaction as a whole.

    Attributes:
        levels: The open contexts, outermost first; the last one is inside the deepest savepoint.
        raw_used: The driver's connection was handed out.
        refusal: Why no statement is possible any more, or "" while all is well.
        discard: Why the connection must not be lent again, or None.
        beyond_undo: Statements that committed implicitly what came before them.
    """

    __slots__ = (
        "aborting",
        "beyond_undo",
        "connection",
        "database",
        "discard",
        "driver",
        "lease",
        "levels",
        "mode",
        "outermost",
        "raw_used",
        "readers",
        "refusal",
        "started",
        "turns",
    )

    def __init__(
        self, outermost: RootTransaction, lease: PooledConnection[Any], mode: TransactionMode
    ) -> None:
        database = outermost.database
        self.outermost = outermost
        self.database = database
        self.driver = database.driver
        self.lease = lease
        self.connection = lease.connection
        self.mode = mode
        self.turns = StatementQueue()
        self.levels: list[TransactionContext] = []
        self.readers: list[Reader] = []
        self.raw_used = False
        self.refusal = ""
        self.discard: str | None = None
        self.beyond_undo: list[str] = []
        self.aborting: asyncio.Task[None] | None = None
        self.started = monotonic()

    # -- turns

    async def take_turn(self, context: TransactionContext) -> None:
        """Wait until no statement runs and no other task is inside a deeper savepoint.

        Raises:
            TransactionError: Another task was inside for longer than the pool's timeout.
        """
        inside = ambient.current(self.database)

        def may() -> bool:
            usable = not (context.closed or self.refusal)  # else it is to hear of that
            return not usable or self.levels[-1] in (context, inside)

        def obstacle() -> str:
            return f"the savepoint of {self.levels[-1].owner}"

        if not self.turns.take_now(may()):
            try:
                await self.turns.take(may, self.database.pool.config.timeout, obstacle)
            except TransactionError as error:
                error.database = self.database.name
                raise

    async def _wait_for_turn(self, context: TransactionContext) -> None:
        await self.take_turn(context)
        try:
            context.check()
        except TransactionError:
            self.turns.give()
            raise

    def rest_now(self) -> bool:
        """Take the turn in which a level ends, if nothing is to be waited for."""
        return self.aborting is None and self.turns.take_now(True)

    async def come_to_rest(self) -> bool:
        """Take the turn in which a level ends; say False if the connection is lost instead."""
        try:
            await self.turns.take_last()
        except TransactionError:
            return False
        await self.quiet()
        return True

    @property
    def taskless(self) -> bool:
        """True if ending the transaction asks of the driver what it can do without a task."""
        usual = not (self.readers or self.raw_used or self.aborting)
        return usual and self.driver.taskless

    # -- statements

    async def call(
        self,
        context: TransactionContext,
        statement: str,
        work: Callable[[], Awaitable[Any]],
        reader: Reader | None = None,
    ) -> Any:
        """Run one operation of the driver in its turn, and notice what became of the transaction.

        Raises:
            TransactionError: The transaction is over, doomed, or ended by this statement.
            DatabaseError: What the driver's exception means.
        """
        context.check()
        if not self.turns.take_now(self.levels[-1] is context):
            await self._wait_for_turn(context)
        try:
            if self.readers or self.aborting is not None:
                await self._make_way(context, reader)
            result = await work()
            if not self.driver.in_transaction(self.connection):
                await self._ended_by(statement)
            return result
        except BaseException as error:
            meaning = await self._failed(context, statement, error)
            if meaning is None or meaning is error:
                raise
            raise meaning from error
        finally:
            self.turns.give()

    async def _failed(
        self, context: TransactionContext, statement: str, error: BaseException
    ) -> DatabaseError | None:
        if isinstance(error, TransactionError):
            return None  # it never reached the driver, or is dealt with already
        if not isinstance(error, Exception):
            self.interrupt(context, "a statement was cancelled")
            return None
        meaning = self.explain(error, statement)
        if isinstance(meaning, QueryTimeoutError):
            context.refusal = "a statement timed out"
        if isinstance(meaning, ConnectionLostError) or not self.driver.is_alive(self.connection):
            self.lose("the connection was lost")
        elif not self.refusal and not await self.still_open() and self.discard is None:
            self._rolled_back_by(statement, meaning or error)
        return meaning

    def explain(self, error: BaseException, statement: str | None = None) -> DatabaseError | None:
        """Say what a driver's exception means, with database and statement filled in."""
        return self.database.explain(error, statement)

    def interrupt(self, context: TransactionContext, reason: str) -> None:
        """A call was cancelled: doom its block, and stop what still runs on the server."""
        context.refusal = reason
        if self.aborting is None and self.discard is None:
            self.lease.interrupted = True
            self.aborting = asyncio.get_running_loop().create_task(self._abort())

    async def _abort(self) -> None:
        name, pool = self.database.name, self.database.pool
        abort = self.driver.abort(self.connection)
        try:
            await pool.time_limits.within(pool.config.cleanup_timeout, abort)
            self.lease.interrupted = False
        except BaseException as error:
            logger.info("%s: a cancelled call could not be stopped: %r", name, error)
            self.lose("a cancelled call could not be stopped")
            if not isinstance(error, Exception):
                raise

    async def quiet(self) -> None:
        """Wait until a cancelled call is over on the server, or the connection lost."""
        if self.aborting is not None:
            await asyncio.wait({self.aborting})
            self.aborting = None

    def lose(self, reason: str) -> None:
        """Nothing can be done on this connection any more."""
        self.refusal = self.refusal or reason
        self.discard = self.discard or reason
        self.turns.close(f"{self.refusal}: leave the block to roll it back")

    def give_up(self, error: BaseException | None) -> None:
        """Lose the connection if our own work on it was cut off: a call may be under way."""
        if error is not None and not isinstance(error, Exception):
            self.lose("its end was given up")

    async def clean_up(self, work: Coroutine[Any, Any, None], what: str) -> None:
        """Do what must be done before anybody may use the connection again, or lose it."""
        pool = self.database.pool
        try:
            await pool.time_limits.within(pool.config.cleanup_timeout, work)
        except BaseException as error:
            logger.warning("%s: %s failed: %r", self.database.name, what, error)
            self.lose(f"{what} failed")
            if not isinstance(error, Exception):
                raise

    # -- a transaction that ended behind our back

    async def still_open(self) -> bool:
        """Ask the server, where the driver's flag may be stale; losing the connection is a no."""
        pool = self.database.pool
        try:
            confirm = self.driver.confirm_in_transaction(self.connection)
            return await pool.time_limits.within(pool.config.cleanup_timeout, confirm)
        except BaseException as error:
            self.lose("the connection was lost")
            if not isinstance(error, Exception):
                raise
            return False

    def _rolled_back_by(self, statement: str, error: BaseException) -> None:
        if self._committed_by(statement):
            self.refusal = f"{_short(statement)} failed, and committed what came before it"
        else:
            self.refusal = "the database rolled the whole transaction back"
        error.add_note(self.refusal)

    def _committed_by(self, statement: str) -> bool:
        implicitly = self.driver.commits_implicitly(statement)
        if implicitly and statement not in self.beyond_undo:
            self.beyond_undo.append(statement)
        return implicitly

    async def _ended_by(self, statement: str) -> None:
        if not self._committed_by(statement) or len(self.levels) > 1:
            self.refusal = f"the transaction was ended by {_short(statement)}, not by its block"
            raise TransactionError(self.refusal, database=self.database.name, statement=statement)
        await self.driver.begin(self.connection, self.mode)
        warnings.warn(
            f"{self.database.name}: {_short(statement)} committed the transaction implicitly; "
            "a new one was begun",
            RuntimeWarning,
            stacklevel=4,
        )

    # -- cursors

    async def _make_way(self, context: TransactionContext, reader: Reader | None) -> None:
        await self.quiet()
        for other in [other for other in self.readers if other is not reader]:
            if other.abandoned:
                await other.close_cursor()
            elif not self.driver.capabilities.concurrent_cursors:
                other.refuse_others()
        context.check()

    async def close_readers(self, context: TransactionContext | None = None) -> None:
        """Close the open cursors, of one level or of all."""
        for reader in list(self.readers):
            if context is None or reader.context is context:
                await reader.close_cursor()


def _short(statement: str) -> str:
    text = " ".join(statement.split())
    return repr(text if len(text) <= 80 else text[:77] + "...")
