"""The types that SQLite takes, there and back; all others are refused before anything is done."""

from __future__ import annotations

import array
import asyncio
import enum
import math
import random
import re
import sqlite3
import uuid
from collections import UserDict, deque
from collections.abc import Iterator
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from jobu_db import DataError, expand
from jobu_db_sqlite import SQLiteDatabase


class Color(enum.Enum):
    RED = "red"
    ROUND = 3
    PRECISE = Decimal("1.5")


class Level(enum.IntEnum):
    HIGH = 7


class Word(enum.StrEnum):
    YES = "yes"


class Shouting(str):
    __slots__ = ()

    def __str__(self) -> str:
        return self.upper()


class Count(int):
    pass


class Taught:
    def __conform__(self, protocol: object) -> str:
        return "by itself"


CEST = timezone(timedelta(hours=2))
AWARE = datetime(2026, 7, 1, 12, 30, tzinfo=CEST)

TAKEN: list[tuple[Any, Any]] = [
    (None, None),
    (True, 1),
    (False, 0),
    (0, 0),
    (2**63 - 1, 2**63 - 1),
    (-(2**63), -(2**63)),
    (1.5, 1.5),
    (math.inf, math.inf),
    (-math.inf, -math.inf),
    (5e-324, 5e-324),
    ("", ""),
    ("a 'quoted' \\ ?:x %s", "a 'quoted' \\ ?:x %s"),
    ("데이터베이스 \N{GRINNING FACE}", "데이터베이스 \N{GRINNING FACE}"),
    ("before\0after", "before\0after"),
    (b"", b""),
    (b"\x00\xff'", b"\x00\xff'"),
    (bytearray(b"ab"), b"ab"),
    (memoryview(b"abcdef")[1:3], b"bc"),
    (memoryview(b"abcdef")[::2], b"ace"),
    (date(2026, 7, 1), "2026-07-01"),
    (datetime(2026, 7, 1, 12, 30), "2026-07-01 12:30:00"),
    (datetime(2026, 7, 1, 12, 30, 0, 5), "2026-07-01 12:30:00.000005"),
    (AWARE, "2026-07-01 12:30:00+02:00"),
    (AWARE.astimezone(UTC), "2026-07-01 10:30:00+00:00"),
    (time(12, 30), "12:30:00"),
    (uuid.UUID(int=7), "00000000-0000-0000-0000-000000000007"),
    (Color.RED, "red"),
    (Color.ROUND, 3),
    (Level.HIGH, 7),
    (Word.YES, "yes"),
    (Shouting("quiet"), "quiet"),
    (Count(5), 5),
    (Taught(), "by itself"),
]

REFUSED: list[tuple[Any, str]] = [
    (math.nan, "is NaN, which SQLite would store as NULL"),
    (-math.nan, "is NaN"),
    (2**63, "is an int that does not fit in 64 bits"),
    (-(2**63) - 1, "is an int that does not fit in 64 bits"),
    (Count(2**70), "is an int that does not fit in 64 bits"),
    ("half \ud83d of one", "holds a lone surrogate"),
    (Shouting("\udc00"), "holds a lone surrogate"),
    (Decimal("1.10"), "is a decimal.Decimal, which SQLite has no type for: pass str"),
    (Color.PRECISE, "is a decimal.Decimal"),
    ({"a": 1}, "is a dict, which SQLite has no type for: pass json.dumps"),
    ([1], r"is a list, which SQLite has no type for: for `IN \(:name\)`, pass expand\(values\)"),
    ((1,), "is a tuple"),
    ({1}, "is a set"),
    (timedelta(1), "is a datetime.timedelta"),
    (Path("x"), r"is a pathlib\.(_local\.)?PosixPath"),
    (Fraction(1, 3), "is a fractions.Fraction"),
    (1j, "is a complex"),
    (array.array("d", [1.0]), "is a array.array"),
    (object(), "is a object"),
    (int, "is a type"),
    (random.random, "is a builtin_function"),
]


