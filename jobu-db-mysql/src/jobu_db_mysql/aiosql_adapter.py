"""`aiosql.from_path(path, "asyncmy")`: the adapter that aiosql does not bring itself.

Rows are dictionaries. It runs on `ctx.connection` and on plain asyncmy connections.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Coroutine, Generator, Iterable, Mapping
from contextlib import asynccontextmanager
from typing import Any

from jobu_db.placeholders import Dialect, bind
from jobu_db_mysql import many, scripts
from jobu_db_mysql._private import QuietCursor, QuietDictCursor, StreamingDictCursor
from jobu_db_mysql.reading import dialect

NAME = "asyncmy"

_STANDARD = dialect("")


def register() -> None:
    """Make the adapter known to aiosql, if that is installed."""
    try:
        import aiosql
    except ImportError:
        return
    # Its protocol wants more annotations than its own adapters have.
    aiosql.register_adapter(NAME, AsyncmyAdapter)  # type: ignore[arg-type]


class Rows:
    """The rows of a query: aiosql 13 awaits them as a list, later versions iterate over them."""

    def __init__(self, read: Callable[[], Coroutine[Any, Any, list[Any]]]) -> None:
        self._read = read

    def __await__(self) -> Generator[Any, Any, list[Any]]:
        return self._read().__await__()

    async def __aiter__(self) -> AsyncIterator[Any]:
        for row in await self._read():
            yield row


class AsyncmyAdapter:
    """What aiosql calls for each kind of query; the methods' names and arguments are aiosql's."""

    is_aio_driver = True

    def process_sql(self, query_name: str, op_type: Any, sql: str) -> str:
        """Leave the SQL as it is: `:name` is translated with the values at hand."""
        return sql

    def select(
        self,
        conn: Any,
        query_name: str,
        sql: str,
        parameters: Any,
        record_class: Callable[..., Any] | None = None,
    ) -> Rows:
        """Return the rows of a query without marker."""

        async def read() -> list[Any]:
            async with _executed(conn, QuietDictCursor, sql, parameters) as cursor:
                rows = await cursor.fetchall()
            return list(rows if record_class is None else (record_class(**row) for row in rows))

        return Rows(read)

    async def select_one(
        self,
        conn: Any,
        query_name: str,
        sql: str,
        parameters: Any,
        record_class: Callable[..., Any] | None = None,
    ) -> Any:
        """Return the first row of a `^` query, or None."""
        async with _executed(conn, QuietDictCursor, sql, parameters) as cursor:
            row = await cursor.fetchone()
        return row if row is None or record_class is None else record_class(**row)

    async def select_value(self, conn: Any, query_name: str, sql: str, parameters: Any) -> Any:
        """Return the first value of a `$` query, or None."""
        async with _executed(conn, QuietCursor, sql, parameters) as cursor:
            row = await cursor.fetchone()
        return None if row is None else row[0]

    @asynccontextmanager
    async def select_cursor(
        self, conn: Any, query_name: str, sql: str, parameters: Any
    ) -> AsyncIterator[Any]:
        """Give an unbuffered cursor; no other statement may run while it has unread rows."""
        async with _executed(conn, StreamingDictCursor, sql, parameters) as cursor:
            yield cursor

    async def insert_returning(self, conn: Any, query_name: str, sql: str, parameters: Any) -> Any:
        """Return what the RETURNING of a `<!` query says, or else the generated id."""
        async with _executed(conn, QuietDictCursor, sql, parameters) as cursor:
            # MySQL has no RETURNING: what was generated is told with the answer, and costs no
            # query.
            if not cursor.description:
                return cursor.lastrowid
            row = await cursor.fetchone()
        return next(iter(row.values())) if row is not None and len(row) == 1 else row

    async def insert_update_delete(
        self, conn: Any, query_name: str, sql: str, parameters: Any
    ) -> int:
        """Return the affected rows of a `!` query."""
        async with _executed(conn, QuietCursor, sql, parameters) as cursor:
            return int(cursor.rowcount)

    async def insert_update_delete_many(
        self, conn: Any, query_name: str, sql: str, parameters: Iterable[Any]
    ) -> int:
        """Run a `*!` query for each element and return the affected rows."""
        bound = [_bind(conn, sql, each) for each in parameters]
        if not bound:
            return 0
        sql, rows = bound[0][0], [values for _, values in bound]
        count = 0
        # Rows share statements, as in the executemany of a context.
        for text in many.texts(conn, sql, rows, _dialect_of(conn)):
            count += await _run_all(conn, text.sql, several=text.several)
        return count

    async def execute_script(self, conn: Any, sql: str) -> str:
        """Run all statements of a `#` query."""
        language = _dialect_of(conn)
        if not scripts.is_empty(sql, language):
            script = scripts.without_empty_statements(sql, language)
            await _run_all(conn, script, several=True)
        return "DONE"


async def _run_all(conn: Any, sql: str, *, several: bool) -> int:
    """Run a text and return the affected rows of all its statements."""
    if several and hasattr(conn, "run_all"):  # one of ours, which takes no other such text
        return int(await conn.run_all(sql))
    async with conn.cursor(QuietCursor) as cursor:
        count = int(await cursor.execute(sql))
        while await cursor.nextset():
            count += cursor.rowcount
    return count


@asynccontextmanager
async def _executed(conn: Any, kind: type, sql: str, parameters: Any) -> AsyncIterator[Any]:
    async with conn.cursor(kind) as cursor:
        await cursor.execute(*_bind(conn, sql, parameters))
        yield cursor


def _bind(conn: Any, sql: str, parameters: Any) -> tuple[str, Any]:
    if isinstance(parameters, Mapping):
        return bind(sql, parameters, _dialect_of(conn)) or (sql, None)
    return sql, parameters or None


def _dialect_of(conn: Any) -> Dialect:
    return getattr(conn, "dialect", None) or _STANDARD
