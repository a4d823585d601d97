"""What SQLite's errors mean, each one provoked."""

from __future__ import annotations

import asyncio
import contextvars
import sqlite3
from typing import TYPE_CHECKING, Any

import pytest

from jobu_db import (
    CheckViolationError,
    ConnectionLostError,
    DatabaseError,
    DataError,
    ForeignKeyViolationError,
    InsufficientPrivilegeError,
    IntegrityError,
    LockTimeoutError,
    NotNullViolationError,
    ProgrammingError,
    QueryExecutionError,
    SerializationError,
    SQLSyntaxError,
    UndefinedColumnError,
    UndefinedTableError,
    UniqueViolationError,
)
from jobu_db.driver import READ_ONLY, READ_WRITE
from jobu_db_sqlite import SQLiteDatabase
from jobu_db_sqlite.driver import SQLiteDriver
from jobu_db_sqlite.errors import ClosedError, translate
from jobu_db_sqlite.proxy import Connection

if TYPE_CHECKING:
    from .conftest import Connect, OpenDatabase

SCHEMA = """
CREATE TABLE parent (id INTEGER PRIMARY KEY, key TEXT, UNIQUE (key)) STRICT;
CREATE TABLE keyed (key TEXT PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE child (parent INTEGER REFERENCES parent ON DELETE RESTRICT);
CREATE TABLE later (parent INTEGER REFERENCES parent DEFERRABLE INITIALLY DEFERRED);
CREATE TABLE picky (a NOT NULL, b CHECK (b > 0), c CONSTRAINT small CHECK (c < 9));
CREATE TRIGGER forbid BEFORE DELETE ON picky BEGIN SELECT RAISE(ABORT, 'not that one'); END;
INSERT INTO parent VALUES (1, 'a'), (2, 'b');
INSERT INTO keyed VALUES ('a');
INSERT INTO child VALUES (1);
INSERT INTO picky VALUES (1, 1, 1);
"""


@pytest.fixture
async def schema(db: SQLiteDatabase) -> SQLiteDatabase:
    async with db.transaction() as ctx:
        await ctx.connection.executescript(SCHEMA)
    return db


@pytest.mark.parametrize(
    ("sql", "meaning", "code"),
    [
        ("INSERT INTO parent VALUES (3, 'a')", UniqueViolationError, "SQLITE_CONSTRAINT_UNIQUE"),
        (
            "INSERT INTO parent VALUES (1, 'c')",
            UniqueViolationError,
            "SQLITE_CONSTRAINT_PRIMARYKEY",
        ),
        ("INSERT INTO keyed VALUES ('a')", UniqueViolationError, "SQLITE_CONSTRAINT_PRIMARYKEY"),
        (
            "INSERT INTO child VALUES (9)",
            ForeignKeyViolationError,
            "SQLITE_CONSTRAINT_FOREIGNKEY",
        ),
        (
            "DELETE FROM parent WHERE id = 1",
            ForeignKeyViolationError,
            "SQLITE_CONSTRAINT_TRIGGER",
        ),
        (
            "INSERT INTO picky VALUES (NULL, 1, 1)",
            NotNullViolationError,
            "SQLITE_CONSTRAINT_NOTNULL",
        ),
        ("INSERT INTO picky VALUES (1, 0, 1)", CheckViolationError, "SQLITE_CONSTRAINT_CHECK"),
        ("INSERT INTO picky VALUES (1, 1, 9)", CheckViolationError, "SQLITE_CONSTRAINT_CHECK"),
        ("DELETE FROM picky", IntegrityError, "SQLITE_CONSTRAINT_TRIGGER"),
        ("INSERT INTO parent VALUES ('x', 'c')", IntegrityError, "SQLITE_MISMATCH"),
        ("INSERT INTO parent (key) VALUES (x'00')", IntegrityError, "SQLITE_CONSTRAINT_DATATYPE"),
        ("SELEC 1", SQLSyntaxError, "SQLITE_ERROR"),
        ("SELECT * FROM missing", UndefinedTableError, "SQLITE_ERROR"),
        ("SELECT missing FROM t", UndefinedColumnError, "SQLITE_ERROR"),
        ("SELECT missing()", ProgrammingError, "SQLITE_ERROR"),
        ("SELECT abs(1, 2)", ProgrammingError, "SQLITE_ERROR"),
        ("CREATE TABLE t (a)", ProgrammingError, "SQLITE_ERROR"),
        ("SELECT 1; SELECT 2", QueryExecutionError, None),
        ("SELECT ?", ProgrammingError, None),
        ("SELECT 1\0", ProgrammingError, None),
        ("SELECT CAST(x'ff41' AS TEXT)", DataError, None),
        ("SELECT zeroblob(2000000000)", DataError, "SQLITE_TOOBIG"),
        ("SELECT abs(-9223372036854775808)", DataError, "SQLITE_ERROR"),
        ("SELECT json('{')", DataError, "SQLITE_ERROR"),
    ],
)
async def test_an_error_of_a_statement(
    schema: SQLiteDatabase, sql: str, meaning: type[DatabaseError], code: str | None
) -> None:
    async with schema.transaction() as ctx:
        await ctx.execute("INSERT INTO t VALUES (7, 'kept')")
        with pytest.raises(DatabaseError) as caught:
            await ctx.execute(sql)
    error = caught.value
    assert (type(error), error.code) == (meaning, code)
    assert (error.database, error.statement, error.retryable) == ("main", sql, False)
    assert isinstance(error.__cause__, sqlite3.Error)
    assert await schema.fetch_val("SELECT name FROM t") == "kept", "the transaction goes on"


