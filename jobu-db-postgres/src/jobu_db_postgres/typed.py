"""What the statements return here, for type checkers; at run time they are the core's."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jobu_db.statements import Statements

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable
    from typing import Any, TypeVar, overload

    import asyncpg

    from jobu_db_postgres.status import Status

    T = TypeVar("T")


class PostgresStatements(Statements):
    """`execute`, `executemany`, `fetch_one`, `fetch_all` and `fetch_val`, with `$1` or `:name`."""

    __slots__ = ()

    if TYPE_CHECKING:

        def execute(
            self, sql: str, *args: Any, timeout: float | None = None
        ) -> Coroutine[Any, Any, Status]: ...

        def executemany(
            self, sql: str, args: Iterable[Any], *, timeout: float | None = None
        ) -> Coroutine[Any, Any, None]: ...

        @overload
        def fetch_one(
            self, sql: str, *args: Any, timeout: float | None = None
        ) -> Coroutine[Any, Any, asyncpg.Record | None]: ...
        @overload
        def fetch_one(
            self, sql: str, *args: Any, into: Callable[..., T], timeout: float | None = None
        ) -> Coroutine[Any, Any, T | None]: ...
        def fetch_one(self, *_: Any, **__: Any) -> Any: ...

        @overload
        def fetch_all(
            self, sql: str, *args: Any, timeout: float | None = None
        ) -> Coroutine[Any, Any, list[asyncpg.Record]]: ...
        @overload
        def fetch_all(
            self, sql: str, *args: Any, into: Callable[..., T], timeout: float | None = None
        ) -> Coroutine[Any, Any, list[T]]: ...
        def fetch_all(self, *_: Any, **__: Any) -> Any: ...
