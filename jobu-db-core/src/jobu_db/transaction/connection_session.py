"""`async with db.session() as session`: one connection for a while, and no transaction.

A statement commits by itself, and what is set holds until the block is left. `session.transaction`
opens a transaction on the same connection, which is ambient as any other; the session is not.

Invariants:
    One thing at a time: a statement of the session runs while no other does, and while no
    transaction is open on it; what belongs to that transaction runs in it.
    The order is: the session's turn, then the turn to write. None waits for the first while
    holding the second: a caller with a writing transaction elsewhere is refused.
    The connection goes back once, and is reset whatever the settings say, or closed.
    There is no second connection: once the first is lost, every use raises.
"""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Awaitable, Callable
from time import monotonic
from types import TracebackType
from typing import Any, Self, TypeVar

from jobu_db._aio.callsite import task_name
from jobu_db._aio.shield import finish
from jobu_db.driver import TransactionMode
from jobu_db.errors import (
    CommitOutcomeUnknownError,
    ConnectionLostError,
    DatabaseError,
    PoolClosedError,
    ReadOnlyTransactionError,
    TransactionError,
)
from jobu_db.logs import logger_of
from jobu_db.pool.lease import PooledConnection
from jobu_db.pool.observer import Observation
from jobu_db.pool.pool import AsyncConnectionPool
from jobu_db.pool.slots import Ending
from jobu_db.statements import ParameterStatements, Statements, needs_transaction, start
from jobu_db.transaction import ambient
from jobu_db.transaction.block import Context, ManagedTransaction
from jobu_db.transaction.context import TransactionContext
from jobu_db.transaction.root import RootTransaction
from jobu_db.transaction.session import Level
from jobu_db.transaction.statement_queue import StatementQueue
from jobu_db.transaction.time_limit import of_statement
from jobu_db.transaction.write_turn import take_write_turn

T = TypeVar("T")

_GONE = "what was set on its connection, and the locks held there, are gone: open another session"
_OPENED = "SQL text opened a transaction on this session's connection"
Modes = Callable[[bool, str | None], TransactionMode]
"""Makes a mode from `readonly` and `isolation`, or refuses them."""


