"""Every exception that jobu-db raises. One root: `DatabaseError`."""

from __future__ import annotations

from collections.abc import Sequence


class DatabaseError(Exception):
    """Root of all jobu-db errors.

    Attributes:
        database: Name of the database, or None where no single one is meant.
        code: SQLSTATE, or the driver's number or symbolic name as text, or None.
        statement: The SQL text without its parameters, or None.
        retryable: True if running the whole transaction again may well succeed.
        constraint, table, column: What it is about, where the database tells; else None.

    The driver's own exception, where there is one, is `__cause__`.
    """

    retryable: bool = False
    constraint: str | None = None
    table: str | None = None
    column: str | None = None

    def __init__(
        self,
        message: str,
        *,
        database: str | None = None,
        code: str | None = None,
        statement: str | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.database = database
        self.code = code
        self.statement = statement

    def __str__(self) -> str:
        prefix = f"{self.database}: " if self.database else ""
        suffix = f" [{self.code}]" if self.code else ""
        return f"{prefix}{self.message}{suffix}"


class ConfigurationError(DatabaseError):
    """The settings are wrong. The message lists every problem at once, one a line.

    Attributes:
        problems: One text per problem, each naming file, database, key and the fix.
    """

    def __init__(self, problems: str | Sequence[str], *, database: str | None = None) -> None:
        self.problems = (problems,) if isinstance(problems, str) else tuple(problems)
        super().__init__("\n".join(self.problems), database=database)


class DatabaseNotFoundError(DatabaseError, KeyError):
    """No database of that name is configured or registered; the message lists the known ones."""

    # KeyError's own shows the repr of the message: a text in quotes, with its line breaks escaped.
    __str__ = DatabaseError.__str__


class BackendNotFoundError(ConfigurationError):
    """No installed distribution offers that database type.

    Out of a configuration, `problems` lists whatever else is wrong with it as well.
    """


class BackendLoadError(DatabaseError):
    """A backend is installed, but cannot be used: `__cause__` or the message says why."""


class ConnectionFailedError(DatabaseError):
    """No connection to the server could be made.

    Attributes:
        transient: True if waiting may help (refused, DNS, too many connections), False if the
            settings must change (password, unknown database, TLS).
    """

    def __init__(
        self,
        message: str,
        *,
        transient: bool = False,
        database: str | None = None,
        code: str | None = None,
    ) -> None:
        super().__init__(message, database=database, code=code)
        self.transient = transient


class ConnectionPoolExhaustedError(DatabaseError):
    """No connection became free in time, or too many callers wait already."""


class PoolClosedError(DatabaseError):
    """The pool is closed or closing."""


class TransactionError(DatabaseError):
    """The transaction cannot do what was asked of it, or did not do what it should have."""


class NoTransactionError(TransactionError, RuntimeError):
    """A transaction was asked for where none is open."""


class ReadOnlyTransactionError(TransactionError):
    """The server refused to write in a read-only transaction."""


class PartialCommitError(TransactionError):
    """Some databases of one unit of work committed and others did not.

    Attributes:
        committed, failed, rolled_back, unknown: Names of the databases, in the order given.
    """

    def __init__(
        self,
        *,
        committed: Sequence[str],
        failed: Sequence[str],
        rolled_back: Sequence[str],
        unknown: Sequence[str],
    ) -> None:
        self.committed = tuple(committed)
        self.failed = tuple(failed)
        self.rolled_back = tuple(rolled_back)
        self.unknown = tuple(unknown)
        parts = ("committed", "failed", "rolled_back", "unknown")
        told = ", ".join(f"{part}: {', '.join(getattr(self, part)) or 'none'}" for part in parts)
        super().__init__(f"partial commit: {told}")


class CommitOutcomeUnknownError(TransactionError):
    """The connection was lost while a commit was under way: whether it took place is unknown."""


class QueryExecutionError(DatabaseError):
    """The database refused or failed a statement."""


class IntegrityError(QueryExecutionError):
    """A constraint was violated."""


class UniqueViolationError(IntegrityError):
    """A unique or primary key exists already."""


class ForeignKeyViolationError(IntegrityError):
    """A referenced row is missing, or a row is still referenced."""


class NotNullViolationError(IntegrityError):
    """NULL was given where a value is required."""


class CheckViolationError(IntegrityError):
    """A CHECK constraint was violated."""


class ProgrammingError(QueryExecutionError):
    """The statement is wrong as it is written, whatever the data."""


class UndefinedTableError(ProgrammingError):
    """There is no table, view or other relation of that name."""


class UndefinedColumnError(ProgrammingError):
    """There is no column of that name."""


class SQLSyntaxError(ProgrammingError):
    """The database cannot read the statement."""


class DataError(QueryExecutionError):
    """A value that the database, or the driver, cannot take. The message never holds the value.

    One that was refused before it was sent leaves the transaction as it was.
    """


class InsufficientPrivilegeError(QueryExecutionError):
    """This user may not do that."""


class SerializationError(QueryExecutionError):
    """Concurrent transactions got in each other's way."""

    retryable = True


class DeadlockError(QueryExecutionError):
    """The database broke a deadlock by failing this transaction."""

    retryable = True


class LockTimeoutError(QueryExecutionError):
    """A lock was not granted in time."""

    retryable = True


# Not retryable: what took too long would most likely take as long again.
class QueryTimeoutError(QueryExecutionError):
    """A statement or a whole transaction exceeded its time limit."""


class ConnectionLostError(QueryExecutionError):
    """The connection broke.

    Attributes:
        sent: False if the statement certainly never reached the server.
    """

    # Of a transaction, nothing is committed then. A statement alone that may have been is a
    # `CommitOutcomeUnknownError` instead.
    retryable = True

    def __init__(
        self,
        message: str,
        *,
        sent: bool = True,
        database: str | None = None,
        code: str | None = None,
        statement: str | None = None,
    ) -> None:
        super().__init__(message, database=database, code=code, statement=statement)
        self.sent = sent
