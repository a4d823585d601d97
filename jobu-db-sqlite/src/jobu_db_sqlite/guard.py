"""`ctx.connection`: aiosqlite's connection, which dies with its transaction."""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any, NoReturn

from jobu_db.errors import TransactionError
from jobu_db_sqlite._private import ForwardingConnection
from jobu_db_sqlite.proxy import Connection


class GuardedConnection(ForwardingConnection):
    """Behaves like the connection behind it, until the transaction is over.

    So do the cursors made from it: they run their calls through it. It has no thread, and can't
    be closed: the connection belongs to the pool.
    """

    def __init__(self, connection: Connection, check: Callable[[], None]) -> None:
        super().__init__(connection, check)
        self._connection_behind = connection

    def __repr__(self) -> str:
        return f"<guarded {self._connection_behind!r}>"

    @property
    def in_transaction(self) -> bool:
        """Whether a transaction is open, or will be as soon as a statement runs."""
        self._check()
        return self._connection_behind.in_transaction

    @property
    def total_changes(self) -> int:
        """How many rows were changed on the connection, as of the last statement that ended."""
        self._check()
        return self._connection_behind.total_changes

    async def close(self) -> NoReturn:
        """Refuse."""
        raise TransactionError("the connection belongs to the pool: leave the block instead")

    def stop(self) -> NoReturn:
        """Refuse."""
        raise TransactionError("the connection belongs to the pool: leave the block instead")

    def __await__(self) -> Generator[Any, None, NoReturn]:
        raise TransactionError("the connection is open already: use it without `async with`")
