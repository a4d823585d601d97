"""One async data-access layer for programs that talk to several databases at once.

The way of a call, from the outside in:

`registry`, `decorators`  the databases of a program by name; a function as a unit of work
`database`     one database: what it offers, and to whom it hands that on
`transaction`  blocks, savepoints, single statements, sessions, units over several databases
`replicas`     reads from servers that follow the primary
`pool`         who gets which connection, and what is done with it in between
`driver`       the seam: what a backend supplies; `two_phase` (atomic units) and `replication`
               (positions of servers) are parts of it, `hosts` and `guard` help to fill it

Beside that way:

`recovery`     ends what atomic units left prepared
`statements`   the methods that databases, transactions and sessions share
`placeholders`, `statement_text`  `:name`, and what of a text is a string or comment
`row_types`    rows as the program's own types: `into=`
`settings`, `errors`, `capabilities`, `events`, `telemetry`, `cli`, `testing`  as they are called
"""

from importlib.metadata import version as _version

from jobu_db import events
from jobu_db.database import BaseDatabase
from jobu_db.decorators import transactional, transactional_readonly
from jobu_db.errors import (
    BackendLoadError,
    BackendNotFoundError,
    CheckViolationError,
    CommitOutcomeUnknownError,
    ConfigurationError,
    ConnectionFailedError,
    ConnectionLostError,
    ConnectionPoolExhaustedError,
    DatabaseError,
    DatabaseNotFoundError,
    DataError,
    DeadlockError,
    ForeignKeyViolationError,
    InsufficientPrivilegeError,
    IntegrityError,
    LockTimeoutError,
    NotNullViolationError,
    NoTransactionError,
    PartialCommitError,
    PoolClosedError,
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
from jobu_db.placeholders import expand
from jobu_db.plugins import hookimpl
from jobu_db.registry import (
    DatabaseRegistry,
    get_aiosql_adapter,
    get_aiosql_adapter_for_db,
    get_connection,
    get_db,
    get_queries,
    load_queries,
)
from jobu_db.row_types import Row
from jobu_db.settings.loader import load_config
from jobu_db.transaction.context import TransactionContext

__version__ = _version("jobu-db-core")

__all__ = [
    "BackendLoadError",
    "BackendNotFoundError",
    "BaseDatabase",
    "CheckViolationError",
    "CommitOutcomeUnknownError",
    "ConfigurationError",
    "ConnectionFailedError",
    "ConnectionLostError",
    "ConnectionPoolExhaustedError",
    "DataError",
    "DatabaseError",
    "DatabaseNotFoundError",
    "DatabaseRegistry",
    "DeadlockError",
    "ForeignKeyViolationError",
    "InsufficientPrivilegeError",
    "IntegrityError",
    "LockTimeoutError",
    "NoTransactionError",
    "NotNullViolationError",
    "PartialCommitError",
    "PoolClosedError",
    "ProgrammingError",
    "QueryExecutionError",
    "QueryTimeoutError",
    "ReadOnlyTransactionError",
    "Row",
    "SQLSyntaxError",
    "SerializationError",
    "TransactionContext",
    "TransactionError",
    "UndefinedColumnError",
    "UndefinedTableError",
    "UniqueViolationError",
    "__version__",
    "events",
    "expand",
    "get_aiosql_adapter",
    "get_aiosql_adapter_for_db",
    "get_connection",
    "get_db",
    "get_queries",
    "hookimpl",
    "load_config",
    "load_queries",
    "transactional",
    "transactional_readonly",
]
