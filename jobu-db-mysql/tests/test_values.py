"""Parameters: one closed list of types, each there and back; all else is refused unsent."""

from __future__ import annotations

import enum
import json
import math
from collections import namedtuple
from collections.abc import Callable
from datetime import UTC, date, datetime, time, timedelta, timezone, tzinfo
from decimal import Decimal
from fractions import Fraction
from pathlib import Path, PurePosixPath
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest
from asyncmy.constants.SERVER_STATUS import SERVER_STATUS_NO_BACKSLASH_ESCAPES

from jobu_db import DataError, ProgrammingError, expand
from jobu_db_mysql import MySQLDatabase
from jobu_db_mysql.literals import literal

from .conftest import OpenDatabase

MODES = ["", "NO_BACKSLASH_ESCAPES,ANSI_QUOTES"]
AWARE = datetime(2026, 7, 1, 12, 0, 0, 250_000, tzinfo=timezone(timedelta(hours=5, minutes=30)))


class Colour(enum.Enum):
    RED = "red"


class Size(enum.IntEnum):
    SMALL = 3


class Status(str, enum.Enum):  # noqa: UP042 - as users have it
    NEW = "it's new"

    def __str__(self) -> str:
        return "' OR 1=1 -- "


class Flag(enum.IntFlag):
    A = 1
    B = 2


class Bytes(bytes):
    def __bytes__(self) -> bytes:
        return b"another"

    def decode(self, *_: Any) -> str:
        return "another"


class Int(int):
    def __str__(self) -> str:
        return "1 OR 1"

    __repr__ = __format__ = __str__  # type: ignore[assignment]


class Float(float):
    def __repr__(self) -> str:
        return "1 OR 1"


class Money(Decimal):
    def __str__(self) -> str:
        return "1 OR 1"

    def __format__(self, *_: Any) -> str:
        return "1 OR 1"

    def as_tuple(self) -> Any:
        raise AssertionError


class Text(str):
    """Replaces nothing."""


class Moment(datetime):
    def isoformat(self, *_: Any, **__: Any) -> str:
        return "' OR 1=1 -- "

    __str__ = isoformat

    def __format__(self, *_: Any) -> str:
        return "' OR 1=1 -- "


Pair = namedtuple("Pair", "a b")

# The README's table, type by type: what is stored, in which column, and what comes back.
TABLE: list[tuple[Any, str, Any]] = [
    (None, "INT", None),
    (True, "BOOLEAN", 1),
    (-(2**63), "BIGINT", -(2**63)),
    (2**64 - 1, "BIGINT UNSIGNED", 2**64 - 1),
    (10**65 - 1, "DECIMAL(65)", Decimal(10**65 - 1)),
    (1.5, "DOUBLE", 1.5),
    (5e-324, "DOUBLE", 5e-324),
    (1.7976931348623157e308, "DOUBLE", 1.7976931348623157e308),
    (Decimal("-0.10"), "DECIMAL(5, 2)", Decimal("-0.10")),
    (Decimal("1E+3"), "DECIMAL(10)", Decimal(1000)),
    (Decimal("9" * 35 + "." + "9" * 30), "DECIMAL(65, 30)", Decimal("9" * 35 + "." + "9" * 30)),
    ('it\'s \\ "q" \0\r\n\x1a % 😀 é 中', "VARCHAR(99)", 'it\'s \\ "q" \0\r\n\x1a % 😀 é 中'),
    ('{"a": "\\\\ \\" é"}', "JSON", None),
    (bytes(range(256)), "VARBINARY(300)", bytes(range(256))),
    (bytearray(b"\x00\xff'\\"), "BLOB", b"\x00\xff'\\"),
    (memoryview(b"\x00\xff'\\--")[::2], "BLOB", b"\x00'-"),
    (date(1000, 1, 2), "DATE", date(1000, 1, 2)),
    (datetime(9999, 12, 31, 23, 59, 59, 999_999), "DATETIME(6)", None),
    (datetime(2026, 1, 2), "TIMESTAMP", datetime(2026, 1, 2)),
    (time(23, 59, 59, 7), "TIME(6)", timedelta(hours=23, minutes=59, seconds=59, microseconds=7)),
    (timedelta(hours=-838, minutes=-59, seconds=-59), "TIME", None),
    (-timedelta(microseconds=1), "TIME(6)", None),
    (timedelta(days=3, hours=2, microseconds=5), "TIME(6)", None),
    (UUID(int=2**127 + 1), "CHAR(36)", str(UUID(int=2**127 + 1))),
    (Colour.RED, "VARCHAR(9)", "red"),
    (Size.SMALL, "INT", 3),
    (Flag.A | Flag.B, "INT", 3),
    (Status.NEW, "VARCHAR(9)", "it's new"),
    (Bytes(b"\x00\xff"), "BLOB", b"\x00\xff"),
    (Int(7), "INT", 7),
    (Float(0.5), "DOUBLE", 0.5),
    (Money("1.10"), "DECIMAL(5, 2)", Decimal("1.10")),
    (Text("it's"), "VARCHAR(9)", "it's"),
    (Moment(2026, 1, 2, 3, 4, 5), "DATETIME", datetime(2026, 1, 2, 3, 4, 5)),
]


