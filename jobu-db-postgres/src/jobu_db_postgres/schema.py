"""Whether what asyncpg remembers of statements and types is still so.

A prepared statement is tied to the tables and columns that its text meant then. Where the same
text returns something else later, PostgreSQL refuses it, which fails a transaction.
"""

from __future__ import annotations


class Schema:
    """What all connections of one pool know of the database's tables and types.

    Attributes:
        version: Grows whenever one of them changed something, or met a change.
    """

    __slots__ = ("version",)

    def __init__(self) -> None:
        self.version = 0

    def changed(self) -> None:
        """Have every connection prepare its statements and learn its types anew."""
        self.version += 1


Step = tuple[str, tuple[object, ...]]
"""A statement that gives others another meaning, and its arguments."""

Scope = tuple[Step, ...] | object | None
"""What the text of a statement depends on besides the schema: the search path, the role, temporary
tables, and what this transaction defined.

None as it is after a reset; the steps that led to it, where they always lead to the same; else an
object of its own, which no other is equal to.
"""