@pytest.fixture
async def table(db: SQLiteDatabase) -> SQLiteDatabase:
    await db.execute("CREATE TABLE v (id INTEGER PRIMARY KEY, x)")
    return db


def shown(value: object) -> str:
    """Part of a test's name, which holds no address: every process must find the same tests."""
    return re.sub(" at 0x[0-9a-f]+", "", repr(value))


@pytest.mark.parametrize(("value", "stored"), TAKEN, ids=shown)
async def test_there_and_back(table: SQLiteDatabase, value: Any, stored: Any) -> None:
    insert, named = "INSERT INTO v (x) VALUES (?)", "INSERT INTO v (x) VALUES (:x)"
    await table.execute(insert, [value])
    await table.execute(named, {"x": value})
    await table.executemany(insert, [[value], (value,)])
    await table.executemany(named, [{"x": value}])
    async with table.transaction() as ctx:
        await ctx.execute(insert, (value,))
        await ctx.connection.execute(insert, [value])
        await ctx.connection.execute(named, {"x": value})
        await ctx.connection.executemany(insert, [[value]])
        cursor = await ctx.connection.cursor()
        await cursor.execute(insert, [value])
        await ctx.connection.execute_insert(insert, [value])
        assert [row[0] async for row in ctx.iterate("SELECT ?", [value])] == [stored]
        (row,) = await ctx.connection.execute_fetchall("SELECT ?", [value])
        assert row[0] == stored
    rows = await table.fetch_all("SELECT x FROM v")
    assert [(type(row["x"]), row["x"]) for row in rows] == [(type(stored), stored)] * 11
    row = await table.fetch_one("SELECT ? AS x", [value])
    assert row is not None
    assert row["x"] == await table.fetch_val("SELECT ?", [value]) == stored


@pytest.mark.parametrize(("value", "reason"), REFUSED, ids=lambda value: type(value).__name__)
async def test_what_is_refused(table: SQLiteDatabase, value: Any, reason: str) -> None:
    insert = "INSERT INTO v (x) VALUES (?)"
    told = f"value 1 {reason}"
    for alone in (table.execute, table.fetch_one, table.fetch_all, table.fetch_val):
        with pytest.raises(DataError, match=told):
            await alone(insert, [value])
    with pytest.raises(DataError, match="value x "):
        await table.execute("INSERT INTO v (x) VALUES (@x)", UserDict(x=value))
    with pytest.raises(DataError, match=told):
        await table.executemany(insert, [[1], [value]])
    async with table.transaction() as ctx:
        with pytest.raises(DataError, match=told):
            await ctx.execute(insert, [value])
        with pytest.raises(DataError, match=told):
            await ctx.executemany(insert, [[1], [value], [2]])
        with pytest.raises(DataError, match=told):
            _ = [row async for row in ctx.iterate("SELECT ?", [value])]
        with pytest.raises(sqlite3.ProgrammingError, match=told):
            await ctx.connection.execute(insert, [value])
        await ctx.execute(insert, ["it dooms nothing"])
    assert await table.fetch_val("SELECT group_concat(x) FROM v") == "it dooms nothing"


@pytest.mark.parametrize("values", ["a", b"a", {1}, iter([1]), 7, (n for n in [1])])
async def test_what_is_no_list_of_values(table: SQLiteDatabase, values: Any) -> None:
    """A text is a sequence, of its characters: one of one character would pass."""
    with pytest.raises(DataError, match="values are given as a list, tuple or mapping"):
        await table.execute("INSERT INTO v (x) VALUES (?)", values)


@pytest.mark.parametrize("values", [range(1), deque([0]), (0,), [0]])
async def test_other_sequences(table: SQLiteDatabase, values: Any) -> None:
    assert await table.fetch_val("SELECT ?", values) == 0


