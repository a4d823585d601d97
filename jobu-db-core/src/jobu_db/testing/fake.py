"""A backend in memory, with faults on order, for people who test their own programs.

    server = FakeServer()
    db = await FakeDatabase.create("default", {"server": server, "pool": {"max_size": 2}})
    server.fail("commit")

It is strict: a core that breaks a rule of the seam (two calls at once on a connection, a call
other than `abort` after a cancelled one, a call after `terminate`) ends up in
`server.violations`.
"""

from __future__ import annotations

import asyncio
import copy
import sqlite3
from collections.abc import Callable, Iterable, Sequence
from typing import Any, ClassVar, TypeVar

from pydantic import ConfigDict
from pydantic.json_schema import SkipJsonSchema

from jobu_db.capabilities import Capabilities
from jobu_db.database import API_VERSION, BaseDatabase
from jobu_db.driver import Driver, Parameters, TransactionMode
from jobu_db.errors import (
    CheckViolationError,
    DatabaseError,
    ForeignKeyViolationError,
    IntegrityError,
    NotNullViolationError,
    QueryExecutionError,
    ReadOnlyTransactionError,
    UniqueViolationError,
)
from jobu_db.placeholders import Dialect
from jobu_db.settings import DatabaseSettings
from jobu_db.statements import ParameterStatements
from jobu_db.testing.fake_server import FakeServer, Result, Session
from jobu_db.testing.faults import FakeError, Fault, lost
from jobu_db.transaction.context import TransactionContext

T = TypeVar("T")


class FakeConnection:
    """The client's end of a session. Each call takes at least two turns of the event loop.

    Attributes:
        session: The server's end.
        running: The call that runs, or was cancelled and may still run on the server.
    """

    def __init__(self, session: Session) -> None:
        self.session = session
        self.running: str | None = None
        self._terminated = False
        self._waiting: asyncio.Future[None] | None = None

    @property
    def variables(self) -> dict[str, Any]:
        """What the client has set in this session: to be gone after a reset."""
        return self.session.variables

    @property
    def is_alive(self) -> bool:
        """False if the connection is known to be dead."""
        return not self._terminated and not self.session.noticed

    async def execute(self, sql: str, parameters: Parameters = None) -> Result:
        """Run one statement."""
        return await self.call("execute", lambda: self.session.run(sql, parameters))

    async def call(self, operation: str, work: Callable[[], T]) -> T:
        """Make one round trip: the request travels, the server works, the answer travels."""
        self._refuse_misuse(operation)
        fault = self.session.server.next(operation)
        self.running = operation
        try:
            await self._travel(fault)
            result = self._arrive(fault, work)
            await asyncio.sleep(0)
        except Exception:
            # Not where it was cancelled: it may run on then, and until `abort` has stopped it any
            # other call is a violation.
            self.running = None
            raise
        self.running = None
        return result

    async def _travel(self, fault: Fault | None) -> None:
        await asyncio.sleep(0)
        if fault is not None:
            self._waiting = asyncio.get_running_loop().create_future()
            fault.keep(self._waiting)
            await self._waiting

    def _arrive(self, fault: Fault | None, work: Callable[[], T]) -> T:
        # In the order in which it happens on the way: the session, the request, the work, the
        # answer.
        if not self.session.is_open:
            self.session.noticed = True
            raise lost()
        if fault is None:
            return work()
        if fault.error is not None:
            raise fault.error
        if fault.cut and not fault.done:
            self.session.end()
            raise lost()
        result = work()
        if fault.cut:
            self.session.end()
            raise lost()
        return result

    async def abort(self) -> None:
        """Stop what a cancelled call left running."""
        self.running = None
        await self.call("abort", lambda: None)

    def terminate(self) -> None:
        """Drop the connection; a call that waits fails."""
        self._terminated = True
        self.session.end()
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_exception(lost("the connection was closed"))

    def _refuse_misuse(self, operation: str) -> None:
        wrong = ""
        if self._terminated:
            wrong = "on a closed connection"
        elif self.running is not None:
            wrong = f"while {self.running} is running, or was cancelled and not aborted"
        if wrong:
            self.session.server.violations.append(f"{operation} {wrong}")
            raise FakeError(f"{operation} {wrong}")


class FakeCursor:
    """Rows handed out piece by piece."""

    def __init__(self, connection: FakeConnection, rows: Sequence[Any], batch: int) -> None:
        self._connection = connection
        self._rows = rows
        self._batch = batch

    async def fetch(self) -> Sequence[Any]:
        """Return the next rows."""
        return await self._connection.call("fetch", self._next)

    def _next(self) -> Sequence[Any]:
        rows, self._rows = self._rows[: self._batch], self._rows[self._batch :]
        return rows

    async def close(self) -> None:
        """Forget the rest."""
        self._rows = ()


