"""DuckDB for jobu-db: connections of one process share an instance, calls run in threads."""

import asyncio
import re
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import duckdb

from jobu_db import errors
from jobu_db.capabilities import Capabilities, unsupported
from jobu_db.database import BaseDatabase, ParameterDatabase
from jobu_db.driver import Cursor, Driver, Parameters, TransactionMode
from jobu_db.guard import ConnectionGuard
from jobu_db.placeholders import Dialect
from jobu_db.plugins import hookimpl
from jobu_db.settings import DatabaseSettings

_MEANINGS: dict[str, type[errors.DatabaseError]] = {
    "read-only mode": errors.ReadOnlyTransactionError,
    "onflict": errors.SerializationError,
    "Duplicate key": errors.UniqueViolationError,
    "PRIMARY KEY or UNIQUE": errors.UniqueViolationError,
    "oreign key": errors.ForeignKeyViolationError,
    "NOT NULL": errors.NotNullViolationError,
    "CHECK": errors.CheckViolationError,
    "Table with name": errors.UndefinedTableError,
    "eferenced column": errors.UndefinedColumnError,
    "does not have a column": errors.UndefinedColumnError,
    "syntax error": errors.SQLSyntaxError,
    "Unable to transform": errors.DataError,
    "Python Conversion Failure": errors.DataError,
}
_THREADS = ThreadPoolExecutor(thread_name_prefix="jobu-db-duckdb")
_NO_CALL: Future[Any] = Future()
_NO_CALL.set_result(None)


class DuckDBSettings(DatabaseSettings):
    path: str


class Row(dict[str, Any]):
    def __getitem__(self, key: Any) -> Any:
        return [*self.values()][key] if isinstance(key, int) else super().__getitem__(key)


class Connection:
    """DuckDB's connection, the call that runs on it, and what DuckDB does not tell: whether a
    transaction is open."""

    def __init__(self, path: str) -> None:
        self.raw = duckdb.connect(path)
        self.call = _NO_CALL
        self.closed = self.in_transaction = False

    async def run(self, work: Callable[[], Any]) -> Any:
        self.call = _THREADS.submit(work)
        return await asyncio.wrap_future(self.call)

    def execute(self, sql: str, parameters: Parameters = None) -> None:
        kinds = {statement.type for statement in self.raw.extract_statements(sql)}
        self.raw.execute(sql, parameters or ())
        if duckdb.StatementType.TRANSACTION in kinds:
            self.confirm()

    def confirm(self) -> None:
        """Outside a transaction, each statement has one of its own."""
        try:
            one, two = (self.raw.execute("SELECT txid_current()").fetchall() for _ in range(2))
            self.in_transaction = one == two
        except duckdb.TransactionException:  # a statement has failed in it
            self.in_transaction = True

    def rows(self, batch: int | None = None) -> list[Row]:
        told = [column[0] for column in self.raw.description or ()]
        # Of columns of one name, those behind the first are told apart by their place.
        names = [f"{one}:{at}" if one in told[:at] else one for at, one in enumerate(told)]
        found = self.raw.fetchall() if batch is None else self.raw.fetchmany(batch)
        return [Row(zip(names, values, strict=True)) for values in found]


class DuckDBCursor:
    def __init__(self, connection: Connection, batch: int) -> None:
        self._connection, self._batch = connection, batch

    async def fetch(self) -> list[Row]:
        rows: list[Row] = await self._connection.run(lambda: self._connection.rows(self._batch))
        return rows

    async def close(self) -> None:
        await self._connection.run(lambda: self._connection.raw.execute("SELECT 1").fetchall())


