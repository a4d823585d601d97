"""What SQLite's errors mean, by extended error code, and the errors that are ours to raise.

Ours are subclasses of sqlite3's own, so that `except sqlite3.Error` around `ctx.connection`
catches them as well.
"""

from __future__ import annotations

import sqlite3

from jobu_db.errors import (
    CheckViolationError,
    ConnectionFailedError,
    ConnectionLostError,
    DatabaseError,
    ForeignKeyViolationError,
    IntegrityError,
    LockTimeoutError,
    NotNullViolationError,
    QueryExecutionError,
    QueryTimeoutError,
    ReadOnlyTransactionError,
    SerializationError,
    UniqueViolationError,
)

_MEANINGS: dict[int, type[DatabaseError]] = {
    sqlite3.SQLITE_BUSY_SNAPSHOT: SerializationError,
    sqlite3.SQLITE_LOCKED_SHAREDCACHE: LockTimeoutError,
    sqlite3.SQLITE_READONLY: ReadOnlyTransactionError,
    sqlite3.SQLITE_READONLY_DBMOVED: ConnectionLostError,
    # Refused by the authorizer, which does so in read-only transactions alone.
    sqlite3.SQLITE_AUTH: ReadOnlyTransactionError,
    sqlite3.SQLITE_CONSTRAINT_UNIQUE: UniqueViolationError,
    sqlite3.SQLITE_CONSTRAINT_PRIMARYKEY: UniqueViolationError,
    sqlite3.SQLITE_CONSTRAINT_ROWID: UniqueViolationError,
    sqlite3.SQLITE_CONSTRAINT_FOREIGNKEY: ForeignKeyViolationError,
    sqlite3.SQLITE_CONSTRAINT_NOTNULL: NotNullViolationError,
    sqlite3.SQLITE_CONSTRAINT_CHECK: CheckViolationError,
}
"""By extended code."""

_FAMILIES: dict[int, type[DatabaseError]] = {
    sqlite3.SQLITE_BUSY: LockTimeoutError,
    sqlite3.SQLITE_CONSTRAINT: IntegrityError,
    sqlite3.SQLITE_MISMATCH: IntegrityError,
}
"""By primary code, the low byte of the extended one, for codes that are not in `_MEANINGS`."""

_NAMELESS = {3091: "SQLITE_CONSTRAINT_DATATYPE"}
"""Codes that Python 3.11 has no name for."""


class StatementTimeoutError(sqlite3.OperationalError):
    """`statement_timeout` ran out and the statement was stopped."""


class ClosedError(sqlite3.ProgrammingError):
    """The connection was closed, so the statement did not run."""


class StoppedError(sqlite3.OperationalError):
    """The call was given up by its caller. Nobody waits for this one."""


class ReadOnlyFileError(sqlite3.OperationalError):
    """The file can't be written, whereas the transaction may write."""


class OpenError(sqlite3.OperationalError):
    """The database can't be opened.

    Attributes:
        transient: True if waiting may help.
    """

    def __init__(
        self, message: str, cause: BaseException | None = None, *, transient: bool = False
    ) -> None:
        super().__init__(message)
        self.transient = transient
        self.code = None if cause is None else code_of(cause)


def code_of(error: BaseException) -> str | None:
    """Return the symbolic name of SQLite's error code, or None if the error has none."""
    number = getattr(error, "sqlite_errorcode", None)
    return _NAMELESS.get(number) or getattr(error, "sqlite_errorname", None) if number else None


def is_busy(error: sqlite3.Error) -> bool:
    """Say whether another connection holds a lock, so that waiting may help."""
    number = getattr(error, "sqlite_errorcode", 0)
    return number & 0xFF == sqlite3.SQLITE_BUSY and number != sqlite3.SQLITE_BUSY_SNAPSHOT


def connection_failed(error: OpenError) -> ConnectionFailedError:
    """Say that no connection could be opened."""
    return ConnectionFailedError(str(error), transient=error.transient, code=error.code)


def translate(error: BaseException) -> DatabaseError | None:
    """Say what an exception of sqlite3 means; None if it is not one."""
    if isinstance(error, OpenError):
        return connection_failed(error)
    if isinstance(error, ClosedError):
        return ConnectionLostError(str(error), sent=False)
    if isinstance(error, (sqlite3.Error, OverflowError)):
        return _meaning(error)(_message(error), code=code_of(error))
    return None


def _meaning(error: Exception) -> type[DatabaseError]:
    if isinstance(error, StatementTimeoutError):
        return QueryTimeoutError
    if isinstance(error, ReadOnlyFileError):
        return QueryExecutionError
    number = getattr(error, "sqlite_errorcode", 0)
    if number == sqlite3.SQLITE_CONSTRAINT_TRIGGER and str(error).startswith("FOREIGN KEY"):
        return ForeignKeyViolationError  # ON DELETE RESTRICT is a trigger of SQLite's own
    return _MEANINGS.get(number) or _FAMILIES.get(number & 0xFF, QueryExecutionError)


def _message(error: Exception) -> str:
    number = getattr(error, "sqlite_errorcode", 0)
    if number == sqlite3.SQLITE_BUSY_SNAPSHOT:
        return "another connection wrote what this transaction has read, which now wants to write"
    if number == sqlite3.SQLITE_AUTH:
        return "a read-only transaction can't change query_only or journal_mode, nor ATTACH"
    return str(error)
