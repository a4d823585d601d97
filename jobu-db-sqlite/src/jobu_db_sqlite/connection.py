"""The names that users import, and the hook by which the core finds this backend."""

from __future__ import annotations

import os
from functools import partial
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from jobu_db.capabilities import Capabilities
from jobu_db.database import BaseDatabase
from jobu_db.errors import ConnectionLostError
from jobu_db.plugins import hookimpl
from jobu_db.pool import AsyncConnectionPool, PooledConnection
from jobu_db.settings import OnConnect
from jobu_db.transaction import ManagedTransaction as BaseManagedTransaction
from jobu_db.transaction import TransactionContext as BaseTransactionContext
from jobu_db_sqlite.database_file import DatabaseFile
from jobu_db_sqlite.driver import SQLiteDriver
from jobu_db_sqlite.proxy import Connection
from jobu_db_sqlite.settings import MEMORY, SQLiteSettings
from jobu_db_sqlite.settings import SQLitePoolConfig as PoolConfig
from jobu_db_sqlite.typed import SQLiteStatements

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable
    from typing import TypeAlias, TypeVar, overload

    from jobu_db.driver import Parameters
    from jobu_db.transaction import DatabaseSession, RowStream
    from jobu_db_sqlite.guard import GuardedConnection

    T = TypeVar("T")

__all__ = [
    "AsyncConnectionPool",
    "ManagedTransaction",
    "PoolConfig",
    "PooledConnection",
    "SQLiteDatabase",
    "TransactionContext",
    "jobu_db_database",
]


class TransactionContext(SQLiteStatements, BaseTransactionContext):
    """What `async with db.transaction()` gives; `connection` is aiosqlite's, behind a guard."""

    __slots__ = ()

    if TYPE_CHECKING:

        @property
        def connection(self) -> GuardedConnection:
            """aiosqlite's connection, which dies with the block."""

        @overload  # type: ignore[override]  # one argument, no more
        def iterate(
            self, sql: str, parameters: Parameters = None, /, *, batch: int = 1000
        ) -> RowStream[sqlite3.Row]: ...
        @overload
        def iterate(
            self,
            sql: str,
            parameters: Parameters = None,
            /,
            *,
            batch: int = 1000,
            into: Callable[..., T],
        ) -> RowStream[T]: ...
        def iterate(self, *_: Any, **__: Any) -> Any: ...


if TYPE_CHECKING:
    ManagedTransaction: TypeAlias = BaseManagedTransaction[TransactionContext]
else:
    ManagedTransaction = BaseManagedTransaction


if TYPE_CHECKING:

    class Session(SQLiteStatements, DatabaseSession):
        """What `async with db.session()` gives."""

        @property
        def connection(self) -> GuardedConnection: ...

        def transaction(
            self,
            readonly: bool = False,
            isolation: str | None = None,
            timeout: float | None = None,
        ) -> ManagedTransaction: ...


class SQLiteDatabase(SQLiteStatements, BaseDatabase):
    """An SQLite database, in a file or in memory."""

    db_type: ClassVar[str] = "sqlite"
    settings_class = SQLiteSettings
    context_class = TransactionContext
    aiosql_adapter = "aiosqlite"
    api_version = 1

    def __init__(self, name: str, settings: SQLiteSettings) -> None:
        super().__init__(name, settings.model_copy(update={"pool": _pool(settings)}))

    @classmethod
    def capabilities_of(cls, db_type: str) -> Capabilities:
        """Say what a database of this type can do."""
        return SQLiteDriver.capabilities

    @classmethod
    def make_driver(cls, name: str, settings: SQLiteSettings) -> SQLiteDriver:
        """Make the driver for these settings, without connecting."""
        return SQLiteDriver(
            DatabaseFile(
                settings.path,
                settings.options,
                mode=settings.mode,
                resets=settings.pool.reset == "always",
            )
        )

    async def backup(self, path: str | PathLike[str]) -> None:
        """Copy the database, as it is now, into a new file, while others read and write.

        It reads on a connection of its own, so it leaves out what a transaction around it has not
        committed yet. If it is cancelled, nothing is left behind. (In a journal mode other than
        WAL, writers wait until it is done.)

        Args:
            path: Where to. A file that is there already is not replaced.

        Raises:
            QueryExecutionError: The file is there already, or can't be written.
            LockTimeoutError: Another program kept the database locked for `busy_timeout`.
        """
        # Before anything awaits: the program may change its working directory meanwhile.
        target = _absolute(path)
        async with self.pool.connection() as lease:
            connection: Connection = lease.connection
            with self.pool.translating("BACKUP"):
                await connection.copy_file(target)

    async def ping(self, timeout: float | None = None) -> None:
        """Read from the file.

        Args:
            timeout: Seconds for waiting for a connection and reading together; the pool's
                `timeout` if None.

        Raises:
            DatabaseError: What is wrong; `ConnectionLostError` if it was deleted or replaced.
        """
        await super().ping(timeout)
        # What was read came from the file that is open, wherever its name has gone since: so the
        # path is looked at as well.
        file = self.driver.file
        moved = file.tell_moved(file.seen)
        if moved is not None:
            raise ConnectionLostError(str(moved), sent=False, database=self.name) from moved

    if TYPE_CHECKING:
        driver: SQLiteDriver

        def session(self) -> Session:
            """Keep one connection for the length of an `async with` block."""

        def transaction(
            self,
            readonly: bool = False,
            isolation: str | None = None,
            timeout: float | None = None,
            independent: bool = False,
            replica: bool | str = False,
        ) -> ManagedTransaction:
            """Open a transaction with `async with`."""

        @property
        def replica(self) -> SQLiteStatements:
            """Reads from a replica."""


def _absolute(path: str | PathLike[str]) -> Path:
    return Path(os.path.abspath(Path(path).expanduser()))


def _pool(settings: SQLiteSettings) -> PoolConfig:
    pool = settings.pool
    changes: dict[str, Any] = {}
    if settings.path == MEMORY:
        # The database is gone with its connection: there is one, and it stays.
        changes = {"min_size": 1, "max_size": 1, "max_idle": None, "max_lifetime": None}
    if pool.on_connect is not None:
        changes["on_connect"] = partial(_connect_and_settle, pool.on_connect)
    return pool.model_copy(update=changes)


async def _connect_and_settle(on_connect: OnConnect, connection: Connection) -> None:
    """Have what `on_connect` sets stay, unlike what a holder sets."""
    # An extension may be loaded here, with pragmas that SQLite's own list does not have.
    connection.engine.authorizer.setting_up = True
    await on_connect(connection)
    connection.settle()


@hookimpl
def jobu_db_database(db_type: str) -> type[BaseDatabase] | None:
    """Answer the core's question for a backend."""
    return SQLiteDatabase if db_type == "sqlite" else None