class DatabaseSession(Statements):
    """One connection for the length of a block.

    Its statements take `(sql, *args)`; those of `ParameterSession` take `(sql, parameters)`.

    Args:
        pool: Where.
        mode: Makes a mode from the arguments of `transaction`.
        context_class: What `transaction` hands to its block.
    """

    def __init__(
        self,
        pool: AsyncConnectionPool[Any],
        mode: Modes,
        context_class: Callable[[RootTransaction, Level], TransactionContext],
    ) -> None:
        self._pool = pool
        self._mode = mode
        self._context_class = context_class
        self._driver = pool.driver
        self._lease: PooledConnection[Any] | None = None
        self._connection: Any = None
        self._queue = StatementQueue()
        self._opened_by = ""  # the task whose transaction is open, or being opened
        self._transaction: RootTransaction | None = None
        self._aborting: asyncio.Task[None] | None = None
        self._guard: Any = None
        self._lost = ""
        self._told = False  # the caller knows that the connection is lost
        self._refusal: DatabaseError | None = None  # a transaction was open when it was left
        self._over: type[DatabaseError] | None = None

    # -- the block

    async def __aenter__(self) -> Self:
        if self._lease is not None or self._over is not None:
            raise TransactionError("this session() is in use already: call it once per block")
        pool = self._pool
        self._refuse_inside_write()
        deadline = monotonic() + pool.config.timeout
        # A connection that died while it was idle is replaced here: later there is no replacing.
        lease, _ = await pool.acquire_for(
            lambda lease: self._prove(lease, deadline), deadline, statement="", repeatable=True
        )
        self._connection = lease.connection
        lease.slot_of(pool).session = weakref.WeakMethod(self._pool_closes)
        self._lease = lease
        return self

    async def _prove(self, lease: PooledConnection[Any], deadline: float) -> None:
        driver, connection = self._driver, lease.connection
        try:
            await self._pool.time_limits.within(deadline - monotonic(), driver.ping(connection))
        except TimeoutError as error:
            if monotonic() < deadline:
                raise  # the driver's own
            raise ConnectionLostError(
                f"no answer within {self._pool.config.timeout:g} s", database=self._pool.name
            ) from error
        driver.begin_session(connection)
        driver.autocommit(connection, readonly=False)

    def _refuse_inside_write(self) -> None:
        outer: Any = ambient.current(self._pool)
        if outer is not None and outer.begun and not outer.root.mode.readonly:
            allowed = self._driver.capabilities.independent_writes
            allowed.demand("session() is refused inside a writing transaction", self._pool.name)

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if not self._pool.is_here():
            self._over = self._over or TransactionError
            if error is None:
                self._check()
            return
        self._refuse_open_transaction()
        finished = await finish(
            self._come_to_rest(),
            self._pool.config.cleanup_timeout,
            hurry=isinstance(error, asyncio.CancelledError),
        )
        if finished.error is not None:
            self._terminate("a statement could not be stopped")
        refusal = self._refusal or self._fault_at_the_end()
        self._end(TransactionError)
        if finished.cancelled is not None:
            raise finished.cancelled
        if error is None and refusal is not None:
            raise refusal

    def _refuse_open_transaction(self) -> None:
        owner = self._opened_by
        if not owner:
            return
        self._terminate("the session was left first")
        if self._transaction is not None:
            self._transaction.session.lose("the session around it was left first")
        self._refusal = TransactionError(
            f"the session was left while the transaction of {owner} was open on it, which is "
            "rolled back: wait for its task first",
            database=self._pool.name,
        )

    async def _come_to_rest(self) -> None:
        if not self._lost and self._over is None:
            await self._queue.take_last()
            # None begins one from here on, but a task ahead of us in the queue may have.
            self._refuse_open_transaction()
        await self._quiet()

    def _fault_at_the_end(self) -> DatabaseError | None:
        if self._over is not None:
            return None  # the pool was closed, and every use said so
        if not self._lost and not self._driver.is_alive(self._connection):
            self._lose("the connection was lost")
        if self._lost:
            return None if self._told else self._lost_error()
        if self._driver.in_transaction(self._connection):
            return TransactionError(
                f"{_OPENED}, which was still open at its end and is rolled back: end it, or use "
                "session.transaction()",
                database=self._pool.name,
            )
        return None

    def _end(self, reason: type[DatabaseError]) -> None:
        """Give the connection back: what was set is undone, a transaction rolled back."""
        lease, self._lease = self._lease, None
        if self._guard is not None:
            self._may_have_committed()  # since it was used last
        self._over = self._over or reason
        self._queue.close("the session is over")
        if lease is not None:
            self._pool.release(lease, discard=self._lost or None)

    def _pool_closes(self) -> None:
        """End now if nothing runs; else as soon as what runs has ended."""
        if self._pool.closed and not self._opened_by and self._queue.take_now(True):
            if self._aborting is not None:
                self._terminate("a statement could not be stopped")
            self._end(PoolClosedError)

    # -- what is possible

    @property
    def connection(self) -> Any:
        """The driver's connection behind a guard: it dies with the session.

        The driver's own errors and rules apply to it.
        """
        self._check()
        if self._guard is None:
            self._guard = self._driver.guard(self._connection, self._check_guarded)
        return self._guard

    def _check_guarded(self) -> None:
        self._check()
        if not self._opened_by and self._queue.take_now(True):  # nothing runs
            self._driver.autocommit(self._connection, readonly=False)  # the last one may have read
            self._queue.give()
        self._may_have_committed()

    def _may_have_committed(self) -> None:
        if self._pool.positions is not None:
            self._pool.positions.lost()

    @property
    def in_transaction(self) -> bool:
        """True while a transaction is open on the session's connection."""
        return self._lease is not None and self._driver.in_transaction(self._connection)

    def _check(self) -> None:
        self._pool.check_transaction_place("session")
        if self._over is PoolClosedError:
            raise PoolClosedError(
                f"the pool was closed, and the session ended: {_GONE}", database=self._pool.name
            )
        if self._lost:
            raise self._lost_error()
        if self._lease is None:
            text = "this session is over: its block has been left"
            if self._over is None:
                text = "this session has not begun: use `async with db.session() as session`"
            raise TransactionError(text, database=self._pool.name)
        if not self._driver.is_alive(self._connection):
            self._lose("the connection was lost")
            raise self._lost_error()

    # -- a connection that is lost

    def _lose(self, reason: str) -> None:
        self._lost = self._lost or reason
        self._queue.close(f"{self._lost}: {_GONE}")

    def _terminate(self, reason: str) -> None:
        self._lose(reason)
        self._driver.terminate(self._connection)

    def _lost_error(self) -> ConnectionLostError:
        self._told = True
        return ConnectionLostError(f"{self._lost}: {_GONE}", sent=False, database=self._pool.name)

    def _interrupt(self, *, beginning: bool = False) -> None:
        """A call was cancelled: stop what still runs on the server, before anything else is sent.

        The connection stays only if that can be had: a reset would undo what is to hold.

        Args:
            beginning: It was a BEGIN, which may have taken place.
        """
        if self._aborting is None and not self._lost:
            # In a task: the caller who was cancelled is not kept waiting. Who takes the turn next
            # waits (`_quiet`).
            self._aborting = asyncio.get_running_loop().create_task(self._abort(beginning))

    async def _abort(self, beginning: bool) -> None:
        limit = self._pool.config.cleanup_timeout
        try:
            await self._pool.time_limits.within(limit, self._driver.abort(self._connection))
            if beginning:
                rollback = self._driver.rollback(self._connection)
                await self._pool.time_limits.within(limit, rollback)
        except BaseException as error:
            logger_of(self._pool.name).info(
                "%s: a cancelled call could not be stopped: %s",
                self._pool.name,
                self._pool.told(error),
            )
            self._lose("a statement was cancelled, and the connection closed with it")
            if not isinstance(error, Exception):
                raise

    async def _quiet(self) -> None:
        if self._aborting is not None:
            # Not awaited itself: who is cancelled here must not cancel the abort.
            await asyncio.wait({self._aborting})
            self._aborting = None

    # -- turns

    async def _take_turn(self) -> None:
        """Wait until no statement runs, and no transaction is open on the connection.

        Raises:
            TransactionError: The transaction of another task was open for longer than the pool's
                timeout.
        """

        def may() -> bool:
            return not self._opened_by or bool(self._lost) or self._over is not None

        def obstacle() -> str:
            return f"the transaction of {self._opened_by} to be done with this session"

        if not self._queue.take_now(may()):
            try:
                await self._queue.take(may, self._pool.config.timeout, obstacle)
            except TransactionError as error:
                self._check()  # which knows better, if the session is over
                error.database = self._pool.name
                raise
        try:
            await self._quiet()
            self._check()
        except BaseException:
            self._give_turn()
            raise

    def _give_turn(self) -> None:
        self._queue.give()
        self._pool_closes()

    # -- statements

    async def _run(self, operation: str, sql: str, parameters: Any) -> Any:
        """Run in the transaction that is open on the session here, else alone."""
        self._check()
        joined: Any = self._joined()
        if joined is not None:
            return await joined.face._run(operation, sql, parameters)
        if needs_transaction(self._driver, operation) and not self.in_transaction:
            async with self.transaction() as context:
                return await context._run(operation, sql, parameters)
        observation = self._pool.observer.observe(operation, sql, parameters, None)
        running = self._run_alone(operation, sql, parameters, observation)
        return await (running if observation is None else observation.of(running))

    async def _run_in_time(self, seconds: float, operation: str, sql: str, parameters: Any) -> Any:
        self._check()
        joined: Any = self._joined()
        if joined is not None:
            return await joined.face._run_in_time(seconds, operation, sql, parameters)
        with of_statement(sql, seconds):
            async with self.transaction(timeout=seconds) as context:
                return await context._run(operation, sql, parameters)

    @property
    def _database_name(self) -> str:
        return self._pool.name

    async def _run_alone(
        self, operation: str, sql: str, parameters: Any, observation: Observation | None
    ) -> Any:
        pool, gate = self._pool, None
        has_gate = self._driver.write_gate is not None
        await self._take_turn()
        try:
            if has_gate and operation.startswith("fetch"):
                try:  # readers never wait for writers
                    return await self._send(operation, sql, parameters, observation, readonly=True)
                except ReadOnlyTransactionError:
                    self._check()
            if has_gate:
                gate = await take_write_turn(pool, pool.config.timeout)
            return await self._send(operation, sql, parameters, observation, readonly=False)
        finally:
            if gate is not None:
                gate.leave()
            self._give_turn()

    async def _send(
        self,
        operation: str,
        sql: str,
        parameters: Any,
        observation: Observation | None,
        *,
        readonly: bool,
    ) -> Any:
        driver, connection, lease = self._driver, self._connection, self._lease
        assert lease is not None
        driver.autocommit(connection, readonly=readonly)
        if observation is not None:
            observation.sent(connection)
        lease.expect_answer(monotonic())
        try:
            with self._pool.translating(sql):
                result = await start(driver, connection, operation, sql, parameters)
        except BaseException as error:
            meaning = self._failed(error, sql)
            if meaning is None:
                raise
            raise meaning from (error.__cause__ or error)
        finally:
            lease.expect_answer(None)
            self._may_have_committed()
        if driver.in_transaction(connection) and not driver.capabilities.independent_writes:
            await self._refuse_transaction(sql)
        return result

    def _failed(self, error: BaseException, sql: str) -> DatabaseError | None:
        """Note what a failed call means for the session; return what is to be raised instead."""
        if not isinstance(error, Exception):
            self._interrupt()
            return None
        lost = isinstance(error, ConnectionLostError)
        if not lost and self._driver.is_alive(self._connection):
            return None
        self._told = True
        if isinstance(error, ReadOnlyTransactionError):
            # The server has answered: nothing took effect. The driver left it for that.
            self._lose("the server may no longer be written to")
            return None
        self._lose("the connection was lost")
        if isinstance(error, ConnectionLostError) and not error.sent:
            return self._lost_error()
        return CommitOutcomeUnknownError(
            "the connection was lost while a statement of a session was under way: whether it "
            f"took effect is unknown; {_GONE}",
            database=self._pool.name,
            statement=sql,
        )

    async def _refuse_transaction(self, sql: str) -> None:
        """Where one writes at a time, a transaction needs the turn to write for its length."""
        try:
            with self._pool.translating("ROLLBACK"):
                await self._driver.rollback(self._connection)
        except BaseException:
            self._terminate("a transaction could not be rolled back")
            raise
        raise TransactionError(
            "the statement opened a transaction, which was rolled back: use session.transaction()",
            database=self._pool.name,
            statement=sql,
        )

    # -- transactions

    def transaction(
        self,
        readonly: bool = False,
        isolation: str | None = None,
        timeout: float | None = None,
    ) -> ManagedTransaction:
        """Open a transaction on the session's connection with `async with`.

        It is an outermost one, also inside a transaction of the same database; inside one of the
        session's own, a savepoint. Arguments as for `BaseDatabase.transaction`.

        Raises:
            TransactionError: The isolation level is unknown, or this or `readonly` cannot be had.
        """
        mode = self._mode(readonly, isolation)
        return _SessionTransaction(self, mode, self._context_class, timeout=timeout)

    def _joined(self) -> Level | None:
        """Return the innermost level here of the transaction that is open on the session."""
        if self._transaction is None:
            return None
        bound: Any = ambient.current(self._pool)
        while bound is not None:
            if bound.root is self._transaction and not bound.closed and not bound.suspended_at:
                return bound  # type: ignore[no-any-return]
            bound = bound.outer
        return None

    async def _begin(self, mode: TransactionMode) -> RootTransaction:
        """Reserve the connection for a transaction, which gives it back by `release`."""
        self._check()
        await self._take_turn()
        try:
            if self._driver.in_transaction(self._connection):
                raise TransactionError(
                    f"{_OPENED}: end it by COMMIT or ROLLBACK before transaction()",
                    database=self._pool.name,
                )
            # From here on `may` keeps everybody else out. The turn itself is given back, for the
            # transaction has a queue of its own.
            self._opened_by = task_name()
        finally:
            self._give_turn()
        around: Any = ambient.current(self._pool)
        return RootTransaction(self._pool, mode, around=around, lender=_Lender(self))

    def _began(self, root: RootTransaction | None) -> None:
        """The reserved connection is in this transaction now; None if it could not begin."""
        self._transaction = root
        if root is None:
            self._leave_transaction()

    def _leave_transaction(self) -> None:
        self._transaction = None
        self._opened_by = ""
        self._queue.grant()
        self._pool_closes()

    # -- lending its connection to a root transaction

    async def _run_first(
        self, first: Callable[[PooledConnection[Any]], Awaitable[T]], statement: str
    ) -> tuple[PooledConnection[Any], T]:
        """Run the first operation on the session's connection, which is reserved."""
        self._check()
        lease = self._lease
        assert lease is not None
        try:
            with self._pool.translating(statement):
                begun = await first(lease)
            self._check()  # it may have been left since
            return lease, begun
        except BaseException as error:
            if not isinstance(error, Exception):
                self._interrupt(beginning=True)
            else:  # what was set for the transaction may still hold
                self._terminate("a transaction could not begin")
            raise

    def _take_back(self, discard: str | None) -> None:
        """The transaction is over, and its connection the session's again."""
        if self._lease is None:  # the session was left first
            return
        if discard is not None:
            self._terminate(discard)
        self._leave_transaction()


