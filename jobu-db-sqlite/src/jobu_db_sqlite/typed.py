"""What the statements return here, for type checkers; at run time they are the core's."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jobu_db.statements import ParameterStatements

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Coroutine, Iterable
    from typing import Any, TypeVar, overload

    from jobu_db.driver import Parameters
    from jobu_db_sqlite.statements import StatementResult

    T = TypeVar("T")


class SQLiteStatements(ParameterStatements):
    """`execute`, `executemany`, `fetch_one`, `fetch_all` and `fetch_val`, with `?` or `:name`."""

    __slots__ = ()

    if TYPE_CHECKING:

        def execute(  # type: ignore[override]
            self, sql: str, parameters: Parameters = None, *, timeout: float | None = None
        ) -> Coroutine[Any, Any, StatementResult]: ...

        def executemany(
            self, sql: str, parameters: Iterable[Any], *, timeout: float | None = None
        ) -> Coroutine[Any, Any, StatementResult]: ...

        @overload  # type: ignore[override]
        def fetch_one(
            self, sql: str, parameters: Parameters = None, *, timeout: float | None = None
        ) -> Coroutine[Any, Any, sqlite3.Row | None]: ...
        @overload
        def fetch_one(
            self,
            sql: str,
            parameters: Parameters = None,
            *,
            into: Callable[..., T],
            timeout: float | None = None,
        ) -> Coroutine[Any, Any, T | None]: ...
        def fetch_one(self, *_: Any, **__: Any) -> Any: ...

        @overload  # type: ignore[override]
        def fetch_all(
            self, sql: str, parameters: Parameters = None, *, timeout: float | None = None
        ) -> Coroutine[Any, Any, list[sqlite3.Row]]: ...
        @overload
        def fetch_all(
            self,
            sql: str,
            parameters: Parameters = None,
            *,
            into: Callable[..., T],
            timeout: float | None = None,
        ) -> Coroutine[Any, Any, list[T]]: ...
        def fetch_all(self, *_: Any, **__: Any) -> Any: ...
