"""What PostgreSQL's and asyncpg's errors mean."""

from __future__ import annotations

import os
import ssl

import asyncpg

from jobu_db.errors import (
    CheckViolationError,
    ConnectionFailedError,
    ConnectionLostError,
    DatabaseError,
    DeadlockError,
    ForeignKeyViolationError,
    IntegrityError,
    LockTimeoutError,
    NotNullViolationError,
    QueryExecutionError,
    QueryTimeoutError,
    ReadOnlyTransactionError,
    SerializationError,
    TransactionError,
    UniqueViolationError,
)

_BY_SQLSTATE: dict[str, type[DatabaseError]] = {
    "23505": UniqueViolationError,
    "23503": ForeignKeyViolationError,
    "23001": ForeignKeyViolationError,  # ON DELETE RESTRICT, since PostgreSQL 18
    "23502": NotNullViolationError,
    "23514": CheckViolationError,
    "25006": ReadOnlyTransactionError,
    "25P03": ConnectionLostError,  # idle_in_transaction_session_timeout
    "25P04": ConnectionLostError,  # transaction_timeout
    "40001": SerializationError,
    "40P01": DeadlockError,
    "40002": IntegrityError,
    "55P03": LockTimeoutError,
    "57014": QueryTimeoutError,
    "57P01": ConnectionLostError,
    "57P02": ConnectionLostError,
    "57P03": ConnectionLostError,
    "57P04": ConnectionLostError,
    "57P05": ConnectionLostError,
}

_BY_CLASS: dict[str, type[DatabaseError]] = {
    "08": ConnectionLostError,
    "23": IntegrityError,
    "25": TransactionError,
    "2D": TransactionError,
    "3B": TransactionError,
}

_FAILED_TRANSACTION = (
    "the transaction failed at an earlier statement, and PostgreSQL refuses everything until it "
    "is rolled back; to go on after an error, catch it around a nested transaction()"
)

_CANCELLED_BY_HAND = "due to user request"

_NO_TLS = "rejected SSL upgrade"

_PGBOUNCER_WAITS = (
    "server login has been failing",
    "server login failed",
    "cannot connect",
    "query_wait_timeout",
    "client_login_timeout",
    "no more connections allowed",
    "shutting down",
)


def translate(error: BaseException) -> DatabaseError | None:
    """Say what an exception of asyncpg means; None if it is not one."""
    if isinstance(error, asyncpg.PostgresError):
        return _from_server(error)
    if isinstance(error, asyncpg.InterfaceError):
        return _from_interface(error)
    if isinstance(error, asyncpg.OutdatedSchemaCacheError):
        return _outdated(error, None)
    if isinstance(error, asyncpg.InternalClientError):
        # Seen when a connection died and the event loop has not heard of it yet. Whatever the
        # cause: asyncpg no longer knows what the server thinks.
        return ConnectionLostError(f"asyncpg lost track of the connection: {error}")
    return None


def _from_server(error: asyncpg.PostgresError) -> DatabaseError:
    code = error.sqlstate or ""
    if isinstance(error, asyncpg.InvalidCachedStatementError):
        return _outdated(error, code)
    if code == "25P02":
        return TransactionError(_FAILED_TRANSACTION, code=code)
    kind = _BY_SQLSTATE.get(code) or _BY_CLASS.get(code[:2], QueryExecutionError)
    if kind is QueryTimeoutError and _CANCELLED_BY_HAND in str(error):
        kind = QueryExecutionError
    return kind(_message(error), code=code or None)


def _message(error: asyncpg.PostgresError) -> str:
    # Without the detail and other quotations of values: they are parameters as often as not.
    message = str(error.args[0]) if error.args else type(error).__name__
    if message.startswith("invalid input for query argument"):  # found by asyncpg, before sending
        return f"{message.split(': ')[0]} ({_what_was_expected(error.__cause__)})"
    return message.split(': "')[0] if (error.sqlstate or "").startswith("22") else message


def _what_was_expected(cause: BaseException | None) -> str:
    # Only these texts speak of types and ranges alone.
    return str(cause) if isinstance(cause, TypeError | OverflowError) else type(cause).__name__


def _from_interface(error: asyncpg.InterfaceError) -> DatabaseError:
    message = str(error)
    if message.endswith("connection is closed"):
        return ConnectionLostError(message, sent=False)
    return QueryExecutionError(message)


def _outdated(error: Exception, code: str | None) -> QueryExecutionError:
    outdated = QueryExecutionError(
        f"the schema changed under a cached statement: {error}", code=code
    )
    outdated.retryable = True
    return outdated


def connect_failure(error: Exception, where: str) -> ConnectionFailedError:
    """Say why no connection to `where` could be made, and whether waiting may help."""
    return ConnectionFailedError(
        f"cannot connect to {where}: {_reason(error) or type(error).__name__}",
        transient=_is_transient(error),
        code=getattr(error, "sqlstate", None),
    )


def _reason(error: Exception) -> str:
    if isinstance(error, asyncpg.PostgresError):
        return _message(error)
    if isinstance(error, ConnectionError) and error.errno:
        # asyncio says "Connect call failed", where everybody else says "refused".
        return os.strerror(error.errno)
    return str(error)


def _is_transient(error: Exception) -> bool:
    if isinstance(error, asyncpg.PostgresError):
        code = error.sqlstate or ""
        if code == "08P01":  # PgBouncer's code for nearly everything
            return any(text in str(error) for text in _PGBOUNCER_WAITS)
        return code[:2] in ("08", "53") or code in ("57P01", "57P02", "57P03")
    if isinstance(error, OSError):  # TimeoutError included
        lasting = isinstance(error, ssl.SSLError | PermissionError)
        return not lasting and _NO_TLS not in str(error)
    # No server of the wanted kind now; or a server that broke off in the middle.
    return isinstance(error, asyncpg.InternalClientError)