@pytest.mark.parametrize("mode", MODES)
async def test_each_type_there_and_back(open_db: OpenDatabase, mode: str) -> None:
    db = await open_db(options={"sql_mode": f"{mode},STRICT_ALL_TABLES".strip(",")})
    async with db.transaction() as ctx:
        for value, column, expected in TABLE:
            if expected is None:
                expected = value
            await ctx.execute(f"CREATE TEMPORARY TABLE t (v {column})")
            await ctx.execute("INSERT INTO t VALUES (%s)", (value,))
            await ctx.execute("INSERT INTO t VALUES (:v)", {"v": value})
            await ctx.execute("INSERT INTO t VALUES (%(v)s)", {"v": value})
            await ctx.executemany("INSERT INTO t VALUES (%s)", [[value], (value,)])
            await ctx.executemany("INSERT INTO t VALUES (:v)", [{"v": value}])
            async with ctx.connection.cursor() as cursor:
                await cursor.execute("INSERT INTO t VALUES (%s)", (value,))
            rows = [row["v"] for row in await ctx.fetch_all("SELECT v FROM t")]
            if column == "JSON":
                rows, expected = [json.loads(row) for row in rows], json.loads(expected)
            assert rows == [expected] * 7, (value, column)
            assert {type(row) for row in rows} == {type(expected)}, (value, column)
            await ctx.execute("DROP TEMPORARY TABLE t")


async def test_a_tuple_is_a_list_of_values(db: MySQLDatabase) -> None:
    assert await db.fetch_val("SELECT 'b' IN %s", [("a", Colour.RED, b"b")]) == 1
    assert await db.fetch_val("SELECT (1, 2) IN %s", [((1, 2), Pair(3, 4))]) == 1
    assert await db.fetch_val("SELECT 2 IN :ids", {"ids": Pair(1, 2)}) == 1


class Evil(str):
    def translate(self, *_: Any) -> str:
        return self

    def replace(self, *_: Any) -> str:
        return self


class Shown(str):
    def __str__(self) -> str:
        return "' OR 1=1 -- "


class Strange(enum.Enum):
    THING = Fraction(1, 2)


class EvilEnum(Evil, enum.Enum):
    X = Evil("' OR 1=1 -- ")


REFUSED: list[Any] = [
    math.nan, math.inf, -math.inf, Float("nan"), Decimal("NaN"), Decimal("sNaN"),
    Decimal("-Infinity"), Decimal("1E+100"), Decimal("1E-1000000"), Decimal("1E+1000000"),
    10**65, -(10**65), 10**5000, "secret\ud800", "secret\udcff", "\udc00secret", Evil("secret"),
    Shown("secret"), Strange.THING, [1], [], {1}, frozenset({1}), {"secret": 1}, (), (1, [2]),
    ("secret\ud800",), range(3), 1j, Fraction(1, 2), object(), Path("secret"),
    PurePosixPath("secret"), Ellipsis, int, len, time(12, tzinfo=UTC), AWARE, EvilEnum.X,
]  # fmt: skip


async def test_what_is_not_on_the_list_is_refused_unsent(db: MySQLDatabase) -> None:
    await db.execute("CREATE TABLE t (n INT, v TEXT)")
    sql = "INSERT INTO t VALUES (:n, :v)"
    attempts: dict[str, Callable[[Any], tuple[str, Any]]] = {
        sql: lambda v: ("execute", {"n": 2, "v": v}),
        "SELECT %s, %s": lambda v: ("fetch_all", [2, v]),
        "SELECT %(v)s": lambda v: ("fetch_one", {"v": v}),
        "REPLACE t VALUES (:n, :v)": lambda v: (
            "executemany",
            [{"n": 2, "v": 3}, {"n": 3, "v": v}],
        ),
    }
    async with db.transaction() as ctx:
        await ctx.execute("INSERT INTO t VALUES (1, 'before')")
        await ctx.execute("SET time_zone = 'SYSTEM'")  # which names no zone, for AWARE
        for value in REFUSED:
            for name, call in attempts.items():
                method, values = call(value)
                with pytest.raises(DataError) as caught:
                    await getattr(ctx, method)(name, values)
                error = caught.value
                assert error.database == "main", (name, value)
                assert error.statement is not None, (name, value)
                assert "parameter" in error.message, (name, value)
                assert not error.retryable
                assert error.__cause__ is None
                assert error.__context__ is None or isinstance(error.__context__, DataError)
                told = f"{error} {error!r} {error.args} {error.__context__!r}"
                assert "secret" not in told, (name, value)
        await ctx.execute("INSERT INTO t VALUES (1, 'after')")
    assert await db.fetch_val("SELECT GROUP_CONCAT(v ORDER BY v) FROM t") == "after,before"


