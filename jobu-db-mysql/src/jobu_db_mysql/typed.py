"""What the statements return here, for type checkers; at run time they are the core's."""

from __future__ import annotations

from typing import Any

from jobu_db.statements import ParameterStatements
from jobu_db_mysql.values import AffectedRows


class MySQLStatements(ParameterStatements[dict[str, Any], AffectedRows]):
    """`execute`, `executemany`, `fetch_one`, `fetch_all` and `fetch_val`, with `%s` or `:name`."""

    __slots__ = ()