async def test_a_duplicate_rowid(schema: SQLiteDatabase) -> None:
    await schema.execute("INSERT INTO child (rowid) VALUES (7)")
    with pytest.raises(UniqueViolationError) as caught:
        await schema.execute("INSERT INTO child (rowid) VALUES (7)")
    assert caught.value.code == "SQLITE_CONSTRAINT_ROWID"


async def test_a_deferred_foreign_key_fails_at_commit_and_nothing_stays(
    schema: SQLiteDatabase,
) -> None:
    with pytest.raises(ForeignKeyViolationError):
        async with schema.transaction() as ctx:
            await ctx.execute("INSERT INTO later VALUES (99)")
    assert await schema.fetch_val("SELECT count(*) FROM later") == 0
    assert schema.stats()["in_use"] == 0


@pytest.mark.parametrize("value", [2**63, "\ud800", object(), {1, 2}])
async def test_a_value_that_sqlite_cannot_take(schema: SQLiteDatabase, value: Any) -> None:
    with pytest.raises((QueryExecutionError, UnicodeEncodeError)):
        await schema.execute("INSERT INTO t (name) VALUES (?)", [value])
    assert await schema.fetch_val("SELECT count(*) FROM t") == 0


async def test_no_error_shows_a_parameter(schema: SQLiteDatabase) -> None:
    secret = "hunter2"
    for sql, values in [
        ("INSERT INTO parent (key) VALUES (?)", [secret]),
        ("INSERT INTO parent (key) VALUES (?)", [secret]),
        ("INSERT INTO picky VALUES (1, 1, ?)", [secret]),
        ("SELECT ?", [secret, secret]),
        ("SELECT json(?)", [secret]),
        ("INSERT INTO parent (id) VALUES (?)", [secret]),
    ]:
        try:
            await schema.execute(sql, values)
        except DatabaseError as error:
            told = f"{error!s}{error!r}{error.__cause__!r}{vars(error)}"
            assert secret not in told


@pytest.mark.parametrize(
    ("sql", "value", "told"),
    [
        ("SELECT json_extract('{}', ?)", "$[hunter2", "JSON path error near …|bad JSON path: …"),
        ("SELECT '{}' -> :v", "$hunter2[", "JSON path error near …|bad JSON path: …"),
        ("SELECT * FROM texts WHERE texts MATCH ?", "hunter2 : x", "no such column: …"),
        ("SELECT * FROM texts(:v)", "hunter2 : x", "no such column: …"),
        ("SELECT * FROM texts WHERE texts MATCH ?", "*hunter2", "unknown special query: …"),
        ("ATTACH ? AS other", "/nowhere/hunter2.db", "unable to open database: …"),
        ("DETACH ?", "hunter2", "no such database: …"),
        ("SELECT * FROM pragma_integrity_check(?)", "hunter2", "no such table: …"),
    ],
)
@pytest.mark.parametrize("streamed", [False, True])
async def test_what_sqlite_repeats_of_a_parameter_is_not_shown(
    schema: SQLiteDatabase, sql: str, value: str, told: str, streamed: bool
) -> None:
    await schema.execute("CREATE VIRTUAL TABLE texts USING fts5(a)")
    given: Any = {"v": value} if ":v" in sql else [value]
    with pytest.raises(DatabaseError) as caught:
        async with schema.transaction() as ctx:
            if streamed:
                _ = [row async for row in ctx.iterate(sql, given)]
            else:
                await ctx.fetch_all(sql, given)
    error = caught.value
    assert error.message in told.split("|")
    assert "hunter2" not in f"{error!s}{error!r}{vars(error)}{getattr(error, '__notes__', '')}"
    assert "hunter2" in str(error.__cause__)


