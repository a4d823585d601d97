"""What may be told of a statement: its text without values, and a summary with few variants.

For logs, spans and metrics. A lexer, not a parser, built on the one that finds placeholders. Values
are strings, numbers, TRUE and FALSE; comments are left out, since programs write values there too.

The summary has the form of OpenTelemetry's `db.query.summary`: operations and their targets in
the order in which they come, as they are written ("INSERT orders SELECT carts"), 255 characters
at most:
https://opentelemetry.io/docs/specs/semconv/db/database-spans/#generating-a-summary-of-the-query
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache
from typing import NamedTuple

from jobu_db.placeholders import (
    Dialect,
    end_of_nested_comment,
    line_comment,
    string_patterns,
)

LONGEST_READ = 10_000
"""Characters: what follows is left out. Texts that long are lists of values."""

LONGEST_SUMMARY = 255
"""Characters, as the specification has it."""

_OPERATIONS = frozenset({"SELECT", "INSERT", "UPDATE", "DELETE", "MERGE", "REPLACE", "CALL"})
_DEFINITIONS = frozenset({"CREATE", "ALTER", "DROP", "TRUNCATE"})
_BEFORE_A_TARGET = frozenset({"FROM", "JOIN", "INTO", "UPDATE", "CALL", "MERGE", "USING"})
_BEFORE_A_NAME = frozenset({"ONLY", "LATERAL", "IGNORE", "LOW_PRIORITY", "OR"})
_OBJECTS = frozenset(
    {"TABLE", "INDEX", "VIEW", "TRIGGER", "FUNCTION", "PROCEDURE", "SCHEMA", "DATABASE", "SEQUENCE"}
    | {"TYPE", "ROLE", "USER", "EXTENSION", "DOMAIN"}
)
_NO_UPDATE_OF_ITS_OWN = frozenset({"FOR", "DO", "ON", "KEY", "OF"})
"""Words after which UPDATE and DELETE belong to something else: FOR UPDATE, ON DELETE CASCADE."""

_LETTER = r"A-Za-z_\x80-\U0010ffff"


UNREADABLE = "?"
"""In place of a text of which it is not known what in it is a value."""


class Token(NamedTuple):
    """A piece of a statement.

    Attributes:
        kind: "value", "word", "quoted" (an identifier), "placeholder", or "sign" (all the rest).
        text: As written.
        spaced: White space or a comment stands in front of it.
    """

    kind: str
    text: str
    spaced: bool


def tokens(sql: str, dialect: Dialect) -> Iterator[Token]:
    """Cut a statement into pieces, comments left out."""
    match, position, spaced, before = _lexer(dialect).match, 0, False, ""
    while found := match(sql, position):
        position, text = found.end(), found[0]
        match found.lastgroup:
            case "space" | "comment":
                spaced = True
            case "nested":
                position, spaced = end_of_nested_comment(sql, position), True
            case kind:
                doubled = text[0] in "'\"`" and before.endswith(text[0]) and not spaced
                if not doubled:  # else it goes on: 'it''s'
                    yield Token(_kind(str(kind), text, dialect), text, spaced)
                before, spaced = text, False


@lru_cache(maxsize=512)
def without_values(sql: str, dialect: Dialect | None) -> str:
    """Return the statement on one line, with `?` in place of each value.

    What stands in an IN list is told once; placeholders stay as they are.

    Args:
        dialect: How its session read it; None if that is not known: nothing is told then.
    """
    if dialect is None:
        return UNREADABLE
    text = ""
    for token in tokens(sql[:LONGEST_READ], dialect):
        text += (" " if token.spaced and text else "") + ("?" if _is_value(token) else token.text)
    # One text for lists of every length: logs and figures are grouped by it.
    text = re.sub(r"\b(IN ?\( ?)\?(?:, ?\?)+", r"\1?", text, flags=re.IGNORECASE)
    return f"{text} …" if len(sql) > LONGEST_READ else text


@lru_cache(maxsize=512)
def summarize(sql: str, dialect: Dialect | None) -> str:
    """Return the summary; "" if the text has no operation, or cannot be read."""
    if dialect is None:
        return ""
    # A value is no target, whatever it looks like, and must not be told.
    words = _Words(token for token in tokens(sql[:LONGEST_READ], dialect) if token.kind != "value")
    first = words.peek().upper()
    if first in _DEFINITIONS:
        parts = list(_definition(words))
    elif first in _OPERATIONS or first in ("WITH", "EXPLAIN", "(", "VALUES"):
        parts = list(_parts(words))
    else:
        parts = [words.peek()]
    return _shortened(parts)


def is_one_statement(sql: str, dialect: Dialect) -> bool:
    """Say False if something follows a semicolon, or there is nothing at all."""
    # A semicolon in a string or a comment is no token of its own.
    texts = [token.text for token in tokens(sql, dialect)]
    while texts and texts[-1] == ";":
        texts.pop()
    return bool(texts) and ";" not in texts


@lru_cache(maxsize=64)
def _lexer(dialect: Dialect) -> re.Pattern[str]:
    # Where a server's version decides whether $$x$$ is a string, it may hold a value.
    dollars = dialect.dollar_quotes or dialect.version_dependent
    quoted = "|".join(string_patterns(replace(dialect, dollar_quotes=dollars)))
    block = r"(?P<nested>/\*)" if dialect.nested_comments else r"(?P<comment>/\*.*?(?:\*/|\Z))"
    return re.compile(
        rf"(?P<space>\s+|{line_comment(dialect)})|{block}"
        + rf"|(?P<string>(?:[bBxXnN](?='))?(?:{quoted}))"
        # In the order of what would be taken for something shorter: $1 is no sign and a number.
        + rf"|(?P<placeholder>\?[0-9]*|\$[0-9]+|%s|%\([^()]*\)s|:[{_LETTER}][{_LETTER}0-9]*)"
        + r"|(?P<number>0[xX][0-9A-Fa-f]+|(?:[0-9][0-9_]*\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?)"
        + rf"|(?P<word>[{_LETTER}][{_LETTER}0-9$]*)|(?P<sign>::|.)",
        re.DOTALL,
    )


def _kind(group: str, text: str, dialect: Dialect) -> str:
    if group == "tag":  # the last group inside a dollar-quoted string
        return "value"
    if group == "number":
        return "value"
    if group != "string":
        return group
    is_name = text[0] in "`[" or (text[0] == '"' and not dialect.double_quoted_strings)
    return "quoted" if is_name else "value"


def _is_value(token: Token) -> bool:
    boolean = token.kind == "word" and token.text.upper() in ("TRUE", "FALSE")
    return boolean or token.kind == "value"


class _Words:
    """The tokens of a statement, one after another, with the one before at hand."""

    def __init__(self, found: Iterator[Token]) -> None:
        self._found = list(found)
        self._next = 0

    def peek(self) -> str:
        return self._found[self._next].text if self._next < len(self._found) else ""

    @property
    def before(self) -> str:
        return self._found[self._next - 2].text.upper() if self._next > 1 else ""

    def take(self) -> str:
        self._next += 1
        return self._found[self._next - 1].text

    def take_name(self) -> str:
        """Take `schema.table`; return "" if there is no name here."""
        while self.peek().upper() in _BEFORE_A_NAME:
            self.take()
        name = ""
        while self._next < len(self._found) and self._found[self._next].kind in ("word", "quoted"):
            name += self.take()
            if self.peek() != ".":
                return name
            name += self.take()
        return name


def _parts(words: _Words) -> Iterator[str]:
    """Yield operations and targets. FROM counts only in parentheses that have an operation: not in
    EXTRACT(year FROM t)."""
    has_operation = [False]
    while word := words.peek():
        words.take()
        text = word.upper()
        if text == "(":
            has_operation.append(False)
        elif text == ")" and len(has_operation) > 1:
            has_operation.pop()
        elif text in _OPERATIONS and words.peek() != "(":
            yield from _operation(words, word, has_operation)
        elif text in _BEFORE_A_TARGET and has_operation[-1] and words.before != "DISTINCT":
            yield from _targets(words)


def _operation(words: _Words, operation: str, has_operation: list[bool]) -> Iterator[str]:
    kind = operation.upper()
    if kind in ("UPDATE", "DELETE") and words.before in _NO_UPDATE_OF_ITS_OWN:
        return
    if kind == "REPLACE" and words.before == "OR":  # INSERT OR REPLACE
        return
    has_operation[-1] = True
    yield operation
    if kind in _BEFORE_A_TARGET and words.peek().upper() != "INTO":
        yield from _targets(words)


def _targets(words: _Words) -> Iterator[str]:
    """Yield the names of a list such as `a, b AS c, d`; a name before "(" is a function's."""
    while True:
        name = words.take_name()
        if name and name.upper() not in ("SELECT", "VALUES", "SET"):
            yield name
        if words.peek().upper() == "AS":
            words.take()
        # An alias may do without AS: it is any word that does not go on with the statement.
        if words.peek().isidentifier() and not _ends_a_target(words.peek()):
            words.take()
        if words.peek() != ",":
            return
        words.take()


def _ends_a_target(word: str) -> bool:
    return word.upper() in (
        _OPERATIONS
        | {"WHERE", "JOIN", "INNER", "LEFT", "RIGHT", "FULL", "CROSS", "NATURAL", "ON", "USING"}
        | {"GROUP", "ORDER", "HAVING", "LIMIT", "OFFSET", "FETCH", "FOR", "UNION", "EXCEPT"}
        | {"INTERSECT", "WINDOW", "SET", "VALUES", "RETURNING", "DEFAULT", "WHEN", "LATERAL"}
    )


def _definition(words: _Words) -> Iterator[str]:
    """Yield `CREATE TABLE jobs`, whatever stands between."""
    yield words.take()
    while word := words.peek():
        words.take()
        if word.upper() in _OBJECTS:
            yield word
            while words.peek().upper() in ("IF", "NOT", "EXISTS", "CONCURRENTLY"):
                words.take()
            yield words.take_name()
            return


def _shortened(parts: list[str]) -> str:
    """Join, and cut between two parts."""
    summary = ""
    for part in filter(None, parts):
        longer = f"{summary} {part}" if summary else part
        if len(longer) > LONGEST_SUMMARY:
            break
        summary = longer
    return summary
