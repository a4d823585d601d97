"""What a transaction gives to the code inside it."""

from __future__ import annotations

from collections.abc import Awaitable
from time import monotonic
from typing import TYPE_CHECKING, Any

from jobu_db.driver import WriteGate
from jobu_db.errors import NoTransactionError, TransactionError
from jobu_db.events import events
from jobu_db.statements import ParameterStatements, Statements, gather, start
from jobu_db.transaction.outcome import Callback
from jobu_db.transaction.rows import RowStream
from jobu_db.transaction.session import Session

if TYPE_CHECKING:
    from jobu_db.database import BaseDatabase


class TransactionContext(Statements):
    """One level of a transaction: the outermost block, or a savepoint inside it.

    Every method raises `TransactionError` once the block is left.

    Attributes:
        readonly: The server refuses writes.
        owner: The task that opened the block, for messages.
        closed: The block has been left.
        refusal: Why this level can only be rolled back, or "".
    """

    __slots__ = (
        "_guard",
        "_session",
        "begun",
        "callbacks",
        "closed",
        "owner",
        "readonly",
        "refusal",
    )

    def __init__(self, session: Session, *, readonly: bool, owner: str) -> None:
        self._session = session
        self._guard: Any = None
        self.readonly = readonly
        self.owner = owner
        self.closed = False
        self.begun = True
        self.refusal = ""
        self.callbacks: list[Callback] = []

    @property
    def database(self) -> BaseDatabase:
        """The database that this transaction is on."""
        return self._session.database

    @property
    def session(self) -> Session:
        """What all levels of this transaction share; for the core's own use."""
        return self._session

    @property
    def beyond_undo(self) -> list[str]:
        """Statements of this transaction that committed implicitly what came before them."""
        return self._session.beyond_undo

    @property
    def connection(self) -> Any:
        """The driver's connection behind a guard: it dies with the block.

        The driver's own errors and rules apply to it.
        """
        self.check()
        if self._guard is None:
            session = self._session
            session.raw_used = True
            self._guard = session.driver.guard(session.connection, self.check)
        return self._guard

    @property
    def in_transaction(self) -> bool:
        """True while statements run in an open transaction."""
        session = self._session
        open_here = self.begun and not self.closed and not session.refusal
        return open_here and session.driver.in_transaction(session.connection)

    def check(self) -> None:
        """Raise unless a statement is possible.

        Raises:
            TransactionError: The block is over, doomed by a cancelled statement, ended behind our
                back, or needs `begin()` after a manual commit or rollback.
        """
        self._check_open()
        reason = self.refusal or self._session.refusal
        if reason:
            raise TransactionError(
                f"{reason}: leave the block to roll it back", database=self.database.name
            )
        if not self.begun:
            raise NoTransactionError(
                "the transaction was ended by commit() or rollback(): call begin() first",
                database=self.database.name,
            )

    def _check_open(self) -> None:
        if self.closed:
            raise TransactionError(
                "this transaction is over: its block has been left", database=self.database.name
            )

    def holds_gate(self, gate: WriteGate) -> bool:
        """True while this transaction, or one around it, has the turn to write there."""
        return not self.closed and self._session.outermost.holds_gate(gate)

    def on_commit(self, callback: Callback) -> None:
        """Call a plain or async function after the outermost block has committed.

        Dropped if this level is rolled back. An exception in it reaches the caller of the block;
        the other callbacks still run.
        """
        self.check()
        self.callbacks.append(callback)

    def iterate(self, sql: str, *parameters: Any, batch: int = 1000) -> RowStream[Any]:
        """Iterate over rows that the server hands out `batch` at a time.

        Use `async for`; leaving it early closes the cursor before the next statement.
        """
        self.check()
        if batch < 1:
            raise ValueError(f"batch={batch}: must be at least 1")
        driver = self._session.driver
        driver.capabilities.server_side_cursors.demand("iterate()", self.database.name)
        if len(parameters) > 1 and not driver.variadic:
            raise TypeError("iterate() takes the SQL and one sequence or mapping of values here")
        values = gather(parameters) if driver.variadic else next(iter(parameters), None)
        return RowStream(self._session, self, sql, values, batch)

    # -- manual control

    async def begin(self) -> None:
        """Begin again after a manual commit or rollback.

        Raises:
            TransactionError: A transaction is open already, or this is a nested one.
        """
        self.check_control()
        if self.begun:
            raise TransactionError("a transaction is open already", database=self.database.name)
        await self._session.outermost.begin_again()

    async def commit(self) -> None:
        """Commit now. A statement needs `begin()` first then; leaving the block does nothing more.

        Raises:
            TransactionError: This is a nested transaction, or one is open inside.
            CommitOutcomeUnknownError: The connection was lost meanwhile.
        """
        self.check()
        await self._session.outermost.end_manually(commit=True)

    async def rollback(self) -> None:
        """Roll back now, if there is something to roll back; see `commit`."""
        self._check_open()
        if self.begun:
            await self._session.outermost.end_manually(commit=False)

    def check_control(self) -> None:
        """Raise unless this is the only level, and open."""
        self._check_open()
        if self._session.levels != [self]:
            raise TransactionError(
                "commit(), rollback() and begin() are refused inside a nested transaction: "
                "leave its block, or raise to undo it",
                database=self.database.name,
            )

    # -- statements

    async def _run(self, operation: str, sql: str, parameters: Any) -> Any:
        session = self._session

        def work() -> Awaitable[Any]:
            return start(session.driver, session.connection, operation, sql, parameters)

        if not events.statement:
            return await session.call(self, sql, work)
        started = monotonic()
        failure: BaseException | None = None
        try:
            return await session.call(self, sql, work)
        except BaseException as error:
            failure = error
            raise
        finally:
            seconds = monotonic() - started
            name = self.database.name
            events.tell("statement", database=name, statement=sql, seconds=seconds, error=failure)


class ParameterContext(ParameterStatements, TransactionContext):
    """The context of backends whose statements take `(sql, parameters)`."""

    __slots__ = ()
