"""What the statements return here, for type checkers; at run time they are the core's."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jobu_db.statements import ParameterStatements

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterable
    from typing import Any

    from jobu_db.driver import Parameters
    from jobu_db_mysql.values import AffectedRows


class MySQLStatements(ParameterStatements):
    """`execute`, `executemany`, `fetch_one`, `fetch_all` and `fetch_val`, with `%s` or `:name`."""

    __slots__ = ()

    if TYPE_CHECKING:

        def execute(
            self, sql: str, parameters: Parameters = None
        ) -> Coroutine[Any, Any, AffectedRows]:
            """Run one statement; returns the rows that it matched, a number with `lastrowid`."""

        def executemany(
            self, sql: str, parameters: Iterable[Any]
        ) -> Coroutine[Any, Any, AffectedRows]:
            """Run one statement for each element of `parameters`, all of them or none."""

        def fetch_one(
            self, sql: str, parameters: Parameters = None
        ) -> Coroutine[Any, Any, dict[str, Any] | None]:
            """Return the first row, or None."""

        def fetch_all(
            self, sql: str, parameters: Parameters = None
        ) -> Coroutine[Any, Any, list[dict[str, Any]]]:
            """Return a list of all rows."""
