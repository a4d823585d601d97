"""A backend that does nothing: what is measured on it is the core."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from jobu_db.capabilities import Capabilities
from jobu_db.database import API_VERSION, ParameterDatabase
from jobu_db.driver import Cursor, Driver, Parameters, TransactionMode
from jobu_db.errors import DatabaseError
from jobu_db.placeholders import Dialect
from jobu_db.settings import DatabaseSettings


class Connection:
    """Knows whether a transaction is open, and nothing else."""

    open = False


class NothingDriver(Driver[Connection]):
    """Answers at once, without a round trip."""

    capabilities = Capabilities()
    dialect = Dialect("qmark")
    taskless = True

    async def connect(self) -> Connection:
        return Connection()

    def terminate(self, connection: Connection) -> None:
        return

    def is_alive(self, connection: Connection) -> bool:
        return True

    def needs_reset(self, connection: Connection) -> bool:
        return False

    async def reset(self, connection: Connection) -> None:
        return

    async def abort(self, connection: Connection) -> None:
        return

    async def begin(self, connection: Connection, mode: TransactionMode) -> None:
        connection.open = True

    async def commit(self, connection: Connection, *, reset: bool) -> bool:
        connection.open = False
        return True

    async def rollback(self, connection: Connection) -> None:
        connection.open = False

    def in_transaction(self, connection: Connection) -> bool:
        return connection.open

    async def execute(self, connection: Connection, sql: str, parameters: Parameters) -> Any:
        return None

    async def executemany(self, connection: Connection, sql: str, rows: Iterable[Any]) -> Any:
        return None

    async def fetch_one(self, connection: Connection, sql: str, parameters: Parameters) -> Any:
        return None

    async def fetch_all(self, connection: Connection, sql: str, parameters: Parameters) -> Any:
        return []

    async def open_cursor(
        self, connection: Connection, sql: str, parameters: Parameters, batch: int
    ) -> Cursor:
        raise NotImplementedError

    async def initialize(self, connection: Connection, script: str) -> None:
        return

    def translate(self, error: BaseException) -> DatabaseError | None:
        return None


class NothingDatabase(ParameterDatabase):
    """A database of nothing."""

    db_type = "nothing"
    settings_class = DatabaseSettings
    api_version = API_VERSION

    @classmethod
    def make_driver(cls, name: str, settings: DatabaseSettings) -> NothingDriver:
        """Make the driver."""
        return NothingDriver()
