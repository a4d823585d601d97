"""What the numbers of MySQL's and MariaDB's errors mean.

By number, not by class: asyncmy raises a violated CHECK and a lost connection as the same class.
"""

from __future__ import annotations

import re
import ssl
from collections.abc import Iterator
from contextlib import contextmanager

from asyncmy.errors import Error as AnyError
from asyncmy.errors import InternalError, MySQLError

from jobu_db.errors import (
    CheckViolationError,
    CommitOutcomeUnknownError,
    ConnectionFailedError,
    ConnectionLostError,
    DatabaseError,
    DataError,
    DeadlockError,
    ForeignKeyViolationError,
    InsufficientPrivilegeError,
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
from jobu_db_mysql import messages
from jobu_db_mysql.messages import Origin

_MEANINGS: dict[type[DatabaseError], tuple[int, ...]] = {
    UniqueViolationError: (1022, 1062, 1169, 1586, 1859),
    ForeignKeyViolationError: (1216, 1217, 1451, 1452, 1557, 1761, 1762),
    NotNullViolationError: (1048, 1263, 1364),  # 1364: neither a value nor a default
    CheckViolationError: (3819, 4025),  # MySQL, MariaDB
    # MariaDB with innodb_snapshot_isolation; MySQL's group replication at COMMIT.
    SerializationError: (1020, 3101),
    DeadlockError: (1213, 1614),
    # NOWAIT is 3572 on MySQL and 1205 on MariaDB. 1440: the name of an XA transaction is held by a
    # session whose loss the server has not noticed yet; another attempt has another name.
    LockTimeoutError: (1205, 3572, 1440),
    QueryTimeoutError: (3024, 1969),  # max_execution_time of MySQL, max_statement_time of MariaDB
    # 1290 is told apart by its text: other options prevent statements, too.
    ReadOnlyTransactionError: (1290, 1792, 1836),
    SQLSyntaxError: (1064, 1065, 1149),
    UndefinedTableError: (1051, 1109, 1146, 1932),
    UndefinedColumnError: (1054, 1072),
    ProgrammingError: (
        1007, 1008, 1046, 1049, 1050, 1052, 1055, 1056, 1058, 1060, 1061, 1063, 1066, 1068,
        1070, 1075, 1091, 1099, 1102, 1103, 1110, 1111, 1128, 1136, 1140, 1166, 1193, 1221, 1222,
        1235, 1238, 1239, 1241, 1247, 1248, 1250, 1286, 1288, 1304, 1305, 1318, 1324, 1327, 1347,
        1356, 1359, 1360, 1393, 1394, 1414, 1415, 1582, 1583, 1584, 1630, 1906, 3105, 3106, 4078,
    ),
    DataError: (
        1115, 1139, 1153, 1210, 1230, 1231, 1232, 1264, 1265, 1267, 1270, 1271, 1273, 1292, 1298,
        1300, 1301, 1365, 1366, 1367, 1406, 1411, 1416, 1441, 1525, 1526, 1591, 1649, 1690, 1918,
        3037, 3055, 3140, 3141, 3143, 3144, 3145, 3146, 3147, 3150, 3154, 3156, 3157, 3158, 3548,
        3616, 3617, 3685, 3686, 3687, 3688, 3689, 3690, 3691, 3692, 3694, 3695, 3696, 3697, 3698,
        3699, 3700, 3752, 3903, 3904, 3906, 3907, 4038, 4042,
    ),
    InsufficientPrivilegeError: (
        1044, 1095, 1131, 1132, 1142, 1143, 1227, 1370, 1410, 1419, 1698, 3619,
    ),
}  # fmt: skip
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

_OPTION_PREVENTS = 1290

_REFUSED_COMMAND = 1047
"""Of Galera, and of proxies that do not know a command."""

_HANDS_OVER = 4094
"""Group replication makes another server the primary, and waits for transactions to end."""

_ERROR_DURING_COMMIT, _DEADLOCK = 1180, "error 149"
"""In replication groups: the certification of a commit failed."""

_NOT_IN_CLUSTER = "Not connected to Primary Component"
"""Galera lost its cluster during a COMMIT, which the others may have received: seen there."""

_HOOK_FAILED, _AT_COMMIT = 3100, "before_commit"
"""Group replication lost its group during a COMMIT, or is leaving it; it does not say whether the
others have received it."""

_DEMOTED = "; the connection is closed, and the next one goes to a server that does"

_ROW_FOR_A_VALUE = (1241, 4078)
"""Of MySQL and MariaDB: there are several columns where one is wanted."""

_A_TUPLE = "; a tuple is a row of values: for `IN (:name)` give expand(values) by that name"

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
        4094,  # group replication: another server is being made the primary
    }
)  # fmt: skip