async def test_what_the_statement_says_itself_is_shown(schema: SQLiteDatabase) -> None:
    await schema.execute("CREATE VIEW seen AS SELECT * FROM nowhere")
    for sql, told in (
        ('SELECT "Missing" . id FROM t AS "Missing_not"', "no such column: Missing.id"),
        ("SELECT nix FROM t", "no such column: nix"),
        ("SELECT * FROM nix", "no such table: nix"),
        ("SELECT * FROM seen", "no such table: main.nowhere"),
        ("SELECT json_extract('{}', 'nix')", "JSON path error near 'nix'|bad JSON path: 'nix'"),
    ):
        with pytest.raises(DatabaseError) as caught:
            await schema.fetch_all(sql)
        assert caught.value.message in told.split("|")


# -- locks


async def test_another_programs_lock(
    driver: SQLiteDriver, connect: Connect, outside: sqlite3.Connection
) -> None:
    connection = await connect(busy_timeout=30)
    outside.execute("BEGIN IMMEDIATE")
    for _ in range(2):  # once it fails, once more it may be tried
        await driver.begin(connection, READ_WRITE)
        with pytest.raises(sqlite3.OperationalError) as caught:
            await driver.execute(connection, "CREATE TABLE t (x)", None)
        meaning = translate(caught.value)
        assert isinstance(meaning, LockTimeoutError)
        assert (meaning.retryable, meaning.code) == (True, "SQLITE_BUSY")
        await driver.rollback(connection)
    outside.execute("COMMIT")
    await driver.begin(connection, READ_WRITE)
    await driver.execute(connection, "CREATE TABLE t (x)", None)
    await driver.commit(connection, reset=True)


async def test_waiting_for_another_programs_lock(
    driver: SQLiteDriver, connection: Connection, outside: sqlite3.Connection
) -> None:
    for alone in (False, True):
        outside.execute("BEGIN IMMEDIATE")
        asyncio.get_running_loop().call_later(0.1, outside.execute, "COMMIT")
        if alone:
            driver.autocommit(connection, readonly=False)
        else:
            await driver.begin(connection, READ_WRITE)
        await driver.execute(connection, "INSERT INTO t (name) VALUES (?)", [str(alone)])
        if not alone:
            await driver.commit(connection, reset=True)
    assert await driver.fetch_val(connection, "SELECT count(*) FROM t", None) == 2


async def test_a_snapshot_that_is_out_of_date(
    driver: SQLiteDriver, connection: Connection, outside: sqlite3.Connection
) -> None:
    """Only a BEGIN of the user's own gets there: ours are IMMEDIATE wherever they may write."""
    await connection.execute("BEGIN")
    await connection.execute_fetchall("SELECT * FROM t")
    outside.execute("INSERT INTO t VALUES (1, 'a')")
    with pytest.raises(sqlite3.OperationalError) as caught:
        await connection.execute("INSERT INTO t VALUES (2, 'b')")
    meaning = translate(caught.value)
    assert isinstance(meaning, SerializationError)
    assert (meaning.retryable, meaning.code) == (True, "SQLITE_BUSY_SNAPSHOT")
    await driver.rollback(connection)


async def test_a_table_that_is_being_read_cannot_be_dropped(
    driver: SQLiteDriver, connection: Connection
) -> None:
    await driver.execute(connection, "INSERT INTO t VALUES (1, 'a'), (2, 'b')", None)
    await driver.begin(connection, READ_WRITE)
    cursor = await driver.open_cursor(connection, "SELECT * FROM t", None, batch=1)
    with pytest.raises(sqlite3.OperationalError) as caught:
        await driver.execute(connection, "DROP TABLE t", None)
    meaning = translate(caught.value)
    assert (type(meaning), meaning and meaning.code) == (QueryExecutionError, "SQLITE_LOCKED")
    await cursor.close()
    await driver.execute(connection, "DROP TABLE t", None)


