"""`ctx.connection`: asyncmy's connection, and what is made from it, until the block is left."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from asyncmy.errors import MySQLError

from jobu_db.errors import TransactionError
from jobu_db.guard import ConnectionGuard
from jobu_db_mysql.session import MySQLConnection

_TAKING_TURNS = frozenset(
    {"callproc", "execute", "executemany", "fetchall", "fetchmany", "fetchone", "nextset"}
)


class GuardedConnection(ConnectionGuard):
    """Behaves like the connection, but for what would leave the transaction unnoticed."""

    __slots__ = ()

    def cursor(self, cursor: Any = None) -> GuardedCursor:
        """Make a cursor, of asyncmy's class `cursor` if given."""
        self._guard_check()
        connection: MySQLConnection = self._guard_connection
        return GuardedCursor(connection.cursor(cursor), self._guard_check)

    async def prepare(self, query: str) -> ConnectionGuard:
        """Prepare a statement, which dies with the transaction as well."""
        self._guard_check()
        return ConnectionGuard(await self._guard_connection.prepare(query), self._guard_check)

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


class GuardedCursor(ConnectionGuard):
    """A cursor that dies with the transaction."""

    __slots__ = ()

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
        return _already(self).__await__()

    def _guarded(self, method: Callable[..., Any]) -> Callable[..., Any]:
        call = super()._guarded(method)
        if method.__name__ not in _TAKING_TURNS:
            return call

        async def in_turn(*args: Any, **options: Any) -> Any:
            return await self._in_turn(call, *args, **options)

        return in_turn

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
