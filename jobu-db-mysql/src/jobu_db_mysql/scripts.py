"""Scripts of several statements.

The server splits them: it alone knows for certain which semicolon ends a statement, be it in a
string, a comment or the body of a trigger. What it doesn't take is a statement of nothing but
comments between two semicolons, so those semicolons are left out.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache

from jobu_db.placeholders import Dialect

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


def without_last_semicolon(sql: str, dialect: Dialect) -> str:
    """Leave out the semicolons behind the last statement; the text stays as it is otherwise."""
    found = list(tokens(sql, dialect))
    code = [index for index, token in enumerate(found) if token.lastgroup == "code"]
    last = code[-1] if code else -1
    return "".join(
        token[0] for index, token in enumerate(found) if index < last or token.lastgroup != "end"
    )


def tokens(sql: str, dialect: Dialect) -> Iterator[re.Match[str]]:
    """Take SQL apart; each token's `lastgroup` is "blank" (comments too), "end" (`;`) or "code"."""
    return _lexer(dialect).finditer(sql)


@lru_cache(maxsize=64)
def _lexer(dialect: Dialect) -> re.Pattern[str]:
    string = _ESCAPED if dialect.backslash_escapes else _QUOTED
    double = string if dialect.double_quoted_strings else _QUOTED
    quoted = "|".join((string.format("'"), double.format('"'), _QUOTED.format("`")))
    # A comment that begins with ! or M! is code, at least for some servers.
    comment = r"/\*(?!M?!).*?\*/|--(?=[\s\x00]|\Z)[^\n]*|#[^\n]*"
    return re.compile(
        rf"(?P<blank>\s+|{comment})|(?P<end>;)|(?P<code>{quoted}|/\*.*?\*/|\w+|.)", re.DOTALL
    )
