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
from jobu_db_mysql import aiosql_adapter
from jobu_db_mysql.driver import MARIADB, MYSQL, MySQLDriver
from jobu_db_mysql.settings import MySQLSettings
from jobu_db_mysql.typed import MySQLStatements

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, TypeAlias, TypeVar, overload

    from jobu_db.driver import Parameters
    from jobu_db.transaction import DatabaseSession, RowStream

    T = TypeVar("T")

__all__ = [
    "AsyncConnectionPool",
    "ManagedTransaction",
    "MySQLDatabase",
    "PoolConfig",
    "PooledConnection",
    "TransactionContext",
    "jobu_db_database",
]

# At import: queries are often read before the first database is opened.
aiosql_adapter.register()


class TransactionContext(MySQLStatements, BaseTransactionContext):
    """What `async with db.transaction()` gives; `connection` is asyncmy's, behind a guard."""

    __slots__ = ()

    if TYPE_CHECKING:

        @overload  # type: ignore[override]  # one argument, no more
        def iterate(
            self, sql: str, parameters: Parameters = None, /, *, batch: int = 1000
        ) -> RowStream[dict[str, Any]]: ...
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

    class Session(MySQLStatements, DatabaseSession):
        """What `async with db.session()` gives."""

        @property
        def connection(self) -> Any: ...

        def transaction(
            self,
            readonly: bool = False,
            isolation: str | None = None,
            timeout: float | None = None,
        ) -> ManagedTransaction: ...


class MySQLDatabase(MySQLStatements, BaseDatabase):
    """A MySQL or MariaDB database."""

    db_type: ClassVar[str] = "mysql"
    settings_class = MySQLSettings
    context_class = TransactionContext
    aiosql_adapter = aiosql_adapter.NAME
    api_version = 1

    @classmethod
    def capabilities_of(cls, db_type: str) -> Capabilities:
        """Say what a database of this type can do."""
        return MARIADB if db_type == "mariadb" else MYSQL

    @classmethod
    def make_driver(cls, name: str, settings: MySQLSettings) -> MySQLDriver:
        """Make the driver for these settings, without connecting."""
        return MySQLDriver(settings)

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
        def replica(self) -> MySQLStatements:
            """Reads from a replica."""


@hookimpl
def jobu_db_database(db_type: str) -> type[BaseDatabase] | None:
    """Answer the core's question for a backend."""
    return MySQLDatabase if db_type in ("mysql", "mariadb") else None