async def test_a_released_memoryview_is_refused(db: MySQLDatabase) -> None:
    view = memoryview(b"secret")
    view.release()
    with pytest.raises(DataError, match="released"):
        await db.fetch_val("SELECT %s", [view])


async def test_the_drivers_own_cursor_refuses_as_well(db: MySQLDatabase) -> None:
    async with db.transaction() as ctx:
        async with ctx.connection.cursor() as cursor:
            for value in (math.nan, "secret\ud800", {"a": 1}, object(), Evil("x")):
                with pytest.raises(DataError):
                    await cursor.execute("SELECT %s", (value,))
            with pytest.raises(DataError) as caught:
                await cursor.execute("SELECT '\ud800secret'")
            assert "secret" not in repr(caught.value)
        assert await ctx.fetch_val("SELECT 1") == 1


async def test_sql_that_cannot_be_sent_dooms_nothing(open_db: OpenDatabase) -> None:
    db = await open_db(options={"charset": "latin1"})
    await db.execute("CREATE TABLE t (v TEXT)")
    async with db.transaction() as ctx:
        await ctx.execute("INSERT INTO t VALUES (%s)", ["é"])
        for sql, values in (
            ("SELECT '\ud800'", None),
            ("SELECT '\udcff'", None),
            ("SELECT 'я'", None),
            ("SELECT %s", ["я"]),
        ):
            with pytest.raises(DataError):
                await ctx.fetch_val(sql, values)
            with pytest.raises(DataError):
                async for _ in ctx.iterate(sql, values):
                    pass
        assert await ctx.fetch_val("SELECT v FROM t") == "é"
    assert await db.fetch_val("SELECT COUNT(*) FROM t") == 1


async def test_a_character_that_would_be_sent_as_a_backslash_is_refused(
    open_db: OpenDatabase,
) -> None:
    db = await open_db(options={"charset": "ujis"})
    for value in ("\u00a5' OR 1=1 -- ", "\u203e"):
        with pytest.raises(DataError, match=r"parameter 1 is a str that holds .* charset lacks"):
            await db.fetch_val("SELECT %s", [value])
        with pytest.raises(DataError, match="charset lacks"):
            await db.fetch_val(f"SELECT '{value}'")
    assert await db.fetch_val("SELECT %s", ["日本' \\"]) == "日本' \\"


# -- datetimes with a time zone


@pytest.mark.parametrize("zone", ["UTC", "+00:00", "+02:00", "-11:30"])
async def test_an_aware_datetime_is_written_in_the_sessions_time_zone(
    open_db: OpenDatabase, zone: str
) -> None:
    db = await open_db(options={"timezone": zone})
    async with db.transaction() as ctx:
        await ctx.execute("CREATE TEMPORARY TABLE t (ts TIMESTAMP(6) NULL, d DATETIME(6))")
        await ctx.execute("INSERT INTO t VALUES (:a, :a)", {"a": AWARE})
        assert await ctx.fetch_val("SELECT COUNT(*) FROM t WHERE ts = :a", {"a": AWARE}) == 1
        row = await ctx.fetch_one("SELECT UNIX_TIMESTAMP(ts) AS at, ts, d FROM t")
    assert float(row["at"]) == AWARE.timestamp()
    assert row["ts"] == row["d"]


async def test_an_aware_datetime_needs_a_zone_that_is_known(
    open_db: OpenDatabase, observer: Any
) -> None:
    await observer.execute("CREATE PROCEDURE travel() SET time_zone = '+01:00'")
    db = await open_db(options={"timezone": "UTC"}, pool={"max_size": 1, "timeout": 10.0})
    there = "2026-07-01 07:30:00.250000"
    for change in ("SET time_zone = '+01:00'", "set @@session.Time_Zone = '+01:00'", "CALL travel"):
        for way in ("context", "cursor", "iterate"):
            async with db.transaction() as ctx:
                assert await ctx.fetch_val("SELECT %s", [AWARE]) == "2026-07-01 06:30:00.250000"
                if way == "context":
                    await ctx.execute(change)
                elif way == "cursor":
                    await ctx.connection.cursor().execute(change)
                else:
                    assert [row async for row in ctx.iterate(change)] == []
                assert await ctx.fetch_val("SELECT %s", [AWARE]) == there
                await ctx.execute("SET time_zone = SYSTEM")
                with pytest.raises(DataError, match=r"options\.timezone"):
                    await ctx.fetch_val("SELECT %s", [AWARE])
    assert await db.fetch_val("SELECT %s", [AWARE]) == "2026-07-01 06:30:00.250000"


