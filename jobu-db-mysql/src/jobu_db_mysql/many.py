"""One statement for many rows of parameters, in as few texts as can be.

Rows of an `INSERT ... VALUES (%s, ...)` go into one INSERT of many rows, which the server takes
several times as fast. asyncmy does that as well, by a pattern that looks into strings and
comments, and leaves `%%` behind the rows as it is. Every other statement is written once for each
row.

Invariant: the rows come together only where many in one INSERT mean the same as one INSERT each.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from jobu_db.errors import QueryExecutionError
from jobu_db.placeholders import Dialect
from jobu_db_mysql import scripts
from jobu_db_mysql.values import fill_in

_TEXT_LIMIT = 250_000
"""Characters sent at once: far below the smallest `max_allowed_packet` a server has by default."""

_LARGE = 10**18

_VALUE = r"\s*(?:%s|%\([^()]*\)s)\s*"
_ROW = re.compile(rf"\({_VALUE}(?:,{_VALUE})*\)")
_OTHER_ROWS = frozenset({"SELECT", "SET", "UNION", "EXCEPT", "INTERSECT"})
"""Where one of these comes first, what is behind VALUES is not the list of rows to insert."""


class Text(NamedTuple):
    """What is sent at once; `several` if it has more than one statement."""

    sql: str
    several: bool


class _Insert(NamedTuple):
    before: str
    row: str
    after: str


def texts(connection: Any, sql: str, rows: list[Any], dialect: Dialect) -> list[Text]:
    """Write the parameters into the SQL, for all rows: nothing is sent if one does not fit.

    Args:
        connection: What writes values as SQL: a connection of asyncmy, guarded or not.

    Raises:
        QueryExecutionError: They do not fit, or a literal `%` is not written as `%%`.
    """
    insert = _insert(sql, dialect)
    if insert is None:
        statement = scripts.without_last_semicolon(sql, dialect)
        written = _written(connection, sql, statement, rows)
        if any(token.lastgroup == "end" for token in scripts.tokens(statement, dialect)):
            # The server refuses more than one statement, as it does elsewhere.
            return [Text(one, several=False) for one in written]
        # On a line of its own, a semicolon cannot end up in a comment.
        return [Text("\n;".join(batch), len(batch) > 1) for batch in _batches(written)]
    batches = _batches(_written(connection, sql, insert.row, rows))
    return [
        Text(f"{insert.before}{','.join(batch)}{insert.after}", several=False) for batch in batches
    ]


def _written(connection: Any, sql: str, part: str, rows: list[Any]) -> Iterable[str]:
    """Write each row into a part of the SQL; an error names all of it."""
    try:
        # Only if that fails, which is rare, each row is written by itself: its error says which
        # value it was.
        return _written_fast(connection, part, rows)
    except (TypeError, ValueError, QueryExecutionError):
        for row in rows:
            fill_in(connection, sql, row)
        raise


def _written_fast(connection: Any, part: str, rows: list[Any]) -> list[str]:
    if not all(type(row) in (tuple, list) for row in rows):
        return [fill_in(connection, part, row) for row in rows]
    literal = connection.literal
    # `%` writes an int as SQL does; the longest ones are refused.
    return [
        part
        % tuple(
            [
                value if type(value) is int and -_LARGE < value < _LARGE else literal(value)
                for value in row
            ]
        )
        for row in rows
    ]


def _batches(pieces: Iterable[str]) -> Iterator[list[str]]:
    batch: list[str] = []
    size = 0
    for piece in pieces:
        if batch and size + len(piece) > _TEXT_LIMIT:
            yield batch
            batch, size = [], 0
        batch.append(piece)
        size += len(piece)
    if batch:
        yield batch


def _insert(sql: str, dialect: Dialect) -> _Insert | None:
    """Take an INSERT or REPLACE apart around its row of placeholders, if it has just one."""
    start = _row_start(sql, dialect)
    row = _ROW.match(sql, start) if start is not None else None
    if row is None:
        return None
    before, after = sql[: row.start()], scripts.without_last_semicolon(sql[row.end() :], dialect)
    if not _takes_more_rows(after, dialect):
        return None
    # What is left of them must have no placeholder: it stands in the text once, not once a row.
    literals = [part.replace("%%", "") for part in (before, after)]
    if any("%" in literal for literal in literals):
        return None  # another placeholder, or a mistake that will be told
    return _Insert(before.replace("%%", "%"), row[0], after.replace("%%", "%"))


def _row_start(sql: str, dialect: Dialect) -> int | None:
    """Find the parenthesis behind the VALUES of an INSERT or REPLACE."""
    depth = 0
    previous = ""
    for token in scripts.tokens(sql, dialect):
        word = token[0].upper()
        if token.lastgroup == "blank":
            continue
        if not previous and word not in ("INSERT", "REPLACE"):
            return None
        if not depth and (token.lastgroup == "end" or word in _OTHER_ROWS or word[:2] == "/*"):
            return None
        follows = word == "(" and not depth and previous in ("VALUES", "VALUE")
        if follows and _ROW.match(sql, token.start()):
            return token.start()
        depth += (word == "(") - (word == ")")
        previous = word
    return None


def _takes_more_rows(after: str, dialect: Dialect) -> bool:
    """Say whether nothing follows a row but AS and ON DUPLICATE KEY UPDATE."""
    code = [token for token in scripts.tokens(after, dialect) if token.lastgroup != "blank"]
    return not code or (
        code[0][0].upper() in ("AS", "ON") and all(token.lastgroup == "code" for token in code)
    )
