"""`async with db.transaction() as ctx`: one transaction on one database."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic

from jobu_db._aio.generators import enclosing_generator
from jobu_db._aio.shield import DONE
from jobu_db._aio.timeouts import check_seconds
from jobu_db.driver import TransactionMode
from jobu_db.errors import TransactionError
from jobu_db.pool.pool import AsyncConnectionPool
from jobu_db.transaction import ambient
from jobu_db.transaction.context import TransactionContext
from jobu_db.transaction.group import enter_block, leave_block
from jobu_db.transaction.outcome import (
    abandon,
    conclude,
    roll_back,
    tell_reader,
    with_enlisted,
)
from jobu_db.transaction.root import RootTransaction
from jobu_db.transaction.savepoint import Savepoint
from jobu_db.transaction.session import Level
from jobu_db.transaction.time_limit import TimeLimit

if TYPE_CHECKING:
    from typing_extensions import TypeVar

    Context = TypeVar(
        "Context", bound=TransactionContext, default=TransactionContext, covariant=True
    )
else:  # Python knows defaults from 3.13 on
    from typing import TypeVar

    Context = TypeVar("Context", bound=TransactionContext, covariant=True)


class ManagedTransaction(Generic[Context]):
    """Commits when its block is left normally, rolls back when it is left by an exception.

    Inside another transaction of the same pool it is a savepoint, unless `independent`.

    Args:
        pool: Where.
        mode: How it begins.
        context_class: Makes what the block is handed.
        timeout: Seconds for the whole block, acquire included, or None. It does not cut a commit
            short.
        independent: Take another connection, also inside a transaction.

    Raises:
        TypeError, ValueError: `timeout` is no number of seconds.
    """

    def __init__(
        self,
        pool: AsyncConnectionPool[Any],
        mode: TransactionMode,
        context_class: Callable[[RootTransaction, Level], Context],
        *,
        timeout: float | None = None,
        independent: bool = False,
    ) -> None:
        self._pool = pool
        self._mode = mode
        self._context_class = context_class
        if timeout is not None:
            check_seconds("timeout", timeout)
        self._timeout = timeout
        self._independent = independent
        self._entered = False
        self._transaction: RootTransaction | Savepoint | None = None  # also once it is left
        self._limit: TimeLimit | None = None

    @property
    def name(self) -> str:
        """Name of the database."""
        return self._pool.name

    @property
    def pool(self) -> AsyncConnectionPool[Any]:
        """The pool of the database."""
        return self._pool

    @property
    def mode(self) -> TransactionMode:
        """How it begins."""
        return self._mode

    @property
    def transaction(self) -> RootTransaction | Savepoint:
        """What `start` began."""
        assert self._transaction is not None
        return self._transaction

    @property
    def undone(self) -> bool:
        """True if certainly nothing was committed, once the block is left."""
        if self._transaction is None:
            return True
        return all(one.undone for one in with_enlisted([self._transaction]))

    async def __aenter__(self) -> Context:
        if self._entered:
            raise TransactionError("this transaction() is in use already: call it once per block")
        if self._timeout is None:
            context = await self.start()
        else:
            self._limit = TimeLimit(self._timeout, "transaction", self._pool.name)
            context = await self._limit.begin(self.start())
        self._entered = True
        # Last, when nothing can fail any more: what is bound is unbound by `__aexit__` alone.
        ambient.bind(self.transaction.level)
        return context

    async def start(self) -> Context:
        """Begin, or set a savepoint, without making it the ambient transaction."""
        # Of an earlier block of this object, of which `undone` must not tell any more.
        self._transaction = None
        outer = self.outer()
        if outer is not None:
            return await self._open(*self._inside(outer))
        root = RootTransaction(self._pool, self._mode)
        return await self._open(root, root)

    async def start_as(self, root: RootTransaction) -> Context:
        """Begin as a root transaction that was made for this block."""
        self._transaction = None
        return await self._open(root, root)

    def outer(self) -> Level | None:
        """Return the level of the transaction inside which this one would be opened, or None."""
        outer = ambient.current(self._pool)
        assert outer is None or isinstance(outer, Level)
        return outer

    async def _open(
        self, root: RootTransaction, transaction: RootTransaction | Savepoint
    ) -> Context:
        level = await transaction.open()
        level.generator = enclosing_generator()
        if level.generator is not None and transaction is root:
            root.session.lease.in_generator = True
        self._transaction = transaction
        context = self._context_class(root, level)
        # A root transaction is a block by itself from the beginning; a savepoint joins those around
        # it.
        if transaction is not root:
            enter_block([transaction])
        return context

    def _inside(self, outer: Level) -> tuple[RootTransaction, RootTransaction | Savepoint]:
        """Return the root and the transaction of a block inside another one."""
        root = outer.root
        assert isinstance(root, RootTransaction)
        if not self._independent:
            return root, Savepoint(root, outer, self._mode)
        allowed = self._pool.driver.capabilities.independent_writes
        writing = outer.begun and not root.mode.readonly
        if writing and not self._mode.readonly:
            what = "independent=True is refused inside a writing transaction"
            allowed.demand(what, self._pool.name)
        root = RootTransaction(self._pool, self._mode, around=outer)
        return root, root

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        transaction, self._entered = self.transaction, False
        # Before anything awaits: from here on no other task may enlist anything in this block.
        ambient.unbind(transaction.level)
        transaction.level.block.left = True
        if not self._pool.is_here():
            abandon([transaction], error)
            return
        if isinstance(error, GeneratorExit):
            tell_reader(transaction)
        limit, self._limit = self._limit, None
        late = None if limit is None else await limit.end(error)
        if late is None and error is None:
            if transaction.level.block.enlisted:
                await leave_block([transaction])
                return
            finished = await transaction.commit()
            # As a rule there is nothing to call and nothing to raise: one coroutine less.
            if finished is not DONE or transaction.level.callbacks:
                await conclude([transaction], finished)
            return
        failure = late or error
        assert failure is not None
        await roll_back([transaction], failure, hurry=late is not None)
        if late is not None:
            raise late
