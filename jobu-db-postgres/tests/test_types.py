"""The closed list of types: what goes in comes out, and the README names the same ones."""

from __future__ import annotations

import datetime
import ipaddress
import re
import uuid
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from asyncpg import (
    BitString,
    Box,
    Circle,
    Line,
    LineSegment,
    Point,
    Polygon,
    Range,
)
from asyncpg import (
    Path as PathValue,
)

from jobu_db import DataError
from jobu_db_postgres import PostgresDatabase

NOON = datetime.datetime(2024, 2, 29, 12, 0, 0, 123456)
NOON_UTC = NOON.replace(tzinfo=datetime.UTC)
FAR = datetime.timezone(datetime.timedelta(hours=-9, minutes=-30))
DAY = datetime.date(2024, 2, 29)
SCHEMA = """
CREATE TYPE mood AS ENUM ('sad', 'glad');
CREATE DOMAIN odd AS int CHECK (VALUE % 2 = 1);
CREATE TYPE pair AS (a int, b timestamptz);
"""

VALUES: dict[str, list[Any]] = {
    "bool": [True, False],
    "int2": [-(2**15), 2**15 - 1],
    "int4": [-(2**31), 2**31 - 1],
    "int8": [-(2**63), 2**63 - 1],
    "float4": [0.5, float("inf")],
    "float8": [0.1, -1e300, float("-inf")],
    "numeric": [Decimal("12345678901234567890.123456789"), Decimal("-0.10"), Decimal("Infinity")],
    "text": ["", "naïve 'quotes' \\ % $1 :name \U0001f600"],
    "varchar(9)": ["nine char"],
    "char(3)": ["abc"],
    "bytea": [b"", b"\x00\xff"],
    "date": [datetime.date.min, DAY, datetime.date.max],
    "time": [datetime.time(23, 59, 59, 999999)],
    "timetz": [datetime.time(1, 2, 3, 4, tzinfo=FAR)],
    "timestamp": [NOON, datetime.datetime.max, datetime.datetime.min],
    "timestamptz": [NOON_UTC, NOON.replace(tzinfo=FAR), datetime.datetime.max],
    "interval": [datetime.timedelta(days=400, microseconds=1), datetime.timedelta(-1, 5)],
    "uuid": [uuid.UUID(int=7)],
    "json": ['{"a": [1, null]}'],
    "jsonb": ['{"a": [1, null]}'],
    "inet": [ipaddress.ip_address("10.0.0.1"), ipaddress.ip_interface("fe80::1/64")],
    "cidr": [ipaddress.ip_network("10.0.0.0/8")],
    "macaddr": ["08:00:2b:01:02:03"],
    "bit(3)": [BitString.frombytes(b"\xa0", 3)],
    "varbit": [BitString.frombytes(b"\x80", 2)],
    "point": [Point(1, 2)],
    "line": [Line(1, 2, 3)],
    "lseg": [LineSegment(Point(1, 2), Point(3, 4))],
    "box": [Box(Point(3, 4), Point(1, 2))],
    "path": [PathValue(Point(1, 2), Point(3, 4), is_closed=True)],
    "polygon": [Polygon(Point(1, 2), Point(3, 4))],
    "circle": [Circle(Point(1, 2), 3)],
    "int4range": [Range(1, 5), Range(None, 5), Range(empty=True)],
    "int8range": [Range(1, None)],
    "numrange": [Range(Decimal(1), Decimal(2), lower_inc=False)],
    "daterange": [Range(DAY, None)],
    "tsrange": [Range(NOON, None)],
    "tstzrange": [Range(NOON_UTC, None)],
    "int4multirange": [[Range(1, 3), Range(5, 7)], []],
    "int4[]": [[1, None, 3], [[1, 2], [3, 4]], []],
    "text[]": [["a", 'b,"{}', None]],
    "timestamptz[]": [[NOON_UTC, None]],
    "jsonb[]": [['{"a": 1}']],
    "mood": ["sad"],
    "odd": [3],
    "pair": [(1, NOON_UTC), (None, None)],
    "pair[]": [[(1, NOON_UTC)]],
    "xml": ["<a/>"],
    "tsvector": ["'a' 'b'"],
    "tsquery": ["'a' & 'b'"],
    "jsonpath": ['$."a"'],
    "money": ["$1.00"],
    "oid": [2**32 - 1],
    "regclass": ["pg_class"],
    "xid": [7],
    "tid": [(1, 2)],
}


