"""Which statements commit the transaction they are in, by their first words."""

from __future__ import annotations

import re

from jobu_db.placeholders import Dialect, line_comment

_COMMENTS = line_comment(Dialect("format", hash_comments=True, spaced_dash_comments=True))

# What may stand before the first word. /*!50003 and /*M!100100 begin code, not a comment.
_LEADING = re.compile(rf"(?:\s|/\*M?!\d*|/\*.*?\*/|{_COMMENTS}|\()*", re.DOTALL)
_WORDS = re.compile(r"[A-Za-z_]+")

_FIRST = frozenset(
    {
        "ALTER", "ANALYZE", "BEGIN", "CACHE", "CHANGE", "CHECK", "CREATE", "DROP", "FLUSH", "GRANT",
        "INSTALL", "LOAD", "LOCK", "OPTIMIZE", "RENAME", "REPAIR", "RESET", "REVOKE", "SET",
        "START", "STOP", "TRUNCATE", "UNINSTALL", "UNLOCK",
    }
)  # fmt: skip


def commits_implicitly(sql: str) -> bool:
    """Say whether `sql`, after which no transaction was open, has committed it by being DDL.

    A COMMIT or ROLLBACK that was written out is not implicit.
    """
    return first_word(sql) in _FIRST


def first_word(sql: str) -> str:
    """Return the first word behind comments and parentheses, in capital letters; "" if none."""
    start = _LEADING.match(sql)
    word = _WORDS.match(sql, start.end() if start else 0)
    return word[0].upper() if word else ""