async def test_without_the_option_the_servers_own_zone_counts(
    open_db: OpenDatabase, observer: Any
) -> None:
    """SYSTEM names no zone, but where the server's machine keeps UTC it is known all the same."""
    db = await open_db(pool={"max_size": 1, "timeout": 10.0})
    assert await observer.value("SELECT @@time_zone") == "SYSTEM"
    known = await observer.value("SELECT @@system_time_zone") == "UTC"
    for _ in range(2):
        if known:
            assert await db.fetch_val("SELECT CAST(%s AS DATETIME)", [AWARE])
        else:
            with pytest.raises(DataError, match=r"options\.timezone"):
                await db.fetch_val("SELECT %s", [AWARE])
    async with db.transaction() as ctx:
        await ctx.execute("SET time_zone = 'SYSTEM'")
        with pytest.raises(DataError, match=r"options\.timezone"):
            await ctx.fetch_val("SELECT %s", [AWARE])


class Written:
    """What a writer sees of a session."""

    encoding = "utf8"
    literal = literal

    def __init__(self, zone: tzinfo | None = None, status: int = 0) -> None:
        self.timezone = zone
        self.server_status = status


def test_an_hour_that_comes_twice_is_refused() -> None:
    berlin = Written(ZoneInfo("Europe/Berlin"))
    assert berlin.literal(datetime(2026, 7, 1, tzinfo=UTC)) == "'2026-07-01 02:00:00'"
    assert berlin.literal(datetime(2026, 12, 1, tzinfo=UTC)) == "'2026-12-01 01:00:00'"
    assert berlin.literal(datetime(2026, 3, 29, 1, tzinfo=UTC)) == "'2026-03-29 03:00:00'"
    for hour in (0, 1):
        with pytest.raises(DataError, match="twice"):
            berlin.literal(datetime(2026, 10, 25, hour, 30, tzinfo=UTC))
    assert berlin.literal(datetime(2026, 10, 25, 2, tzinfo=UTC)) == "'2026-10-25 03:00:00'"
    with pytest.raises(DataError, match="9999"):
        berlin.literal(datetime.max.replace(tzinfo=UTC))


class Nowhere(tzinfo):
    def utcoffset(self, _: datetime | None) -> timedelta | None:
        return None

    dst = tzname = utcoffset  # type: ignore[assignment]


def test_a_zone_without_an_offset_is_none() -> None:
    assert Written().literal(datetime(2026, 1, 2, tzinfo=Nowhere())) == "'2026-01-02 00:00:00'"


def test_what_is_written() -> None:
    assert Written().literal((True, None, 1e100, -0.5)) == "(1,NULL,1e+100,-0.5e0)"
    quiet = Written(status=SERVER_STATUS_NO_BACKSLASH_ESCAPES)
    assert quiet.literal("a\\'b") == "'a\\''b'"
    assert quiet.literal(b"\x00\\'") == "_binary x'005c27'"


async def test_a_list_is_expanded_by_name_only(open_db: OpenDatabase) -> None:
    db = await open_db()
    with pytest.raises(DataError, match=r"it is given by name, as in `IN \(:name\)`"):
        await db.fetch_all("SELECT 1 WHERE 1 IN (%s)", [expand([1, 2])])
    with pytest.raises(DataError, match=r"give expand\(values\) by that name"):
        await db.fetch_all("SELECT 1 FROM DUAL WHERE 1 IN (:ids)", {"ids": [1, 2]})
    assert await db.fetch_val("SELECT 2 IN (:ids)", {"ids": expand([1, 2])}) == 1


async def test_a_tuple_is_a_row_and_no_list(open_db: OpenDatabase) -> None:
    db = await open_db()
    assert await db.fetch_val("SELECT (1, 2) IN (:rows)", {"rows": expand([(1, 2), (3, 4)])}) == 1
    assert await db.fetch_val("SELECT 2 IN %s", [(1, 2)]) == 1
    told = r"a tuple is a row of values: for `IN \(:name\)` give expand\(values\)"
    with pytest.raises(ProgrammingError, match=told):
        await db.fetch_val("SELECT 2 IN (:ids)", {"ids": (1, 2)})
    with pytest.raises(ProgrammingError) as caught:
        await db.fetch_val("SELECT (SELECT 1, 2)")
    assert "tuple" not in str(caught.value)
    with pytest.raises(DataError, match=r"expand\(\[\]\)"):
        await db.fetch_val("SELECT 2 IN (:ids)", {"ids": ()})
