"""Every class of error is provoked on the server, and says what it must."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import asyncpg
import pytest

import jobu_db
from jobu_db_postgres import PostgresDatabase

SCHEMA = """
CREATE TABLE parent (id int PRIMARY KEY);
CREATE TABLE child (
    id int PRIMARY KEY,
    parent int NOT NULL REFERENCES parent ON DELETE RESTRICT,
    positive int CHECK (positive > 0),
    span int4range,
    EXCLUDE USING gist (span WITH &&)
);
CREATE DOMAIN odd AS int CHECK (VALUE % 2 = 1);
INSERT INTO parent VALUES (1);
INSERT INTO child VALUES (1, 1, 1, '[1,5)');
"""

STATEMENTS: list[tuple[str, type[jobu_db.DatabaseError], str]] = [
    ("INSERT INTO parent VALUES (1)", jobu_db.UniqueViolationError, "23505"),
    ("INSERT INTO child VALUES (2, 9, 1)", jobu_db.ForeignKeyViolationError, "23503"),
    ("INSERT INTO child VALUES (2, NULL, 1)", jobu_db.NotNullViolationError, "23502"),
    ("INSERT INTO child VALUES (2, 1, 0)", jobu_db.CheckViolationError, "23514"),
    ("SELECT 2::odd", jobu_db.CheckViolationError, "23514"),
    ("INSERT INTO child VALUES (2, 1, 1, '[2,3)')", jobu_db.IntegrityError, "23P01"),
    ("SELEKT 1", jobu_db.SQLSyntaxError, "42601"),
    ("SELECT * FROM nowhere", jobu_db.UndefinedTableError, "42P01"),
    ("SELECT nothing FROM parent", jobu_db.UndefinedColumnError, "42703"),
    ("SELECT nothing()", jobu_db.ProgrammingError, "42883"),
    ("SELECT 1/0", jobu_db.DataError, "22012"),
    ("SELECT 'x'::int", jobu_db.DataError, "22P02"),
    ("SELECT 'nobody'::regrole", jobu_db.ProgrammingError, "42704"),
    ("EXECUTE nothing", jobu_db.ProgrammingError, "26000"),
    ("FETCH ALL FROM nothing", jobu_db.ProgrammingError, "34000"),
    ("CREATE TABLE nowhere.t (i int)", jobu_db.ProgrammingError, "3F000"),
    ("ROLLBACK TO SAVEPOINT nowhere", jobu_db.TransactionError, "3B001"),
    ("SET TRANSACTION ISOLATION LEVEL SERIALIZABLE", jobu_db.TransactionError, "25001"),
    ("VACUUM", jobu_db.TransactionError, "25001"),
    ("DO 'BEGIN COMMIT; END'", jobu_db.TransactionError, "2D000"),
    ("DO $$BEGIN RAISE EXCEPTION 'mine'; END$$", jobu_db.QueryExecutionError, "P0001"),
]


@pytest.fixture
async def db(open_db: Any) -> PostgresDatabase:
    db = await open_db()
    await db.execute(SCHEMA)
    return db


@pytest.mark.parametrize(("sql", "expected", "code"), STATEMENTS, ids=[s[0] for s in STATEMENTS])
async def test_a_statement_fails_as_what_it_is(
    db: PostgresDatabase, sql: str, expected: type[jobu_db.DatabaseError], code: str
) -> None:
    with pytest.raises(jobu_db.DatabaseError) as caught:
        async with db.transaction() as ctx:
            await ctx.fetch_val("SELECT 1")
            await ctx.execute(sql)
    error = caught.value
    assert type(error) is expected
    assert (error.code, error.database, error.statement) == (code, "main", sql)
    assert isinstance(error.__cause__, asyncpg.PostgresError)
    assert not error.retryable


async def test_deleting_a_referenced_row_is_a_foreign_key_violation(db: PostgresDatabase) -> None:
    with pytest.raises(jobu_db.ForeignKeyViolationError) as caught:
        await db.execute("DELETE FROM parent")
    assert caught.value.code in ("23503", "23001")  # before and since PostgreSQL 18


CONCERNED = [
    ("INSERT INTO parent VALUES (1)", ("parent_pkey", "parent", None)),
    ("INSERT INTO child VALUES (2, 9, 1)", ("child_parent_fkey", "child", None)),
    ("INSERT INTO child VALUES (2, NULL, 1)", (None, "child", "parent")),
    ("INSERT INTO child VALUES (2, 1, 0)", ("child_positive_check", "child", None)),
    ("SELECT 1/0", (None, None, None)),
    ("SELECT * FROM nowhere", (None, "nowhere", None)),
    ("SELECT * FROM public.nowhere", (None, "nowhere", None)),
    ("DROP TABLE nowhere", (None, "nowhere", None)),
    ("SELECT nothing FROM parent", (None, None, "nothing")),
    ("SELECT p.nothing FROM parent p", (None, None, "nothing")),
    ('SELECT "no thing" FROM parent', (None, None, "no thing")),
    ("INSERT INTO parent (nothing) VALUES (1)", (None, "parent", "nothing")),
    ("UPDATE parent SET nothing = 1", (None, "parent", "nothing")),
    ("SELEC 1", (None, None, None)),
]


@pytest.mark.parametrize(("sql", "concerned"), CONCERNED, ids=[s[0] for s in CONCERNED])
async def test_what_an_error_is_about_is_told(
    db: PostgresDatabase, sql: str, concerned: tuple[str | None, ...]
) -> None:
    with pytest.raises(jobu_db.QueryExecutionError) as caught:
        await db.execute(sql)
    error = caught.value
    assert (error.constraint, error.table, error.column) == concerned


async def test_a_missing_privilege(db: PostgresDatabase) -> None:
    role = "CREATE ROLE nobody_may_stay NOLOGIN"
    with pytest.raises(jobu_db.InsufficientPrivilegeError) as caught:
        async with db.transaction() as ctx:
            await ctx.execute(role)  # rolled back with the rest
            await ctx.execute("SET LOCAL ROLE nobody_may_stay")
            await ctx.execute("SELECT * FROM parent")
    assert caught.value.code == "42501"
    assert "parent" in str(caught.value)


async def test_a_write_in_a_read_only_transaction(db: PostgresDatabase) -> None:
    with pytest.raises(jobu_db.ReadOnlyTransactionError) as caught:
        async with db.transaction(readonly=True) as ctx:
            await ctx.execute("DELETE FROM child")
    assert caught.value.code == "25006"


async def test_a_statement_after_a_failed_one_says_what_to_do(db: PostgresDatabase) -> None:
    with pytest.raises(jobu_db.TransactionError, match=r"nested transaction\(\)") as caught:
        async with db.transaction() as ctx:
            with pytest.raises(jobu_db.QueryExecutionError):
                await ctx.execute("SELECT 1/0")
            await ctx.execute("SELECT 1")
    assert caught.value.code == "25P02"


async def test_a_serialization_failure_is_retryable(db: PostgresDatabase) -> None:
    await db.execute("INSERT INTO parent VALUES (2)")

    async def increase(mine: int, other: int, meet: asyncio.Barrier) -> None:
        async with db.transaction(isolation="serializable") as ctx:
            await ctx.fetch_val("SELECT sum(id) FROM parent")
            await meet.wait()
            await ctx.execute("INSERT INTO parent VALUES ($1)", mine)
            await meet.wait()

    meet = asyncio.Barrier(2)
    results = await asyncio.gather(
        increase(10, 11, meet), increase(11, 10, meet), return_exceptions=True
    )
    failed: list[Any] = [result for result in results if result is not None]
    assert [type(error) for error in failed] == [jobu_db.SerializationError]
    assert failed[0].retryable
    assert failed[0].code == "40001"


async def test_a_deadlock_is_retryable(db: PostgresDatabase) -> None:
    await db.execute("INSERT INTO parent VALUES (2)")

    async def lock(first: int, second: int, meet: asyncio.Barrier) -> None:
        async with db.transaction() as ctx:
            await ctx.execute("SELECT FROM parent WHERE id = $1 FOR UPDATE", first)
            await meet.wait()
            await ctx.execute("SELECT FROM parent WHERE id = $1 FOR UPDATE", second)

    meet = asyncio.Barrier(2)
    results = await asyncio.gather(lock(1, 2, meet), lock(2, 1, meet), return_exceptions=True)
    failed: list[Any] = [result for result in results if result is not None]
    assert [type(error) for error in failed] == [jobu_db.DeadlockError]
    assert failed[0].retryable
    assert failed[0].code == "40P01"


@pytest.mark.parametrize("sql", ["SELECT FROM parent FOR UPDATE", "LOCK TABLE parent NOWAIT"])
async def test_a_lock_that_is_not_granted(
    db: PostgresDatabase, observer: asyncpg.Connection, sql: str
) -> None:
    async with observer.transaction():
        await observer.execute("LOCK TABLE parent IN ACCESS EXCLUSIVE MODE")
        with pytest.raises(jobu_db.LockTimeoutError) as caught:
            async with db.transaction() as ctx:
                await ctx.execute("SET LOCAL lock_timeout = 20")
                await ctx.execute(sql)
    assert caught.value.retryable
    assert caught.value.code == "55P03"


async def test_a_statement_that_takes_too_long(open_db: Any) -> None:
    db = await open_db(options={"statement_timeout": 1000})
    with pytest.raises(jobu_db.QueryTimeoutError) as caught:
        await db.fetch_val("SELECT pg_sleep(10)")
    assert (caught.value.code, caught.value.retryable) == ("57014", False)


async def test_a_statement_cancelled_by_somebody_else_did_not_time_out(
    db: PostgresDatabase, observer: asyncpg.Connection, eventually: Any
) -> None:
    statement = asyncio.create_task(db.fetch_val("SELECT pg_sleep(10)"))
    cancel = (
        "SELECT bool_or(pg_cancel_backend(pid)) FROM pg_stat_activity "
        "WHERE datname = current_database() AND query = 'SELECT pg_sleep(10)' "
        "AND wait_event = 'PgSleep'"
    )
    await eventually(lambda: observer.fetchval(cancel))
    with pytest.raises(jobu_db.QueryExecutionError, match="user request") as caught:
        await statement
    assert type(caught.value) is jobu_db.QueryExecutionError


async def test_a_changed_schema_under_a_cached_statement_is_retryable(
    db: PostgresDatabase, observer: asyncpg.Connection
) -> None:
    async with db.pool.connection():
        pass
    await db.fetch_all("SELECT * FROM parent")
    await observer.execute("ALTER TABLE parent ADD COLUMN added text")
    with pytest.raises(jobu_db.QueryExecutionError) as caught:
        async with db.transaction() as ctx:
            await ctx.fetch_all("SELECT * FROM parent")
    assert (caught.value.code, caught.value.retryable) == ("0A000", True)
    async with db.transaction() as ctx:
        assert len((await ctx.fetch_all("SELECT * FROM parent"))[0]) == 2


TERMINATE = "SELECT pg_terminate_backend(pg_backend_pid())"


async def test_a_session_ended_by_the_server_in_a_transaction(db: PostgresDatabase) -> None:
    with pytest.raises(jobu_db.ConnectionLostError) as caught:
        async with db.transaction() as ctx:
            await ctx.fetch_val(TERMINATE)
    assert (caught.value.retryable, caught.value.sent) == (True, True)
    assert await db.fetch_val("SELECT 1") == 1


async def test_a_session_ended_outside_a_transaction_leaves_the_outcome_unknown(
    db: PostgresDatabase,
) -> None:
    with pytest.raises(jobu_db.CommitOutcomeUnknownError):
        await db.fetch_val(TERMINATE)


async def test_an_idle_transaction_is_ended_by_the_server(open_db: Any) -> None:
    db = await open_db(options={"idle_in_transaction_session_timeout": 30})
    with pytest.raises(jobu_db.ConnectionLostError):
        async with db.transaction() as ctx:
            await ctx.fetch_val("SELECT 1")
            await asyncio.sleep(0.3)
            await ctx.fetch_val("SELECT 1")


async def test_a_statement_on_a_closed_connection_was_never_sent(
    db: PostgresDatabase,
) -> None:
    async with db.pool.connection() as lease:
        lease.connection.terminate()
        with pytest.raises(asyncpg.InterfaceError) as caught:
            await lease.connection.execute("SELECT 1")
        meaning = db.driver.translate(caught.value)
        assert isinstance(meaning, jobu_db.ConnectionLostError)
        assert meaning.sent is False


async def test_wrong_arguments_are_told_before_anything_is_sent(db: PostgresDatabase) -> None:
    async with db.transaction() as ctx:
        with pytest.raises(jobu_db.QueryExecutionError, match="expects 1 argument"):
            await ctx.fetch_val("SELECT $1::int", 1, 2)
        with pytest.raises(jobu_db.QueryExecutionError, match=r"argument \$1"):
            await ctx.fetch_val("SELECT $1::int", "seven")
        assert await ctx.fetch_val("SELECT $1::int", 7) == 7


SECRETS: list[tuple[str, list[Any]]] = [
    ("SELECT $1::text::regrole", ["hunter2"]),
    ("SELECT $1::text::regclass", ["hunter2"]),
    ("SELECT $1::text::regclass", ['"a" "hunter2" "b"']),
    ("SELECT $1::text::regtype", ["hunter2"]),
    ("SELECT $1::text::regproc", ["hunter2"]),
    ("SELECT $1::text::regconfig", ["hunter2"]),
    ("SELECT nextval($1::text)", ["hunter2"]),
    ("SELECT current_setting($1)", ["hunter2"]),
    ("SELECT set_config($1, 'on', true)", ["hunter2"]),
    ("SELECT set_config('work_mem', $1, true)", ["hunter2"]),
    ("SELECT set_config('role', $1, true)", ["hunter2"]),
    ("SELECT convert_from('x'::bytea, $1)", ["hunter2"]),
    ("SELECT encode('x', $1)", ["hunter2"]),
    ("SELECT date_trunc($1, now())::text", ["hunter2"]),
    ("SELECT has_table_privilege($1::text, 'select')", ["hunter2"]),
    ("SELECT to_date($1, 'YYYY')", ["hunter2"]),
    ("SELECT $1::text::tsquery", ["hunter2 &"]),
    ("SELECT $1::text::bit(3)", ["hunter2"]),
    ("SELECT pg_read_file($1)", ["/hunter2"]),
    ("SELECT convert_from($1::bytea, 'UTF8')", [b"hunter2\xff"]),
    ("SELECT $1::int", ["hunter2"]),
    ("SELECT $1::uuid", ["hunter2"]),
    ("SELECT $1::timestamptz", ["hunter2"]),
    ("SELECT $1::text::int", ["hunter2"]),
    ("SELECT $1::text::timestamptz", ["hunter2"]),
    ("SELECT $1::jsonb", ["hunter2"]),
    ("INSERT INTO parent SELECT 1 WHERE $1 = 'hunter2'", ["hunter2"]),
    ("INSERT INTO secrets VALUES ($1), ($1)", ["hunter2"]),
    ("INSERT INTO secrets VALUES ($1)", ["hunter2 that is too long"]),
]


@pytest.mark.parametrize(("sql", "values"), SECRETS, ids=[s[0] for s in SECRETS])
async def test_no_error_repeats_a_parameter(
    db: PostgresDatabase, sql: str, values: list[Any]
) -> None:
    await db.execute("CREATE TABLE secrets (secret varchar(8) UNIQUE)")
    with pytest.raises(jobu_db.QueryExecutionError) as caught:
        await db.execute(sql, *values)
    error = caught.value
    assert "hunter2" not in str(error) + repr(error) + repr(error.args)
    assert error.__cause__ is not None, "which has it in full"


async def test_names_are_shown(db: PostgresDatabase) -> None:
    """They stand in the statement, or the server says that they are names."""
    for sql, message in (
        ("SELECT * FROM nowhere", 'relation "nowhere" does not exist'),
        ('SELECT * FROM "No Where"', 'relation "No Where" does not exist'),
        ("SELECT Nothing FROM parent", 'column "nothing" does not exist'),
        ("SET LOCAL ROLE nobody", 'role "nobody" does not exist'),
        ("INSERT INTO parent VALUES (1)", 'unique constraint "parent_pkey"'),
        ("INSERT INTO child VALUES (2, NULL, 1)", 'column "parent" of relation "child"'),
        ("DO $$BEGIN RAISE EXCEPTION 'sold out: %', 7; END$$", "sold out: 7"),
    ):
        with pytest.raises(jobu_db.QueryExecutionError) as caught:
            await db.execute(sql)
        assert message in str(caught.value)


async def test_names_are_recognized_in_other_languages(db: PostgresDatabase) -> None:
    error = asyncpg.PostgresError.new(
        {"S": "FEHLER", "C": "42704", "M": "Rolle »hunter2« existiert nicht"}, "SELECT $1::regrole"
    )
    assert "hunter2" not in str(db.driver.translate(error))
    error = asyncpg.PostgresError.new(
        {"S": "FEHLER", "C": "42P01", "M": "Relation »t« existiert nicht"}, "SELECT * FROM t"
    )
    assert "Relation »t« existiert nicht" in str(db.driver.translate(error))


async def test_an_exception_in_a_codec_leaves_the_connection_usable(open_db: Any) -> None:
    db = await open_db(options={"json": True})
    async with db.transaction() as ctx:
        with pytest.raises(jobu_db.QueryExecutionError, match="not JSON serializable"):
            await ctx.fetch_val("SELECT $1::jsonb", {"a": object()})
        assert await ctx.fetch_val("SELECT $1::jsonb", {"a": 1}) == {"a": 1}


async def test_a_row_that_cannot_be_decoded_spoils_nothing_else(open_db: Any) -> None:
    def refuse(text: str) -> Any:
        raise ArithmeticError

    async def on_connect(connection: Any) -> None:
        await connection.set_type_codec(
            "jsonb", schema="pg_catalog", encoder=json.dumps, decoder=refuse
        )

    db = await open_db(pool={"max_size": 1, "on_connect": on_connect})
    with pytest.raises(jobu_db.DataError, match="cannot be decoded") as caught:
        await db.fetch_all("SELECT to_jsonb(g) FROM generate_series(1, 5000) g")
    assert isinstance(caught.value.__cause__, ArithmeticError)
    assert [await db.fetch_val("SELECT $1::int", i) for i in range(5)] == list(range(5))


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("26000", 'prepared statement "__asyncpg_stmt_1__" does not exist'),
        ("42P05", 'prepared statement "__asyncpg_stmt_1__" already exists'),
    ],
)
async def test_pgbouncers_errors_name_the_setting_and_are_not_retried(
    db: PostgresDatabase, code: str, message: str
) -> None:
    error = asyncpg.PostgresError.new({"S": "ERROR", "C": code, "M": message}, "SELECT 1")
    meaning = db.driver.translate(error)
    assert meaning is not None
    assert "statement_cache_size: 0" in str(meaning)
    assert "PgBouncer" in str(meaning)
    assert (meaning.code, meaning.retryable) == (code, False)
