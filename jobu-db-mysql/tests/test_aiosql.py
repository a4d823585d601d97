"""The adapter for aiosql, with every marker."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from inspect import signature
from typing import Any

import aiosql
import asyncmy
import pytest

from jobu_db import get_aiosql_adapter
from jobu_db.errors import QueryExecutionError, TransactionError
from jobu_db.testing.aiosql_rows import rows_of
from jobu_db_mysql import MySQLDatabase

from .conftest import OpenDatabase

QUERIES = """
-- name: setup#
-- A script; with a comment; and more.
CREATE TABLE users (
    id INT AUTO_INCREMENT PRIMARY KEY, name VARCHAR(50) DEFAULT ';', -- a ; here
    age INT, note VARCHAR(50)
);
# another; comment
CREATE TRIGGER grow BEFORE INSERT ON users FOR EACH ROW
BEGIN
    IF NEW.age IS NULL THEN
        SET NEW.age = CASE WHEN NEW.name = 'a;b' THEN 1 ELSE 2 END;
    END IF;
    SET NEW.note = CONCAT(IFNULL(NEW.note, ''), ';');
END;
CREATE PROCEDURE counted() BEGIN SELECT COUNT(*) AS n FROM users; END;
INSERT INTO users (name) VALUES ('it''s; "x"');
-- the end;

-- name: all_users()
-- record_class: User
SELECT id, name, age FROM users WHERE name LIKE '%' ORDER BY id

-- name: rows(age)
SELECT id, name FROM users WHERE age = :age AND name <> ':age 100%' ORDER BY id;

-- name: one(id)^
-- record_class: User
SELECT id, name, age FROM users WHERE id = :id

-- name: plain_one(id)^
SELECT id, name FROM users WHERE id = :id

-- name: how_many()$
SELECT COUNT(*) FROM users

-- name: name_of(id)$
SELECT name FROM users WHERE id = :id

-- name: add(name, age)<!
INSERT INTO users (name, age) VALUES (:name, :age)

-- name: add_returning(name)<!
INSERT INTO users (name, age) VALUES (:name, 7) RETURNING id

-- name: add_returning_row(name)<!
INSERT INTO users (name, age) VALUES (:name, 7) RETURNING id, age

-- name: rename(id, name)!
UPDATE users SET name = :name WHERE id = :id

-- name: add_many(name, age)*!
INSERT INTO users (name, age) VALUES (:name, :age)

