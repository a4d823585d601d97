"""How a server reads SQL in a session: what is quoted there, and what must not be sent at all.

It depends on `sql_mode` and on the client's character set, which any statement may change, and on
nothing else. (What a datetime means depends on `time_zone`, which is told with them.) The server
tells of every change with the answer to the statement that made it (CLIENT_SESSION_TRACK, MySQL 5.7
and MariaDB 10.2). A server that does not is asked.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache, partial

from jobu_db.placeholders import Dialect
from jobu_db_mysql.implicit_commit import first_word

TRACKED = "sql_mode,character_set_client,time_zone"
"""Variables whose changes the server is to tell of."""

LAST_GTID = "last_gtid"
"""The variable in which MariaDB tells the identifier of the transaction that was just committed."""

ASK = "SELECT @@sql_mode, @@character_set_client, @@time_zone"
"""Asks a server that does not tell."""

_SYSTEM_VARIABLES = 0
"""Kind of change, as the protocol numbers them: the name and value of a variable follow."""

_GTIDS = 3
"""Likewise: how they are written, and then the transactions that were just committed (MySQL)."""

_SAFE_CHARSETS = frozenset(
    {
        "armscii8", "ascii", "binary", "cp1250", "cp1251", "cp1256", "cp1257", "cp850", "cp852",
        "cp866", "dec8", "eucjpms", "euckr", "gb2312", "geostd8", "greek", "hebrew", "hp8",
        "keybcs2", "koi8r", "koi8u", "latin1", "latin2", "latin5", "latin7", "macce", "macroman",
        "tis620", "ujis", "utf8", "utf8mb3", "utf8mb4",
    }
)  # fmt: skip
"""In which no byte of a longer character can be taken for a quote, backslash or comment mark.

Not so in big5, cp932, gb18030, gbk and sjis, where 0x5C may be a second byte, and a quote behind a
byte that was escaped is one again; nor in swe7, which has letters in the place of brackets.
"""

_LEAVE_MODES = frozenset(
    {
        "ALTER", "ANALYZE", "COMMIT", "CREATE", "DELETE", "DESC", "DESCRIBE", "DROP", "EXPLAIN",
        "GRANT", "INSERT", "KILL", "LOCK", "RELEASE", "RENAME", "REPLACE", "REVOKE", "ROLLBACK",
        "SAVEPOINT", "SELECT", "SHOW", "START", "TABLE", "TRUNCATE", "UNLOCK", "UPDATE", "USE",
        "VALUES", "WITH",
    }
)  # fmt: skip
"""First words of statements after which a session reads SQL as before.

What stored programs set, functions and triggers included, the server undoes at their end. EXPLAIN,
SELECT and similar statements can set user variables alone.
"""


def is_safe(charset: str) -> bool:
    """Say whether text can be sent in a character set without being read as something else."""
    return charset.lower() in _SAFE_CHARSETS


@lru_cache(maxsize=64)
def lookalikes(encoding: str) -> str:
    """Return characters that Python writes as others of ASCII: the yen sign, as a backslash.

    Args:
        encoding: Python's name of a character set.
    """
    if encoding in ("utf8", "utf-8"):
        return ""
    return "".join(filter(partial(_becomes_ascii, encoding), map(chr, range(128, 0x10000))))


def _becomes_ascii(encoding: str, character: str) -> bool:
    try:
        return any(byte < 128 for byte in character.encode(encoding))
    except UnicodeEncodeError:
        return False


def may_change_modes(sql: str) -> bool:
    """Say whether a statement may have changed how the session reads SQL, going by its words."""
    return first_word(sql) not in _LEAVE_MODES


@lru_cache(maxsize=64)
def dialect(sql_mode: str) -> Dialect:
    """Return how SQL is read under a `sql_mode`, as the server shows it.

    It shows what a combination implies, such as ANSI_QUOTES for MariaDB's ORACLE, and in MSSQL
    brackets quote as well.
    """
    modes = {mode.strip().upper() for mode in sql_mode.split(",")}
    return Dialect(
        "format",
        backslash_escapes="NO_BACKSLASH_ESCAPES" not in modes,
        double_quoted_strings=not modes & {"ANSI_QUOTES", *_IMPLY_ANSI_QUOTES},
        backticks=True,
        brackets="MSSQL" in modes,
        hash_comments=True,
        spaced_dash_comments=True,
        version_dependent=True,
    )


_IMPLY_ANSI_QUOTES = ("ANSI", "DB2", "MAXDB", "MSSQL", "ORACLE", "POSTGRESQL")
"""For modes as they are configured; the server shows ANSI_QUOTES beside them."""


def committed_gtids(message: bytes) -> str:
    """Read which transactions an OK packet says were just committed; "" for none.

    Raises:
        ValueError, LookupError: It is mangled.
    """
    _, start = _string(message, 0)
    changes, _ = _string(message, start)
    position = 0
    while position < len(changes):
        kind = changes[position]
        data, position = _string(changes, position + 1)
        if kind == _GTIDS:
            return _string(data, 1)[0].decode("ascii")
    return changed_variables(message).get(LAST_GTID, "")


@lru_cache(maxsize=64)
def changed_variables(message: bytes) -> dict[str, str]:
    """Read what an OK packet that announces changes holds behind its warnings.

    The same few messages come again and again: with every reset.

    Raises:
        ValueError, LookupError: It is mangled.
    """
    _, start = _string(message, 0)  # what the server has to say to a person
    changes, _ = _string(message, start)
    return dict(_system_variables(changes))


def _system_variables(changes: bytes) -> Iterator[tuple[str, str]]:
    position = 0
    while position < len(changes):
        kind = changes[position]
        data, position = _string(changes, position + 1)
        if kind != _SYSTEM_VARIABLES:
            continue
        # MariaDB puts several into one entry.
        inside = 0
        while inside < len(data):
            name, inside = _string(data, inside)
            value, inside = _string(data, inside)
            yield name.decode("ascii").lower(), value.decode("utf-8", "replace")


_LENGTH_BYTES = {0xFC: 2, 0xFD: 3, 0xFE: 8}


def _string(data: bytes, position: int) -> tuple[bytes, int]:
    """Read a text with its length before it; return it and where it ends."""
    length, start = data[position], position + 1
    # 0xFC, 0xFD and 0xFE say in how many bytes the length follows; 0xFB stands for NULL, which has
    # no place here, and is a LookupError:
    # https://dev.mysql.com/doc/dev/mysql-server/latest/page_protocol_basic_dt_integers.html
    if length > 0xFA:
        start += _LENGTH_BYTES[length]
        length = int.from_bytes(data[position + 1 : start], "little")
    end = start + length
    if end > len(data):
        raise ValueError("a text is longer than the packet that it is in")
    return data[start:end], end
