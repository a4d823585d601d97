"""The settings, each tested by asking the server, and what is refused before it is asked."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import pytest
from server_urls import parts_of

from jobu_db import ConfigurationError, ConnectionFailedError
from jobu_db.testing.servers import Server
from jobu_db_mysql import MySQLDatabase
from jobu_db_mysql.settings import MySQLSettings

from .conftest import OpenDatabase


async def ask(db: MySQLDatabase, variable: str) -> Any:
    """What the server says, at first and after a reset."""
    answers = [await db.fetch_val(f"SELECT {variable}") for _ in range(3)]
    async with db.transaction() as ctx:
        answers.append(await ctx.fetch_val(f"SELECT {variable}"))
    assert len(set(answers)) == 1, answers
    return answers[0]


async def test_the_example_works_as_it_is_written(open_db: OpenDatabase, mysql_url: str) -> None:
    db = await open_db(
        **parts_of(mysql_url) | {"type": "mysql"},
        pool={"minsize": 2, "maxsize": 10, "pool_recycle": 300},
        options={"charset": "utf8mb4", "autocommit": False},
    )
    assert await db.fetch_val("SELECT 1") == 1
    async with db.pool.connection() as lease:
        assert (await lease.connection.run("SELECT @@autocommit")).rows == ((0,),)


async def test_a_url_says_the_same(open_db: OpenDatabase, mysql_url: str) -> None:
    db = await open_db(url=f"{mysql_url}?charset=latin1")
    assert await ask(db, "DATABASE()") == urlsplit(mysql_url).path[1:]
    assert await ask(db, "@@character_set_client") == "latin1"
    db = await open_db("other", url=mysql_url.replace("mysql://", "mariadb://"))
    assert await db.fetch_val("SELECT 1") == 1


@pytest.mark.parametrize(
    ("query", "told"),
    [
        ("application_name=x", "has the parameter application_name, which MySQL does not have"),
        ("channel_binding=require", "write ssl-mode=VERIFY_IDENTITY"),
        ("options=-c", "write the settings under options"),
        ("useSSL=true", "write ssl-mode=REQUIRED"),
        ("read_timeout=5", "write statement_timeout under options"),
        ("charst=x", "did you mean charset?"),
    ],
)
def test_a_parameter_that_does_not_work_is_refused_with_what_to_write(
    query: str, told: str
) -> None:
    with pytest.raises(ConfigurationError) as caught:
        MySQLSettings.parse("main", {"type": "mysql", "url": f"mysql://u:hunter2@h/d?{query}"})
    (line,) = caught.value.problems
    assert told in line
    assert "hunter2" not in line


def test_parameters_that_mysql_users_expect() -> None:
    url = (
        "mysql://u:pw@h/d?ssl_mode=VERIFY_IDENTITY&ssl_ca=/ca.pem&connect_timeout=10"
        "&sql_mode=ANSI_QUOTES&autocommit=false"
    )
    settings = MySQLSettings.parse("main", {"type": "mysql", "url": url})
    assert (settings.ssl.mode, str(settings.ssl.ca)) == ("verify-full", "/ca.pem")
    assert settings.connect_timeout == 10
    assert (settings.options.sql_mode, settings.options.autocommit) == ("ANSI_QUOTES", False)


async def test_a_unix_socket(open_db: OpenDatabase, mysql_url: str, mysql_server: Server) -> None:
    if mysql_server.socket is None:
        pytest.skip("the server's socket is not known")
    settings = parts_of(mysql_url) | {"host": mysql_server.socket, "port": None}
    db = await open_db(**settings)
    assert (await ask(db, "USER()")).endswith("@localhost")
    login = urlsplit(mysql_url).netloc.rpartition("@")[0]
    path = quote(mysql_server.socket, safe="")
    url = f"mysql://{login}@/{settings['database']}?unix_socket={path}"
    db = await open_db("url", url=url)
    assert (await ask(db, "USER()")).endswith("@localhost")


@pytest.mark.parametrize(
    ("charset", "text"),
    [
        ("utf8mb4", "é 中 😀"), ("utf8", "é 中"), ("latin1", "é"), ("latin2", "ł"), ("ascii", "x"),
        ("cp1250", "ł"), ("cp1251", "ж"), ("cp1256", "ش"), ("cp1257", "ž"), ("euckr", "한"),
        ("greek", "λ"), ("hebrew", "ש"), ("koi8r", "ж"), ("koi8u", "ї"), ("ujis", "日"),
    ],
)  # fmt: skip
async def test_charset(open_db: OpenDatabase, charset: str, text: str) -> None:
    db = await open_db(options={"charset": charset})
    assert str(await ask(db, "@@character_set_client")).startswith(charset)
    await db.execute("CREATE TABLE t (a VARCHAR(20)) CHARACTER SET utf8mb4")
    await db.execute("INSERT INTO t VALUES (%s)", [text + "'\\"])
    assert await db.fetch_val("SELECT a FROM t WHERE a = :a", {"a": text + "'\\"}) == text + "'\\"
    assert await db.fetch_val("SELECT HEX(CONVERT(a USING utf8mb4)) FROM t") == (
        (text + "'\\").encode().hex().upper()
    )


async def test_collation_is_the_servers_default_at_first_and_after_a_reset(
    open_db: OpenDatabase,
) -> None:
    db = await open_db(pool={"max_size": 1})
    default = await db.fetch_val(
        "SELECT default_collate_name FROM information_schema.character_sets "
        "WHERE character_set_name = 'utf8mb4'"
    )
    assert await ask(db, "@@collation_connection") == default


@pytest.mark.parametrize("autocommit", [True, False])
async def test_autocommit_is_what_a_raw_connection_shows(
    open_db: OpenDatabase, observer: Any, things: str, autocommit: bool
) -> None:
    db = await open_db(options={"autocommit": autocommit}, pool={"max_size": 1})
    for number in range(3):
        async with db.pool.connection() as lease:
            shown = await lease.connection.run("SELECT @@autocommit")
            assert shown.rows == ((int(autocommit),),)
            await lease.connection.run(f"INSERT INTO things VALUES ({number}, 'x')")
            if not autocommit:
                assert await observer.value("SELECT COUNT(*) FROM things") == number
                await lease.connection.commit()
        assert await observer.value("SELECT COUNT(*) FROM things") == number + 1


@pytest.mark.parametrize("mode", ["", "STRICT_TRANS_TABLES", "ANSI_QUOTES,STRICT_ALL_TABLES"])
async def test_sql_mode(open_db: OpenDatabase, mode: str) -> None:
    db = await open_db(options={"sql_mode": mode})
    assert set(str(await ask(db, "@@sql_mode")).split(",")) == set(mode.split(","))


async def test_names_are_found_as_the_servers_own_sql_mode_wants(
    open_db: OpenDatabase, set_global: Any
) -> None:
    await set_global("sql_mode", "NO_BACKSLASH_ESCAPES")
    db = await open_db()
    assert await db.fetch_val("SELECT CONCAT('a\\', :x, ':x')", {"x": "'\\"}) == "a\\'\\:x"


async def test_statement_timeout(open_db: OpenDatabase, mariadb: bool) -> None:
    db = await open_db(options={"statement_timeout": 1500})
    if mariadb:
        assert float(await ask(db, "@@max_statement_time")) == 1.5
    else:
        assert await ask(db, "@@max_execution_time") == 1500


@pytest.mark.parametrize(("given", "seconds"), [(1, 1), (1000, 1), (1500, 2), (60000, 60)])
async def test_lock_timeout(open_db: OpenDatabase, given: int, seconds: int) -> None:
    db = await open_db(options={"lock_timeout": given})
    assert await ask(db, "@@innodb_lock_wait_timeout") == seconds
    assert await ask(db, "@@lock_wait_timeout") == seconds


@pytest.mark.parametrize("off", [0, None])
async def test_off_is_off(open_db: OpenDatabase, mariadb: bool, off: int | None) -> None:
    db = await open_db(options={"statement_timeout": off, "lock_timeout": off})
    variable = "@@max_statement_time" if mariadb else "@@max_execution_time"
    assert float(await ask(db, variable)) == 0
    assert await ask(db, "@@innodb_lock_wait_timeout") > 10_000_000


@pytest.mark.parametrize(
    ("given", "told"), [("UTC", "+00:00"), ("+05:30", "+05:30"), ("SYSTEM",) * 2]
)
async def test_timezone(open_db: OpenDatabase, given: str, told: str) -> None:
    db = await open_db(options={"timezone": given})
    assert await ask(db, "@@time_zone") == told


async def test_a_database_with_a_strange_name(
    open_db: OpenDatabase, mysql_url: str, observer: Any
) -> None:
    name = f"{parts_of(mysql_url)['database']}_`ü-; x"
    await observer.execute("CREATE DATABASE `" + name.replace("`", "``") + "`")
    try:
        db = await open_db(**parts_of(mysql_url) | {"database": name}, pool={"max_size": 1})
        assert await ask(db, "DATABASE()") == name
    finally:
        await observer.execute("DROP DATABASE `" + name.replace("`", "``") + "`")


# -- refused


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"charset": "gbk"}, "charset"),
        ({"charset": "utf8mb4'; DROP"}, "charset"),
        ({"sql_mode": "X'; DROP TABLE t"}, "sql_mode"),
        ({"timezone": "x'; DROP"}, "timezone"),
        ({"timezone": "+00:00\n"}, "timezone"),
        ({"statement_timeout": -1}, "statement_timeout"),
        ({"statement_timeout": "30s"}, "statement_timeout"),
        ({"lock_timeout": 1.5}, "lock_timeout"),
        ({"autocommit": "perhaps"}, "autocommit"),
        ({"autocomit": True}, "autocommit"),
    ],
)
def test_wrong_options_are_told_with_their_key(options: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigurationError, match=f"options.*{told}"):
        MySQLSettings.parse("main", {"type": "mysql", "database": "d", "options": options})


def test_a_database_is_needed() -> None:
    with pytest.raises(ConfigurationError, match="database"):
        MySQLSettings.parse("main", {"type": "mysql", "host": "localhost"})


def test_all_problems_come_at_once() -> None:
    wrong = {"type": "mysql", "port": 0, "options": {"charset": "x", "sql_mode": "'"}, "hots": "h"}
    with pytest.raises(ConfigurationError) as caught:
        MySQLSettings.parse("main", wrong)
    assert len(caught.value.problems) >= 5


# -- session_variables


async def test_session_variables_hold_after_login_and_each_reset(open_db: OpenDatabase) -> None:
    variables = {
        "lc_time_names": "de_DE", "sort_buffer_size": 65536, "sql_safe_updates": True,
        "default_week_format": 3,
    }  # fmt: skip
    db = await open_db(
        options={"session_variables": variables}, pool={"max_size": 1, "timeout": 10.0}
    )
    sql = "SELECT @@lc_time_names, @@sort_buffer_size, @@sql_safe_updates, @@default_week_format"
    for _ in range(3):
        async with db.transaction() as ctx:
            row = await ctx.fetch_one(sql)
            assert list(row.values()) == list(variables.values())
            await ctx.execute("SET lc_time_names = 'en_US', default_week_format = 0")


@pytest.mark.parametrize(
    ("variables", "told"),
    [
        ({"sql_mode": "ANSI"}, "give it as the option sql_mode"),
        ({"Time_Zone": "UTC"}, "give it as the option timezone"),
        ({"completion_type": "CHAIN"}, "completion_type: a COMMIT would begin another"),
        ({"Completion_Type": 2}, "Completion_Type: a COMMIT would begin another"),
        ({"session_track_gtids": "OFF"}, "session_track_gtids: the library sets it itself"),
        ({"a = 1, b": 1}, "names of variables"),
        ({"a": "x'y"}, "quotes"),
        ({"a": "x\\y"}, "quotes"),
        ({"a": "é"}, "ASCII"),
        ({"a": float("nan")}, "a number"),
        ({"a": [1]}, "must"),
    ],
)
def test_session_variables_that_are_refused(variables: dict[str, Any], told: str) -> None:
    given = {"type": "mysql", "database": "x", "options": {"session_variables": variables}}
    with pytest.raises(ConfigurationError, match=told):
        MySQLSettings.parse("main", given)


async def test_a_session_variable_that_the_server_does_not_know_is_told(
    open_db: OpenDatabase,
) -> None:
    with pytest.raises(ConnectionFailedError, match="no_such_variable") as caught:
        await open_db(options={"session_variables": {"no_such_variable": 1}})
    assert not caught.value.transient


# -- init_sql


async def test_a_script_may_begin_with_a_byte_order_mark(
    open_db: OpenDatabase, tmp_path: Path
) -> None:
    script = tmp_path / "init.sql"
    script.write_text("CREATE TABLE IF NOT EXISTS marked (id INT);", encoding="utf-8-sig")
    for _ in range(2):  # at every start
        db = await open_db(init_sql=str(script))
        assert await db.fetch_val("SELECT COUNT(*) FROM marked") == 0