_NAMES = {
    number: re.compile(pattern, re.DOTALL)
    for numbers, pattern in (
        ((1062, 1586, 1859), r".* for key '(?:(?P<table>[^']*)\.)?(?P<constraint>[^']*)'$"),
        (
            (1451, 1452),
            r".*\(`[^`]*`\.`(?P<table>[^`]*)`, CONSTRAINT `(?P<constraint>[^`]*)` "
            r"FOREIGN KEY \(`(?P<column>[^`]*)`\)",
        ),
        ((1048,), r"Column '(?P<column>[^']*)' cannot be null"),
        ((1364,), r"Field '(?P<column>[^']*)' doesn't have"),
        ((3819,), r"Check constraint '(?P<constraint>[^']*)'"),
        ((4025,), r"CONSTRAINT `(?P<constraint>[^`]*)` failed for `[^`]*`\.`(?P<table>[^`]*)`"),
        ((1146, 1932), r"Table '(?:[^'.]*\.)?(?P<table>[^']*)' doesn't exist"),
        ((1051, 1109), r"Unknown table '(?:[^'.]*\.)?(?P<table>[^']*)'"),
        ((1054,), r"Unknown column '(?:[^']*\.)?(?P<column>[^'.]*)' in "),
        (
            (1264, 1265, 1292, 1366, 1406),
            r".* for column (?:'(?P<column>[^']*)'|`[^`]*`\.`(?P<table>[^`]*)`\.`(?P<of>[^`]*)`)"
            r" at row \d+$",
        ),
    )
    for number in numbers
}
"""Where the servers' messages have the names of what they are about, by number."""


def number(error: BaseException) -> int | None:
    """Return the number of an asyncmy error; None if it has none or is another exception."""
    if isinstance(error, MySQLError) and error.args and isinstance(error.args[0], int):
        return error.args[0]
    return None


def note_origin(error: BaseException, origin: Origin | None) -> None:
    """Note which statement an error of the server is about: its message may quote it."""
    if isinstance(error, MySQLError):
        error.origin = origin  # type: ignore[attr-defined]


def from_server(error: BaseException) -> bool:
    """Say whether the server sent this error, so that both sides agree where the stream is."""
    code = number(error)
    return bool(code) and not 2000 <= (code or 0) < 3000


def undoes_all(error: BaseException) -> bool:
    """Say whether the server may have rolled back the whole transaction with this error."""
    return _MEANING.get(number(error) or 0) in (DeadlockError, SerializationError)


def is_lost(error: BaseException) -> bool:
    """Say whether an asyncmy error means that the connection is gone or of no use."""
    code = number(error)
    if code is not None:
        return code in _LOST or is_outside_its_cluster(error)
    # asyncmy lost its place in the stream, or knows that it is closed.
    return isinstance(error, InternalError) or type(error) is AnyError


@contextmanager
def behind_an_answer() -> Iterator[None]:
    """Note of an error in the block that it does not mean that nothing was sent: something ahead
    of it was, and must not be sent once more."""
    try:
        yield
    except MySQLError as error:
        error.behind_an_answer = True  # type: ignore[attr-defined]
        raise


def is_outside_its_cluster(error: BaseException) -> bool:
    """Say whether the server refuses all statements: a node of a Galera cluster until it is back in
    it, the primary of a group while another one is made primary."""
    refused = number(error) == _REFUSED_COMMAND and "WSREP" in str(error)
    return refused or number(error) == _HANDS_OVER


