"""What the statements return here, for type checkers; at run time they are the core's."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jobu_db.statements import Statements

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterable
    from typing import Any

    import asyncpg

    from jobu_db_postgres.status import Status


class PostgresStatements(Statements):
    """`execute`, `executemany`, `fetch_one`, `fetch_all` and `fetch_val`, with `$1` or `:name`."""

    __slots__ = ()

    if TYPE_CHECKING:

        def execute(self, sql: str, *args: Any) -> Coroutine[Any, Any, Status]:
            """Run one statement, or several if there are no arguments; returns the last status."""

        def executemany(self, sql: str, args: Iterable[Any]) -> Coroutine[Any, Any, None]:
            """Run one statement for each element of `args`, all of them or none."""

        def fetch_one(self, sql: str, *args: Any) -> Coroutine[Any, Any, asyncpg.Record | None]:
            """Return the first row, or None."""

        def fetch_all(self, sql: str, *args: Any) -> Coroutine[Any, Any, list[asyncpg.Record]]:
            """Return a list of all rows."""
