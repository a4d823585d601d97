"""The methods that run SQL, shared by databases and transaction contexts.

Two ways to pass values, because the drivers' users expect them: `(sql, *args)` and
`(sql, parameters)`. The methods are plain functions that return a coroutine: one coroutine less
to step through for every statement.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping, Sequence
from typing import Any

from jobu_db.driver import Driver, Parameters
from jobu_db.placeholders import bind

Result = Coroutine[Any, Any, Any]


class Statements(ABC):
    """Statements whose values follow the SQL: `fetch_one("… WHERE id = $1", 7)`.

    Where a backend takes one sequence or mapping instead, that is the only argument.
    """

    __slots__ = ()

    @abstractmethod
    def _run(self, operation: str, sql: str, parameters: Any) -> Result:
        """Translate `:name` placeholders, and have the driver run the operation."""

    def execute(self, sql: str, *args: Any) -> Result:
        """Run one statement; returns the backend's result."""
        return self._run("execute", sql, gather(args))

    def executemany(self, sql: str, args: Iterable[Any]) -> Result:
        """Run one statement for each element of `args`, a sequence or mapping of values."""
        return self._run("executemany", sql, args)

    def fetch_one(self, sql: str, *args: Any) -> Result:
        """Return the first row, or None."""
        return self._run("fetch_one", sql, gather(args))

    def fetch_all(self, sql: str, *args: Any) -> Result:
        """Return a list of all rows."""
        return self._run("fetch_all", sql, gather(args))

    def fetch_val(self, sql: str, *args: Any) -> Result:
        """Return the first column of the first row, or None."""
        return self._run("fetch_val", sql, gather(args))


class ParameterStatements(Statements):
    """Statements whose values are one argument: `fetch_one("… WHERE id = ?", [7])`.

    Combined with `BaseDatabase` and `TransactionContext` by backends whose drivers do it so.
    """

    __slots__ = ()

    def execute(self, sql: str, parameters: Parameters = None) -> Result:
        """Run one statement; returns the backend's result."""
        return self._run("execute", sql, parameters)

    def executemany(self, sql: str, parameters: Iterable[Any]) -> Result:
        """Run one statement for each element of `parameters`, a sequence or mapping of values."""
        return self._run("executemany", sql, parameters)

    def fetch_one(self, sql: str, parameters: Parameters = None) -> Result:
        """Return the first row, or None."""
        return self._run("fetch_one", sql, parameters)

    def fetch_all(self, sql: str, parameters: Parameters = None) -> Result:
        """Return a list of all rows."""
        return self._run("fetch_all", sql, parameters)

    def fetch_val(self, sql: str, parameters: Parameters = None) -> Result:
        """Return the first column of the first row, or None."""
        return self._run("fetch_val", sql, parameters)


def gather(args: tuple[Any, ...]) -> Parameters:
    """Turn what followed the SQL into what a driver takes."""
    if len(args) == 1 and isinstance(args[0], Mapping):
        return args[0]
    return args or None


def start(
    driver: Driver[Any], connection: Any, operation: str, sql: str, parameters: Any
) -> Awaitable[Any]:
    """Have the driver run one statement, with `:name` placeholders translated; await the result.

    To be called when nothing comes between this and the statement: what ran before may have
    changed how the server reads what is quoted.

    Raises:
        QueryExecutionError: A name is missing or surplus, or styles are mixed.
    """
    sql, parameters = translate_names(driver, connection, operation, sql, parameters)
    work: Callable[..., Awaitable[Any]] = getattr(driver, operation)
    return work(connection, sql, parameters)


def translate_names(
    driver: Driver[Any], connection: Any, operation: str, sql: str, parameters: Any
) -> tuple[str, Any]:
    """Turn `:name` placeholders and a mapping into what the driver takes.

    Args:
        connection: Where the statement runs next: what is quoted depends on its session.

    Raises:
        QueryExecutionError: A name is missing or surplus, or styles are mixed.
    """
    if operation == "executemany":
        return _translate_rows(driver, connection, sql, list(parameters))
    if type(parameters) in (tuple, list) or not isinstance(parameters, Mapping):
        return sql, parameters
    bound = bind(sql, parameters, driver.dialect_of(connection))
    if bound is not None:
        return bound
    return sql, ((parameters,) if driver.variadic else parameters)


def _translate_rows(
    driver: Driver[Any], connection: Any, sql: str, rows: list[Any]
) -> tuple[str, Sequence[Any]]:
    if not rows or not isinstance(rows[0], Mapping):
        return sql, rows
    dialect = driver.dialect_of(connection)
    bound = [bound for row in rows if (bound := bind(sql, row, dialect)) is not None]
    if bound:
        return bound[0][0], [values for _, values in bound]
    return sql, ([(row,) for row in rows] if driver.variadic else rows)
