"""What PostgreSQL's and asyncpg's errors mean."""

from __future__ import annotations

import os
import re
import ssl

import asyncpg

from jobu_db.errors import (
    CheckViolationError,
    ConnectionFailedError,
    ConnectionLostError,
    DatabaseError,
    DataError,
    DeadlockError,
    ForeignKeyViolationError,
    InsufficientPrivilegeError,
    IntegrityError,
    LockTimeoutError,
    NotNullViolationError,
    ProgrammingError,
    QueryExecutionError,
    QueryTimeoutError,
    ReadOnlyTransactionError,
    SerializationError,
    SQLSyntaxError,
    TransactionError,
    UndefinedColumnError,
    UndefinedTableError,
    UniqueViolationError,
)
from jobu_db_postgres.messages import server_message

ASYNCPG_STATEMENT = "__asyncpg_"
"""So begin the names under which asyncpg prepares statements."""

SERVER_IS_READ_ONLY = "jobu_db_server_is_read_only"
"""Set on a 25006 of a server that may no longer be written to."""

_HERE = "here"

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
    "42501": InsufficientPrivilegeError,
    "42601": SQLSyntaxError,
    "42703": UndefinedColumnError,
    "42P01": UndefinedTableError,
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
    "22": DataError,
    "23": IntegrityError,
    "25": TransactionError,
    "26": ProgrammingError,
    "2D": TransactionError,
    "34": ProgrammingError,
    "3B": TransactionError,
    "3D": ProgrammingError,
    "3F": ProgrammingError,
    "42": ProgrammingError,
}

_MISSING = re.compile(
    r'(?:relation|table|view|materialized view) "(?:[^".]*\.)?(?P<table>[^"]*)" does not exist'
    r'|column (?:"(?P<column>[^"]*)"|[^"]*\.(?P<of_table>[^"]*?))'
    r'(?: of relation "(?P<relation>[^"]*)")? does not exist'
)
"""In English: the words of a server that speaks another language are not known here."""

_FAILED_TRANSACTION = (
    "the transaction failed at an earlier statement, and PostgreSQL refuses everything until it "
    "is rolled back; to go on after an error, catch it around a nested transaction()"
)

_CANCELLED_BY_HAND = "due to user request"

_READ_ONLY_SERVER = (
    "the server takes no writes any more, as after a failover: the connection is closed, and the "
    "next one goes to a server that does"
)

_UNCACHED = "options: {statement_cache_size: 0} does without prepared statements"

_CHANGED_SHAPE = (
    "what the statement returns has changed since it was prepared on this connection, by another "
    f"session or where the SQL does not show it, as in a function; {_UNCACHED}"
)

_CHANGED_TYPE = (
    "the statement ran, but its result cannot be read: a type in it has changed since asyncpg "
    f"learned it; {_UNCACHED}"
)

_NOT_PREPARED = (
    "the server has no such prepared statement, or another of that name: as behind PgBouncer, or "
    f"after a DEALLOCATE ALL inside a function; {_UNCACHED}"
)

_NO_CODEC = ("no binary format encoder", "no encoder", "no decoder", "missing codec")

_NEVER_SENT = ("cannot switch to state", "not connected")

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
    """Say what an exception of asyncpg means; None if it is not one.

    Others come out of asyncpg, too: of codecs, and where it cannot read an answer.
    """
    if isinstance(error, asyncpg.PostgresError):
        return _from_server(error)
    if isinstance(error, asyncpg.InterfaceError):
        return _from_interface(error)
    if isinstance(error, asyncpg.OutdatedSchemaCacheError):
        return _retryable(QueryExecutionError(_CHANGED_TYPE))
    if isinstance(error, Exception):
        return _from_inside(error)
    return None


def _from_server(error: asyncpg.PostgresError) -> DatabaseError:
    code = error.sqlstate or None
    meaning = _meaning(error, code or "")
    meaning.code = code
    meaning.constraint, meaning.table = error.constraint_name, error.table_name
    meaning.column = error.column_name
    missing = _MISSING.fullmatch(meaning.message)
    if missing is not None:  # of these the server has no fields
        meaning.table = missing["table"] or missing["relation"]
        meaning.column = missing["column"] or missing["of_table"]
    return meaning