class DuckDBDriver(Driver[Connection]):
    capabilities = Capabilities(
        savepoints=unsupported("DuckDB has no savepoints"),
        nested_readonly=unsupported("DuckDB has no savepoints"),
        deferred_constraints=unsupported("DuckDB checks constraints at once"),
        concurrent_cursors=unsupported("a connection of DuckDB keeps one result"),
        statement_timeout=unsupported("DuckDB has none"),
        sessions=unsupported("DuckDB runs inside the program"),
        decides=unsupported("an INSERT in DuckDB waits for nobody: conflicts show at COMMIT"),
        isolation_levels=frozenset({"repeatable read"}),
    )
    dialect = Dialect("qmark", escape_strings=True, dollar_quotes=True)

    def __init__(self, path: str) -> None:
        self._path = path

    async def connect(self) -> Connection:
        return Connection(self._path)

    def terminate(self, connection: Connection) -> None:
        if not connection.closed:
            connection.closed = True
            connection.raw.interrupt()
            connection.call.add_done_callback(lambda _: connection.raw.close())

    def is_alive(self, connection: Connection) -> bool:
        return not connection.closed

    async def reset(self, connection: Connection) -> None:
        used, connection.raw = connection.raw, duckdb.connect(self._path)
        used.close()

    async def abort(self, connection: Connection) -> None:
        while not connection.call.done():
            connection.raw.interrupt()
            await asyncio.sleep(0.001)
        await connection.run(connection.confirm)

    async def begin(self, connection: Connection, mode: TransactionMode) -> None:
        await self.execute(connection, f"BEGIN{' READ ONLY' if mode.readonly else ''}", None)

    async def commit(self, connection: Connection, *, reset: bool) -> bool:
        await self.execute(connection, "SELECT 1", None)  # COMMIT would roll back in silence
        await self.execute(connection, "COMMIT", None)
        return False

    def in_transaction(self, connection: Connection) -> bool:
        return not connection.closed and connection.in_transaction

    async def confirm_in_transaction(self, connection: Connection) -> bool:
        await connection.run(connection.confirm)
        return connection.in_transaction

    async def execute(self, connection: Connection, sql: str, parameters: Parameters) -> int:
        rows = await self.fetch_all(connection, sql, parameters)
        return int(rows[0]["Count"]) if rows and list(rows[0]) == ["Count"] else -1

    async def fetch_all(
        self, connection: Connection, sql: str, parameters: Parameters
    ) -> list[Row]:
        def work() -> list[Row]:
            connection.execute(sql, parameters)
            return connection.rows()

        rows: list[Row] = await connection.run(work)
        return rows

    async def open_cursor(
        self, connection: Connection, sql: str, parameters: Parameters, batch: int
    ) -> Cursor:
        await connection.run(lambda: connection.execute(sql, parameters))
        return DuckDBCursor(connection, batch)

    async def initialize(self, connection: Connection, script: str) -> None:
        await connection.run(lambda: connection.raw.execute(f"BEGIN;{script};COMMIT"))

    def guard(self, connection: Connection, check: Callable[[], None]) -> ConnectionGuard:
        return ConnectionGuard(connection.raw, check)

    def translate(self, error: BaseException) -> errors.DatabaseError | None:
        if not isinstance(error, duckdb.Error):
            return None
        # Values have no place in errors: `Duplicate key "name: its value" violates …`.
        text, code = re.sub(r'key ".*"', "key", str(error), flags=re.DOTALL), type(error).__name__
        if isinstance(error, duckdb.ConnectionException):
            return errors.ConnectionLostError(text, sent=False, code=code)
        if isinstance(error, duckdb.IOException):
            return errors.ConnectionFailedError(text, transient=True, code=code)
        for words, meaning in _MEANINGS.items():
            if words in text:
                return meaning(text, code=code)
        return errors.QueryExecutionError(text, code=code)


class DuckDBDatabase(ParameterDatabase):
    db_type = "duckdb"
    settings_class = DuckDBSettings
    api_version = 1

    @classmethod
    def make_driver(cls, name: str, settings: DuckDBSettings) -> DuckDBDriver:
        return DuckDBDriver(settings.path)


@hookimpl
def jobu_db_database(db_type: str) -> type[BaseDatabase] | None:
    return DuckDBDatabase if db_type == "duckdb" else None
