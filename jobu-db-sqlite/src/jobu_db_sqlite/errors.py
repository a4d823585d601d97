"""What SQLite's errors mean, by extended error code, and the errors that are ours to raise.

Ours are subclasses of sqlite3's own, so that `except sqlite3.Error` around `ctx.connection`
catches them as well.
"""

from __future__ import annotations

import re
import sqlite3

from jobu_db.errors import (
    CheckViolationError,
    ConnectionFailedError,
    ConnectionLostError,
    DatabaseError,
    DataError,
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
    UndefinedColumnError,
    UndefinedTableError,
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
    sqlite3.SQLITE_TOOBIG: DataError,
}
"""By primary code, the low byte of the extended one, for codes that are not in `_MEANINGS`."""

_MISTAKES: tuple[tuple[re.Pattern[str], type[DatabaseError]], ...] = tuple(
    (re.compile(pattern, re.DOTALL), meaning)
    for pattern, meaning in (
        (r"no such (table|view): (.*\.)?(?P<table>.*)", UndefinedTableError),
        (r"no such column: (.*\.)?(?P<column>.*)", UndefinedColumnError),
        (r"table (?P<table>.*) has no column named (?P<column>.*)", UndefinedColumnError),
        (r'near ".*": syntax error|incomplete input|unrecognized token: .*', SQLSyntaxError),
        (r"malformed JSON|bad JSON path|integer overflow", DataError),
        (
            r"no such (function|index|trigger|collation sequence|module): .*|ambiguous column name"
            r"|(table|index|view|trigger|there is already .*) .* already exists|wrong number of "
            r"arguments|misuse of |\d+ values for \d+ columns|table .* has \d+ columns but"
            r"|too many |parser stack overflow|RAISE\(\) may only",
            ProgrammingError,
        ),
    )
)
"""By text: SQLite has one code for all of them."""

_VIOLATED = tuple(
    re.compile(pattern)
    for pattern in (
        r"(UNIQUE|NOT NULL) constraint failed: (?P<table>[^.,]*)\.(?P<column>[^,]*)$",
        r"UNIQUE constraint failed: (?P<table>[^.,]*)\.[^,]*(, (?P=table)\.[^,]*)+$",
        r"UNIQUE constraint failed: index '(?P<constraint>.*)'$",
        r"CHECK constraint failed: (?P<constraint>.*)$",
        r"cannot store \w+ value in \w+ column (?P<table>[^.]*)\.(?P<column>.*)$",
    )
)

_NOT_BOUND = "Error binding parameter"
"""sqlite3 says which one it is, and its type."""

_MISUSED = (
    "Incorrect number of bindings", "You did not supply a value", "executemany() can only",
    "the query contains a null character",
)  # fmt: skip
"""What sqlite3 itself says of a wrong statement."""

_UNDECODABLE = re.compile("Could not decode to UTF-8 column '(?P<column>.*)' with text ", re.DOTALL)
"""The text follows, which no message may hold."""

_MAY_HOLD_A_VALUE = re.compile(
    r"(JSON path error near |bad JSON path: |malformed MATCH expression: |unknown special query: "
    r"|parse error in rank function: |unknown tokenizer: |fts5: syntax error near "
    r"|unable to open database: |no such (?:database|column|table): )(.+)",
    re.DOTALL,
)
"""What follows is a name or text that the statement has, or a parameter: a path, a search term."""

_LEFT_OUT = "…"

_NAMELESS = {3091: "SQLITE_CONSTRAINT_DATATYPE"}
"""Codes that Python 3.11 has no name for."""


class StatementTimeoutError(sqlite3.OperationalError):
    """`statement_timeout` ran out and the statement was stopped."""


class ClosedError(sqlite3.ProgrammingError):
    """The connection was closed, so the statement did not run."""


class BackupError(sqlite3.OperationalError):
    """The database can't be copied so, or not to there."""


class DeniedError(sqlite3.DatabaseError):
    """The authorizer that a holder set on the connection does not allow the statement."""


class RefusedError(sqlite3.OperationalError):
    """The statement was not run: it would have no effect, and SQLite would not say so."""


class UnsupportedValueError(sqlite3.ProgrammingError):
    """A value that SQLite has no equal of. Nothing was done."""


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


def note_statement(error: sqlite3.Error, sql: object) -> None:
    """Remember which statement an error is about; `shown` asks for it."""
    error.sql = sql if isinstance(sql, str) else ""  # type: ignore[attr-defined]


def shown(error: BaseException) -> str:
    """Return an error's text without what may be a parameter. `__cause__` has it in full."""
    text = str(error)
    found = _MAY_HOLD_A_VALUE.fullmatch(text)
    # What stands in the statement is no secret of its parameters, and helps whoever reads the
    # message.
    if found is None or _is_written(found[2], getattr(error, "sql", "")):
        return text
    return found[1] + _LEFT_OUT


