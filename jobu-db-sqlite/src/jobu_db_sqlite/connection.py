"""The names that users import, and the hook by which the core finds this backend."""

from __future__ import annotations

from typing import ClassVar

from jobu_db.database import BaseDatabase
from jobu_db.plugins import hookimpl
from jobu_db.pool import AsyncConnectionPool
from jobu_db.pooled_connection import PooledConnection
from jobu_db.transaction import ManagedTransaction
from jobu_db.transaction_context import TransactionContext as BaseTransactionContext
from jobu_db_sqlite.database_file import DatabaseFile
from jobu_db_sqlite.driver import SQLiteDriver
from jobu_db_sqlite.settings import MEMORY, SQLiteSettings
from jobu_db_sqlite.settings import SQLitePoolConfig as PoolConfig
from jobu_db_sqlite.typed import SQLiteStatements

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


class SQLiteDatabase(SQLiteStatements, BaseDatabase):
    """An SQLite database, in a file or in memory."""

    db_type: ClassVar[str] = "sqlite"
    settings_class = SQLiteSettings
    context_class = TransactionContext
    aiosql_adapter = "aiosqlite"
    api_version = 1

    def __init__(self, name: str, settings: SQLiteSettings) -> None:
        if settings.path == MEMORY:
            settings = settings.for_one_connection()
        super().__init__(name, settings)

    @classmethod
    def make_driver(cls, name: str, settings: SQLiteSettings) -> SQLiteDriver:
        """Make the driver for these settings, without connecting."""
        return SQLiteDriver(DatabaseFile(settings.path, settings.options))


@hookimpl
def jobu_db_database(db_type: str) -> type[BaseDatabase] | None:
    """Answer the core's question for a backend."""
    return SQLiteDatabase if db_type == "sqlite" else None
