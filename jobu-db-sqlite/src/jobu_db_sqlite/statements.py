"""Running statements and reading their rows, in the connection's thread.

Invariant: a cursor is closed here, whatever happens. One that an error carried away would be freed
by the event loop some time later, which would wait until SQLite is done with what runs by then.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain, islice
from typing import Any

from jobu_db.driver import Parameters
from jobu_db_sqlite.scripts import split
from jobu_db_sqlite.thread import Engine
from jobu_db_sqlite.values import bindable

_ROWS_AT_ONCE = 1000
"""Rows of `executemany` between two looks at whether it is still wanted: SQLite itself can't be
interrupted in statements that short."""


@dataclass(frozen=True, slots=True)
class StatementResult:
    """What a statement did. Iterating gives its rows, if it returned any.

    Attributes:
        rowcount: Rows inserted, updated (also to the same values) or deleted; 0 for all else.
        lastrowid: After an INSERT that inserted a row, the rowid of the last one; else no answer
            to rely on. None after `executemany`.
        rows: All rows of a SELECT or RETURNING.
    """

    rowcount: int
    lastrowid: int | None
    rows: Sequence[sqlite3.Row] = field(default=(), repr=False)

    def __iter__(self) -> Iterator[sqlite3.Row]:
        return iter(self.rows)


def execute(engine: Engine, sql: str, parameters: Parameters) -> StatementResult:
    """Run one statement, and read all its rows."""
    cursor = engine.raw.execute(sql, bindable(parameters))
    try:
        # It has columns also where it has no rows; without columns there is nothing to read.
        rows = cursor.fetchall() if cursor.description is not None else ()
    finally:
        cursor.close()
    # sqlite3 says -1 of all that is no INSERT, UPDATE, DELETE or REPLACE. And the last rowid is the
    # connection's: an INSERT that inserted nothing would tell that of an earlier one.
    changed = max(cursor.rowcount, 0)
    return StatementResult(changed, cursor.lastrowid if changed else None, rows)


def execute_many(engine: Engine, sql: str, rows: Iterable[Any]) -> StatementResult:
    """Run one statement for each element of `rows`."""
    values: list[Any] = []
    for some in _while_wanted(engine, rows):
        values += map(bindable, some)  # all of them first: a row that is refused is to undo none
    cursor = engine.raw.executemany(sql, chain.from_iterable(_while_wanted(engine, values)))
    cursor.close()
    return StatementResult(max(cursor.rowcount, 0), None)


def _while_wanted(engine: Engine, rows: Iterable[Any]) -> Iterator[list[Any]]:
    remaining = iter(rows)
    while some := list(islice(remaining, _ROWS_AT_ONCE)):
        engine.check()
        yield some


def execute_script(engine: Engine, script: str) -> None:
    """Run the statements of a script. One that ends the transaction is the last to run: what comes
    behind it would commit by itself."""
    engine.let_sqlite_wait()
    for statement in split(script):
        engine.check()
        engine.run_all(statement)
        if not engine.raw.in_transaction:
            return


def fetch_one(engine: Engine, sql: str, parameters: Parameters) -> Any:
    """Return the first row, or None."""
    cursor = engine.raw.execute(sql, bindable(parameters))
    try:
        return cursor.fetchone()
    finally:
        cursor.close()


def fetch_all(engine: Engine, sql: str, parameters: Parameters) -> list[Any]:
    """Return all rows."""
    cursor = engine.raw.execute(sql, bindable(parameters))
    try:
        return cursor.fetchall()
    finally:
        cursor.close()


def fetch_val(engine: Engine, sql: str, parameters: Parameters) -> Any:
    """Return the first column of the first row, or None."""
    cursor = engine.raw.cursor()
    try:
        # Whatever rows the holder asked for, the first column is found by its place.
        cursor.row_factory = None
        row = cursor.execute(sql, bindable(parameters)).fetchone()
    finally:
        cursor.close()
    return None if row is None else row[0]
