"""A whole backend, small enough to copy: SQLite through the sqlite3 module, in threads."""

import asyncio
import sqlite3
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from jobu_db import errors
from jobu_db.capabilities import Capabilities, unsupported
from jobu_db.database import BaseDatabase, ParameterDatabase
from jobu_db.driver import Cursor, Driver, Parameters, TransactionMode, WriteGate
from jobu_db.placeholders import Dialect
from jobu_db.plugins import hookimpl
from jobu_db.settings import DatabaseSettings

_MEANINGS: dict[str, type[errors.DatabaseError]] = {
    "SQLITE_CANTOPEN": errors.ConnectionFailedError,
    "SQLITE_BUSY": errors.LockTimeoutError,
    "SQLITE_READONLY": errors.ReadOnlyTransactionError,
    "SQLITE_CONSTRAINT_UNIQUE": errors.UniqueViolationError,
    "SQLITE_CONSTRAINT_PRIMARYKEY": errors.UniqueViolationError,
    "SQLITE_CONSTRAINT_FOREIGNKEY": errors.ForeignKeyViolationError,
    "SQLITE_CONSTRAINT_NOTNULL": errors.NotNullViolationError,
    "SQLITE_CONSTRAINT_CHECK": errors.CheckViolationError,
    "no such table": errors.UndefinedTableError,
    "syntax error": errors.SQLSyntaxError,
    "column": errors.UndefinedColumnError,
}
_TRACES = {sqlite3.SQLITE_PRAGMA, sqlite3.SQLITE_ATTACH, sqlite3.SQLITE_CREATE_TEMP_TABLE}
_THREADS = ThreadPoolExecutor(thread_name_prefix="jobu-db-stdlib")


class StdlibSettings(DatabaseSettings):
    path: str


class Connection(sqlite3.Connection):
    call: Future[Any] = _THREADS.submit(int)  # over at once, like a call that has ended
    closed = touched = False

    def watch(self, action: int, first: str | None, *_: str | None) -> int:
        self.touched |= action in _TRACES and first != "query_only"
        return sqlite3.SQLITE_OK

    async def run(self, work: Any, *arguments: Any) -> Any:
        self.call = _THREADS.submit(work, *arguments)
        return await asyncio.wrap_future(self.call)


class StdlibCursor:
    def __init__(self, connection: Connection, rows: sqlite3.Cursor, batch: int) -> None:
        self._connection, self._rows, self._batch = connection, rows, batch

    async def fetch(self) -> Any:
        return await self._connection.run(self._rows.fetchmany, self._batch)

    async def close(self) -> None:
        self._rows.close()


class StdlibDriver(Driver[Connection]):
    capabilities = Capabilities(
        nested_readonly=unsupported("this example leaves it out"),
        independent_writes=unsupported("SQLite has one writer at a time"),
        statement_timeout=unsupported("this example leaves it out"),
        sessions=unsupported("SQLite runs inside the program"),
        isolation_levels=frozenset({"serializable"}),
    )
    dialect = Dialect("qmark", backticks=True, brackets=True)

    def __init__(self, path: str) -> None:
        self._path = path
        self.write_gate = WriteGate()

    async def connect(self) -> Connection:
        made = Connection(self._path, isolation_level=None, check_same_thread=False)
        made.row_factory = sqlite3.Row
        made.execute("PRAGMA foreign_keys = ON")
        made.set_authorizer(made.watch)
        return made

    def terminate(self, connection: Connection) -> None:
        if not connection.closed:
            connection.closed = True
            connection.interrupt()  # close() would wait for the end of a call
            connection.call.add_done_callback(lambda _: connection.close())

    def is_alive(self, connection: Connection) -> bool:
        return not connection.closed

    async def reset(self, connection: Connection) -> None:
        self.autocommit(connection, readonly=False)
        if connection.touched:
            raise ValueError("pragmas, attached databases and temporary tables cannot be undone")

    async def abort(self, connection: Connection) -> None:
        while not connection.call.done():
            connection.interrupt()
            await asyncio.sleep(0.001)

    def autocommit(self, connection: Connection, *, readonly: bool) -> None:
        connection.execute(f"PRAGMA query_only = {int(readonly)}")

    async def begin(self, connection: Connection, mode: TransactionMode) -> None:
        self.autocommit(connection, readonly=mode.readonly)
        await self.execute(connection, "BEGIN" if mode.readonly else "BEGIN IMMEDIATE", None)

    def in_transaction(self, connection: Connection) -> bool:
        return not connection.closed and connection.in_transaction

    async def execute(self, connection: Connection, sql: str, parameters: Parameters) -> Any:
        return await connection.run(lambda: connection.execute(sql, parameters or ()).rowcount)

    async def fetch_all(self, connection: Connection, sql: str, parameters: Parameters) -> Any:
        return await connection.run(lambda: connection.execute(sql, parameters or ()).fetchall())

    async def open_cursor(
        self, connection: Connection, sql: str, parameters: Parameters, batch: int
    ) -> Cursor:
        rows = await connection.run(connection.execute, sql, parameters or ())
        return StdlibCursor(connection, rows, batch)

    async def initialize(self, connection: Connection, script: str) -> None:
        await connection.run(connection.executescript, f"BEGIN IMMEDIATE;{script};COMMIT")

    def translate(self, error: BaseException) -> errors.DatabaseError | None:
        code, text = getattr(error, "sqlite_errorname", None), str(error)
        if isinstance(error, UnicodeError) or "binding parameter" in text:
            return errors.DataError("a parameter that cannot be sent")
        if isinstance(error, sqlite3.ProgrammingError) and "closed" in text:
            return errors.ConnectionLostError(text, sent=False)
        found = (kind for key, kind in _MEANINGS.items() if key == code or key in text)
        unknown = errors.QueryExecutionError if isinstance(error, sqlite3.Error) else None
        meaning = next(found, unknown)
        return None if meaning is None else meaning(text, code=code)


class StdlibDatabase(ParameterDatabase):
    db_type = "stdlib"
    settings_class = StdlibSettings
    api_version = 1

    @classmethod
    def make_driver(cls, name: str, settings: StdlibSettings) -> StdlibDriver:
        return StdlibDriver(settings.path)


@hookimpl
def jobu_db_database(db_type: str) -> type[BaseDatabase] | None:
    return StdlibDatabase if db_type == "stdlib" else None
