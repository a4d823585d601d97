"""Scripts of several statements.

The server splits them: it alone knows for certain which semicolon ends a statement, be it in a
string, a comment or the body of a trigger. What it doesn't take is a statement of nothing but
comments between two semicolons, so those semicolons are left out.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache

from jobu_db.placeholders import Dialect, end_of_version_comment, line_comment

_QUOTED = "{0}[^{0}]*{0}"
_ESCAPED = r"{0}(?:[^{0}\\]|\\.)*{0}"


def without_empty_statements(script: str, dialect: Dialect) -> str:
    """Leave out the semicolons that end nothing; the text stays as it is otherwise."""
    kept: list[str] = []
    something = False
    for token in tokens(script, dialect):
        if token.lastgroup == "end":
            if not something:
                continue
            something = False
        elif token.lastgroup == "code":
            something = True
        kept.append(token[0])
    return "".join(kept)


def is_empty(script: str, dialect: Dialect) -> bool:
    """Say whether there is nothing to run."""
    return not any(token.lastgroup == "code" for token in tokens(script, dialect))


def statements(script: str, dialect: Dialect) -> Iterator[str]:
    """Yield what semicolons separate, the pieces of a body with semicolons inside too."""
    start = 0
    for token in tokens(script, dialect):
        if token.lastgroup == "end":
            yield script[start : token.start()]
            start = token.end()
    yield script[start:]


def without_last_semicolon(sql: str, dialect: Dialect) -> str:
    """Leave out the semicolons behind the last statement; the text stays as it is otherwise."""
    found = list(tokens(sql, dialect))
    code = [index for index, token in enumerate(found) if token.lastgroup == "code"]
    last = code[-1] if code else -1
    return "".join(
        token[0] for index, token in enumerate(found) if index < last or token.lastgroup != "end"
    )


def tokens(sql: str, dialect: Dialect) -> Iterator[re.Match[str]]:
    """Take SQL apart; each token's `lastgroup` is "blank" (comments too), "end" (`;`) or "code".

    From where it depends on the server's version what is quoted, all is one token of code.
    """
    match, position = _lexer(dialect).match, 0
    while token := match(sql, position):
        # Split there, a text could mean one thing to us and another to the server: in one piece it
        # is refused, or run, as the server reads it.
        if token[0].startswith(_VERSIONED) and not end_of_version_comment(
            sql, position + 3, dialect
        ):
            token = _REST.match(sql, position) or token
        yield token
        position = token.end()


_VERSIONED = ("/*!", "/*M!")
_REST = re.compile("(?P<code>.*)", re.DOTALL)


@lru_cache(maxsize=64)
def _lexer(dialect: Dialect) -> re.Pattern[str]:
    string = _ESCAPED if dialect.backslash_escapes else _QUOTED
    double = string if dialect.double_quoted_strings else _QUOTED
    quoted = [string.format("'"), double.format('"'), _QUOTED.format("`")]
    if dialect.brackets:
        quoted.append(r"\[[^\]]*(?:\]\][^\]]*)*\]")
    # A comment that begins with ! or M! is code, at least for some servers.
    comment = rf"/\*(?!M?!).*?\*/|{line_comment(dialect)}"
    return re.compile(
        rf"(?P<blank>\s+|{comment})|(?P<end>;)|(?P<code>{'|'.join(quoted)}|/\*.*?\*/|\w+|.)",
        re.DOTALL,
    )
