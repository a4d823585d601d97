"""`ctx.connection`: asyncmy's connection, and what is made from it, until the block is left."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, cast

from asyncmy.errors import MySQLError

from jobu_db.errors import TransactionError
from jobu_db.guard import ConnectionGuard, First
from jobu_db_mysql.commands import refuse_if_streaming
from jobu_db_mysql.session import MySQLConnection

_TAKING_TURNS = frozenset(
    {"callproc", "execute", "executemany", "fetchall", "fetchmany", "fetchone", "nextset"}
)

_EXECUTING = frozenset({"execute", "execute_bulk"})
"""Methods of a prepared statement that run it, past those of the connection."""


class GuardedConnection(ConnectionGuard):
    """Behaves like the connection, but for what would leave the transaction unnoticed."""

    __slots__ = ()

    _guard_repeatable = frozenset({"query", "run", "run_dicts"})

    def cursor(self, cursor: Any = None) -> GuardedCursor:
        """Make a cursor, of asyncmy's class `cursor` if given."""
        self._guard_check()
        return GuardedCursor(
            cursor, self._guard_check, lambda: self._guard_connection, lambda: self._guard_first
        )

    async def prepare(self, query: str) -> GuardedStatement:
        """Prepare a statement, which dies with the transaction as well."""
        self._guard_check()
        first = self._guard_first
        if first is None:
            return await self._prepare(query)
        prepared: GuardedStatement = await first(lambda: self._prepare(query), query)
        return prepared

    async def _prepare(self, query: str) -> GuardedStatement:
        connection: MySQLConnection = self._guard_connection
        prepared = await connection.prepare(query)
        return GuardedStatement(prepared, self._guard_check, connection)

    async def autocommit(self, value: bool) -> None:
        """Set whether statements commit by themselves, where no transaction is open.

        Raises:
            TransactionError: MySQL would commit what was done so far.
        """
        self._guard_check()
        connection: MySQLConnection = self._guard_connection
        # SET autocommit = 1 commits what is open. In a transaction begun by START TRANSACTION, with
        # autocommit on all the time, it changes nothing.
        if value and connection.get_transaction_status() and not connection.get_autocommit():
            raise TransactionError(
                "a transaction is open, and autocommit(True) would commit it: leave its block first"
            )
        if self._guard_first is not None:
            self._guard_first(None, "")
        await connection.autocommit(value)

    async def begin(self) -> None:
        """Refuse: MySQL would commit what was done so far.

        Raises:
            TransactionError: Always.
        """
        raise TransactionError(
            "a transaction is open already, and another BEGIN would commit it: "
            "open a nested one with `async with db.transaction()`"
        )

    async def connect(self) -> None:
        """Refuse: it would be another session, without the transaction.

        Raises:
            TransactionError: Always.
        """
        raise TransactionError("this connection belongs to a transaction and cannot be reopened")


class GuardedStatement(ConnectionGuard):
    """A prepared statement that dies with the transaction."""

    __slots__ = ("_of",)

    def __init__(
        self, prepared: Any, check: Callable[[], None], connection: MySQLConnection
    ) -> None:
        super().__init__(prepared, check)
        object.__setattr__(self, "_of", connection)

    def _guarded(self, method: Callable[..., Any]) -> Callable[..., Any]:
        call, executes = super()._guarded(method), method.__name__ in _EXECUTING
        if not executes and method.__name__ != "close":
            return call
        connection: MySQLConnection = self._of

        async def in_turn(*args: Any, **options: Any) -> Any:
            async with connection.turn:
                refuse_if_streaming(connection)  # asyncmy would read the rows, and drop them
                if executes:
                    await connection.get_ready()
                try:
                    return await call(*args, **options)
                except MySQLError:
                    # It runs past the methods of the connection, which would have noted the error.
                    connection.stale = True
                    raise

        return in_turn


class GuardedCursor(ConnectionGuard):
    """A cursor that dies with the transaction."""

    __slots__ = ("_connection", "_first", "_kind")

    def __init__(
        self,
        kind: Any,
        check: Callable[[], None],
        connection: Callable[[], MySQLConnection],
        first: Callable[[], First | None],
    ) -> None:
        super().__init__(connection().cursor(kind), check)
        object.__setattr__(self, "_kind", kind)
        # Asked for anew at each use: a first statement may put another connection behind the guard,
        # and this cursor was made from the one before.
        object.__setattr__(self, "_connection", connection)
        object.__setattr__(self, "_first", first)

    async def close(self) -> None:
        """Close the cursor. Once the block is left there is nothing to close: it was done."""
        try:
            self._guard_check()
        except TransactionError:
            return
        await self._in_turn(self._guard_connection.close)

    async def __aenter__(self) -> GuardedCursor:
        self._guard_check()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def __aiter__(self) -> GuardedCursor:
        return self

    async def __anext__(self) -> Any:
        row = await self.fetchone()
        if row is None:
            raise StopAsyncIteration
        return row

    def __await__(self) -> Any:
        self._guard_check()
        # asyncmy's cursors may be entered, awaited, or both.
        return _already(self).__await__()

    def _guarded(self, method: Callable[..., Any]) -> Callable[..., Any]:
        call, name = super()._guarded(method), method.__name__
        if name not in _TAKING_TURNS:
            return call

        async def in_turn(*args: Any, **options: Any) -> Any:
            first: First | None = self._first()
            if first is None:
                return await self._in_turn(call, *args, **options)
            if name == "execute" and args:
                return await cast(
                    "Awaitable[Any]", first(lambda: self._execute(*args, **options), args[0])
                )
            first(None, "")
            return await self._in_turn(call, *args, **options)

        return in_turn

    async def _execute(self, *args: Any, **options: Any) -> Any:
        """Run a first statement, which may be tried on another connection."""
        connection = self._connection()
        if self._guard_connection.connection is not connection:
            object.__setattr__(self, "_guard_connection", connection.cursor(self._kind))
        return await self._in_turn(self._guard_connection.execute, *args, **options)

    async def _in_turn(self, call: Callable[..., Any], *args: Any, **options: Any) -> Any:
        connection: MySQLConnection | None = self._guard_connection.connection
        if connection is None:  # the cursor is closed, and the call will say so
            return await call(*args, **options)
        async with connection.turn:
            try:
                return await call(*args, **options)
            except MySQLError:
                connection.stale = True
                raise


async def _already(cursor: GuardedCursor) -> GuardedCursor:
    return cursor
