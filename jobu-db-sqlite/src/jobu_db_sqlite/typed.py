"""What the statements return here, for type checkers; at run time they are the core's."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jobu_db.statements import ParameterStatements

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Coroutine, Iterable
    from typing import Any

    from jobu_db.driver import Parameters
    from jobu_db_sqlite.statements import StatementResult


class SQLiteStatements(ParameterStatements):
    """`execute`, `executemany`, `fetch_one`, `fetch_all` and `fetch_val`, with `?` or `:name`."""

    __slots__ = ()

    if TYPE_CHECKING:

        def execute(
            self, sql: str, parameters: Parameters = None
        ) -> Coroutine[Any, Any, StatementResult]: ...

        def executemany(
            self, sql: str, parameters: Iterable[Any]
        ) -> Coroutine[Any, Any, StatementResult]: ...

        def fetch_one(
            self, sql: str, parameters: Parameters = None
        ) -> Coroutine[Any, Any, sqlite3.Row | None]: ...

        def fetch_all(
            self, sql: str, parameters: Parameters = None
        ) -> Coroutine[Any, Any, list[sqlite3.Row]]: ...