async def test_a_reader_in_the_way_of_a_rollback_journals_commit(
    open_db: OpenDatabase,
) -> None:
    db = await open_db(options={"journal_mode": "DELETE", "busy_timeout": 200})
    await db.execute("CREATE TABLE t (x)")
    async with db.transaction(readonly=True) as reader:
        await reader.fetch_val("SELECT count(*) FROM t")
        write = db.execute("INSERT INTO t VALUES (1)")
        elsewhere = asyncio.create_task(write, context=contextvars.Context())
        with pytest.raises(LockTimeoutError):
            await elsewhere
    await db.execute("INSERT INTO t VALUES (2)")
    assert await db.fetch_val("SELECT x FROM t") == 2


# -- closed connections, and what is not ours


async def test_a_closed_connection_is_lost_and_nothing_was_sent(
    driver: SQLiteDriver, connection: Connection
) -> None:
    await driver.close(connection)
    for call in (
        driver.execute(connection, "SELECT 1", None),
        driver.ping(connection),
        driver.begin(connection, READ_ONLY),
        driver.abort(connection),
        driver.prepare_commit(connection),
        connection.execute("SELECT 1"),
        connection.executescript("SELECT 1"),
    ):
        with pytest.raises(ClosedError) as caught:
            await call
        meaning = translate(caught.value)
        assert isinstance(meaning, ConnectionLostError)
        assert not meaning.sent


@pytest.mark.parametrize("error", [ValueError("x"), KeyError("x"), OSError("x"), TimeoutError()])
def test_what_is_no_error_of_sqlite_stays_what_it_is(error: Exception) -> None:
    assert translate(error) is None


async def test_text_that_is_not_utf_8_is_not_shown(db: SQLiteDatabase) -> None:
    with pytest.raises(DataError, match="column 'x' holds TEXT that is not UTF-8") as caught:
        await db.fetch_all("SELECT CAST(x'ff' || 'secret' AS TEXT) AS x")
    assert "secret" not in str(caught.value)
    assert caught.value.column == "x"


async def test_a_holders_authorizer_refuses(db: SQLiteDatabase) -> None:
    async with db.transaction() as ctx:
        deny = {sqlite3.SQLITE_DELETE: sqlite3.SQLITE_DENY}
        await ctx.connection.set_authorizer(lambda action, *_: deny.get(action, 0))
        with pytest.raises(InsufficientPrivilegeError):
            await ctx.execute("DELETE FROM t")
        await ctx.execute("INSERT INTO t VALUES (1, 'a')")


async def test_names_of_what_an_error_is_about(schema: SQLiteDatabase) -> None:
    await schema.execute("CREATE TABLE several (n, x, UNIQUE (n, x))")
    await schema.execute("INSERT INTO several VALUES (1, 'A')")
    await schema.execute("CREATE TABLE one (x)")
    await schema.execute("CREATE UNIQUE INDEX lowered ON one (lower(x))")
    await schema.execute("INSERT INTO one VALUES ('A')")
    for sql, names in {
        "INSERT INTO parent VALUES (1, 'c')": ("parent", "id", None),
        "INSERT INTO picky (a) VALUES (NULL)": ("picky", "a", None),
        "INSERT INTO several VALUES (1, 'A')": ("several", None, None),
        "INSERT INTO one VALUES ('a')": (None, None, "lowered"),
        "INSERT INTO parent (key) VALUES (x'00')": ("parent", "key", None),
        "INSERT INTO picky VALUES (1, 1, 10)": (None, None, "small"),
        "SELECT * FROM missing": ("missing", None, None),
        "SELECT * FROM main.missing": ("missing", None, None),
        "SELECT missing FROM parent": (None, "missing", None),
        "SELECT p.missing FROM parent p": (None, "missing", None),
        "INSERT INTO parent (missing) VALUES (1)": ("parent", "missing", None),
        "SELEC": (None, None, None),
    }.items():
        with pytest.raises(DatabaseError) as caught:
            await schema.execute(sql)
        error = caught.value
        assert (error.table, error.column, error.constraint) == names, sql
