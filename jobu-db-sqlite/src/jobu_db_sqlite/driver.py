"""How SQLite is talked to, through aiosqlite."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Coroutine, Iterable
from typing import Any

from jobu_db.capabilities import Capabilities, unsupported
from jobu_db.driver import READ_WRITE, Driver, Parameters, ServerInfo, TransactionMode
from jobu_db.errors import DatabaseError
from jobu_db.placeholders import Dialect
from jobu_db.write_gate import WriteGate
from jobu_db_sqlite import errors, statements
from jobu_db_sqlite.cursor import BatchCursor
from jobu_db_sqlite.database_file import DatabaseFile, SeenFile
from jobu_db_sqlite.guard import GuardedConnection
from jobu_db_sqlite.proxy import Connection
from jobu_db_sqlite.statements import StatementResult
from jobu_db_sqlite.thread import Engine
from jobu_db_sqlite.two_phase import SQLiteDeciding
from jobu_db_sqlite.write_gate import gate_of


class SQLiteDriver(Driver[Connection]):
    """The seam's SQLite side.

    Args:
        file: The database.
    """

    capabilities = Capabilities(
        independent_writes=unsupported(
            "SQLite has one writer per file: an independent write would wait for the transaction "
            "that waits for it"
        ),
        two_phase=unsupported(
            "SQLite prepares no transactions: name its database first, so that it decides"
        ),
        sessions=unsupported("SQLite runs inside the program: nobody else can end a connection"),
        replicas=unsupported("a database in a file has no replicas"),
        isolation_levels=frozenset({"serializable"}),
    )
    taskless = True
    dialect = Dialect("qmark", backticks=True, brackets=True)

    def __init__(self, file: DatabaseFile) -> None:
        self.file = file
        # A database in memory is gone with its connection: no other one can take its place.
        self.replaceable = not file.in_memory
        self._gate: WriteGate | None = None
        self._gated: SeenFile | None = None

    @property
    def deciding(self) -> SQLiteDeciding:
        return SQLiteDeciding(self, self.file)

    @property
    def write_gate(self) -> WriteGate | None:  # type: ignore[override]
        """Where the writers of this file take turns, whatever path or name they know it by.

        Raises:
            ConnectionFailedError: The file is missing and can't be created.
        """
        # Another file at the path has a gate of its own.
        if self._gate is None or self._gated is not self.file.seen:
            if self.file.in_memory or self.file.read_only:
                return None
            try:
                self._gated, self._gate = self.file.seen, gate_of(self.file)
            except errors.OpenError as error:
                raise errors.connection_failed(error) from error
        return self._gate

    # -- connections

    async def connect(self) -> Connection:
        """Open the file. One thread hop."""
        connection = Connection(self.file)
        await connection.open()
        return connection

    async def close(self, connection: Connection) -> None:
        await connection.close()

    def terminate(self, connection: Connection) -> None:
        connection.terminate()

    def is_alive(self, connection: Connection) -> bool:
        return connection.is_open

    async def ping(self, connection: Connection) -> None:
        await connection.ping()

    async def describe(self, connection: Connection) -> ServerInfo:
        return ServerInfo("SQLite", sqlite3.sqlite_version)

    @property
    def attributes(self) -> dict[str, str | int]:
        return {"db.system.name": "sqlite", "db.namespace": str(self.file.path)}

    def needs_reset(self, connection: Connection) -> bool:
        return not connection.is_clean

    async def reset(self, connection: Connection) -> None:
        """Close cursors, restore row and text factory.

        Pragmas, attached databases, temporary objects, functions and handlers can't be undone
        for certain: a connection that has any is closed instead. A database in memory would be
        gone then: its pragmas are set as they were, the rest stays.
        """
        await connection.clean()

    async def abort(self, connection: Connection) -> None:
        await connection.abort()

    # -- transactions

    def begin_later(self, connection: Connection, mode: TransactionMode) -> bool:
        """Begin with the first statement, in its thread hop."""
        connection.begin(readonly=mode.readonly)
        return True

    async def begin(self, connection: Connection, mode: TransactionMode) -> None:
        """As `begin_later`: there is no need to begin before."""
        connection.begin(readonly=mode.readonly)

    async def commit(self, connection: Connection, *, reset: bool) -> bool:
        await connection.commit()
        return connection.is_clean

    def end_later(self, connection: Connection, mode: TransactionMode) -> bool:
        """Say yes: leaving a transaction that only read can't fail."""
        # A write must be heard of: its COMMIT can fail, and what is lost then is the caller's.
        return (mode.readonly or not connection.began) and connection.end_later()

    async def rollback(self, connection: Connection, *, reset: bool = False) -> bool:
        await connection.rollback()
        return False

    def in_transaction(self, connection: Connection) -> bool:
        return connection.in_transaction

    async def prepare_commit(self, connection: Connection) -> None:
        """Stop what may still run. What else can be known before COMMIT is known already."""
        await connection.quiet()
        if not connection.is_open:
            raise errors.ClosedError("the connection is closed")

    async def savepoint(self, connection: Connection, name: str, *, readonly: bool) -> None:
        await connection.savepoint(name, readonly=readonly)

    async def release_savepoint(self, connection: Connection, name: str, *, readonly: bool) -> None:
        await connection.release_savepoint(name, undo=False, readonly=readonly)

    async def rollback_to_savepoint(
        self, connection: Connection, name: str, *, readonly: bool
    ) -> None:
        await connection.release_savepoint(name, undo=True, readonly=readonly)

    # -- statements

    def autocommit(self, connection: Connection, *, readonly: bool) -> None:
        connection.autocommit(readonly=readonly)

    def begin_session(self, connection: Connection) -> None:
        connection.engine.in_session = True

    # Plain functions that return a coroutine: one less to step through for every statement.

    def execute(
        self, connection: Connection, sql: str, parameters: Parameters
    ) -> Coroutine[Any, Any, StatementResult]:
        return connection.run(statements.execute, sql, parameters)

    def executemany(
        self, connection: Connection, sql: str, rows: Iterable[Any]
    ) -> Coroutine[Any, Any, StatementResult]:
        """Iterates `rows` in the connection's thread."""
        return connection.run(statements.execute_many, sql, rows)

    def execute_script(self, connection: Connection, script: str) -> Coroutine[Any, Any, None]:
        return connection.run(statements.execute_script, script)

    def fetch_one(
        self, connection: Connection, sql: str, parameters: Parameters
    ) -> Coroutine[Any, Any, Any]:
        return connection.run(statements.fetch_one, sql, parameters)

    def fetch_all(
        self, connection: Connection, sql: str, parameters: Parameters
    ) -> Coroutine[Any, Any, list[Any]]:
        return connection.run(statements.fetch_all, sql, parameters)

    def fetch_val(
        self, connection: Connection, sql: str, parameters: Parameters
    ) -> Coroutine[Any, Any, Any]:
        return connection.run(statements.fetch_val, sql, parameters)

    async def open_cursor(
        self, connection: Connection, sql: str, parameters: Parameters, batch: int
    ) -> BatchCursor:
        cursor = BatchCursor(connection, batch)
        await cursor.open(sql, parameters)
        return cursor

    async def initialize(self, connection: Connection, script: str) -> None:
        """Run the script in one write transaction: processes that start together take turns."""
        # BEGIN IMMEDIATE travels with the first statement: whoever comes second waits there, and
        # finds done what the script does.
        await self.begin(connection, READ_WRITE)
        await connection.run(Engine.run_script, script)
        await connection.commit()

    def guard(self, connection: Connection, check: Callable[[], None]) -> GuardedConnection:
        return GuardedConnection(connection, check)

    # -- errors

    def translate(self, error: BaseException) -> DatabaseError | None:
        return errors.translate(error)
