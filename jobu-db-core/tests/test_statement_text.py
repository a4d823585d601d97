"""What is told of a statement holds no value, and the summary is the specification's."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobu_db.placeholders import Dialect
from jobu_db.statement_text import (
    LONGEST_READ,
    LONGEST_SUMMARY,
    is_one_statement,
    summarize,
    without_values,
)

SQLITE = Dialect("qmark", backticks=True, brackets=True)
POSTGRES = Dialect("numeric_dollar", escape_strings=True, dollar_quotes=True, nested_comments=True)
MYSQL = Dialect(
    "format",
    backslash_escapes=True,
    double_quoted_strings=True,
    backticks=True,
    hash_comments=True,
    spaced_dash_comments=True,
)

# The first five are the examples of the specification.
SUMMARIES = [
    (SQLITE, "SELECT *\nFROM   wuser_table\nWHERE  username = ?", "SELECT wuser_table"),
    (
        SQLITE,
        "INSERT INTO shipping_details (order_id, address)\n"
        "SELECT order_id, address FROM orders WHERE order_id = ?",
        "INSERT shipping_details SELECT orders",
    ),
    (
        SQLITE,
        "SELECT * FROM songs, artists WHERE songs.artist_id == artists.id",
        "SELECT songs artists",
    ),
    (
        SQLITE,
        "SELECT order_date FROM (SELECT * FROM orders o JOIN customers c ON o.id = c.id)",
        "SELECT SELECT orders customers",
    ),
    (POSTGRES, 'SELECT * FROM "song list", artists', 'SELECT "song list" artists'),
    (POSTGRES, "select 1 from public.jobs j", "select public.jobs"),
    (SQLITE, "SELECT 1 FROM songs s, artists AS a, labels", "SELECT songs artists labels"),
    (POSTGRES, "SELECT extract(year FROM at), a IS DISTINCT FROM b FROM jobs", "SELECT jobs"),
    (POSTGRES, "SELECT id FROM jobs FOR UPDATE OF jobs", "SELECT jobs"),
    (POSTGRES, "INSERT INTO a VALUES ($1) ON CONFLICT DO UPDATE SET b = 1", "INSERT a"),
    (MYSQL, "INSERT INTO a VALUES (%s) ON DUPLICATE KEY UPDATE b = 1", "INSERT a"),
    (MYSQL, "REPLACE INTO `a b` VALUES (1)", "REPLACE `a b`"),
    (SQLITE, "INSERT OR REPLACE INTO a VALUES (?)", "INSERT a"),
    (SQLITE, "SELECT replace(name, 'x', 'y') FROM a", "SELECT a"),
    (SQLITE, "DELETE FROM a WHERE id IN (SELECT id FROM b)", "DELETE a SELECT b"),
    (
        POSTGRES,
        "WITH old AS (DELETE FROM a RETURNING *) INSERT INTO b SELECT * FROM old",
        "DELETE a INSERT b SELECT old",
    ),
    (SQLITE, "CREATE TABLE IF NOT EXISTS jobs (id INT REFERENCES x ON DELETE CASCADE)",
     "CREATE TABLE jobs"),
    (POSTGRES, "CREATE UNIQUE INDEX CONCURRENTLY i ON jobs (name)", "CREATE INDEX i"),
    (POSTGRES, "ALTER TABLE public.jobs ADD COLUMN x INT", "ALTER TABLE public.jobs"),
    (SQLITE, "PRAGMA journal_mode = WAL", "PRAGMA"),
    (MYSQL, "SET PASSWORD = 'hunter2'", "SET"),
    (SQLITE, "-- a comment\nSELECT 1", "SELECT"),
    (SQLITE, " ", ""),
]  # fmt: skip


@pytest.mark.parametrize(("dialect", "sql", "summary"), SUMMARIES, ids=[s[1] for s in SUMMARIES])
def test_a_summary(dialect: Dialect, sql: str, summary: str) -> None:
    assert summarize(sql, dialect) == summary


def test_a_summary_is_cut_between_two_names() -> None:
    names = [f"table_{number}" for number in range(100)]
    summary = summarize(f"SELECT * FROM {', '.join(names)}", SQLITE)
    assert LONGEST_SUMMARY - len(" table_99") < len(summary) <= LONGEST_SUMMARY
    assert summary.split()[1:] == names[: len(summary.split()) - 1]


TEXTS = [
    (SQLITE, "SELECT 'it''s', 12, 1.5e-3, .5, 0xFF, x'AB'", "SELECT ?, ?, ?, ?, ?, ?"),
    (SQLITE, 'SELECT "a b", [c d], `e`, t1.f2', 'SELECT "a b", [c d], `e`, t1.f2'),
    (SQLITE, "a = ?1 AND b = :name AND c = ?", "a = ?1 AND b = :name AND c = ?"),
    (SQLITE, "id IN (1, 2,3) AND b = TRUE", "id IN (?) AND b = ?"),
    (SQLITE, "SELECT 1 -- hunter2\n/* hunter2 */ , 2", "SELECT ? , ?"),
    (POSTGRES, "SELECT $1::text, E'a\\'b', $x$ hunter2 $x$, $$b$$", "SELECT $1::text, ?, ?, ?"),
    (POSTGRES, "SELECT 1 /* a /* hunter2 */ hunter2 */ + 2", "SELECT ? + ?"),
    (MYSQL, "SELECT \"hunter2\", 'a\\'b', %s, 5--5 # hunter2", "SELECT ?, ?, %s, ?--?"),
    (MYSQL, "SELECT 'not closed", "SELECT ?"),
]


@pytest.mark.parametrize(("dialect", "sql", "text"), TEXTS, ids=[t[1] for t in TEXTS])
def test_a_text_without_values(dialect: Dialect, sql: str, text: str) -> None:
    assert without_values(sql, dialect) == text


def test_a_long_text_is_cut_and_says_so() -> None:
    rows = ", ".join(f"('secret {number}')" for number in range(LONGEST_READ))
    text = without_values(f"INSERT INTO jobs VALUES {rows}", SQLITE)
    assert text.startswith("INSERT INTO jobs VALUES (?), (?)")
    assert text.endswith("…")
    assert len(text) < LONGEST_READ
    assert "secret" not in text


@given(st.text(), st.sampled_from([SQLITE, POSTGRES, MYSQL]))
def test_no_value_gets_through(value: str, dialect: Dialect) -> None:
    quoted = value.replace("\\", "\\\\").replace("'", "''")
    if dialect is not MYSQL:
        quoted = value.replace("'", "''")
    sql = f"SELECT name FROM jobs WHERE name = '{quoted}' AND id = 7"
    assert without_values(sql, dialect) == "SELECT name FROM jobs WHERE name = ? AND id = ?"
    assert summarize(sql, dialect) == "SELECT jobs"


@given(st.text(alphabet="SELECTFROMa ()'\"`[]$?:;,.-/*#\\0\n"))
def test_no_text_is_too_odd(sql: str) -> None:
    for dialect in (SQLITE, POSTGRES, MYSQL):
        without_values(sql, dialect)
        summarize(sql, dialect)
        is_one_statement(sql, dialect)


@pytest.mark.parametrize(
    ("sql", "one"),
    [
        ("SELECT 1", True),
        ("SELECT 1;", True),
        ("SELECT ';' ; -- the end", True),
        ("SELECT 1; SELECT 2", False),
        ("", False),
        (";", False),
        ("-- nothing", False),
    ],
)
def test_one_statement(sql: str, one: bool) -> None:
    assert is_one_statement(sql, SQLITE) is one