@pytest.fixture
async def db(open_db: Any) -> PostgresDatabase:
    db = await open_db()
    await db.execute(SCHEMA)
    return db


@pytest.mark.parametrize("kind", VALUES)
async def test_values_come_back_as_they_went(db: PostgresDatabase, kind: str) -> None:
    """As a value, from a column, in a block, in many rows, and as a member of an array."""
    await db.execute(f"CREATE TABLE kept (n serial, v {kind})")
    for value in [*VALUES[kind], None]:
        assert await db.fetch_val(f"SELECT $1::{kind}", value) == value
        await db.execute(f"INSERT INTO kept (v) VALUES (:v::{kind})", {"v": value})
    async with db.transaction() as ctx:
        await ctx.executemany("INSERT INTO kept (v) VALUES ($1)", [(v,) for v in VALUES[kind]])
        kept = [row["v"] async for row in ctx.iterate("SELECT v FROM kept ORDER BY n")]
    assert kept == [*VALUES[kind], None, *VALUES[kind]]


async def test_not_a_number(db: PostgresDatabase) -> None:
    for kind, value in (("float8", float("nan")), ("float4", float("nan"))):
        got = await db.fetch_val(f"SELECT $1::{kind}", value)
        assert got != got
    assert (await db.fetch_val("SELECT $1::numeric", Decimal("NaN"))).is_nan()


def test_the_readme_lists_the_same_types() -> None:
    readme = Path(__file__).parents[1].joinpath("README.md").read_text(encoding="utf-8")
    table = readme.partition("<!-- types -->")[2].partition("<!-- end -->")[0]
    rows = re.findall(r"^\| (`.*?) \|", table, re.MULTILINE)
    listed = {name for row in rows for name in re.findall(r"`([^`]+)`", row)}
    tested = {re.sub(r"\(\d\)", "", kind) for kind in VALUES}
    made = {"mood": "enum", "odd": "domain", "pair": "composite"}
    tested = {made.get(kind, kind) for kind in tested if not kind.endswith("[]")} | {"array"}
    assert listed == tested


# -- JSON


DOCUMENTS = [{"a": [1, None, "ä\U0001f600"]}, [], "text", 7, 1.5, True, {"nested": {"b": {}}}]


@pytest.mark.parametrize("kind", ["json", "jsonb"])
@pytest.mark.parametrize("number", [float("nan"), float("inf")], ids=repr)
async def test_what_is_no_json_is_refused_and_dooms_nothing(
    open_db: Any, kind: str, number: float
) -> None:
    db = await open_db(options={"json": True})
    async with db.transaction() as ctx:
        with pytest.raises(DataError):
            await ctx.fetch_val(f"SELECT $1::{kind}", {"a": number})
        assert await ctx.fetch_val(f"SELECT $1::{kind}", {"a": 1.5}) == {"a": 1.5}


@pytest.mark.parametrize("document", DOCUMENTS, ids=repr)
async def test_json_works_wherever_it_is_inside_of_something(open_db: Any, document: Any) -> None:
    db = await open_db(options={"json": True})
    await db.execute(
        "CREATE TYPE holder AS (id int, doc jsonb); CREATE DOMAIN doc AS jsonb;"
        "CREATE TABLE documents (id int, b jsonb, j json)"
    )
    async with db.transaction() as ctx:
        copied = await ctx.connection.copy_records_to_table(
            "documents", records=[(1, document, document), (2, None, None)]
        )
        assert copied == "COPY 2"
    rows = [(1, document, document), (2, None, None)]
    bulk = "INSERT INTO documents SELECT * FROM unnest($1::documents[])"
    assert await db.execute(bulk, rows) == "INSERT 0 2"
    assert [tuple(row) for row in await db.fetch_all("SELECT * FROM documents")] == rows * 2
    whole = await db.fetch_val("SELECT d FROM documents d WHERE id = 1")
    assert tuple(whole) == rows[0]
    every = await db.fetch_val("SELECT array_agg(d) FROM documents d")
    assert [tuple(row) for row in every] == rows * 2
    assert tuple(await db.fetch_val("SELECT $1::holder", (1, document))) == (1, document)
    assert tuple(await db.fetch_val("SELECT ROW(1, $1::jsonb)", document)) == (1, document)
    if not isinstance(document, list):  # which asyncpg takes for another dimension
        assert await db.fetch_val("SELECT $1::jsonb[]", [document, None]) == [document, None]
        assert await db.fetch_val("SELECT $1::json[]", [document]) == [document]
    assert await db.fetch_val("SELECT $1::doc", document) == document
    value = await db.fetch_val(
        "SELECT x FROM jsonb_each(jsonb_build_object('k', $1::jsonb)) x", document
    )
    assert tuple(value) == ("k", document)
    assert [row["b"] async for row in _stream(db)] == [document, None, document, None]


