"""The methods that run SQL, shared by databases and transaction contexts.

Two ways to pass values, because the drivers' users expect them: `(sql, *args)` and
`(sql, parameters)`. The methods are plain functions that return a coroutine: one coroutine less
to step through for every statement.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Generic, overload

from jobu_db._aio.timeouts import check_seconds
from jobu_db.driver import Driver, Parameters
from jobu_db.errors import ProgrammingError
from jobu_db.placeholders import Expanded, bind
from jobu_db.row_types import Row, converted

if TYPE_CHECKING:
    from typing_extensions import TypeVar

    RowT = TypeVar("RowT", default=Row)
    ResultT = TypeVar("ResultT", default=Any)
else:  # Python knows defaults from 3.13 on
    from typing import TypeVar

    RowT = TypeVar("RowT")
    ResultT = TypeVar("ResultT")

Result = Coroutine[Any, Any, Any]
T = TypeVar("T")


class Statements(ABC):
    """Statements whose values follow the SQL: `fetch_one("… WHERE id = $1", 7)`.

    Where a backend takes one sequence or mapping instead, that is the only argument.

    Every method takes `timeout`: seconds for the statement, all waiting included. When they are
    over it is stopped and undone, and raises `QueryTimeoutError`. In a transaction, the block can
    only be left after that; outside one, the statement gets a transaction of its own. (A limit for
    all statements is the setting `options.statement_timeout`.)

    `into` makes each row an object: of a dataclass, a pydantic model, a `NamedTuple`, or whatever
    takes the columns by their names. A column too many, or one that is missing, is a
    `ProgrammingError`.
    """

    __slots__ = ()

    @property
    @abstractmethod
    def _database_name(self) -> str: ...

    @abstractmethod
    def _run(self, operation: str, sql: str, parameters: Any) -> Result:
        """Translate `:name` placeholders, and have the driver run the operation."""

    @abstractmethod
    def _run_in_time(self, seconds: float, operation: str, sql: str, parameters: Any) -> Result:
        """Do as `_run`, and raise `QueryTimeoutError` if it takes longer: then it is undone."""

    def _start(self, operation: str, sql: str, parameters: Any, timeout: float | None) -> Result:
        if timeout is None:
            return self._run(operation, sql, parameters)
        check_seconds("timeout", timeout)
        return self._run_in_time(timeout, operation, sql, parameters)

    async def _converted(self, work: Result, sql: str, into: Callable[..., Any]) -> Any:
        found = await work
        # All rows, one row, or none: `fetch_all` alone returns a list.
        if isinstance(found, list):
            return list(converted(found, into, sql, self._database_name))
        return None if found is None else next(converted([found], into, sql, self._database_name))

    def execute(self, sql: str, *args: Any, timeout: float | None = None) -> Result:
        """Run one statement; returns the backend's result."""
        return self._start("execute", sql, gather(args), timeout)

    def executemany(self, sql: str, args: Iterable[Any], *, timeout: float | None = None) -> Result:
        """Run one statement for each element of `args`, a sequence or mapping of values."""
        return self._start("executemany", sql, args, timeout)

    def execute_script(
        self, sql: str, *, timeout: float | None = None
    ) -> Coroutine[Any, Any, None]:
        """Run several statements, separated by semicolons; outside a transaction, in one of their
        own. Nothing in the text is a placeholder.

        A script neither begins nor ends a transaction by itself. MySQL commits at every statement
        that defines something (CREATE, ALTER, DROP): what came before an error stays then.
        """
        return self._start("execute_script", sql, None, timeout)

    @overload
    def fetch_one(
        self, sql: str, *args: Any, timeout: float | None = None
    ) -> Coroutine[Any, Any, Row | None]: ...
    @overload
    def fetch_one(
        self, sql: str, *args: Any, into: Callable[..., T], timeout: float | None = None
    ) -> Coroutine[Any, Any, T | None]: ...
    def fetch_one(
        self,
        sql: str,
        *args: Any,
        into: Callable[..., Any] | None = None,
        timeout: float | None = None,
    ) -> Result:
        """Return the first row, or None."""
        work = self._start("fetch_one", sql, gather(args), timeout)
        return work if into is None else self._converted(work, sql, into)

    @overload
    def fetch_all(
        self, sql: str, *args: Any, timeout: float | None = None
    ) -> Coroutine[Any, Any, Sequence[Row]]: ...
    @overload
    def fetch_all(
        self, sql: str, *args: Any, into: Callable[..., T], timeout: float | None = None
    ) -> Coroutine[Any, Any, list[T]]: ...
    def fetch_all(
        self,
        sql: str,
        *args: Any,
        into: Callable[..., Any] | None = None,
        timeout: float | None = None,
    ) -> Result:
        """Return a list of all rows."""
        work = self._start("fetch_all", sql, gather(args), timeout)
        return work if into is None else self._converted(work, sql, into)

    def fetch_val(self, sql: str, *args: Any, timeout: float | None = None) -> Result:
        """Return the first column of the first row, or None."""
        return self._start("fetch_val", sql, gather(args), timeout)


