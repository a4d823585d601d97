"""From parameters to SQL, and from results to what users get."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jobu_db.driver import Parameters
from jobu_db.errors import DataError, ProgrammingError, QueryExecutionError
from jobu_db.placeholders import check_percent
from jobu_db_mysql.session import MySQLConnection


class AffectedRows(int):
    """How many rows a statement matched, or returned.

    Attributes:
        lastrowid: The first AUTO_INCREMENT value that it generated, or 0.
    """

    lastrowid: int

    def __new__(cls, count: int, lastrowid: int = 0) -> AffectedRows:
        """Make a count."""
        self = super().__new__(cls, count)
        self.lastrowid = lastrowid
        return self

    @property
    def rowcount(self) -> int:
        """The same number, by the name that it has on every database."""
        return int(self)


def refuse_more_results(count: int) -> None:
    """Raise if rows were dropped because they came behind the first result.

    Raises:
        QueryExecutionError: The statement, a CALL, gave several results with rows.
    """
    if count:
        raise QueryExecutionError(
            f"the statement ran, and gave {count + 1} results with rows, of which this method "
            "returns one: read them all with a cursor of ctx.connection and its nextset()"
        )


def fill_in(connection: MySQLConnection, sql: str, parameters: Parameters) -> str:
    """Write the parameters into the SQL.

    Raises:
        DataError: A value cannot be sent.
        ProgrammingError: They do not fit, or a literal `%` is not written as `%%`.
    """
    if parameters is None:
        return sql
    if isinstance(parameters, Mapping):
        return _fill_in_names(connection, sql, parameters)
    values = parameters if isinstance(parameters, tuple | list) else (parameters,)
    try:
        # All at once; only where one fails it is worth finding out which.
        literals = tuple([connection.literal(value) for value in values])
    except DataError:
        literals = tuple(
            [_told(connection, sql, f"parameter {n}", v) for n, v in enumerate(values, 1)]
        )
    try:
        return sql % literals
    except (TypeError, ValueError):
        check_percent(sql, len(literals))
        raise


def _told(connection: MySQLConnection, sql: str, name: str, value: Any) -> str:
    """Write a value; an error says which one it was."""
    try:
        return connection.literal(value)
    except DataError as error:
        refusal = DataError(f"{name} is {error.message}", statement=sql)
    # Outside of the block: the first error, with all that its frames hold, would be its context.
    raise refusal


def _fill_in_names(connection: MySQLConnection, sql: str, parameters: Mapping[str, Any]) -> str:
    if not parameters:
        return sql
    if "%(" not in sql:
        raise ProgrammingError("parameters were given, but the SQL has no :name", statement=sql)
    literals = {
        name: _told(connection, sql, f"parameter {name}", value)
        for name, value in parameters.items()
    }
    try:
        return sql % literals
    except KeyError as error:
        raise ProgrammingError(f"no parameter for %({error.args[0]})s", statement=sql) from None
    except (TypeError, ValueError) as error:
        raise ProgrammingError(
            f"{error}: with parameters, write a literal % as %%", statement=sql
        ) from None
