"""`async with db.transaction() as ctx`: one transaction on one database."""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic

from jobu_db._aio.shield import DONE
from jobu_db.driver import TransactionMode
from jobu_db.errors import QueryTimeoutError, TransactionError
from jobu_db.transaction import ambient
from jobu_db.transaction.context import TransactionContext
from jobu_db.transaction.outcome import conclude, roll_back
from jobu_db.transaction.root import RootTransaction
from jobu_db.transaction.savepoint import Savepoint

if TYPE_CHECKING:
    from typing_extensions import TypeVar

    from jobu_db.database import BaseDatabase

    Context = TypeVar(
        "Context", bound=TransactionContext, default=TransactionContext, covariant=True
    )
else:  # Python knows defaults from 3.13 on
    from typing import TypeVar

    Context = TypeVar("Context", bound=TransactionContext, covariant=True)


class ManagedTransaction(Generic[Context]):
    """Commits when its block is left normally, rolls back when it is left by an exception.

    Inside another transaction of the same database it is a savepoint, unless `independent`.

    Args:
        database: Where.
        mode: How it begins.
        timeout: Seconds for the whole block, acquire included, or None. It does not cut a commit
            short.
        independent: Take a connection of its own, also inside a transaction.
    """

    def __init__(
        self,
        database: BaseDatabase,
        mode: TransactionMode,
        *,
        timeout: float | None = None,
        independent: bool = False,
    ) -> None:
        self._database = database
        self._mode = mode
        self._timeout = timeout
        self._independent = independent
        self._level: RootTransaction | Savepoint | None = None
        self._left: RootTransaction | Savepoint | None = None
        self._scope: asyncio.Timeout | None = None

    @property
    def name(self) -> str:
        """Name of the database."""
        return self._database.name

    @property
    def undone(self) -> bool:
        """True if certainly nothing was committed, once the block is left."""
        return self._left is None or self._left.undone

    async def __aenter__(self) -> Context:
        if self._level is not None:
            raise TransactionError("this transaction() is in use already: call it once per block")
        level: Any = self.make_level()  # of the database, so its context is of the type it says
        self._level, self._left = level, None
        try:
            if self._timeout is None:
                context: Context = await level.open()
            else:
                context = await self._open_in_time(level, self._timeout)
        except BaseException:
            self._level = None
            raise
        self._before = ambient.bind(context)
        return context

    def make_level(self) -> RootTransaction | Savepoint:
        """Return an outermost level, or a savepoint where a transaction is open already."""
        outer = ambient.current(self._database)
        if outer is None:
            return RootTransaction(self._database, self._mode)
        if not self._independent:
            return Savepoint(self._database, outer, self._mode)
        allowed = self._database.driver.capabilities.independent_writes
        writing = outer.begun and not outer.session.mode.readonly
        if writing and not self._mode.readonly:
            what = "independent=True is refused inside a writing transaction"
            allowed.demand(what, self._database.name)
        return RootTransaction(self._database, self._mode, around=outer)

    async def _open_in_time(self, level: Any, limit: float) -> Any:
        self._scope = asyncio.timeout(limit)
        await self._scope.__aenter__()
        try:
            return await level.open()
        except BaseException as error:
            late = await self._out_of_time(error)
            if late is None:
                raise
            raise late from error

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._left, self._level = self._level, None
        level = self._left
        assert level is not None
        ambient.unbind(level.context, self._before)
        late = None if self._scope is None else await self._out_of_time(error)
        if late is None and error is None:
            finished = await level.commit()
            if finished is not DONE or level.context.callbacks:
                await conclude([level], finished)
            return
        failure = late or error
        assert failure is not None
        await roll_back([level], failure, hurry=late is not None)
        if late is not None:
            raise late

    async def _out_of_time(self, error: BaseException | None) -> QueryTimeoutError | None:
        """Leave the scope of `timeout`; return the error to raise if it has run out."""
        scope, self._scope = self._scope, None
        assert scope is not None
        cause: BaseException | None = None
        try:
            await scope.__aexit__(type(error) if error else None, error, None)
        except TimeoutError as timeout:
            cause = timeout
        if cause is None and not (error is None and scope.expired()):
            return None  # in time, or ended by something else: another cancellation, for one
        late = QueryTimeoutError(
            f"the transaction took longer than its timeout of {self._timeout:g} s",
            database=self._database.name,
        )
        late.__cause__ = cause
        return late