async def test_a_row_is_a_sequence_of_values(table: SQLiteDatabase) -> None:
    row = await table.fetch_one("SELECT 1 AS id, 'x' AS x")
    await table.execute("INSERT INTO v VALUES (?, ?)", row)  # type: ignore[arg-type]
    assert await table.fetch_val("SELECT x FROM v WHERE id = 1") == "x"


@pytest.fixture
def adapted() -> Iterator[None]:
    """A program that stores datetimes as seconds, and decimals as text."""
    before = dict(sqlite3.adapters)
    sqlite3.register_adapter(datetime, lambda value: int(value.timestamp()))
    sqlite3.register_adapter(Decimal, str)
    yield
    sqlite3.adapters.clear()
    sqlite3.adapters.update(before)


@pytest.mark.usefixtures("adapted")
async def test_what_the_program_taught_sqlite3_itself(table: SQLiteDatabase) -> None:
    assert await table.fetch_val("SELECT ?", [AWARE]) == AWARE.timestamp()
    assert await table.fetch_val("SELECT ?", [Decimal("1.10")]) == "1.10"


async def test_an_aware_datetime_is_the_same_moment_for_sqlite(table: SQLiteDatabase) -> None:
    assert datetime.fromisoformat(await table.fetch_val("SELECT ?", [AWARE])) == AWARE
    assert await table.fetch_val("SELECT datetime(?)", [AWARE]) == "2026-07-01 10:30:00"


async def test_no_message_holds_a_value(table: SQLiteDatabase) -> None:
    for value in (Fraction(271828, 314159), "secret 271828 \ud800", 2718280000000000000000000):
        with pytest.raises(DataError) as caught:
            await table.execute("INSERT INTO v (x) VALUES (?)", [value])
        error: BaseException | None = caught.value
        while error is not None:
            assert "271828" not in f"{error!s} {error!r} {vars(error)}"
            error = error.__cause__ or error.__context__


async def test_many_values_do_not_hold_up_the_event_loop(table: SQLiteDatabase) -> None:
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    counting = asyncio.create_task(count())
    rows = [[n, f"name {n}"] for n in range(50_000)]
    await table.executemany("INSERT INTO v VALUES (?, ?)", rows)
    counting.cancel()
    assert turns > 10
    assert await table.fetch_val("SELECT count(*) FROM v") == 50_000


# -- columns of one name


async def test_columns_of_one_name_are_all_reached_by_position(table: SQLiteDatabase) -> None:
    sql = "SELECT 1 AS a, 2 AS a, 3 AS b"
    row = await table.fetch_one(sql)
    assert row is not None
    (same,) = await table.fetch_all(sql)
    async with table.transaction(readonly=True) as ctx:
        streamed = [row async for row in ctx.iterate(sql)]
    for each in (row, same, *streamed):
        assert tuple(each) == (1, 2, 3)
        assert (each[0], each[1], each[2], each["a"], each["b"]) == (1, 2, 3, 1, 3)
        assert each.keys() == ["a", "a", "b"]


def test_every_type_is_in_the_readme() -> None:
    readme = Path(__file__).parents[1].joinpath("README.md").read_text(encoding="utf-8")
    section = readme.partition("## Types of values")[2].partition("\n## ")[0]
    listed = set(re.findall(r"`(\w+)`", "".join(re.findall(r"^\|([^|]*)\|", section, re.M))))
    kinds = {type(value).__name__ for value, _ in TAKEN} - {
        "NoneType", "Color", "Level", "Word", "Shouting", "Count", "Taught",
    }  # fmt: skip
    assert kinds | {"None", "Enum"} == listed


async def test_a_list_is_expanded_by_name_only(table: SQLiteDatabase) -> None:
    with pytest.raises(DataError, match=r"it is given by name, as in `IN \(:name\)`"):
        await table.fetch_all("SELECT * FROM v WHERE id IN (?)", [expand([1, 2])])
    with pytest.raises(DataError, match=r"pass expand\(values\) by that name"):
        await table.fetch_all("SELECT * FROM v WHERE id IN (:ids)", {"ids": [1, 2]})
