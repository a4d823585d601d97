"""Splitting a script into its statements."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator


def split(script: str) -> Iterator[str]:
    """Yield the statements of a script, as SQLite itself tells where one ends.

    A semicolon in a string, a comment or a trigger's body ends none. What follows the last
    semicolon comes last, complete or not; SQLite ignores it if it is a comment.
    """
    start = position = 0
    # Only the text since the last end is looked at, once for each semicolon in it.
    while (position := script.find(";", position) + 1) > 0:
        statement = script[start:position]
        if sqlite3.complete_statement(statement):
            yield statement
            start = position
    if script[start:].strip():
        yield script[start:]
