"""What the numbers of MySQL's and MariaDB's errors mean.

By number, not by class: asyncmy raises a violated CHECK and a lost connection as the same class.
"""

from __future__ import annotations

import re
import ssl

from asyncmy.errors import Error as AnyError
from asyncmy.errors import InternalError, MySQLError

from jobu_db.errors import (
    CheckViolationError,
    ConnectionFailedError,
    ConnectionLostError,
    DatabaseError,
    DeadlockError,
    ForeignKeyViolationError,
    LockTimeoutError,
    NotNullViolationError,
    QueryExecutionError,
    QueryTimeoutError,
    ReadOnlyTransactionError,
    SerializationError,
    UniqueViolationError,
)

_MEANINGS: dict[type[DatabaseError], tuple[int, ...]] = {
    UniqueViolationError: (1022, 1062, 1169, 1586, 1859),
    ForeignKeyViolationError: (1216, 1217, 1451, 1452, 1557, 1761, 1762),
    NotNullViolationError: (1048, 1263, 1364),  # 1364: neither a value nor a default
    CheckViolationError: (3819, 4025),  # MySQL, MariaDB
    # MariaDB with innodb_snapshot_isolation; MySQL's group replication at COMMIT.
    SerializationError: (1020, 3101),
    DeadlockError: (1213, 1614),
    LockTimeoutError: (1205, 3572),  # NOWAIT is 3572 on MySQL and 1205 on MariaDB
    QueryTimeoutError: (3024, 1969),  # max_execution_time of MySQL, max_statement_time of MariaDB
    ReadOnlyTransactionError: (1792,),
}
_MEANING = {number: meaning for meaning, numbers in _MEANINGS.items() for number in numbers}

_LOST = frozenset(
    {
        0,  # asyncmy: not connected
        1053,  # server shutdown in progress
        1152, 1158, 1159, 1160, 1161, 1184,  # the server saw the network fail
        1927,  # MariaDB: connection was killed
        2006, 2013, 2055,
        2014,  # asyncmy: the answer does not fit the command
        3169,  # MySQL: session was killed
        4031,  # MySQL: disconnected for inactivity
    }
)  # fmt: skip

_UNSENT = frozenset({0, 2006})
"""asyncmy noticed before it had written the whole statement."""

_TRANSIENT = frozenset(
    {
        1040,  # too many connections
        1047,  # Galera: the node does not belong to the cluster now
        1053,  # server shutdown in progress
        1129,  # host blocked after too many errors
        1135,  # the server can't create a thread
        1203, 1226,  # this user has too many connections, or has used up an hourly limit
        2002, 2003,  # refused, no such host
        2006, 2013, 2055,  # closed or silent while we were logging in
        3032,  # MySQL: the server is in offline mode
    }
)  # fmt: skip

_VALUES = (
    (1062, re.compile(r" entry '.*' for key "), " entry for key "),
    (1064, re.compile(r" near '.*' at line ", re.DOTALL), " at line "),
    (1292, re.compile(r" value: '.*'", re.DOTALL), " value"),
    (1366, re.compile(r" value: '.*' for column ", re.DOTALL), " value for column "),
)
"""Messages in which the server repeats values: asyncmy writes parameters into the SQL text."""


def number(error: BaseException) -> int | None:
    """Return the number of an asyncmy error; None if it has none or is another exception."""
    if isinstance(error, MySQLError) and error.args and isinstance(error.args[0], int):
        return error.args[0]
    return None


def from_server(error: BaseException) -> bool:
    """Say whether the server sent this error, so that both sides agree where the stream is."""
    code = number(error)
    return code is not None and code >= 1000 and not 2000 <= code < 3000


def is_lost(error: BaseException) -> bool:
    """Say whether an asyncmy error means that the connection is gone or of no use."""
    code = number(error)
    if code is not None:
        return code in _LOST
    # asyncmy lost its place in the stream, or knows that it is closed.
    return isinstance(error, InternalError) or type(error) is AnyError


def translate(error: BaseException) -> DatabaseError | None:
    """Say what an exception of asyncmy means; None if it is not one."""
    if not isinstance(error, MySQLError):
        return None
    code = number(error)
    text = _text(error)
    name = None if code is None else str(code)
    if is_lost(error):
        return ConnectionLostError(text, sent=code not in _UNSENT, code=name)
    return _MEANING.get(code or 0, QueryExecutionError)(text, code=name)


def connect_failed(error: Exception, server: str) -> ConnectionFailedError:
    """Say why connecting failed, and whether waiting may help.

    Args:
        server: Where to, for the message.
    """
    code = number(error)
    transient = isinstance(error, TimeoutError) or (code in _TRANSIENT and not _is_tls(error))
    return ConnectionFailedError(
        f"cannot connect to {server}: {_text(error)}",
        transient=transient,
        code=None if code is None else str(code),
    )


def _text(error: BaseException) -> str:
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if not isinstance(error, MySQLError):
        return f"{type(error).__name__}: {error}"
    text = str(error.args[-1]) if error.args else type(error).__name__
    for code, pattern, replacement in _VALUES:
        if number(error) == code:
            text = pattern.sub(replacement, text)
    return text or "not connected"


def _is_tls(error: BaseException | None) -> bool:
    """asyncmy reports a failed TLS handshake as 2003, like a refused connection."""
    while error is not None:
        if isinstance(error, ssl.SSLError):
            return True
        error = error.__cause__
    return False
