"""A whole backend, small enough to copy: SQLite through the sqlite3 module.

Every call blocks the event loop while it runs, which is fine for an example and nothing else.
"""

import sqlite3
from collections.abc import Iterable, Sequence
from typing import Any

from jobu_db.capabilities import Capabilities, unsupported
from jobu_db.database import BaseDatabase
from jobu_db.driver import Cursor, Driver, Parameters, TransactionMode
from jobu_db.errors import (
    ConnectionFailedError,
    DatabaseError,
    LockTimeoutError,
    QueryExecutionError,
    ReadOnlyTransactionError,
    UniqueViolationError,
)
from jobu_db.placeholders import Dialect
from jobu_db.plugins import hookimpl
from jobu_db.settings import DatabaseSettings
from jobu_db.statements import ParameterStatements
from jobu_db.transaction_context import TransactionContext
from jobu_db.write_gate import WriteGate

_MEANINGS: dict[str, type[DatabaseError]] = {
    "SQLITE_BUSY": LockTimeoutError,
    "SQLITE_READONLY": ReadOnlyTransactionError,
    "SQLITE_CONSTRAINT_UNIQUE": UniqueViolationError,
    "SQLITE_CONSTRAINT_PRIMARYKEY": UniqueViolationError,
}


class StdlibSettings(DatabaseSettings):
    path: str


class StdlibCursor:
    def __init__(self, cursor: sqlite3.Cursor, batch: int) -> None:
        self._cursor = cursor
        self._batch = batch

    async def fetch(self) -> Sequence[Any]:
        return self._cursor.fetchmany(self._batch)

    async def close(self) -> None:
        self._cursor.close()


class StdlibDriver(Driver[sqlite3.Connection]):
    capabilities = Capabilities(
        statement_timeout=unsupported("the sqlite3 module runs in the event loop's own thread"),
        nested_readonly=unsupported("query_only is not tied to a savepoint"),
        independent_writes=unsupported("SQLite has one writer at a time"),
        isolation_levels=frozenset({"serializable"}),
    )
    dialect = Dialect(placeholder="qmark")

    def __init__(self, path: str) -> None:
        self._path = path
        self.write_gate = WriteGate()

    async def connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self._path, isolation_level=None)
        connection.row_factory = sqlite3.Row
        return connection

    async def close(self, connection: sqlite3.Connection) -> None:
        connection.close()

    def terminate(self, connection: sqlite3.Connection) -> None:
        connection.close()

    def is_alive(self, connection: sqlite3.Connection) -> bool:
        return True

    async def reset(self, connection: sqlite3.Connection) -> None:
        connection.execute("PRAGMA query_only = OFF")
        if connection.execute("SELECT 1 FROM sqlite_temp_master").fetchone():
            raise ValueError("the holder left temporary objects behind")

    async def abort(self, connection: sqlite3.Connection) -> None:
        """Nothing runs on: every call has returned before a cancellation can come."""

    async def begin(self, connection: sqlite3.Connection, mode: TransactionMode) -> None:
        connection.execute(f"PRAGMA query_only = {int(mode.readonly)}")
        connection.execute("BEGIN DEFERRED" if mode.readonly else "BEGIN IMMEDIATE")

    def in_transaction(self, connection: sqlite3.Connection) -> bool:
        return connection.in_transaction

    async def execute(
        self, connection: sqlite3.Connection, sql: str, parameters: Parameters
    ) -> int:
        return connection.execute(sql, parameters or ()).rowcount

    async def executemany(
        self, connection: sqlite3.Connection, sql: str, rows: Iterable[Any]
    ) -> int:
        return connection.executemany(sql, rows).rowcount

    async def fetch_one(
        self, connection: sqlite3.Connection, sql: str, parameters: Parameters
    ) -> Any:
        cursor = connection.execute(sql, parameters or ())
        row = cursor.fetchone()
        cursor.close()
        return row

    async def fetch_all(
        self, connection: sqlite3.Connection, sql: str, parameters: Parameters
    ) -> list[Any]:
        return connection.execute(sql, parameters or ()).fetchall()

    async def open_cursor(
        self, connection: sqlite3.Connection, sql: str, parameters: Parameters, batch: int
    ) -> Cursor:
        return StdlibCursor(connection.execute(sql, parameters or ()), batch)

    async def initialize(self, connection: sqlite3.Connection, script: str) -> None:
        connection.executescript(script)

    def translate(self, error: BaseException) -> DatabaseError | None:
        if not isinstance(error, sqlite3.Error):
            return None
        code = getattr(error, "sqlite_errorname", None)
        if code == "SQLITE_CANTOPEN":
            return ConnectionFailedError(f"{self._path}: {error}", code=code)
        return _MEANINGS.get(code or "", QueryExecutionError)(str(error), code=code)


class StdlibContext(ParameterStatements, TransactionContext):
    __slots__ = ()


class StdlibDatabase(ParameterStatements, BaseDatabase):
    db_type = "stdlib"
    settings_class = StdlibSettings
    context_class = StdlibContext
    api_version = 1

    @classmethod
    def make_driver(cls, name: str, settings: StdlibSettings) -> StdlibDriver:
        return StdlibDriver(settings.path)


@hookimpl
def jobu_db_database(db_type: str) -> type[BaseDatabase] | None:
    return StdlibDatabase if db_type == "stdlib" else None
