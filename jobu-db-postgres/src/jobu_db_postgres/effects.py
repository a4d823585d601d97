"""What the text of a statement tells about it before it is sent, where asyncpg does not look.

A text inside a function or `DO` block is not seen.
"""

from __future__ import annotations

import re
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
    """

    prepares: bool
    forgets_statements: bool
    waits_for_client: bool


_FORGETS = re.compile(r"\b(?:discard|deallocate(?:\s+prepare)?)\s+all\b")
_WAITS = re.compile(r"(?:\A|;)\s*copy\b[^;]*\sfrom\s+stdin\b")
_NOT_CODE = re.compile(
    r"'[^']*'|\$(\w*)\$.*?\$\1\$|--[^\n]*|/\*.*?\*/",
    re.DOTALL,
)


def effects_of(query: str) -> Effects | None:
    """Look at the text of a statement; None if there is nothing to mind, which is the rule."""
    text = query.lower()
    prepares = "prepare" in text
    suspicious = prepares or "discard" in text or "deallocate" in text or "stdin" in text
    if not suspicious:
        return None
    code = _NOT_CODE.sub(" ", text)
    return Effects(prepares, _FORGETS.search(code) is not None, _WAITS.search(code) is not None)
