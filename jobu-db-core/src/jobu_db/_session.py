"""One leased connection in one outermost transaction, shared by the contexts of all its levels."""

from __future__ import annotations

import asyncio
import logging
import warnings
from collections.abc import Awaitable, Callable
from time import monotonic
from typing import TYPE_CHECKING, Any

from jobu_db import context as ambient
from jobu_db._turns import Turns
from jobu_db.driver import TransactionMode
from jobu_db.errors import ConnectionLostError, DatabaseError, QueryTimeoutError, TransactionError

if TYPE_CHECKING:
    from jobu_db._outermost import Outermost
    from jobu_db.pooled_connection import PooledConnection
    from jobu_db.rows import Reader
    from jobu_db.transaction_context import TransactionContext

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
        self, outermost: Outermost, lease: PooledConnection[Any], mode: TransactionMode
    ) -> None:
        database = outermost.database
        self.outermost = outermost
        self.database = database
        self.driver = database.driver
        self.lease = lease
        self.connection = lease.connection
        self.mode = mode
        self.turns = Turns()
        self.levels: list[TransactionContext] = []
        self.readers: list[Reader] = []
        self.raw_used = False
        self.refusal = ""
        self.discard: str | None = None
        self.beyond_undo: list[str] = []
        self.aborting: asyncio.Task[None] | None = None
        self.started = monotonic()

    # -- turns

    async def take_turn(self, context: TransactionContext, timeout: float | None) -> None:
        """Wait until no statement runs and no other task is inside a deeper savepoint."""
        inside = ambient.current(self.database)

        def may() -> bool:
            return context.closed or self.levels[-1] in (context, inside)

        if not self.turns.take_now(may()):
            await self.turns.take(may, timeout, f"the savepoint of {self.levels[-1].owner}")

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
            await self.take_turn(context, self.database.pool.config.timeout)
        try:
            context.check()
            if self.readers:
                await self._make_way(reader)
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
        if isinstance(error, DatabaseError):
            return None
        if not isinstance(error, Exception):
            self.interrupt(context, "a statement was cancelled")
            return None
        meaning = self.explain(error, statement)
        if isinstance(meaning, QueryTimeoutError):
            context.refusal = "a statement timed out"
        if isinstance(meaning, ConnectionLostError) or not self.driver.is_alive(self.connection):
            self.lose("the connection was lost")
        elif not self.refusal and not await self._still_open():
            self._rolled_back_by(statement, meaning or error)
        return meaning

    def explain(self, error: BaseException, statement: str | None = None) -> DatabaseError | None:
        """Say what a driver's exception means, with database and statement filled in."""
        return self.database.explain(error, statement)

    def interrupt(self, context: TransactionContext, reason: str) -> None:
        """A call was cancelled: doom its block, and stop what still runs on the server."""
        context.refusal = reason
        self.lease.interrupted = True
        if self.aborting is None:
            abort = self.driver.abort(self.connection)
            self.aborting = asyncio.get_running_loop().create_task(_logged(abort, self))

    async def quiet(self) -> None:
        """Wait until a cancelled call is over on the server."""
        aborting, self.aborting = self.aborting, None
        if aborting is not None:
            await aborting
            self.lease.interrupted = False

    def lose(self, reason: str) -> None:
        """Nothing can be done on this connection any more."""
        self.refusal = self.refusal or reason
        self.discard = reason

    # -- a transaction that ended behind our back

    async def refuse_if_ended(self) -> None:
        """Raise unless the transaction is still the one that was begun.

        The flag of the driver is asked, or the server where the driver's connection was handed
        out: then errors may have passed that nobody here saw.
        """
        driver, connection = self.driver, self.connection
        is_open = driver.in_transaction(connection)
        if is_open and self.raw_used:
            is_open = await self._still_open()
        if self.discard is None and not is_open:
            self.refusal = "the transaction was ended behind the back of its block"
            raise TransactionError(f"not committed: {self.refusal}", database=self.database.name)

    async def _still_open(self) -> bool:
        try:
            async with asyncio.timeout(self.database.pool.config.cleanup_timeout):
                return await self.driver.confirm_in_transaction(self.connection)
        except Exception as error:
            self.lose(f"the connection was lost: {error}")
            return True

    def _rolled_back_by(self, statement: str, error: BaseException) -> None:
        if self.driver.commits_implicitly(statement):
            self.beyond_undo.append(statement)
            self.refusal = f"{_short(statement)} failed, and committed what came before it"
            error.add_note(self.refusal)
        else:
            self.refusal = "the database rolled the whole transaction back"
            error.add_note(self.refusal)

    async def _ended_by(self, statement: str) -> None:
        if self.driver.commits_implicitly(statement) and len(self.levels) == 1:
            self.beyond_undo.append(statement)
            warnings.warn(
                f"{self.database.name}: {_short(statement)} committed the transaction implicitly; "
                "a new one was begun",
                RuntimeWarning,
                stacklevel=2,
            )
            await self.driver.begin(self.connection, self.mode)
            return
        self.refusal = f"the transaction was ended by {_short(statement)}, not by its block"
        raise TransactionError(self.refusal, database=self.database.name, statement=statement)

    # -- cursors

    async def _make_way(self, reader: Reader | None) -> None:
        for other in [other for other in self.readers if other is not reader]:
            if other.abandoned:
                await other.close_cursor()
            elif not self.driver.capabilities.concurrent_cursors:
                other.refuse_others()

    async def close_readers(self, context: TransactionContext | None = None) -> None:
        """Close the open cursors, of one level or of all."""
        for reader in list(self.readers):
            if context is None or reader.context is context:
                await reader.close_cursor()


async def _logged(abort: Awaitable[None], session: Session) -> None:
    try:
        async with asyncio.timeout(session.database.pool.config.cleanup_timeout):
            await abort
    except Exception as error:
        logger.info("%s: a cancelled call could not be stopped: %s", session.database.name, error)
        session.lose("a cancelled call could not be stopped")


def _short(statement: str) -> str:
    text = " ".join(statement.split())
    return repr(text if len(text) <= 80 else text[:77] + "...")