async def _stream(db: PostgresDatabase) -> Any:
    async with db.transaction(readonly=True) as ctx:
        async for row in ctx.iterate("SELECT b FROM documents", batch=1):
            yield row


# -- moments


ZONES = ["UTC", "Asia/Tokyo", "America/New_York", "europe/berlin"]


@pytest.mark.parametrize("zone", ZONES)
async def test_a_naive_moment_is_meant_in_the_sessions_zone(
    open_db: Any, monkeypatch: pytest.MonkeyPatch, zone: str
) -> None:
    """As in a literal: whatever the zone of this machine."""
    monkeypatch.setenv("TZ", "Pacific/Auckland")
    db = await open_db(options={"timezone": zone, "json": True})
    await db.execute("CREATE TYPE pair AS (a int, b timestamptz); CREATE TABLE pairs OF pair")
    for naive in (NOON, datetime.datetime(2024, 7, 1, 12), datetime.datetime(1950, 1, 1)):
        meant = await db.fetch_val(f"SELECT '{naive}'::timestamptz")
        assert await db.fetch_val("SELECT $1::timestamptz", naive) == meant
        assert await db.fetch_val("SELECT $1::timestamptz[]", [naive]) == [meant]
        assert (await db.fetch_val("SELECT $1::tstzrange", Range(naive, None))).lower == meant
        assert tuple(await db.fetch_val("SELECT $1::pair", (1, naive))) == (1, meant)
        async with db.transaction() as ctx:
            await ctx.executemany("INSERT INTO pairs VALUES ($1, $2)", [(1, naive)])
            await ctx.connection.copy_records_to_table("pairs", records=[(2, naive)])
            rows = await ctx.fetch_all("SELECT b FROM pairs")
            assert [row["b"] for row in rows] == [meant, meant]
            await ctx.rollback()
    day = await db.fetch_val(f"SELECT '{DAY}'::timestamptz")
    assert await db.fetch_val("SELECT $1::timestamptz", DAY) == day


async def test_a_zone_set_meanwhile_counts(db: PostgresDatabase) -> None:
    async with db.transaction() as ctx:
        for zone, hour in (("Asia/Tokyo", 3), ("UTC", 12)):
            await ctx.execute(f"SET LOCAL TIME ZONE '{zone}'")
            got = await ctx.fetch_val("SELECT $1::timestamptz", NOON)
            assert got == NOON_UTC.replace(hour=hour)


async def test_a_zone_that_python_does_not_know_is_told(db: PostgresDatabase) -> None:
    async with db.transaction() as ctx:
        await ctx.execute("SET LOCAL TIME ZONE INTERVAL '-03:30' HOUR TO MINUTE")
        with pytest.raises(DataError, match="give the datetime a tzinfo"):
            await ctx.fetch_val("SELECT $1::timestamptz", NOON)
        assert await ctx.fetch_val("SELECT $1::timestamptz", NOON_UTC) == NOON_UTC


async def test_what_has_no_zone_takes_no_zone(db: PostgresDatabase) -> None:
    with pytest.raises(DataError, match=r"argument \$1"):
        await db.fetch_val("SELECT $1::timestamp", NOON_UTC)
    with pytest.raises(DataError, match=r"argument \$1 \(timetz takes a datetime.time with a tz"):
        await db.fetch_val("SELECT $1::timetz", datetime.time(1))