def lost_its_group(error: BaseException) -> bool:
    """Say whether the server got out of its cluster or group while it committed something."""
    text = {_ERROR_DURING_COMMIT: _NOT_IN_CLUSTER, _HOOK_FAILED: _AT_COMMIT}.get(number(error) or 0)
    return text is not None and text in str(error)


def leaves_its_cluster(error: BaseException) -> bool:
    """Say whether the server is, or is just getting, out of its cluster or group."""
    return is_outside_its_cluster(error) or lost_its_group(error)


def refuses_writes(error: BaseException) -> bool:
    """Say whether the server takes no writes at all."""
    code = number(error)
    return isinstance(error, MySQLError) and _meaning(code or 0, error) is ReadOnlyTransactionError


def note_demoted(error: BaseException) -> None:
    """Note that the server, not a setting of ours, is why it refuses to write."""
    error.demoted = True  # type: ignore[attr-defined]


def is_unknown_command(error: BaseException) -> bool:
    """Say whether a command was not understood: a proxy has mistaken another byte for it."""
    return number(error) == _REFUSED_COMMAND and not is_outside_its_cluster(error)


def translate(error: BaseException) -> DatabaseError | None:
    """Say what an exception of asyncmy means; None if it is not one."""
    if not isinstance(error, MySQLError):
        return None
    code = number(error)
    text = _text(error)
    name = None if code is None else str(code)
    if is_lost(error):
        sent = code not in _UNSENT and not is_outside_its_cluster(error)
        sent |= getattr(error, "behind_an_answer", False)
        return ConnectionLostError(text, sent=sent, code=name)
    if getattr(error, "demoted", False):
        text += _DEMOTED
    meaning = _meaning(code or 0, error)(text, code=name)
    meaning.retryable |= getattr(error, "demoted", False)
    _note_names(meaning, code, error)
    return meaning


def _meaning(code: int, error: MySQLError) -> type[DatabaseError]:
    meaning = _MEANING.get(code, QueryExecutionError)
    if code == _OPTION_PREVENTS and "read-only" not in _raw(error).replace("_", "-"):
        return QueryExecutionError
    if code == _ERROR_DURING_COMMIT and _DEADLOCK in _raw(error):
        return DeadlockError
    if lost_its_group(error):
        return CommitOutcomeUnknownError
    return meaning


def _note_names(meaning: DatabaseError, code: int | None, error: MySQLError) -> None:
    """Say which table, column and constraint it is about."""
    pattern = _NAMES.get(code or 0)
    found = pattern.match(_raw(error)) if pattern else None
    if found is None:
        return
    names = found.groupdict()
    meaning.table = names.get("table")
    meaning.constraint = names.get("constraint")
    meaning.column = names.get("column") or names.get("of")


def connect_failed(error: Exception, server: str) -> ConnectionFailedError:
    """Say why connecting failed, and whether waiting may help.

    Args:
        server: Where to, for the message.
    """
    code = number(error)
    transient = isinstance(error, TimeoutError) or (code in _TRANSIENT and not _is_tls(error))
    return ConnectionFailedError(
        f"cannot connect to {server}: {_text(error, login=True)}",
        transient=transient,
        code=None if code is None else str(code),
    )


def _text(error: BaseException, *, login: bool = False) -> str:
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if not isinstance(error, MySQLError):
        return f"{type(error).__name__}: {error}"
    text = _raw(error) if error.args else type(error).__name__
    if login:
        return messages.shown_at_login(number(error), text)
    origin: Origin | None = getattr(error, "origin", None)
    shown = messages.shown(number(error), text, origin) or "not connected"
    if number(error) in _ROW_FOR_A_VALUE and origin is not None and origin.filled_in:
        shown += _A_TUPLE
    return shown


def _raw(error: MySQLError) -> str:
    return str(error.args[-1]) if error.args else ""


def _is_tls(error: BaseException | None) -> bool:
    """asyncmy reports a failed TLS handshake as 2003, like a refused connection."""
    while error is not None:
        if isinstance(error, ssl.SSLError):
            return True
        error = error.__cause__
    return False
