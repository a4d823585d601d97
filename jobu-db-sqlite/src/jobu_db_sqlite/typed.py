"""What the statements return here, for type checkers; at run time they are the core's."""

from __future__ import annotations

import sqlite3

from jobu_db.statements import ParameterStatements
from jobu_db_sqlite.statements import StatementResult


class SQLiteStatements(ParameterStatements[sqlite3.Row, StatementResult]):
    """`execute`, `executemany`, `fetch_one`, `fetch_all` and `fetch_val`, with `?` or `:name`."""

    __slots__ = ()
