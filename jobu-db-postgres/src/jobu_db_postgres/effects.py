"""What the text of a statement tells about it before it is sent, where asyncpg does not look.

A text inside a function is not seen.
"""

from __future__ import annotations

import re
from enum import Enum
from functools import lru_cache
from typing import NamedTuple

from jobu_db.placeholders import Dialect
from jobu_db.statement_text import tokens

DIALECT = Dialect(
    "numeric_dollar",
    escape_strings=True,
    dollar_quotes=True,
    nested_comments=True,
    return_ends_comments=True,
    arrays=True,
)
"""How PostgreSQL reads SQL, unless `standard_conforming_strings` is off."""

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
        isolates: The default isolation of transactions may change.
        shows: Others see when the transaction ends: what it locked, what it has to tell.
    """

    prepares: bool
    forgets_statements: bool
    waits_for_client: bool
    scope: Scope | None
    alters: bool
    isolates: bool
    shows: bool


class Scope(Enum):
    """What a statement does to the meaning of the texts that follow: tables, search path, role.

    KNOWN: It changes it, and always in the same way.
    NEW: It changes it, in a way that the text does not tell.
    ENDED: It may undo a change, if there was one: the end of a transaction or savepoint.
    """

    KNOWN = "known"
    NEW = "new"
    ENDED = "ended"


# Most statements have none of these, and cost one search.
_SUSPICIOUS = re.compile(
    r"prepare|transaction_isolation|\block\b|advisory|notify|discard|deallocate|stdin|search_path|set_config"
    r"|\b(?:create|alter|drop|reset|rollback|commit|abort|import)\b"
    r"|\bset\s+(?:local\s|session\s|schema\b|role\b)|\A\s*do\b",
    re.IGNORECASE,
)
_FORGETS = re.compile(r"\b(?:discard|deallocate(?:\s+prepare)?)\s+all\b")
_WAITS = re.compile(r"(?:\A|;)\s*copy\b[^;]*\sfrom\s+stdin\b")
_ISOLATES = re.compile(r"transaction_isolation|\bsession\s+characteristics\b")
_SHOWS = re.compile(r"\block\b|advisory|notify")
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

_OF_TRANSACTIONS = frozenset({"ABORT", "BEGIN", "COMMIT", "END", "PREPARE", "ROLLBACK", "START"})

_LONG = 10_000
"""Characters from which on nothing is remembered of a text: the cache would keep all of it."""


def must_go_alone(query: str) -> bool:
    """Say whether BEGIN must not stand in front of this text.

    Of an empty text, the status would be that of BEGIN; and what begins and ends transactions is
    run as its author wrote it.
    """
    # One statement that begins with its first word, as nearly all do: no lexer is needed.
    if ";" not in query and query[:1].isalpha():
        return query.partition(" ")[0].upper() in _OF_TRANSACTIONS
    return _alone(query) if len(query) < _LONG else _must_go_alone(query)


def _must_go_alone(query: str) -> bool:
    empty, first = True, True
    for token in tokens(query, DIALECT):
        if token.text == ";":
            first = True
        else:
            if first and token.text.upper() in _OF_TRANSACTIONS:
                return True
            empty = first = False
    return empty


_alone = lru_cache(maxsize=200)(_must_go_alone)


def effects_of(query: str) -> Effects | None:
    """Look at the text of a statement; None if there is nothing to mind, which is the rule."""
    return _remembered(query) if len(query) < _LONG else _effects_of(query)


def _effects_of(query: str) -> Effects | None:
    if not _SUSPICIOUS.search(query):
        return None
    text = query.lower()
    # What stands in the quotes of DO is code as well.
    code = text if _BLOCK.match(text) else _NOT_CODE.sub(" ", text)
    return Effects(
        "prepare" in text,
        _FORGETS.search(code) is not None,
        _WAITS.search(code) is not None,
        _scope(text, code),
        _ALTERS.search(code) is not None,
        _ISOLATES.search(text) is not None,
        _SHOWS.search(text) is not None,
    )


_remembered = lru_cache(maxsize=1000)(_effects_of)


def _scope(text: str, code: str) -> Scope | None:
    if _ALWAYS_THE_SAME.fullmatch(text):
        return Scope.KNOWN
    # Names may stand in quotes, so that these are looked for in all of the text.
    if "search_path" in text or _DEFINES.search(code) or _MOVES.search(code):
        return Scope.NEW
    if "set_config" in _SETS_SOMETHING_ELSE.sub("", text):
        return Scope.NEW
    return Scope.ENDED if _ENDS.search(code) else None
