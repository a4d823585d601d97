"""The names that users import, and the hook by which the core finds this backend."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from jobu_db.capabilities import Capabilities
from jobu_db.database import BaseDatabase
from jobu_db.plugins import hookimpl
from jobu_db.pool import AsyncConnectionPool, PooledConnection
from jobu_db.settings import PoolConfig
from jobu_db.transaction import ManagedTransaction as BaseManagedTransaction
from jobu_db.transaction import TransactionContext as BaseTransactionContext
from jobu_db_postgres.driver import PostgresDriver
from jobu_db_postgres.listening import LONGEST_NAME, Notification, notifications
from jobu_db_postgres.settings import PostgresSettings
from jobu_db_postgres.typed import PostgresStatements

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable
    from typing import Any, TypeAlias, TypeVar, overload

    import asyncpg

    from jobu_db.transaction import DatabaseSession, RowStream

    T = TypeVar("T")

__all__ = [
    "AsyncConnectionPool",
    "ManagedTransaction",
    "PoolConfig",
    "PooledConnection",
    "PostgresDatabase",
    "TransactionContext",
    "jobu_db_database",
]


class TransactionContext(PostgresStatements, BaseTransactionContext):
    """What `async with db.transaction()` gives; `connection` is asyncpg's, behind a guard."""

    __slots__ = ()

    if TYPE_CHECKING:

        @property
        def connection(self) -> asyncpg.Connection[asyncpg.Record]:
            """asyncpg's connection, which dies with the block."""

        @overload
        def iterate(
            self, sql: str, *parameters: Any, batch: int = 1000
        ) -> RowStream[asyncpg.Record]: ...
        @overload
        def iterate(
            self, sql: str, *parameters: Any, batch: int = 1000, into: Callable[..., T]
        ) -> RowStream[T]: ...
        def iterate(self, *_: Any, **__: Any) -> Any: ...


if TYPE_CHECKING:
    ManagedTransaction: TypeAlias = BaseManagedTransaction[TransactionContext]
else:
    ManagedTransaction = BaseManagedTransaction


if TYPE_CHECKING:

    class Session(PostgresStatements, DatabaseSession):
        """What `async with db.session()` gives."""

        @property
        def connection(self) -> asyncpg.Connection[asyncpg.Record]: ...

        def transaction(
            self,
            readonly: bool = False,
            isolation: str | None = None,
            timeout: float | None = None,
        ) -> ManagedTransaction: ...


class PostgresDatabase(PostgresStatements, BaseDatabase):
    """A PostgreSQL database."""

    db_type: ClassVar[str] = "postgres"
    settings_class = PostgresSettings
    context_class = TransactionContext
    aiosql_adapter = "asyncpg"
    api_version = 1

    @classmethod
    def capabilities_of(cls, db_type: str) -> Capabilities:
        """Say what a database of this type can do."""
        return PostgresDriver.capabilities

    @classmethod
    def make_driver(cls, name: str, settings: PostgresSettings) -> PostgresDriver:
        """Make the driver for these settings, without connecting."""
        return PostgresDriver(settings)

    def listen(self, *channels: str) -> AsyncGenerator[Notification]:
        """Hear what is sent to these channels: `async for notification in db.listen("jobs")`.

        The first notification, and one after each lost connection, has `began` set: what was sent
        before it was not heard. It goes on until the database is closed, which ends it at once. It
        keeps one connection of the pool; what is not read yet waits in memory.

        Reading raises:
            ConnectionFailedError: Waiting does not help: password, unknown database, TLS.
            ConnectionPoolExhaustedError: No connection came free in time.

        Raises:
            ValueError: No channel is named, or one by a name that the server would cut off.
        """
        if not channels or not all(0 < len(name.encode()) <= LONGEST_NAME for name in channels):
            raise ValueError(f"listen() needs channels, each of 1 to {LONGEST_NAME} bytes")
        return notifications(self, channels)

    if TYPE_CHECKING:

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
        def replica(self) -> PostgresStatements:
            """Reads from a replica."""


@hookimpl
def jobu_db_database(db_type: str) -> type[BaseDatabase] | None:
    """Answer the core's question for a backend."""
    return PostgresDatabase if db_type in ("postgres", "postgresql") else None
