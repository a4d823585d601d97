"""What a transaction gives to the code inside it: the face of one level.

It holds nothing of its own: the level's data and the session say what is true.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar, overload

from jobu_db._aio.callsite import Callsite, note, where_asked
from jobu_db._aio.timeouts import check_whole
from jobu_db.errors import QueryTimeoutError, TransactionError
from jobu_db.statements import ParameterStatements, Statements, gather, start
from jobu_db.transaction.root import RootTransaction
from jobu_db.transaction.rows import RowStream
from jobu_db.transaction.session import Callback, Level
from jobu_db.transaction.time_limit import took_longer

T = TypeVar("T")

_WRITING = frozenset({"execute", "executemany", "execute_script"})
"""Operations that are used for writing."""


class TransactionContext(Statements):
    """One level of a transaction: the outermost block, or a savepoint inside it.

    Every method raises `TransactionError` once the block is left.
    """

    __slots__ = ("_guard", "_level", "_root", "_session")

    def __init__(self, root: RootTransaction, level: Level) -> None:
        self._root = root
        self._session = root.session
        self._level = level
        self._guard: Any = None
        level.face = self

    @property
    def readonly(self) -> bool:
        """True if the server refuses writes."""
        return self._level.readonly

    @property
    def closed(self) -> bool:
        """True once the block has been left."""
        return self._level.closed

    @property
    def connection(self) -> Any:
        """The driver's connection behind a guard: it dies with the block.

        The driver's own errors and rules apply to it.
        """
        self._check()
        if self._guard is None:
            self._guard = self._session.guard(self._check)
        return self._guard

    @property
    def in_transaction(self) -> bool:
        """True while statements run in an open transaction."""
        session, level = self._session, self._level
        open_here = level.begun and not level.closed and not session.refusal
        return open_here and session.driver.in_transaction(session.connection)

    def _check(self) -> None:
        self._session.check(self._level)

    # -- statements and callbacks

    def on_commit(self, callback: Callback) -> None:
        """Call a plain or async function after the outermost block has committed.

        Dropped if this level is rolled back. An exception in it reaches the caller of the block;
        the other callbacks still run.
        """
        self._check()
        self._level.callbacks.append(callback)

    @overload
    def iterate(self, sql: str, *parameters: Any, batch: int = 1000) -> RowStream[Any]: ...
    @overload
    def iterate(
        self, sql: str, *parameters: Any, batch: int = 1000, into: Callable[..., T]
    ) -> RowStream[T]: ...
    def iterate(
        self,
        sql: str,
        *parameters: Any,
        batch: int = 1000,
        into: Callable[..., Any] | None = None,
    ) -> RowStream[Any]:
        """Iterate over rows that the server hands out `batch` at a time.

        Use `async for`; leaving it early closes the cursor before the next statement. `into` is
        as for `fetch_all`.

        Raises:
            ValueError: `batch` is less than 1.
            TypeError: `batch` is no whole number, or more than one argument follows the SQL where
                the backend takes one.
        """
        self._check()
        check_whole("batch", batch)
        if batch < 1:
            raise ValueError(f"batch={batch}: must be at least 1")
        driver = self._session.driver
        driver.capabilities.server_side_cursors.demand("iterate()", self._root.pool.name)
        if len(parameters) > 1 and not driver.variadic:
            raise TypeError("iterate() takes the SQL and one sequence or mapping of values here")
        values = gather(parameters) if driver.variadic else next(iter(parameters), None)
        return RowStream(self._session, self._level, sql, values, batch, into)

    async def _run(self, operation: str, sql: str, parameters: Any) -> Any:
        session = self._session
        if operation == "executemany" and not isinstance(parameters, (list, tuple)):
            parameters = list(parameters)  # to be read once more if the connection had died
        observation = session.pool.observer.observe(operation, sql, parameters, session)

        def work() -> Awaitable[Any]:
            # Here, since the first statement may be sent on one more connection than the first.
            if observation is not None:
                observation.sent(session.connection)
            return start(session.driver, session.connection, operation, sql, parameters)

        # If the generator is closed early, what its reader wrote here is lost: that is told then.
        if self._level.generator is not None and operation in _WRITING:
            self._note_reader()
        called = session.call(self._level, sql, work)
        return await (called if observation is None else observation.of(called))

    async def _run_in_time(self, seconds: float, operation: str, sql: str, parameters: Any) -> Any:
        pool, level = self._session.pool, self._level
        doomed = level.refusal
        try:
            return await pool.time_limits.within(seconds, self._run(operation, sql, parameters))
        except TimeoutError as error:
            # The limit cancels the call, which dooms the block like any cancellation: it is told as
            # what it was.
            if level.refusal != doomed:
                level.refusal = "a statement timed out"
            raise QueryTimeoutError(
                took_longer("statement", seconds),
                database=pool.name,
                statement=sql,
            ) from error

    @property
    def _database_name(self) -> str:
        return self._root.pool.name

    def _note_reader(self) -> None:
        if self._level.suspended_at:
            place = where_asked(with_stack=False)
            self._level.lent_to = Callsite(note(asyncio.current_task(), place))

    # -- manual control

    async def begin(self) -> None:
        """Begin again after a manual commit or rollback.

        Raises:
            TransactionError: A transaction is open already, or this is a nested one.
        """
        self._session.check_control(self._level)
        if self._level.begun:
            raise TransactionError(
                "a transaction is open already: this block began it. begin() is for after commit() "
                "or rollback(); for one inside it, use `async with db.transaction()`",
                database=self._root.pool.name,
            )
        await self._root.begin_again()

    async def commit(self) -> None:
        """Commit now. A statement needs `begin()` first then; leaving the block does nothing more.

        Raises:
            TransactionError: This is a nested transaction, or one is open inside.
            CommitOutcomeUnknownError: The connection was lost before the answer.
        """
        self._check()
        await self._root.end_manually(commit=True)

    async def rollback(self) -> None:
        """Roll back now, if there is something to roll back; see `commit`."""
        self._session.check_open(self._level)
        if self._level.begun:
            await self._root.end_manually(commit=False)


class ParameterContext(ParameterStatements, TransactionContext):
    """The context of backends whose statements take `(sql, parameters)`."""

    __slots__ = ()
