"""Which aiosql adapter goes with a database."""

from __future__ import annotations

from jobu_db.database import BaseDatabase
from jobu_db.errors import DatabaseError
from jobu_db.plugins import database_class
from jobu_db.registry import DatabaseRegistry


def get_aiosql_adapter(db_type: str) -> str:
    """Return the adapter's name, for `aiosql.from_path(path, get_aiosql_adapter("sqlite"))`.

    Raises:
        BackendNotFoundError, BackendLoadError: As for opening such a database.
        DatabaseError: The backend has no adapter.
    """
    return _adapter(database_class(db_type))


def get_aiosql_adapter_for_db(name: str = "default") -> str:
    """Return the adapter's name for a registered database."""
    return _adapter(type(DatabaseRegistry.get(name)))


def _adapter(database: type[BaseDatabase]) -> str:
    if database.aiosql_adapter is None:
        raise DatabaseError(f"the backend for {database.db_type!r} has no aiosql adapter")
    return database.aiosql_adapter
