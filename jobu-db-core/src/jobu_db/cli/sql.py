"""`jobu-db sql`: one statement, and its rows as a table, as JSON or as CSV."""

from __future__ import annotations

import asyncio
import csv
import json
import sys
from collections.abc import Callable, Iterable
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from math import isfinite
from typing import Any

import click
from rich.console import Console
from rich.text import Text

from jobu_db.cli.arguments import complete_names, config_option
from jobu_db.cli.opening import chosen_settings, for_a_command, opened
from jobu_db.cli.output import failure, fits, messages, output, printable, table
from jobu_db.database import BaseDatabase
from jobu_db.errors import ReadOnlyTransactionError
from jobu_db.placeholders import Dialect
from jobu_db.settings.models import DatabaseSettings
from jobu_db.statement_text import is_one_statement, tokens

LONGEST_TABLE = 1000
"""Rows that a table shows unless told otherwise."""

_CHANGE_ROWS = {"INSERT", "UPDATE", "DELETE", "REPLACE", "MERGE"}
_CHANGES = _CHANGE_ROWS | {
    *("CREATE", "ALTER", "DROP", "TRUNCATE", "SET", "GRANT", "REVOKE", "VACUUM", "REINDEX"),
    *("COMMENT", "RENAME"),
}

Row = dict[str, Any]
"""Each column under a name that no other has."""


@click.command(short_help="Run one statement, read-only unless told otherwise")
@click.argument("name", shell_complete=complete_names)
@click.argument("statement", metavar="SQL")
@config_option
@click.option("--write", is_flag=True, help="Allow it to change something, and commit.")
@click.option(
    "--format",
    "form",
    type=click.Choice(["table", "json", "csv"]),
    default="table",
    show_default=True,
)
@click.option(
    "--limit",
    type=click.IntRange(min=1),
    metavar="ROWS",
    help=f"Stop after so many. [default: {LONGEST_TABLE} in a table, else all]",
)
def sql(name: str, statement: str, config: str, write: bool, form: str, limit: int | None) -> None:
    """Run one statement on the database NAME; SQL "-" reads it from the standard input.

    The server refuses to write unless --write is given.

    \b
        jobu-db sql default "SELECT * FROM jobs"
        jobu-db sql default "DELETE FROM jobs WHERE id = 7" --write
    """
    if statement == "-":
        statement = sys.stdin.read()
    (settings,) = chosen_settings(config, [name]).values()
    if limit is None and form == "table":
        limit = LONGEST_TABLE
    try:
        asyncio.run(_run(name, settings, statement, write, form, limit))
    except ReadOnlyTransactionError as error:
        failure(f"{error}\nTo change something, give --write.")
        raise click.exceptions.Exit(1) from error


async def _run(
    name: str, settings: DatabaseSettings, statement: str, write: bool, form: str, limit: int | None
) -> None:
    with messages().status(Text(f"{name}: running")):
        async with opened(name, for_a_command(settings)) as database:
            async with database.pool.connection() as lease:
                # Of a connection, not of the driver: what is a string, and so where a statement
                # ends, depends on settings of the session (sql_mode, standard_conforming_strings).
                dialect = database.driver.dialect_of(lease.connection)
            # With a second statement, COMMIT among them, some servers would leave the read-only
            # transaction and write outside of it.
            if not is_one_statement(statement, dialect):
                raise click.UsageError("SQL must be one statement, and there is not exactly one")
            if gives_rows(statement, dialect):
                rows, more = await _fetch(database, statement, dialect, write, limit)
            else:
                rows, more = [], False
                done = await _execute(database, statement, write)
    if gives_rows(statement, dialect):
        _WRITERS[form](rows)
        _tell_number(rows, more)
    else:
        messages().print(f"done{_affected(statement, dialect, done)}")


def gives_rows(statement: str, dialect: Dialect) -> bool:
    """Say whether to ask for rows: not of what only changes something."""
    words = _words(statement, dialect)
    # A query in front of an INSERT, or of a SELECT: what comes behind it decides.
    if words[:1] == ["WITH"]:
        return "RETURNING" in words or not _CHANGE_ROWS & set(words)
    return "RETURNING" in words or not _CHANGES & set(words[:1])


def _words(statement: str, dialect: Dialect) -> list[str]:
    return [token.text.upper() for token in tokens(statement, dialect) if token.kind == "word"]


async def _execute(database: BaseDatabase, statement: str, write: bool) -> Any:
    """Run what gives no rows. It commits by itself: some statements take no transaction."""
    if write:
        return await database.execute(statement)
    async with database.transaction(readonly=True) as ctx:
        return await ctx.execute(statement)


