"""The table of exceptions: what each driver raises is what the page says it is here."""

from __future__ import annotations

import re
import sqlite3
from pathlib import Path

import asyncpg
import pytest
import sqlalchemy.exc
from asyncmy.errors import OperationalError

import jobu_db
from jobu_db_mysql.errors import translate as translate_asyncmy
from jobu_db_postgres.errors import translate as translate_asyncpg
from jobu_db_sqlite.errors import translate as translate_sqlite3

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "porting.md").read_text("utf-8")
ROWS = [
    [re.findall(r"\w+", cell) for cell in line.strip("| ").split("|")]
    for line in PAGE.splitlines()
    if re.match(r"\| `\w+` \|.*\|.*\|.*\|.*\|$", line)
]
ROWS = [row for row in ROWS if hasattr(jobu_db, row[0][0])]


def test_the_table_is_found() -> None:
    assert len(ROWS) == 15


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0][0])
def test_what_a_driver_raises_is_what_the_page_says(row: list[list[str]]) -> None:
    (ours,), of_asyncpg, of_asyncmy, of_sqlite3, *_ = row
    expected = getattr(jobu_db, ours)
    for name in of_asyncpg:
        error = getattr(asyncpg, name, None) or getattr(asyncpg.exceptions, name)
        assert type(translate_asyncpg(error("told"))) is expected, name
    for number in of_asyncmy:
        assert type(translate_asyncmy(OperationalError(int(number), "told"))) is expected, number
    for name in of_sqlite3:
        raised = sqlite3.OperationalError("told")
        raised.sqlite_errorcode, raised.sqlite_errorname = getattr(sqlite3, name), name
        assert type(translate_sqlite3(raised)) is expected, name


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0][0])
def test_the_page_names_classes_that_sqlalchemy_has(row: list[list[str]]) -> None:
    for name in row[4]:
        assert issubclass(getattr(sqlalchemy.exc, name), sqlalchemy.exc.DBAPIError), name


MISTAKES = {
    "UniqueViolationError": "INSERT INTO items VALUES (1, 1)",
    "ForeignKeyViolationError": "INSERT INTO items VALUES (2, 9)",
    "NotNullViolationError": "INSERT INTO items VALUES (2, NULL)",
    "CheckViolationError": "INSERT INTO items VALUES (-1, 1)",
    "UndefinedTableError": "SELECT * FROM missing",
    "UndefinedColumnError": "SELECT missing FROM items",
    "SQLSyntaxError": "SELEC 1",
}


def test_what_sqlalchemy_raises_on_sqlite_is_what_the_page_says() -> None:
    told = {ours: of_sqlalchemy for (ours,), *_, of_sqlalchemy in ROWS}
    with sqlalchemy.create_engine("sqlite://").connect() as connection:
        run = connection.exec_driver_sql
        run("PRAGMA foreign_keys = ON")
        run(
            "CREATE TABLE items (id INTEGER PRIMARY KEY CHECK (id > 0),"
            " of INTEGER NOT NULL REFERENCES items)"
        )
        run("INSERT INTO items VALUES (1, 1)")
        for ours, sql in MISTAKES.items():
            with pytest.raises(sqlalchemy.exc.DBAPIError) as caught:
                run(sql)
            assert type(caught.value).__name__ in told[ours], sql
            assert type(translate_sqlite3(caught.value.orig)) is getattr(jobu_db, ours), sql
