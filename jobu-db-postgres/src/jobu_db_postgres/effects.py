"""What the text of a statement tells about it before it is sent, where asyncpg does not look.

A text inside a function is not seen.
"""

from __future__ import annotations

import re
from enum import Enum
from functools import lru_cache
from typing import NamedTuple

COPY_REFUSED = (
    "COPY ... FROM STDIN waits for rows that are never sent: use copy_to_table() or "
    "copy_records_to_table() of the connection"
)


class Effects(NamedTuple):
    """What is out of the ordinary.

    Attributes:
        prepares: There may be a PREPARE.
        forgets_statements: The server forgets every prepared statement, those of asyncpg too.
        waits_for_client: The server asks for rows, and nothing would stop it waiting for them.
        scope: What becomes of the meaning of other statements' texts on this connection.
        alters: What a statement returns may change on other connections, too.
    """

    prepares: bool
    forgets_statements: bool
    waits_for_client: bool
    scope: Scope | None
    alters: bool


class Scope(Enum):
    """What a statement does to the meaning of the texts that follow: tables, search path, role.

    KNOWN: It changes it, and always in the same way.
    NEW: It changes it, in a way that the text does not tell.
    ENDED: It may undo a change, if there was one: the end of a transaction or savepoint.
    """

    KNOWN = "known"
    NEW = "new"
    ENDED = "ended"


_SUSPICIOUS = re.compile(
    r"prepare|discard|deallocate|stdin|search_path|set_config"
    r"|\b(?:create|alter|drop|reset|rollback|commit|abort|import)\b"
    r"|\bset\s+(?:local\s|session\s|schema\b|role\b)|\A\s*do\b",
    re.IGNORECASE,
)
_FORGETS = re.compile(r"\b(?:discard|deallocate(?:\s+prepare)?)\s+all\b")
_WAITS = re.compile(r"(?:\A|;)\s*copy\b[^;]*\sfrom\s+stdin\b")
_DEFINES = re.compile(r"\b(?:create|alter|drop|import|discard)\b")
_ALTERS = re.compile(r"\balter\b|\bor\s+replace\b|\bimport\b")
_MOVES = re.compile(r"\bset\s+(?:local\s+|session\s+)?(?:role|schema|authorization)\b|\breset\b")
_SETS_SOMETHING_ELSE = re.compile(
    r"\bset_config\s*\(\s*'(?!search_path'|role'|session_authorization')[^']*'\s*,"
)
_ENDS = re.compile(r"\b(?:rollback|commit|abort)\b")
_BLOCK = re.compile(r"\A\s*do\b")
_ALWAYS_THE_SAME = re.compile(
    r"\s*(?:set\s+(?:local\s+|session\s+)?search_path\b[^;$]*"
    r"|select\s+(?:pg_catalog\.)?set_config\s*\(\s*'search_path'\s*,"
    r"\s*(?:\$1(?:::text)?|'[^']*')\s*,\s*(?:true|false)\s*\)"
    r"|create\s+(?:local\s+|global\s+)?temp(?:orary)?\s+table\b[^;$]*);?\s*"
)
_NOT_CODE = re.compile(
    r"'[^']*'|\"[^\"]*\"|\$(\w*)\$.*?\$\1\$|--[^\n]*|/\*.*?\*/",
    re.DOTALL,
)

_LONG = 10_000


def effects_of(query: str) -> Effects | None:
    """Look at the text of a statement; None if there is nothing to mind, which is the rule."""
    return _remembered(query) if len(query) < _LONG else _effects_of(query)


def _effects_of(query: str) -> Effects | None:
    if not _SUSPICIOUS.search(query):
        return None
    text = query.lower()
    code = text if _BLOCK.match(text) else _NOT_CODE.sub(" ", text)
    return Effects(
        "prepare" in text,
        _FORGETS.search(code) is not None,
        _WAITS.search(code) is not None,
        _scope(text, code),
        _ALTERS.search(code) is not None,
    )


_remembered = lru_cache(maxsize=1000)(_effects_of)


def _scope(text: str, code: str) -> Scope | None:
    if _ALWAYS_THE_SAME.fullmatch(text):
        return Scope.KNOWN
    if "search_path" in text or _DEFINES.search(code) or _MOVES.search(code):
        return Scope.NEW
    if "set_config" in _SETS_SOMETHING_ELSE.sub("", text):
        return Scope.NEW
    return Scope.ENDED if _ENDS.search(code) else None