async def _fetch(
    database: BaseDatabase, statement: str, dialect: Dialect, write: bool, limit: int | None
) -> tuple[list[Row], bool]:
    """Return rows, and whether there are more than `limit`."""
    if write:
        # All of it takes effect, however many rows are shown: a cursor that is left early would not
        # do.
        rows = list(map(_named, await database.fetch_all(statement)))
        return rows[:limit], limit is not None and len(rows) > limit
    async with database.transaction(readonly=True) as ctx:
        if limit is None or not _is_a_query(statement, dialect):
            rows = list(map(_named, await ctx.fetch_all(statement)))
            return (rows, False) if limit is None else (rows[:limit], len(rows) > limit)
        rows = []
        # One row more than shown tells that there are more. A cursor takes queries alone: not SHOW.
        async for row in ctx.iterate(statement, batch=min(limit + 1, 1000)):
            if len(rows) == limit:
                return rows, True
            rows.append(_named(row))
    return rows, False


def _named(row: Any) -> Row:
    """Return a row with all its columns: of those that share a name, the second is `name:2`.

    sqlite3's rows take `a` and `A` for one.
    """
    # By position where two names agree: a mapping would lose all but one of the columns.
    names = [str(name) for name in row.keys()]  # noqa: SIM118  # no dict
    if len({name.casefold() for name in names}) == len(names):
        return {name: row[name] for name in names}
    named: Row = {}
    for name, value in zip(names, _values(row), strict=True):
        number, own = 1, name
        while own in named:
            number += 1
            own = f"{name}:{number}"
        named[own] = value
    return named


def _values(row: Any) -> Any:
    """Return what is in a row, by position. sqlite3's rows have no `values()`."""
    return row.values() if hasattr(row, "values") else row


def _is_a_query(statement: str, dialect: Dialect) -> bool:
    return _words(statement, dialect)[:1] in (["SELECT"], ["WITH"], ["VALUES"])


def _affected(statement: str, dialect: Dialect, done: Any) -> str:
    if not _CHANGE_ROWS & set(_words(statement, dialect)[:1]):
        return ""
    if isinstance(done, str):
        return f": {done}"
    rows = done if isinstance(done, int) else getattr(done, "rowcount", -1)
    return "" if rows < 0 else f": {rows} row{'' if rows == 1 else 's'}"


def _tell_number(rows: list[Row], more: bool) -> None:
    number = f"{len(rows)} row{'' if len(rows) == 1 else 's'}"
    told = f"the first {number}; --limit shows more" if more else number
    messages().print(told)


# -- writing rows


def _as_table(rows: list[Row]) -> None:
    if not rows:
        return
    console = output()
    numbers = list(map(printable, _numbers(rows)))
    shown = table(*map(printable, rows[0]), numbers=numbers)
    for row in rows:
        shown.add_row(*(_cell(value) for value in row.values()))
    if fits(console, shown):
        console.print(shown)
    else:
        _one_below_another(console, rows)


def _numbers(rows: list[Row]) -> list[str]:
    kinds = (int, float, Decimal, type(None))
    return [name for name in rows[0] if all(isinstance(row[name], kinds) for row in rows)]


def _one_below_another(console: Console, rows: list[Row]) -> None:
    """Print each value on a line: what is too wide for the screen cannot be read as a table."""
    names = list(map(printable, rows[0]))
    longest = max(map(len, names))
    for number, row in enumerate(rows, 1):
        console.print(f"row {number}", style="dim")
        for name, value in zip(names, row.values(), strict=True):
            line = Text(f"  {name:<{longest}}  ")
            line.append_text(_cell(value))
            console.print(line, soft_wrap=True)


def _cell(value: Any) -> Text:
    if value is None:
        return Text("NULL", style="dim")
    return Text(printable(str(_plain(value))))


def _plain(value: Any) -> Any:
    """Return what JSON has, or a text."""
    if isinstance(value, float) and not isfinite(value):
        return str(value)
    if isinstance(value, bytes | bytearray | memoryview):
        return f"\\x{bytes(value).hex()}"
    if isinstance(value, date | datetime | time):
        return value.isoformat()
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    if isinstance(value, dict):
        return {str(key): _plain(each) for key, each in value.items()}
    if value is None or isinstance(value, str | bool | int | float):
        return value
    return str(value) if not isinstance(value, timedelta) else value.total_seconds()


def _as_json(rows: Iterable[Row]) -> None:
    click.echo(json.dumps([_plain(row) for row in rows], indent=2, ensure_ascii=False))


def _as_csv(rows: list[Row]) -> None:
    writer = csv.writer(sys.stdout, lineterminator="\n")
    if rows:
        writer.writerow(rows[0])
    for row in rows:
        writer.writerow("" if value is None else _plain(value) for value in row.values())


_WRITERS: dict[str, Callable[[list[Row]], None]] = {
    "table": _as_table,
    "json": _as_json,
    "csv": _as_csv,
}