-- name: rename_many(id, name)*!
UPDATE users SET name = :name WHERE id = :id
"""


@dataclass
class User:
    id: int
    name: str
    age: int


@pytest.fixture
def queries() -> Any:
    return aiosql.from_str(QUERIES, get_aiosql_adapter("mysql"), record_classes={"User": User})


@pytest.fixture
async def users(db: MySQLDatabase, queries: Any) -> MySQLDatabase:
    async with db.pool.connection() as lease:
        assert await queries.setup(lease.connection) == "DONE"
    return db


def test_the_adapter_has_its_name() -> None:
    assert get_aiosql_adapter("mysql") == get_aiosql_adapter("mariadb") == "asyncmy"


async def test_the_script_was_split_where_it_should_be(users: MySQLDatabase) -> None:
    row = await users.fetch_one("SELECT name, age, note FROM users")
    assert row == {"name": 'it\'s; "x"', "age": 2, "note": ";"}
    assert await users.fetch_val("CALL counted()") == 1


async def test_selects(users: MySQLDatabase, queries: Any) -> None:
    async with users.transaction() as ctx:
        connection = ctx.connection
        await queries.add(connection, name="ann", age=5)
        assert await rows_of(queries.all_users(connection)) == [
            User(1, 'it\'s; "x"', 2), User(2, "ann", 5),
        ]  # fmt: skip
        assert await rows_of(queries.rows(connection, age=5)) == [{"id": 2, "name": "ann"}]
        assert await queries.one(connection, id=2) == User(2, "ann", 5)
        assert await queries.plain_one(connection, id=2) == {"id": 2, "name": "ann"}
        assert await queries.one(connection, id=9) is None
        assert await queries.how_many(connection) == 2
        assert await queries.name_of(connection, id=9) is None


async def test_changes(users: MySQLDatabase, queries: Any, mariadb: bool) -> None:
    async with users.transaction() as ctx:
        connection = ctx.connection
        assert await queries.add(connection, name="ann", age=5) == 2
        assert await queries.rename(connection, id=2, name="100% it's :name") == 1
        assert await queries.rename(connection, id=2, name="100% it's :name") == 1, "matched"
        assert await queries.rename(connection, id=9, name="x") == 0
        assert await queries.name_of(connection, id=2) == "100% it's :name"
        many = [{"name": f"n{n}", "age": n} for n in range(500)]
        assert await queries.add_many(connection, many) == 500
        assert await queries.add_many(connection, []) == 0
        await queries.rename_many(connection, [{"id": 1, "name": "x"}, {"id": 2, "name": "y"}])
        assert await queries.name_of(connection, id=2) == "y"
        assert await queries.how_many(connection) == 502
        if mariadb:  # MySQL knows no RETURNING
            identity = await queries.add_returning(connection, name="bob")
            assert await queries.name_of(connection, id=identity) == "bob"
            row = await queries.add_returning_row(connection, name="bob")
            assert row == {"id": identity + 1, "age": 7}
    async with users.transaction(readonly=True) as ctx:
        assert await queries.how_many(ctx.connection) >= 502


async def test_cursors_are_unbuffered_and_guard_their_rows(
    users: MySQLDatabase, queries: Any
) -> None:
    async with users.transaction() as ctx:
        many = [{"name": f"n{n}", "age": 5} for n in range(2000)]
        await queries.add_many(ctx.connection, many)
        async with queries.rows_cursor(ctx.connection, age=5) as cursor:
            seen = []
            async for row in cursor:
                seen.append(row["name"])
                if len(seen) == 100:
                    with pytest.raises(TransactionError, match="unread"):
                        await queries.how_many(ctx.connection)
        assert seen == [f"n{n}" for n in range(2000)]
        async with queries.rows_cursor(ctx.connection, age=5) as cursor:
            assert (await cursor.fetchone())["name"] == "n0"
        assert await queries.how_many(ctx.connection) == 2001


async def test_it_is_part_of_the_transaction(users: MySQLDatabase, queries: Any) -> None:
    with pytest.raises(ZeroDivisionError):
        async with users.transaction() as ctx:
            await queries.add(ctx.connection, name="never", age=1)
            raise ZeroDivisionError
    async with users.transaction(readonly=True) as ctx:
        assert await queries.how_many(ctx.connection) == 1


async def test_missing_and_surplus_parameters_are_told(users: MySQLDatabase, queries: Any) -> None:
    async with users.transaction() as ctx:
        with pytest.raises(QueryExecutionError, match="name"):
            await queries.rename(ctx.connection, id=1)
        with pytest.raises(QueryExecutionError, match="more"):
            await queries.rename(ctx.connection, id=1, name="x", more=1)


async def test_positional_parameters(db: MySQLDatabase) -> None:
    options: dict[str, Any] = {"kwargs_only": False}
    if "mandatory_parameters" in signature(aiosql.from_str).parameters:  # since aiosql 15
        options["mandatory_parameters"] = False
    queries = aiosql.from_str("-- name: sum$\nSELECT %s + %s", "asyncmy", **options)
    async with db.transaction() as ctx:
        assert await queries.sum(ctx.connection, 1, 2) == 3


async def test_a_plain_connection_of_asyncmy_will_do(
    users: MySQLDatabase, queries: Any, observer: Any
) -> None:
    connection: asyncmy.Connection = observer.connection
    assert await queries.add(connection, name="ann", age=3) == 2
    assert await queries.one(connection, id=2) == User(2, "ann", 3)
    async with queries.rows_cursor(connection, age=3) as cursor:
        assert [row async for row in cursor] == [{"id": 2, "name": "ann"}]


async def test_strings_are_read_as_the_server_reads_them(open_db: OpenDatabase) -> None:
    queries = aiosql.from_str("-- name: it(x)$\nSELECT CONCAT('a\\', :x, ';')", "asyncmy")
    db = await open_db(options={"sql_mode": "NO_BACKSLASH_ESCAPES"})
    async with db.transaction() as ctx:
        assert await queries.it(ctx.connection, x="\\") == "a\\\\;"


def test_it_is_registered_without_being_asked_for() -> None:
    code = "import jobu_db_mysql, aiosql; aiosql.from_str('-- name: a()$\\nSELECT 1', 'asyncmy')"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_aiosql_is_not_needed() -> None:
    code = "import sys; sys.modules['aiosql'] = None; import jobu_db_mysql"
    subprocess.run([sys.executable, "-c", code], check=True)