class _Lender:
    """A session as root transactions know it: their connection is its own."""

    resets = False  # settings are to hold
    ends_transactions = False
    replaces = False

    def __init__(self, session: DatabaseSession) -> None:
        self._session = session

    async def acquire_for(
        self,
        first: Callable[[PooledConnection[Any]], Awaitable[T]],
        deadline: float,
        *,
        statement: str = "BEGIN",
        repeatable: bool = False,
        begins: bool = False,
    ) -> tuple[PooledConnection[Any], T]:
        return await self._session._run_first(first, statement)

    def release(
        self,
        lease: PooledConnection[Any],
        *,
        clean: bool = False,
        discard: str | None = None,
        ends: Ending | None = None,
    ) -> None:
        self._session._take_back(discard)

    def may_repeat(
        self,
        error: BaseException,
        lease: PooledConnection[Any],
        started: float,
        *,
        repeatable: bool,
    ) -> bool:
        return False


class ParameterSession(ParameterStatements, DatabaseSession):
    """The session of backends whose statements take `(sql, parameters)`."""


class _SessionTransaction(ManagedTransaction[Context]):
    """Outermost on the session's connection, unless that is in a transaction of ours already."""

    def __init__(
        self,
        session: DatabaseSession,
        mode: TransactionMode,
        context_class: Callable[[RootTransaction, Level], Any],
        *,
        timeout: float | None,
    ) -> None:
        super().__init__(session._pool, mode, context_class, timeout=timeout)
        self._of = session

    def outer(self) -> Level | None:
        """Return the level of the session's own transaction, if one is open here."""
        return self._of._joined()

    async def start(self) -> Context:
        """Begin on the session's connection, or set a savepoint in its own transaction."""
        if self.outer() is not None:
            return await super().start()
        self._transaction = None
        root = await self._of._begin(self._mode)
        began = False
        try:
            context = await self._open(root, root)
            began = True
        finally:
            self._of._began(root if began else None)
        return context