class ParameterStatements(Statements, Generic[RowT, ResultT]):
    """Statements whose values are one argument: `fetch_one("… WHERE id = ?", [7])`.

    Combined with `BaseDatabase` and `TransactionContext` by backends whose drivers do it so; for
    type checkers they say of which type rows are, and what `execute` and `executemany` return.
    """

    __slots__ = ()

    def execute(  # type: ignore[override]
        self, sql: str, parameters: Parameters = None, *, timeout: float | None = None
    ) -> Coroutine[Any, Any, ResultT]:
        """Run one statement; returns the backend's result."""
        return self._start("execute", sql, parameters, timeout)

    def executemany(
        self, sql: str, parameters: Iterable[Any], *, timeout: float | None = None
    ) -> Coroutine[Any, Any, ResultT]:
        """Run one statement for each element of `parameters`, a sequence or mapping of values."""
        return self._start("executemany", sql, parameters, timeout)

    @overload  # type: ignore[override]
    def fetch_one(
        self, sql: str, parameters: Parameters = None, *, timeout: float | None = None
    ) -> Coroutine[Any, Any, RowT | None]: ...
    @overload
    def fetch_one(
        self,
        sql: str,
        parameters: Parameters = None,
        *,
        into: Callable[..., T],
        timeout: float | None = None,
    ) -> Coroutine[Any, Any, T | None]: ...
    def fetch_one(
        self,
        sql: str,
        parameters: Parameters = None,
        *,
        into: Callable[..., Any] | None = None,
        timeout: float | None = None,
    ) -> Result:
        """Return the first row, or None."""
        work = self._start("fetch_one", sql, parameters, timeout)
        return work if into is None else self._converted(work, sql, into)

    @overload  # type: ignore[override]
    def fetch_all(
        self, sql: str, parameters: Parameters = None, *, timeout: float | None = None
    ) -> Coroutine[Any, Any, list[RowT]]: ...
    @overload
    def fetch_all(
        self,
        sql: str,
        parameters: Parameters = None,
        *,
        into: Callable[..., T],
        timeout: float | None = None,
    ) -> Coroutine[Any, Any, list[T]]: ...
    def fetch_all(
        self,
        sql: str,
        parameters: Parameters = None,
        *,
        into: Callable[..., Any] | None = None,
        timeout: float | None = None,
    ) -> Result:
        """Return a list of all rows."""
        work = self._start("fetch_all", sql, parameters, timeout)
        return work if into is None else self._converted(work, sql, into)

    def fetch_val(  # type: ignore[override]
        self, sql: str, parameters: Parameters = None, *, timeout: float | None = None
    ) -> Result:
        """Return the first column of the first row, or None."""
        return self._start("fetch_val", sql, parameters, timeout)


def needs_transaction(driver: Driver[Any], operation: str) -> bool:
    """Say whether an operation outside a transaction is to get one of its own: all of it counts,
    or none. Where definitions end a transaction, a script is left to the driver."""
    if operation == "execute_script":
        return bool(driver.capabilities.transactional_ddl)
    return operation == "executemany"


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
    if operation == "execute_script":
        return driver.execute_script(connection, sql)
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
    # First what comes most: isinstance() with an abstract class costs several times as much.
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
    if any(type(value) is Expanded for row in rows for value in row.values()):
        raise ProgrammingError("expand() is not for executemany()", statement=sql)
    dialect = driver.dialect_of(connection)
    # All rows have the same text: either it has names for each of them, or for none.
    bound = [bound for row in rows if (bound := bind(sql, row, dialect)) is not None]
    if bound:
        return bound[0][0], [values for _, values in bound]
    return sql, ([(row,) for row in rows] if driver.variadic else rows)
