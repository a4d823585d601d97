"""Every class of the error table, provoked on the server."""

from __future__ import annotations

import asyncio
import ssl
from typing import Any

import pytest
from asyncmy.errors import Error, InterfaceError, InternalError, OperationalError, ProgrammingError

from jobu_db.errors import (
    CheckViolationError,
    CommitOutcomeUnknownError,
    ConnectionLostError,
    DatabaseError,
    ForeignKeyViolationError,
    IntegrityError,
    LockTimeoutError,
    NotNullViolationError,
    QueryExecutionError,
    QueryTimeoutError,
    SerializationError,
    UniqueViolationError,
)
from jobu_db_mysql import MySQLDatabase, errors

from .conftest import OpenDatabase, eventually


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
    "INSERT INTO parents VALUES (2, 1, 'much too long')": (QueryExecutionError, {"1406"}),
    "INSERT INTO parents VALUES (2, 99999999999, 'x')": (QueryExecutionError, {"1264"}),
    "INSERT INTO parents VALUES (2, 'words', 'x')": (QueryExecutionError, {"1366"}),
    "SELEC 1": (QueryExecutionError, {"1064"}),
    "SELECT * FROM nowhere": (QueryExecutionError, {"1146"}),
    "SELECT nothing FROM parents": (QueryExecutionError, {"1054"}),
    "SELECT no_such_function()": (QueryExecutionError, {"1305"}),
    "CREATE TABLE parents (a INT)": (QueryExecutionError, {"1050"}),
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


@pytest.mark.parametrize(
    ("value", "sql"),
    [
        ("secret-value", "INSERT INTO parents VALUES (2, 1, %s), (3, 1, %s)"),
        ("secret-value", "INSERT INTO parents VALUES (2, %s, 'x')"),
        ("secret-value", "SELECT %s FORM parents"),
        ("secret-value", "UPDATE parents SET n = n + %s"),
        ("sec'ret", "INSERT INTO parents (id, n, u) VALUES (2, 1, %s), (3, 1, %s)"),
    ],
)
async def test_no_message_repeats_a_value(
    db: MySQLDatabase, tables: None, value: str, sql: str
) -> None:
    await db.execute("ALTER TABLE parents MODIFY u VARCHAR(99)")
    with pytest.raises(QueryExecutionError) as caught:
        await db.execute(sql, [value] * sql.count("%s"))
    assert value[:6] not in f"{caught.value} {caught.value!r} {caught.value.statement}"


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


def test_errors_of_the_driver_without_a_number_are_not_lost_connections() -> None:
    found = errors.translate(ProgrammingError("nan can not be used with MySQL"))
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
