"""Every class of the error table, provoked on the server."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable
from typing import Any

import pytest
from asyncmy.errors import Error, InterfaceError, InternalError, OperationalError
from asyncmy.errors import ProgrammingError as AsyncmyProgrammingError
from waiting import eventually

from jobu_db.errors import (
    CheckViolationError,
    CommitOutcomeUnknownError,
    ConnectionLostError,
    DatabaseError,
    DataError,
    DeadlockError,
    ForeignKeyViolationError,
    InsufficientPrivilegeError,
    IntegrityError,
    LockTimeoutError,
    NotNullViolationError,
    ProgrammingError,
    QueryExecutionError,
    QueryTimeoutError,
    ReadOnlyTransactionError,
    SerializationError,
    SQLSyntaxError,
    UndefinedColumnError,
    UndefinedTableError,
    UniqueViolationError,
)
from jobu_db_mysql import MySQLDatabase, errors

from .conftest import OpenDatabase


@pytest.fixture
async def tables(observer: Any) -> None:
    await observer.execute(
        "CREATE TABLE parents (id INT PRIMARY KEY, n INT NOT NULL, u VARCHAR(9) UNIQUE, "
        "CONSTRAINT small CHECK (n < 100))"
    )
    await observer.execute(
        "CREATE TABLE children (id INT PRIMARY KEY, parent INT NOT NULL REFERENCES parents (id), "
        "FOREIGN KEY (parent) REFERENCES parents (id))"
    )
    await observer.execute("INSERT INTO parents VALUES (1, 1, 'taken')")
    await observer.execute("INSERT INTO children VALUES (1, 1)")


PROVOKED = {
    "INSERT INTO parents VALUES (1, 1, 'x')": (UniqueViolationError, {"1062"}),
    "INSERT INTO parents VALUES (2, 1, 'taken')": (UniqueViolationError, {"1062"}),
    "INSERT INTO children VALUES (2, 9)": (ForeignKeyViolationError, {"1452"}),
    "DELETE FROM parents": (ForeignKeyViolationError, {"1451"}),
    "INSERT INTO parents (id, n) VALUES (2, NULL)": (NotNullViolationError, {"1048"}),
    "INSERT INTO parents (id) VALUES (2)": (NotNullViolationError, {"1364"}),
    "INSERT INTO parents VALUES (2, 100, 'x')": (CheckViolationError, {"3819", "4025"}),
    "INSERT INTO parents VALUES (2, 1, 'much too long')": (DataError, {"1406"}),
    "INSERT INTO parents VALUES (2, 99999999999, 'x')": (DataError, {"1264"}),
    "INSERT INTO parents VALUES (2, 'words', 'x')": (DataError, {"1366"}),
    "SELECT 18446744073709551615 + 1": (DataError, {"1690"}),
    "SET time_zone = 'nowhere'": (DataError, {"1298"}),
    "SELEC 1": (SQLSyntaxError, {"1064"}),
    "SELECT * FROM nowhere": (UndefinedTableError, {"1146"}),
    "DROP TABLE nowhere": (UndefinedTableError, {"1051"}),
    "SELECT nowhere.* FROM parents": (UndefinedTableError, {"1051", "1109"}),
    "SELECT nothing FROM parents": (UndefinedColumnError, {"1054"}),
    "SELECT no_such_function()": (ProgrammingError, {"1305"}),
    "CREATE TABLE parents (a INT)": (ProgrammingError, {"1050"}),
    "SELECT 1 FROM parents WHERE (SELECT 1, 2)": (ProgrammingError, {"1241"}),
    "USE nowhere": (ProgrammingError, {"1049", "1044"}),
    "SELECT (SELECT 1 UNION SELECT 2)": (QueryExecutionError, {"1242"}),
}


@pytest.mark.parametrize("sql", PROVOKED)
async def test_each_class(db: MySQLDatabase, tables: None, sql: str) -> None:
    expected, codes = PROVOKED[sql]
    with pytest.raises(DatabaseError) as caught:
        await db.execute(sql)
    error = caught.value
    assert type(error) is expected
    assert error.code in codes
    assert error.database == "main"
    assert error.statement == sql
    assert not error.retryable
    assert str(error.__cause__.args[0]) == error.code
    assert isinstance(error, IntegrityError) == issubclass(expected, IntegrityError)


async def test_a_statement_timeout(open_db: OpenDatabase) -> None:
    db = await open_db(options={"statement_timeout": 200})
    sql = "SELECT COUNT(*) FROM information_schema.columns a, information_schema.columns b"
    with pytest.raises(QueryTimeoutError) as caught:
        await db.fetch_val(f"{sql}, information_schema.columns c WHERE a.table_name > b.table_name")
    assert caught.value.code in ("1969", "3024")


async def test_a_serialization_failure(db: MySQLDatabase, tables: None, mariadb: bool) -> None:
    if not mariadb:
        # MySQL lets the later of two writers win: nothing there to provoke but in a group.
        assert isinstance(errors.translate(OperationalError(3101, "x")), SerializationError)
        return
    async with db.pool.connection() as lease:
        connection = lease.connection
        await connection.run("SET innodb_snapshot_isolation = ON")
        await connection.run("START TRANSACTION WITH CONSISTENT SNAPSHOT")
        await connection.run("SELECT * FROM parents")
        await db.execute("UPDATE parents SET n = 5")
        with pytest.raises(OperationalError) as caught:
            await connection.run("UPDATE parents SET n = n + 1")
    meaning = errors.translate(caught.value)
    assert isinstance(meaning, SerializationError)
    assert meaning.retryable


async def kill_during(observer: Any, sql: str) -> None:
    """Wait until a statement runs, then kill its session."""

    async def running() -> bool:
        return sql in await observer.statements()

    await eventually(running)
    for session in await observer.sessions():
        await observer.execute(f"KILL {session}")


async def test_a_session_killed_during_a_statement(db: MySQLDatabase, observer: Any) -> None:
    killing = asyncio.create_task(kill_during(observer, "DO SLEEP(10)"))
    with pytest.raises(ConnectionLostError) as caught:
        async with db.transaction() as ctx:
            # What comes first would be tried on another connection.
            await ctx.fetch_val("SELECT 1")
            await ctx.execute("DO SLEEP(10)")
    await killing
    assert caught.value.retryable
    assert caught.value.sent


async def test_a_statement_alone_that_is_killed_has_an_unknown_outcome(
    db: MySQLDatabase, observer: Any
) -> None:
    killing = asyncio.create_task(kill_during(observer, "DO SLEEP(10)"))
    with pytest.raises(CommitOutcomeUnknownError):
        await db.execute("DO SLEEP(10)")
    await killing


NAMED = {
    "INSERT INTO parents VALUES (1, 1, 'x')": ("PRIMARY", "parents", None),
    "INSERT INTO children VALUES (2, 9)": ("children_ibfk_1", "children", "parent"),
    "DELETE FROM parents": ("children_ibfk_1", "children", "parent"),
    "INSERT INTO parents (id, n) VALUES (2, NULL)": (None, None, "n"),
    "INSERT INTO parents (id) VALUES (2)": (None, None, "n"),
    "INSERT INTO parents VALUES (2, 100, 'x')": ("small", "parents", None),
    "INSERT INTO parents VALUES (2, 1, 'much too long')": (None, None, "u"),
    "INSERT INTO parents VALUES (2, 'words', 'x')": (None, "parents", "n"),
    "SELECT * FROM nowhere": (None, "nowhere", None),
    "SELECT p.nothing FROM parents p": (None, None, "nothing"),
    "SELEC 1": (None, None, None),
}


async def test_names_of_what_an_error_is_about(
    db: MySQLDatabase, tables: None, mariadb: bool
) -> None:
    for sql, names in NAMED.items():
        with pytest.raises(DatabaseError) as caught:
            await db.execute(sql)
        error = caught.value
        found = (error.constraint, error.table, error.column)
        # Some messages of one server name the table, and those of the other do not.
        assert found in (names, (names[0], None, names[2])), sql


async def test_a_missing_privilege(db: MySQLDatabase, observer: Any, open_db: OpenDatabase) -> None:
    user = await observer.value("SELECT DATABASE()")
    await observer.execute("CREATE TABLE mine (id INT)")
    grant = f"GRANT SELECT (id), INSERT ON {user}.mine TO {user}@'%'"
    try:
        await observer.execute(f"CREATE USER {user}@'%' IDENTIFIED BY 'pw'")
        await observer.execute(grant)
    except OperationalError:  # then this is what our own user may not do
        with pytest.raises(InsufficientPrivilegeError):
            await db.execute(grant)
        return
    limited = await open_db(**parts_of_url(db), user=user, password="pw")
    for sql in ("DELETE FROM mine", "SELECT * FROM mysql.user", "CREATE DATABASE other_one"):
        with pytest.raises(InsufficientPrivilegeError):
            await limited.execute(sql)
    await limited.close(5)
    await observer.execute(f"DROP USER {user}@'%'")


def parts_of_url(db: MySQLDatabase) -> dict[str, Any]:
    settings: Any = db.settings
    address = settings.addresses[0]
    return {
        "url": None,
        "host": address.host,
        "port": address.port,
        "database": settings.database,
    }


# -- messages hold no values


async def failure(work: Awaitable[Any]) -> DatabaseError | None:
    try:
        await work
    except DatabaseError as error:
        return error
    return None


PARAMETER = [
    "INSERT INTO parents VALUES (2, 1, %s), (3, 1, %s)",
    "INSERT INTO parents VALUES (2, %s, 'x')",
    "INSERT INTO parents (id, n, u) VALUES (2, 1, %s), (3, 1, %s)",
    "SELECT %s FORM parents",
    "SELECT 1 FORM parents WHERE u = %s",
    "SELECT * FROM parents LIMIT %s",
    "UPDATE parents SET n = n + %s",
    "DELETE FROM parents WHERE n = %s",
    "SELECT UPDATEXML('<a/>', CONCAT('//', %s), 'x')",
    "SELECT EXTRACTVALUE('<a/>', CONCAT('~', %s))",
    "SET time_zone = %s",
    "SET sql_mode = %s",
    "SET character_set_client = %s",
    "SET collation_connection = %s",
    "SET lc_time_names = %s",
    "SET wait_timeout = %s",
    "SELECT TIMESTAMP %s",
    "SELECT 1 FROM parents WHERE TIMESTAMP %s = 1",
    "SELECT ~0 + LENGTH(%s) + 1",
    "SELECT (SELECT n FROM parents WHERE u <> %s) + 18446744073709551615",
    "SELECT _utf8mb4 x'ff', %s",
    "SELECT CONVERT(%s USING nonsense)",
    "PREPARE s FROM %s",
    "INSERT INTO days VALUES (STR_TO_DATE(%s, '%%Y-%%m-%%d'))",
    "INSERT INTO days VALUES (%s)",
    "CALL complain(%s)",
    "SELECT GET_LOCK(CONCAT(REPEAT(%s, 20)), 0)",
    "SET default_storage_engine = %s",
    "CREATE USER %s IDENTIFIED BY 'x', %s IDENTIFIED BY 'x'",
    "DROP USER %s",
    "XA COMMIT %s",
    "SELECT JSON_SET('{}', %s, 1)",
    "SELECT CAST(CONCAT('[', %s) AS JSON)",
    "SELECT ST_GeomFromText(%s)",
    "SELECT ST_GeomFromGeoJSON(%s)",
    "SELECT INET6_NTOA(%s), REGEXP_REPLACE('a', %s, '[', 99, 1)",
    "SELECT CAST(%s AS DATETIME) + INTERVAL 9999999999 DAY",
    "INSERT INTO days SELECT CAST(%s AS DATETIME)",
    "UPDATE parents SET id = %s",
    "UPDATE parents SET u = %s, id = 9; ",
    "SELECT * FROM parents PROCEDURE ANALYSE(%s)",
    "SELECT SLEEP(%s)",
    "SELECT LOAD_FILE(%s), MASTER_POS_WAIT(%s, 'x')",
    "SELECT WAIT_FOR_EXECUTED_GTID_SET(%s, 0)",
    "SELECT GTID_SUBSET(%s, %s)",
    "SELECT MASTER_GTID_WAIT(%s, 0)",
    "SELECT SETVAL(%s, 1)",
    "SET NAMES %s",
    "CREATE TABLE made (a INT COMMENT %s, a INT)",
    "CREATE TABLE made (a INT DEFAULT %s)",
    "CREATE TABLE made (a ENUM(%s, %s))",
    "CREATE TABLE made (a INT) COLLATE %s",
    "CREATE TABLE made (a INT) CONNECTION = %s ENGINE = FEDERATED",
    "LOAD DATA INFILE %s INTO TABLE parents",
    "INSTALL PLUGIN nothing SONAME %s",
    "SELECT 'a' LIKE 'b' ESCAPE %s",
    "SELECT UUID_TO_BIN(%s)",
    "SELECT 'a' REGEXP CONCAT('(', %s)",
    "SELECT JSON_EXTRACT(%s, '$')",
    "SELECT JSON_EXTRACT('{}', %s)",
    "INSERT INTO documents VALUES (%s)",
    "KILL %s",
    "SELECT nothing, %s",
    "SELECT nothing(%s)",
]


@pytest.mark.parametrize("value", ["secret-value", "sec'ret'", 'sec"ret', "sec`ret", "secret "])
async def test_no_message_repeats_a_parameter(
    db: MySQLDatabase, tables: None, observer: Any, value: str
) -> None:
    await observer.execute("ALTER TABLE parents MODIFY u VARCHAR(99)")
    await observer.execute("CREATE TABLE days (day DATE)")
    await observer.execute("CREATE TABLE documents (document JSON)")
    await observer.execute(
        "CREATE PROCEDURE complain(what TEXT) SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = what"
    )
    failed = 0
    for sql in PARAMETER:
        values = [value] * sql.count("%s")
        for attempt in (db.execute, db.fetch_all, db.executemany):
            error = await failure(attempt(sql, [values] if attempt == db.executemany else values))
            failed += error is not None
            told = f"{error} {error!r}"
            if error is not None:
                told += f"{error.statement} {error.table} {error.column} {error.constraint}"
            assert "sec" not in told.replace("second", ""), sql
    assert failed > 60


async def test_numbers_are_values_too(db: MySQLDatabase, tables: None, observer: Any) -> None:
    await observer.execute(
        "CREATE TABLE parts (id INT) PARTITION BY LIST (id) (PARTITION one VALUES IN (1))"
    )
    for sql in (
        "SELECT 18446744073709551615 + %s",
        "INSERT INTO parts VALUES (%s)",
        "KILL %s",
        "SELECT ST_PointFromText(CONCAT('POINT(', %s, ' 1)'), 4326)",
        "SELECT 1 FORM parents WHERE n = %s",
    ):
        for call in (db.execute, db.executemany):
            error = await failure(call(sql, [[777123]] if call == db.executemany else [777123]))
            assert "777" not in f"{error} {error!r}", sql


@pytest.mark.parametrize(
    ("sql", "values", "near"),
    [
        ("SELEC 'it''s'", None, "SELEC 'it''s'"),
        ("SELECT 1 FORM parents WHERE u = 'x'", [], "parents WHERE u = 'x'"),
        ("SELECT :a FROM parents WHERE n = n n LIKE '%x'", {"a": "secret"}, "n LIKE '%x'"),
        ("SELECT %s FROM parents WHERE n = n n LIKE '%%x'", ["secret"], "n LIKE '%x'"),
        ("SELECT 1 FORM parents WHERE u = %s", ["secret"], None),
    ],
)
async def test_a_syntax_error_says_where_if_that_shows_no_parameter(
    db: MySQLDatabase, tables: None, sql: str, values: Any, near: str | None
) -> None:
    with pytest.raises(SQLSyntaxError) as caught:
        await db.fetch_all(sql, values)
    assert "at line 1" in str(caught.value)
    if near is None:
        assert "near" not in str(caught.value)
    else:
        assert f" near '{near}' at line 1" in str(caught.value)
    assert " near " in str(caught.value.__cause__)
    async with db.transaction() as ctx:
        with pytest.raises(SQLSyntaxError) as caught:
            async for _ in ctx.iterate(sql, values):
                pass
        assert (near is None) == ("near" not in str(caught.value))


async def test_a_signal_is_told_where_it_can_hold_no_parameter(
    db: MySQLDatabase, observer: Any
) -> None:
    await observer.execute(
        "CREATE PROCEDURE refuse(n INT) SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = 'too poor'"
    )
    with pytest.raises(QueryExecutionError, match="too poor"):
        await db.execute("CALL refuse(1)")
    with pytest.raises(QueryExecutionError, match="the cause") as caught:
        await db.execute("CALL refuse(%s)", [1])
    assert "too poor" in str(caught.value.__cause__)


async def test_a_raw_error_of_ctx_connection_is_told_without_values(
    db: MySQLDatabase, tables: None
) -> None:
    async with db.transaction() as ctx:
        await ctx.fetch_val("SELECT 1")
        with pytest.raises(OperationalError) as caught:
            await ctx.connection.cursor().execute(
                "SELECT EXTRACTVALUE('<a/>', CONCAT('~', %s))", ("secret",)
            )
        meaning = db.driver.translate(caught.value)
        assert "secret" not in str(meaning)
    assert "secret" in str(caught.value)


# -- what cannot be provoked at will


@pytest.mark.parametrize(
    ("error", "meaning", "sent"),
    [
        (InterfaceError(0, "Not connected"), ConnectionLostError, False),
        (OperationalError(2006, "gone"), ConnectionLostError, False),
        (OperationalError(2013, "lost"), ConnectionLostError, True),
        (OperationalError(2014, "out of sync"), ConnectionLostError, True),
        (OperationalError(1053, "shutdown"), ConnectionLostError, True),
        (OperationalError(1927, "killed"), ConnectionLostError, True),
        (OperationalError(3169, "killed"), ConnectionLostError, True),
        (OperationalError(4031, "inactivity"), ConnectionLostError, True),
        (InternalError("Packet sequence number wrong"), ConnectionLostError, True),
        (Error("Already closed"), ConnectionLostError, True),
    ],
)
def test_lost_connections(error: Exception, meaning: type, sent: bool) -> None:
    found = errors.translate(error)
    assert type(found) is meaning
    assert isinstance(found, ConnectionLostError)
    assert found.sent is sent


READ_ONLY = (
    (1290, "The MySQL server is running with the --read-only option so it cannot execute this"),
    (1290, "The MySQL server is running with the --super-read-only option so it cannot"),
    (1290, "The MariaDB server is running with the --read_only option so it cannot execute"),
    (1792, "Cannot execute statement in a READ ONLY transaction"),
    (1836, "Running in read-only mode"),
)


@pytest.mark.parametrize(("number", "text"), READ_ONLY)
def test_servers_that_may_no_longer_be_written_to(number: int, text: str) -> None:
    assert type(errors.translate(OperationalError(number, text))) is ReadOnlyTransactionError


def test_other_options_that_prevent_a_statement() -> None:
    text = "The MySQL server is running with the --secure-file-priv option so it cannot execute"
    assert type(errors.translate(OperationalError(1290, text))) is QueryExecutionError


@pytest.mark.parametrize(
    ("code", "text"),
    [
        (1047, "WSREP has not yet prepared node for application use"),
        (4094, "All queries have been blocked while function ... is executing"),
    ],
    ids=["outside its cluster", "hands over to another primary"],
)
def test_a_server_that_refuses_all_statements_is_no_longer_used(code: int, text: str) -> None:
    error = OperationalError(code, text)
    found = errors.translate(error)
    assert isinstance(found, ConnectionLostError)
    assert (found.sent, found.retryable) == (False, True)
    assert errors.is_lost(error)
    assert errors.leaves_its_cluster(error)
    assert errors.connect_failed(error, "host").transient


def test_an_unknown_command_is_no_reason_to_leave_a_server() -> None:
    assert not errors.is_lost(OperationalError(1047, "Unknown command 65"))


def test_a_deadlock_found_at_the_commit_of_a_group() -> None:
    text = "Got error 149 - 'Lock deadlock; Retry transaction' during COMMIT"
    found = errors.translate(OperationalError(1180, text))
    assert isinstance(found, DeadlockError)
    assert found.retryable
    other = errors.translate(OperationalError(1180, "Got error 28 - 'No space' during COMMIT"))
    assert type(other) is QueryExecutionError


def test_a_node_that_loses_its_cluster_at_a_commit_cannot_say_what_became_of_it() -> None:
    error = OperationalError(
        1180,
        "Error while appending streaming replication fragment"
        "(provider status: Not connected to Primary Component)",
    )
    assert isinstance(errors.translate(error), CommitOutcomeUnknownError)
    assert errors.leaves_its_cluster(error)
    assert not errors.leaves_its_cluster(OperationalError(1180, "Got error 28 during COMMIT"))


def test_errors_of_the_driver_without_a_number_are_not_lost_connections() -> None:
    found = errors.translate(AsyncmyProgrammingError("execute() first"))
    assert type(found) is QueryExecutionError
    assert type(errors.translate(OperationalError(3572, "x"))) is LockTimeoutError


@pytest.mark.parametrize("error", [ValueError("x"), OSError("x"), KeyError("x"), Exception("x")])
def test_what_is_not_of_the_driver_is_left_alone(error: Exception) -> None:
    assert errors.translate(error) is None


MAY_PASS = (1040, 1053, 1203, 1226, 2003, 2013)
WILL_NOT = (1044, 1045, 1049, 1698, 1862, 2059)


@pytest.mark.parametrize("number", [*MAY_PASS, *WILL_NOT])
def test_which_failures_to_connect_may_pass(number: int) -> None:
    failure = errors.connect_failed(OperationalError(number, "told"), "host:3306")
    assert failure.transient is (number in MAY_PASS)
    assert failure.code == str(number)
    assert str(failure).startswith("cannot connect to host:3306: told")


def test_a_failed_handshake_will_not_pass() -> None:
    error = OperationalError(2003, "Can't connect")
    error.__cause__ = ssl.SSLCertVerificationError("self-signed")
    assert not errors.connect_failed(error, "host").transient
    assert errors.connect_failed(TimeoutError(), "host").transient
