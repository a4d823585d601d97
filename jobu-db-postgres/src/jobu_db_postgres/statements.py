"""What the statements return here, for type checkers; at run time they are the core's."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jobu_db.statements import Statements

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterable
    from typing import Any

    import asyncpg


class PostgresStatements(Statements):
    """`execute`, `executemany`, `fetch_one`, `fetch_all` and `fetch_val`, with `$1` or `:name`."""

    __slots__ = ()

    if TYPE_CHECKING:

        def execute(self, sql: str, *args: Any) -> Coroutine[Any, Any, str]: ...

        def executemany(self, sql: str, args: Iterable[Any]) -> Coroutine[Any, Any, None]: ...

        def fetch_one(self, sql: str, *args: Any) -> Coroutine[Any, Any, asyncpg.Record | None]: ...

        def fetch_all(self, sql: str, *args: Any) -> Coroutine[Any, Any, list[asyncpg.Record]]: ...