def _meaning(error: asyncpg.PostgresError, code: str) -> DatabaseError:
    if isinstance(error, asyncpg.InvalidCachedStatementError):
        return _retryable(QueryExecutionError(_CHANGED_SHAPE))
    if code in ("26000", "42P05") and ASYNCPG_STATEMENT in str(error):
        return QueryExecutionError(_NOT_PREPARED)
    if code == "25P02":
        return TransactionError(_FAILED_TRANSACTION)
    if code == "25006" and getattr(error, SERVER_IS_READ_ONLY, False):
        return _retryable(ReadOnlyTransactionError(_READ_ONLY_SERVER))
    kind = _BY_SQLSTATE.get(code) or _BY_CLASS.get(code[:2], QueryExecutionError)
    if kind is QueryTimeoutError and _CANCELLED_BY_HAND in str(error):
        kind = QueryExecutionError
    return kind(server_message(error))


def _retryable(error: DatabaseError) -> DatabaseError:
    error.retryable = True
    return error


def _from_interface(error: asyncpg.InterfaceError) -> DatabaseError:
    message = str(error)
    if message.endswith("connection is closed"):
        return ConnectionLostError(message, sent=False)
    return ProgrammingError(message)


def _from_inside(error: Exception) -> DatabaseError | None:
    """Tell by the place in asyncpg where it was raised."""
    if isinstance(error, asyncpg.InternalClientError):
        # Seen where a connection died and the event loop has not heard of it yet. Whatever the
        # cause, if not one of these: asyncpg no longer knows what the server thinks.
        message = str(error)
        if message.startswith(_NO_CODEC):
            return DataError(f"asyncpg cannot send or read such values: {message}")
        if message.startswith(_NEVER_SENT):
            return ConnectionLostError("the connection was lost earlier", sent=False)
        if "_encode_bind_msg" not in passed_through(error):
            return ConnectionLostError(f"asyncpg lost track of the connection: {message}")
    places = passed_through(error)
    if not places:
        return None
    name = type(error).__name__
    if "_encode_bind_msg" in places:
        return DataError(f"an argument could not be encoded ({name})")
    if "copy_in" in places and "encode" in places:
        return DataError(f"a value could not be encoded ({name}), so the COPY was aborted")
    if "_decode_row" in places:
        return DataError(
            f"the statement ran, but its result cannot be decoded ({name}); outside a "
            "transaction, what it wrote is committed, unless it failed after that row"
        )
    if places[-1] == "_write":  # to a transport that is closed already
        sent = "bind_execute_many" in places
        return ConnectionLostError(f"the connection was lost earlier ({name})", sent=sent)
    if places[-1] == _HERE:
        return ConnectionLostError(f"asyncpg lost track of the connection ({name})")
    return None  # out of a program's own code that asyncpg called: the rows of a COPY


def is_empty_answer(error: Exception) -> bool:
    """Say whether asyncpg stumbled over the answer to an SQL text with nothing in it to run."""
    return isinstance(error, AttributeError) and "_on_result__simple_query" in passed_through(error)


def passed_through(error: Exception) -> list[str]:
    """Names of the functions of asyncpg's compiled part that it passed, the innermost last, and
    then `_HERE` if it was raised in asyncpg itself."""
    places = []
    traceback = error.__traceback__
    while traceback is not None:
        code = traceback.tb_frame.f_code
        compiled = code.co_filename.startswith("asyncpg/") and code.co_filename.endswith(".pyx")
        if compiled:
            places.append(code.co_name.rpartition(".")[2])
        traceback = traceback.tb_next
        if traceback is None and compiled and places[-1] != "_write":
            places.append(_HERE)
    return places


def connect_failure(error: Exception, where: str) -> ConnectionFailedError:
    """Say why no connection to `where` could be made, and whether waiting may help."""
    return ConnectionFailedError(
        f"cannot connect to {where}: {_reason(error) or type(error).__name__}",
        transient=_is_transient(error),
        code=getattr(error, "sqlstate", None),
    )


def _reason(error: Exception) -> str:
    if isinstance(error, asyncpg.PostgresError):
        return str(error.args[0])  # it is about the settings: no statement, no values
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