class FakeDriver(Driver[FakeConnection]):
    """How to talk to a `FakeServer`."""

    capabilities = Capabilities(isolation_levels=frozenset({"repeatable read"}))
    dialect = Dialect("qmark")
    # True: calls await bare futures and sleep(0), and no timeout or task group.
    taskless = True

    def __init__(self, server: FakeServer) -> None:
        self.server = server

    async def connect(self) -> FakeConnection:
        fault = self.server.next("connect")
        await asyncio.sleep(0)
        if fault is not None:
            waiting = asyncio.get_running_loop().create_future()
            fault.keep(waiting)
            await waiting
            if fault.error is not None:
                raise fault.error
        connection = FakeConnection(self.server.admit())
        try:
            await asyncio.sleep(0)
        except BaseException:
            # Cancelled with the session open already: the caller will never see the connection.
            connection.terminate()
            raise
        return connection

    async def close(self, connection: FakeConnection) -> None:
        await connection.call("close", connection.session.end)
        connection.terminate()

    def terminate(self, connection: FakeConnection) -> None:
        connection.terminate()

    def is_alive(self, connection: FakeConnection) -> bool:
        return connection.is_alive

    async def ping(self, connection: FakeConnection) -> None:
        await connection.call("ping", lambda: None)

    async def reset(self, connection: FakeConnection) -> None:
        await connection.call("reset", connection.variables.clear)

    async def abort(self, connection: FakeConnection) -> None:
        await connection.abort()

    async def begin(self, connection: FakeConnection, mode: TransactionMode) -> None:
        session = connection.session
        await connection.call("begin", lambda: session.begin(readonly=mode.readonly))

    async def commit(self, connection: FakeConnection, *, reset: bool) -> bool:
        await connection.call("commit", connection.session.commit)
        return False

    async def rollback(self, connection: FakeConnection, *, reset: bool = False) -> bool:
        await connection.call("rollback", connection.session.rollback)
        return False

    def in_transaction(self, connection: FakeConnection) -> bool:
        return connection.session.in_transaction

    async def savepoint(self, connection: FakeConnection, name: str, *, readonly: bool) -> None:
        session = connection.session
        await connection.call("savepoint", lambda: session.savepoint(name, readonly=readonly))

    async def release_savepoint(
        self, connection: FakeConnection, name: str, *, readonly: bool
    ) -> None:
        session = connection.session
        await connection.call("release_savepoint", lambda: session.release(name, readonly=readonly))

    async def rollback_to_savepoint(
        self, connection: FakeConnection, name: str, *, readonly: bool
    ) -> None:
        session = connection.session
        await connection.call(
            "rollback_to_savepoint", lambda: session.rollback_to(name, readonly=readonly)
        )

    async def execute(self, connection: FakeConnection, sql: str, parameters: Parameters) -> Result:
        return await connection.call("execute", lambda: connection.session.run(sql, parameters))

    async def executemany(self, connection: FakeConnection, sql: str, rows: Iterable[Any]) -> int:
        run = connection.session.run
        return await connection.call(
            "executemany", lambda: sum(run(sql, row).rowcount for row in rows)
        )

    async def fetch_one(self, connection: FakeConnection, sql: str, parameters: Parameters) -> Any:
        rows = await self._fetch("fetch_one", connection, sql, parameters)
        return rows[0] if rows else None

    async def fetch_all(
        self, connection: FakeConnection, sql: str, parameters: Parameters
    ) -> list[Any]:
        return await self._fetch("fetch_all", connection, sql, parameters)

    async def open_cursor(
        self, connection: FakeConnection, sql: str, parameters: Parameters, batch: int
    ) -> FakeCursor:
        rows = await self._fetch("open_cursor", connection, sql, parameters)
        return FakeCursor(connection, rows, batch)

    async def _fetch(
        self, operation: str, connection: FakeConnection, sql: str, parameters: Parameters
    ) -> list[Any]:
        session = connection.session
        return await connection.call(operation, lambda: list(session.run(sql, parameters).rows))

    async def initialize(self, connection: FakeConnection, script: str) -> None:
        def run() -> None:
            for statement in script.split(";"):
                if statement.strip():
                    connection.session.run(statement, None)

        await connection.call("initialize", run)

    def translate(self, error: BaseException) -> DatabaseError | None:
        if isinstance(error, FakeError):
            return copy.copy(error.meaning)  # one error may be raised many times
        if isinstance(error, sqlite3.Error):
            name = getattr(error, "sqlite_errorname", "")
            return _MEANINGS.get(name, QueryExecutionError)(str(error), code=name or None)
        return None


_MEANINGS: dict[str, type[DatabaseError]] = {
    "SQLITE_READONLY": ReadOnlyTransactionError,
    "SQLITE_CONSTRAINT": IntegrityError,
    "SQLITE_CONSTRAINT_UNIQUE": UniqueViolationError,
    "SQLITE_CONSTRAINT_PRIMARYKEY": UniqueViolationError,
    "SQLITE_CONSTRAINT_FOREIGNKEY": ForeignKeyViolationError,
    "SQLITE_CONSTRAINT_NOTNULL": NotNullViolationError,
    "SQLITE_CONSTRAINT_CHECK": CheckViolationError,
}


class FakeSettings(DatabaseSettings):
    """`server` is the `FakeServer` to talk to; a new one if left out."""

    model_config = ConfigDict(arbitrary_types_allowed=True)

    type: str = "fake"
    server: SkipJsonSchema[Any] = None


class FakeContext(ParameterStatements, TransactionContext):
    """A transaction of a fake database."""


class FakeDatabase(ParameterStatements, BaseDatabase):
    """A database in memory; see the module."""

    db_type = "fake"
    settings_class = FakeSettings
    context_class = FakeContext
    api_version: ClassVar[int] = API_VERSION
    driver: FakeDriver

    @classmethod
    def make_driver(cls, name: str, settings: Any) -> FakeDriver:
        return FakeDriver(settings.server or FakeServer())

    @property
    def server(self) -> FakeServer:
        """The server that it talks to."""
        return self.driver.server