def _is_written(told: str, sql: str) -> bool:
    if told.startswith("main."):  # SQLite's own addition, to the name of a table
        return True
    return all(part.strip("'\"[]").lower() in sql.lower() for part in told.split("."))


def locked_error(message: str) -> sqlite3.OperationalError:
    """Make an error as SQLite's own for a lock that was not granted in time."""
    error = sqlite3.OperationalError(message)
    error.sqlite_errorcode, error.sqlite_errorname = sqlite3.SQLITE_BUSY, "SQLITE_BUSY"
    return error


def is_busy(error: sqlite3.Error) -> bool:
    """Say whether another connection holds a lock, so that waiting may help."""
    # BUSY_SNAPSHOT does not pass by waiting: what was read is no longer the newest, and the
    # transaction has to be run again.
    number = getattr(error, "sqlite_errorcode", 0)
    return number & 0xFF == sqlite3.SQLITE_BUSY and number != sqlite3.SQLITE_BUSY_SNAPSHOT


def connection_failed(error: OpenError) -> ConnectionFailedError:
    """Say that no connection could be opened."""
    return ConnectionFailedError(str(error), transient=error.transient, code=error.code)


def translate(error: BaseException) -> DatabaseError | None:
    """Say what an exception of sqlite3 means; None if it is not one."""
    # Ours first: they are subclasses of sqlite3's, and would be taken for those.
    if isinstance(error, OpenError):
        return connection_failed(error)
    if isinstance(error, ClosedError):
        return ConnectionLostError(str(error), sent=False)
    # sqlite3 lets these two out as they are, for a str or an int that cannot be bound.
    if isinstance(error, UnicodeEncodeError):
        return DataError("a str holds a lone surrogate, which is not a character")
    if isinstance(error, OverflowError):
        return DataError(str(error))
    if isinstance(error, sqlite3.Error):
        return _named(_meaning(error)(_message(error), code=code_of(error)), shown(error))
    return None


def _named(meaning: DatabaseError, text: str) -> DatabaseError:
    """Say which table, column and constraint it is about, where SQLite tells."""
    # What was left out may be the very name.
    if text.endswith(_LEFT_OUT):
        return meaning
    patterns = (*_VIOLATED, *(pattern for pattern, _ in _MISTAKES), _UNDECODABLE)
    found = next((match for pattern in patterns if (match := pattern.match(text))), None)
    if found is not None:
        names = found.groupdict()
        meaning.table, meaning.column = names.get("table"), names.get("column")
        meaning.constraint = names.get("constraint")
    return meaning


def _meaning(error: Exception) -> type[DatabaseError]:
    if isinstance(error, StatementTimeoutError):
        return QueryTimeoutError
    if isinstance(error, ReadOnlyFileError):
        return QueryExecutionError
    if isinstance(error, RefusedError):
        return ProgrammingError
    if isinstance(error, UnsupportedValueError):
        return DataError
    if isinstance(error, DeniedError):
        return InsufficientPrivilegeError
    number = getattr(error, "sqlite_errorcode", 0)
    if number == sqlite3.SQLITE_ERROR:
        text = str(error)
        return next((each for found, each in _MISTAKES if found.match(text)), QueryExecutionError)
    # Only SQLite's own errors have a code: this one is the sqlite3 module's, about values or their
    # number.
    if not number:
        return _meaning_of_text(str(error))
    if number == sqlite3.SQLITE_CONSTRAINT_TRIGGER and str(error).startswith("FOREIGN KEY"):
        return ForeignKeyViolationError  # ON DELETE RESTRICT is a trigger of SQLite's own
    return _MEANINGS.get(number) or _FAMILIES.get(number & 0xFF, QueryExecutionError)


def _meaning_of_text(text: str) -> type[DatabaseError]:
    if text.startswith(_NOT_BOUND) or _UNDECODABLE.match(text):
        return DataError
    return ProgrammingError if text.startswith(_MISUSED) else QueryExecutionError


def _message(error: Exception) -> str:
    number = getattr(error, "sqlite_errorcode", 0)
    if number == sqlite3.SQLITE_BUSY_SNAPSHOT:
        return "another connection wrote what this transaction has read, which now wants to write"
    if number == sqlite3.SQLITE_AUTH:
        return "a read-only transaction can't change query_only or journal_mode, nor ATTACH"
    undecodable = None if number else _UNDECODABLE.match(str(error))
    if undecodable is not None:
        return f"column {undecodable['column']!r} holds TEXT that is not UTF-8: CAST it AS BLOB"
    return shown(error)
