"""Scripts of several statements, split by the server."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Any

import pytest
from waiting import eventually

from jobu_db.errors import QueryExecutionError, TransactionError, UniqueViolationError
from jobu_db_mysql import MySQLDatabase, scripts
from jobu_db_mysql.reading import dialect

from .conftest import OpenDatabase

STANDARD = dialect("")
NO_BACKSLASHES = dialect("NO_BACKSLASH_ESCAPES")


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        ("DO 0", "DO 0"),
        ("DO 0;", "DO 0;"),
        ("DO 0;;DO 1", "DO 0;DO 1"),
        (" ; ;\n; DO 0; ;", "  \n DO 0; "),
        ("DO 0; /* a ; b */ ; DO 1", "DO 0; /* a ; b */  DO 1"),
        ("DO 0; -- a ; b\n; DO 1", "DO 0; -- a ; b\n DO 1"),
        ("DO 0; # a ; b\n; DO 1", "DO 0; # a ; b\n DO 1"),
        ("DO 0; --a ; DO 1", "DO 0; --a ; DO 1"),
        ("SELECT ';;', \";;\", `;;`;;", "SELECT ';;', \";;\", `;;`;"),
        (r"SELECT 'a\';;';;", r"SELECT 'a\';;';"),
        ("SELECT 'a'';;';;", "SELECT 'a'';;';"),
        ("/*! SET @a = 1 */;;", "/*! SET @a = 1 */;"),
        ("/*M!100100 SET @a = ';' */;;", "/*M!100100 SET @a = ';' */;"),
        ("SELECT 'never closed;;", "SELECT 'never closed;"),
    ],
)
def test_semicolons_that_end_nothing_are_left_out(script: str, expected: str) -> None:
    assert scripts.without_empty_statements(script, STANDARD) == expected


def test_a_backslash_means_what_the_sql_mode_says() -> None:
    script = r"SELECT 'a\';; SELECT ';;';"
    assert scripts.without_empty_statements(script, NO_BACKSLASHES) == r"SELECT 'a\'; SELECT ';;';"


@pytest.mark.parametrize("script", ["", "  \n", ";", "-- nothing", "/* ; */ ; # x"])
def test_a_script_of_nothing_is_empty(script: str) -> None:
    assert scripts.is_empty(script, STANDARD)


@pytest.mark.parametrize("script", ["DO 0", "/*!50000 DO 0 */", "';'", "; x"])
def test_a_script_of_something_is_not(script: str) -> None:
    assert not scripts.is_empty(script, STANDARD)


def write(folder: Path, script: str) -> str:
    path = folder / "init.sql"
    path.write_text(script, encoding="utf-8")
    return str(path)


async def run_init(open_db: OpenDatabase, tmp_path: Path, script: str) -> MySQLDatabase:
    return await open_db(init_sql=write(tmp_path, script))


async def test_a_script_with_everything(open_db: OpenDatabase, tmp_path: Path) -> None:
    script = """
    -- what's; this
    CREATE TABLE t (a INT, b VARCHAR(50)); /* ; ' */ ;
    # it's ; a hash
    CREATE TRIGGER tr BEFORE INSERT ON t FOR EACH ROW BEGIN
        DECLARE i INT DEFAULT 0;
        again: LOOP SET i = i + 1; IF i > 2 THEN LEAVE again; END IF; END LOOP;
        REPEAT SET i = i + 1; UNTIL i > 9 END REPEAT;
        WHILE i < 12 DO SET i = i + 1; END WHILE;
        SET NEW.a = IF(NEW.a = 1, i, CASE NEW.a WHEN 2 THEN 20 ELSE 30 END);
    END;
    CREATE FUNCTION f(x INT) RETURNS INT DETERMINISTIC RETURN x * 2;
    CREATE PROCEDURE p() IF 1 THEN INSERT INTO t VALUES (3, 'p;'); END IF;
    /*!50003 CREATE TRIGGER tr2 AFTER INSERT ON t FOR EACH ROW BEGIN SET @x = 1; END */;
    INSERT INTO t VALUES (f(1), 'a;b'), (1, 'it''s ; \\' "');
    CALL p();
    SELECT * FROM t;
    -- the end ;"""
    db = await run_init(open_db, tmp_path, script)
    rows = await db.fetch_all("SELECT a, b FROM t ORDER BY a")
    assert rows == [{"a": 12, "b": "it's ; ' \""}, {"a": 20, "b": "a;b"}, {"a": 30, "b": "p;"}]


async def test_percent_signs_are_left_alone(open_db: OpenDatabase, tmp_path: Path) -> None:
    db = await run_init(open_db, tmp_path, "CREATE TABLE t SELECT '100% %s %%' AS a")
    assert await db.fetch_val("SELECT a FROM t") == "100% %s %%"


@pytest.mark.parametrize("script", ["", "-- nothing\n;"])
async def test_an_empty_script_does_nothing(
    open_db: OpenDatabase, tmp_path: Path, script: str
) -> None:
    db = await run_init(open_db, tmp_path, script)
    assert await db.fetch_val("SELECT 1") == 1


async def test_an_error_in_any_statement_is_told(
    open_db: OpenDatabase, tmp_path: Path, observer: Any
) -> None:
    with pytest.raises(QueryExecutionError, match="nowhere"):
        await run_init(open_db, tmp_path, "DO 0; DO 1; INSERT INTO nowhere VALUES (1); DO 2")

    async def none_left() -> bool:
        return not await observer.sessions()

    await eventually(none_left)


# -- the schema that comes with the package


COLUMNS = {
    "cron_jobs": "id name description cron_expression handler_name handler_params is_enabled "
    "allow_overlap max_retry timeout_seconds created_at updated_at",
    "job_executions": "id job_id handler_name scheduled_time status params param_source "
    "started_at finished_at retry_count error_message result created_at",
}


async def test_the_schema_has_its_tables_and_defaults(open_db: OpenDatabase) -> None:
    db = await open_db(init_sql=True, options={"timezone": "UTC"})
    for table, columns in COLUMNS.items():
        found = await db.fetch_all(
            "SELECT column_name AS name FROM information_schema.columns WHERE table_schema = "
            "DATABASE() AND table_name = %s ORDER BY ordinal_position",
            [table],
        )
        assert [row["name"] for row in found] == columns.split()
    sql = (
        "INSERT INTO cron_jobs (name, cron_expression, handler_name) VALUES (%s, '* * * * *', 'h')"
    )
    job = (await db.execute(sql, ["j 😀"])).lastrowid
    row = await db.fetch_one("SELECT * FROM cron_jobs")
    assert (row["is_enabled"], row["allow_overlap"]) == (1, 1)
    assert (row["max_retry"], row["timeout_seconds"]) == (3, 3600)
    assert row["created_at"] == row["updated_at"]
    await asyncio.sleep(0.01)
    await db.execute("UPDATE cron_jobs SET description = 'x'")
    after = await db.fetch_one("SELECT * FROM cron_jobs")
    assert after["updated_at"] > after["created_at"] == row["created_at"]
    sql = "INSERT INTO job_executions (job_id, handler_name, scheduled_time) VALUES (%s, 'h', %s)"
    await db.execute(sql, [job, "2026-01-01 00:00:00"])
    row = await db.fetch_one("SELECT * FROM job_executions")
    assert (row["status"], row["param_source"], row["retry_count"]) == ("PENDING", "cron", 0)
    with pytest.raises(QueryExecutionError, match="Duplicate"):
        await db.execute(sql, [job, "2026-01-01 00:00:00"])
    await db.execute("DELETE FROM cron_jobs")
    assert await db.fetch_val("SELECT COUNT(*) FROM job_executions") == 0


async def test_the_schema_can_be_laid_again_under_load(open_db: OpenDatabase) -> None:
    db = await open_db(init_sql=True)
    async with db.transaction() as ctx:
        await ctx.execute(
            "INSERT INTO cron_jobs (name, cron_expression, handler_name) VALUES ('a', 'b', 'c')"
        )
        async with asyncio.timeout(10):  # the open transaction does not hold it up
            await open_db("again", init_sql=True)
    assert await db.fetch_val("SELECT COUNT(*) FROM cron_jobs") == 1


START = """
import asyncio, sys
from jobu_db_mysql import MySQLDatabase
async def main():
    db = await MySQLDatabase.create("main", {"url": sys.argv[1], "init_sql": sys.argv[2] or True})
    print(await db.fetch_val("SELECT COUNT(*) FROM cron_jobs"))
    await db.close()
asyncio.run(main())
"""


@pytest.mark.parametrize("slow", [False, True])
async def test_eight_processes_may_start_at_once(
    mysql_url: str, tmp_path: Path, slow: bool
) -> None:
    path = ""
    if slow:  # a script that would fail if two processes ran it side by side
        path = write(
            tmp_path,
            "CREATE TABLE IF NOT EXISTS cron_jobs (a INT); CREATE TABLE running (a INT); "
            "SELECT SLEEP(0.1); DROP TABLE running;",
        )
    processes = [
        await asyncio.create_subprocess_exec(
            sys.executable, "-c", START, mysql_url, path, stdout=-1, stderr=-1
        )
        for _ in range(8)
    ]
    for process in processes:
        out, err = await process.communicate()
        assert (process.returncode, out.strip()) == (0, b"0"), err.decode()


def test_the_containers_lay_the_same_schema() -> None:
    package = Path(scripts.__file__).parent / "sql" / "init.sql"
    containers = Path(__file__).parents[2] / "docker" / "init" / "mysql" / "init.sql"
    assert package.read_bytes() == containers.read_bytes()


async def test_execute_script_counts_up_to_what_commits(open_db: OpenDatabase) -> None:
    db = await open_db()
    await db.execute_script(
        "CREATE TABLE t (id INT PRIMARY KEY); CREATE TABLE u (id INT);"
        "CREATE TRIGGER tr AFTER INSERT ON t FOR EACH ROW BEGIN"
        "  INSERT INTO u VALUES (NEW.id); INSERT INTO u VALUES (NEW.id); END;"
        "INSERT INTO t VALUES (1)"
    )
    assert await db.fetch_val("SELECT COUNT(*) FROM u") == 2
    with pytest.raises(UniqueViolationError):
        await db.execute_script("DELETE FROM t; INSERT INTO t VALUES (2); INSERT INTO t VALUES (2)")
    assert await db.fetch_val("SELECT COUNT(*) FROM t WHERE id = 1") == 1
    with pytest.raises(UniqueViolationError):
        await db.execute_script(
            "DELETE FROM t; CREATE TABLE v (i INT); INSERT INTO t VALUES (2), (2)"
        )
    assert await db.fetch_val("SELECT COUNT(*) FROM t") == 0
    assert await db.fetch_val("SELECT COUNT(*) FROM v") == 0


async def test_definitions_in_the_script_of_a_transaction_are_told(open_db: OpenDatabase) -> None:
    db = await open_db()
    async with db.transaction() as ctx:
        with pytest.warns(RuntimeWarning, match="committed the transaction implicitly"):
            await ctx.execute_script("DO 0; CREATE TABLE t (id INT); INSERT INTO t VALUES (1)")
        await ctx.execute("INSERT INTO t VALUES (2)")
    assert await db.fetch_val("SELECT COUNT(*) FROM t") == 2
    with pytest.raises(TransactionError, match="was ended by 'DO 0; COMMIT'"):
        async with db.transaction() as ctx:
            await ctx.execute_script("DO 0; COMMIT")


async def test_a_script_runs_where_the_last_transaction_could_only_read(
    open_db: OpenDatabase,
) -> None:
    db = await open_db(pool={"max_size": 1})
    await db.execute("CREATE TABLE t (id INT)")
    async with db.transaction(readonly=True) as ctx:
        await ctx.fetch_val("SELECT 1")
    await db.execute_script("INSERT INTO t VALUES (1); INSERT INTO t VALUES (2)")
    assert await db.fetch_val("SELECT COUNT(*) FROM t") == 2
