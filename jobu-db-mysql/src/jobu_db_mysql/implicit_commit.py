"""What statements do to the transaction they are in, by their first words."""

from __future__ import annotations

import re

from jobu_db.placeholders import Dialect, line_comment

_COMMENTS = line_comment(Dialect("format", hash_comments=True, spaced_dash_comments=True))

# What may stand before the first word. /*!50003 and /*M!100100 begin code, not a comment.
_LEADING = re.compile(rf"(?:\s|/\*M?!\d*|/\*.*?\*/|{_COMMENTS}|\()*", re.DOTALL)
_WORDS = re.compile(r"[A-Za-z_]+")

# https://dev.mysql.com/doc/refman/8.4/en/implicit-commit.html and MariaDB's list of the same name.
# SET is among them for SET PASSWORD and SET autocommit = 1, LOAD for LOAD INDEX INTO CACHE: whether
# one did commit is told by the server, these words only say which statement it was.
_COMMITTING = frozenset(
    {
        "ALTER", "ANALYZE", "BEGIN", "CACHE", "CHANGE", "CHECK", "CREATE", "DROP", "FLUSH", "GRANT",
        "INSTALL", "LOAD", "LOCK", "OPTIMIZE", "RENAME", "REPAIR", "RESET", "REVOKE", "SET",
        "START", "STOP", "TRUNCATE", "UNINSTALL", "UNLOCK",
    }
)  # fmt: skip
"""First words of statements that may commit implicitly what came before."""

_INSIDE = frozenset(
    {
        "DELETE", "DESC", "DESCRIBE", "DO", "EXPLAIN", "INSERT", "REPLACE", "SELECT", "SHOW",
        "TABLE", "UPDATE", "VALUES", "WITH",
    }
)  # fmt: skip
"""First words of statements that neither begin nor end a transaction."""
_USUAL = frozenset({"DELETE ", "INSERT ", "SELECT ", "UPDATE "})

_SAVEPOINTS = frozenset({"RELEASE", "SAVEPOINT"})
_SEEN = (
    (_COMMITTING - {"BEGIN", "LOCK", "START"})
    | _INSIDE
    | {"DEALLOCATE", "HANDLER", "HELP", "KILL", "PREPARE", "USE"}
)
"""First words of statements that end no transaction, or none without the server telling so."""
_BACK_TO = re.compile(r"\s+(?:WORK\s+)?TO\b", re.IGNORECASE)
_FOR_ONE = re.compile(r"\s+STATEMENT\b", re.IGNORECASE)
_ACCESS = re.compile(r"READ\s+WRITE|READ_ONLY", re.IGNORECASE)
_SETS_SAVEPOINTS = re.compile(r"\bSAVEPOINT\b|\bROLLBACK\s+(?:WORK\s+)?TO\b", re.IGNORECASE)


def stays_inside(sql: str) -> bool:
    """Say whether `sql` certainly neither begins nor ends a transaction.

    Functions and triggers may not do so either. A text that begins with a version comment is read
    differently by different servers.
    """
    # What comes most is told without a regular expression.
    if sql[:7] in _USUAL:
        return True
    word, place = _first(sql)
    return word in _INSIDE and "!" not in sql[:place]


def may_end_unseen(sql: str) -> bool:
    """Say whether `sql` may end the transaction and begin another, so that the server says behind
    it as before that one is open.

    LOCK TABLES does, where autocommit is off, and on MariaDB also IF, LOOP and the like may, and
    SET STATEMENT … FOR. What is not known to be otherwise may do so.
    """
    word, place = _first(sql)
    if word in _SAVEPOINTS:
        return False
    if word == "ROLLBACK":
        return not _BACK_TO.match(sql, place + len(word))
    if word == "SET" and _FOR_ONE.match(sql, place + len(word)):
        return True
    return word not in _SEEN or "!" in sql[:place]


def sets_access(sql: str) -> bool:
    """Say whether `sql` seems to set whether the session may write."""
    return not stays_inside(sql) and _ACCESS.search(sql) is not None


def uses_savepoints(script: str) -> bool:
    """Say whether a script seems to set a savepoint, or to roll back to one."""
    return _SETS_SAVEPOINTS.search(script) is not None


def commits_implicitly(sql: str) -> bool:
    """Say whether `sql`, after which no transaction was open, has committed it by being DDL.

    A COMMIT or ROLLBACK that was written out is not implicit.
    """
    return first_word(sql) in _COMMITTING


def first_word(sql: str) -> str:
    """Return the first word behind comments and parentheses, in capital letters; "" if none."""
    return _first(sql)[0]


def _first(sql: str) -> tuple[str, int]:
    """Return that word, and where it begins."""
    start = _LEADING.match(sql)
    place = start.end() if start else 0
    word = _WORDS.match(sql, place)
    return (word[0].upper() if word else ""), place
