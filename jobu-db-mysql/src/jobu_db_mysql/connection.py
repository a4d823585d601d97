"""The names that users import, and the hook by which the core finds this backend."""

from __future__ import annotations

from typing import ClassVar

from jobu_db.database import BaseDatabase
from jobu_db.plugins import hookimpl
from jobu_db.pool import AsyncConnectionPool, PooledConnection
from jobu_db.settings import PoolConfig
from jobu_db.statements import ParameterStatements
from jobu_db.transaction import ManagedTransaction
from jobu_db.transaction import TransactionContext as BaseTransactionContext
from jobu_db_mysql import aiosql_adapter
from jobu_db_mysql.driver import MySQLDriver
from jobu_db_mysql.settings import MySQLSettings

__all__ = [
    "AsyncConnectionPool",
    "ManagedTransaction",
    "MySQLDatabase",
    "PoolConfig",
    "PooledConnection",
    "TransactionContext",
    "jobu_db_database",
]

aiosql_adapter.register()


class TransactionContext(ParameterStatements, BaseTransactionContext):
    """What `async with db.transaction()` gives; `connection` is asyncmy's, behind a guard."""

    __slots__ = ()


class MySQLDatabase(ParameterStatements, BaseDatabase):
    """A MySQL or MariaDB database."""

    db_type: ClassVar[str] = "mysql"
    settings_class = MySQLSettings
    context_class = TransactionContext
    aiosql_adapter = aiosql_adapter.NAME
    api_version = 1

    @classmethod
    def make_driver(cls, name: str, settings: MySQLSettings) -> MySQLDriver:
        """Make the driver for these settings, without connecting."""
        return MySQLDriver(settings)


@hookimpl
def jobu_db_database(db_type: str) -> type[BaseDatabase] | None:
    """Answer the core's question for a backend."""
    return MySQLDatabase if db_type in ("mysql", "mariadb") else None
