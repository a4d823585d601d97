"""Rows read piece by piece with `iterate`."""

from __future__ import annotations

import asyncio
import tracemalloc
from typing import Any

import pytest
from asyncmy.cursors import DictCursor, SSCursor, SSDictCursor
from waiting import eventually

from jobu_db.errors import (
    ConnectionLostError,
    DatabaseError,
    QueryExecutionError,
    TransactionError,
    UniqueViolationError,
)
from jobu_db.testing.proxy import TcpProxy
from jobu_db_mysql import MySQLDatabase

from .conftest import OpenDatabase

COUNT = 200_000

ENDLESS = "SELECT a.pad FROM many a JOIN many b ON b.id < 100 JOIN many c ON c.id < 100"
"""Six gigabytes, whose first rows come at once."""


@pytest.fixture
async def many(db: MySQLDatabase) -> str:
    """A table of many rows, about 60 MB on the wire."""
    await db.execute("CREATE TABLE many (id INT PRIMARY KEY, pad VARCHAR(300))")
    await db.executemany(
        "INSERT INTO many VALUES (%s, %s)", [(n, "x" * 300) for n in range(COUNT // 100)]
    )
    return "SELECT a.id * 100 + b.id AS id, a.pad FROM many a JOIN many b WHERE b.id < 100"


async def test_all_rows_come_once_and_in_order(db: MySQLDatabase, many: str) -> None:
    async with db.transaction(readonly=True) as ctx:
        expected = 0
        async for row in ctx.iterate(f"{many} ORDER BY id", batch=777):
            assert row["id"] == expected
            expected += 1
    assert expected == COUNT


async def test_memory_does_not_grow_with_the_result(db: MySQLDatabase, many: str) -> None:
    async with db.transaction(readonly=True) as ctx:
        tracemalloc.start()
        try:
            seen = 0
            async for _ in ctx.iterate(many, batch=500):
                seen += 1
                if seen % 1000 == 0:
                    await asyncio.sleep(0)  # where the driver alone would go on receiving
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    assert seen == COUNT
    assert peak < 8_000_000


async def test_a_slow_reader_makes_the_server_wait(db: MySQLDatabase, many: str) -> None:
    async with db.transaction(readonly=True) as ctx:
        tracemalloc.start()
        try:
            rows = ctx.iterate(many, batch=10)
            await anext(rows)
            await asyncio.sleep(1)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        await rows.aclose()
    assert peak < 8_000_000


@pytest.mark.parametrize("leave_early", [False, True])
async def test_another_statement_meanwhile_is_refused_and_spoils_nothing(
    db: MySQLDatabase, many: str, leave_early: bool
) -> None:
    seen = 0
    async with db.transaction() as ctx:
        async for _ in ctx.iterate(many, batch=1000):
            seen += 1
            if seen == 5000:
                for attempt in (ctx.fetch_val, db.execute):
                    with pytest.raises(TransactionError, match="iterate"):
                        await attempt("SELECT 1")
                if leave_early:
                    break
        await ctx.execute("DELETE FROM many WHERE id = 1")
    assert leave_early or seen == COUNT
    assert await db.fetch_val("SELECT COUNT(*) FROM many") == COUNT // 100 - 1


async def test_an_abandoned_endless_result_is_killed_and_the_transaction_lives(
    db: MySQLDatabase, many: str
) -> None:
    async with asyncio.timeout(20), db.transaction() as ctx:
        number = await ctx.fetch_val("SELECT CONNECTION_ID()")
        await ctx.execute("DELETE FROM many WHERE id = 1")
        async for _ in ctx.iterate(ENDLESS):
            break
        assert await ctx.fetch_val("SELECT CONNECTION_ID()") == number
        for index in range(50):
            assert await ctx.fetch_val("SELECT %s", [index]) == index
    assert await db.fetch_val("SELECT COUNT(*) FROM many") == COUNT // 100 - 1


async def test_an_abandoned_result_that_stalls_is_killed(db: MySQLDatabase) -> None:
    sql = "SELECT SLEEP(0.3), REPEAT('x', 20000) FROM information_schema.columns"
    async with asyncio.timeout(20), db.transaction() as ctx:
        async for _ in ctx.iterate(sql, batch=1):
            break
        assert await ctx.fetch_val("SELECT 42") == 42


async def test_an_abandoned_result_that_cannot_be_stopped_costs_the_connection(
    open_db: OpenDatabase, db: MySQLDatabase, many: str, proxied_url: str, proxy: TcpProxy
) -> None:
    far = await open_db(url=proxied_url)
    async with asyncio.timeout(20):
        with pytest.raises((ConnectionLostError, TransactionError)):
            async with far.transaction() as ctx:
                async for _ in ctx.iterate(ENDLESS):
                    break
                await ctx.fetch_val("SELECT 1")
        assert await far.fetch_val("SELECT 2") == 2


async def test_an_error_in_the_middle_is_raised_and_leaves_the_transaction(
    db: MySQLDatabase, many: str, observer: Any
) -> None:
    async with db.transaction() as ctx:
        await ctx.execute("DELETE FROM many WHERE id = 1")
        # 22 ** 300 overflows a double where id reaches 300; strings of 64 KB fill the buffers.
        sql = "SELECT REPEAT('x', 10000), POW(22, id) FROM many ORDER BY id"
        seen = 0
        with pytest.raises(QueryExecutionError):
            async for _ in ctx.iterate(sql, batch=10):
                seen += 1
        assert 100 < seen < 300
        assert ctx.in_transaction
        assert await ctx.fetch_val("SELECT 1") == 1
    assert await observer.value("SELECT COUNT(*) FROM many") == COUNT // 100 - 1


async def test_a_statement_without_rows_can_be_iterated(db: MySQLDatabase, many: str) -> None:
    async with db.transaction() as ctx:
        rows = ctx.iterate("DELETE FROM many WHERE id = :id", {"id": 1})
        assert [row async for row in rows] == []
        assert await ctx.fetch_val("SELECT COUNT(*) FROM many") == COUNT // 100 - 1


async def test_an_unbuffered_cursor_of_the_driver_is_not_cut_short_either(
    db: MySQLDatabase, many: str
) -> None:
    async with db.transaction() as ctx:
        async with ctx.connection.cursor(SSCursor) as cursor:
            await cursor.execute(many)
            seen = 0
            async for _ in cursor:
                seen += 1
                if seen == 100:
                    with pytest.raises(TransactionError, match="unread"):
                        await ctx.fetch_val("SELECT 1")
                    with pytest.raises(TransactionError, match="unread"):
                        await ctx.connection.cursor().execute("SELECT 1")
            assert seen == COUNT
        assert await ctx.fetch_val("SELECT 1") == 1


async def test_an_unbuffered_cursor_left_open_does_not_spoil_the_end(
    db: MySQLDatabase, many: str, observer: Any
) -> None:
    async with db.transaction() as ctx:
        await ctx.execute("DELETE FROM many WHERE id = 1")
        cursor = ctx.connection.cursor(SSCursor)
        await cursor.execute(many)
        await cursor.fetchone()
    assert await observer.value("SELECT COUNT(*) FROM many") == COUNT // 100 - 1
    assert await db.fetch_val("SELECT 1") == 1

    async def idle() -> bool:
        return bool(db.stats()["in_use"] == 0)

    await eventually(idle)


# -- several results


@pytest.fixture
async def procedures(db: MySQLDatabase, observer: Any) -> None:
    await observer.execute("CREATE TABLE things (id INT PRIMARY KEY, pad VARCHAR(300))")
    await observer.execute("INSERT INTO things VALUES (1, 'a'), (2, 'b'), (3, 'c')")
    for name, body in {
        "one": "SELECT id FROM things ORDER BY id",
        "two": "SELECT id FROM things ORDER BY id; SELECT 'x' AS x",
        "three": "SELECT 1 AS a; SELECT 2 AS b; SELECT 3 AS c",
        "written": "INSERT INTO things VALUES (9, 'z')",
        "late": "SELECT id FROM things ORDER BY id; UPDATE things SET id = 1 WHERE id = 2",
        "later": "SELECT id FROM things; SELECT 1 AS x; UPDATE things SET id = 1 WHERE id = 2",
        "endless": "SELECT a.pad FROM many a JOIN many b JOIN many c; DELETE FROM things",
    }.items():
        await observer.execute(f"CREATE PROCEDURE {name}() BEGIN {body}; END")


@pytest.mark.parametrize("batch", [1, 3, 100])
async def test_an_error_behind_the_rows_is_raised_at_their_end(
    db: MySQLDatabase, procedures: None, batch: int, observer: Any
) -> None:
    for procedure in ("late", "later"):
        seen = []
        with pytest.raises(UniqueViolationError):
            async with db.transaction() as ctx:
                await ctx.execute("DELETE FROM things WHERE id = 3")
                async for row in ctx.iterate(f"CALL {procedure}()", batch=batch):
                    seen.append(row["id"])
        assert sorted(seen) == [1, 2]
        assert await observer.value("SELECT COUNT(*) FROM things") == 3
        async with db.transaction() as ctx:
            with pytest.raises(UniqueViolationError):
                [row async for row in ctx.iterate(f"CALL {procedure}()", batch=batch)]
            assert ctx.in_transaction
            assert await ctx.fetch_val("SELECT 42") == 42


async def test_an_error_behind_the_rows_counts_also_if_they_are_left_early(
    db: MySQLDatabase, procedures: None, observer: Any
) -> None:
    for procedure in ("late", "later"):
        with pytest.raises(TransactionError, match="closing a cursor failed"):
            async with db.transaction() as ctx:
                await ctx.execute("DELETE FROM things WHERE id = 3")
                async for _ in ctx.iterate(f"CALL {procedure}()", batch=1):
                    break
        assert await observer.value("SELECT COUNT(*) FROM things") == 3


async def test_the_log_of_such_an_error_shows_no_parameter(
    db: MySQLDatabase, procedures: None, observer: Any, caplog: pytest.LogCaptureFixture
) -> None:
    await observer.execute("CREATE TABLE secrets (secret VARCHAR(30) PRIMARY KEY)")
    await observer.execute(
        "CREATE PROCEDURE keep_twice(given VARCHAR(30)) BEGIN SELECT * FROM things; "
        "INSERT INTO secrets VALUES (given); INSERT INTO secrets VALUES (given); END"
    )
    with pytest.raises(TransactionError, match="closing a cursor failed"):
        async with db.transaction() as ctx:
            async for _ in ctx.iterate("CALL keep_twice(:given)", {"given": "hunter2"}, batch=1):
                break
    assert "closing a cursor failed: UniqueViolationError: Duplicate entry for key" in caplog.text
    assert "hunter2" not in caplog.text


async def test_a_procedure_that_is_stopped_with_its_rows_is_not_committed(
    db: MySQLDatabase, many: str, procedures: None, observer: Any
) -> None:
    with pytest.raises(TransactionError):
        async with db.transaction() as ctx:
            await ctx.execute("DELETE FROM things WHERE id = 3")
            async for _ in ctx.iterate("CALL endless()"):
                break
    assert await observer.value("SELECT COUNT(*) FROM things") == 3


async def test_an_error_behind_rows_that_the_drivers_cursor_left_is_not_committed(
    db: MySQLDatabase, procedures: None, observer: Any
) -> None:
    for procedure in ("late", "later"):
        with pytest.raises(DatabaseError):
            async with db.transaction() as ctx:
                await ctx.execute("DELETE FROM things WHERE id = 3")
                cursor = ctx.connection.cursor(SSCursor)
                await cursor.execute(f"CALL {procedure}()")
                await cursor.fetchone()
        assert await observer.value("SELECT COUNT(*) FROM things") == 3


async def test_no_result_is_lost_without_an_error(
    db: MySQLDatabase, procedures: None, observer: Any
) -> None:
    async with db.transaction() as ctx:
        for target in (db, ctx):
            assert await target.fetch_all("CALL one()") == [{"id": 1}, {"id": 2}, {"id": 3}]
            assert await target.fetch_one("CALL one()") == {"id": 1}
            assert await target.fetch_val("CALL one()") == 1
            for sql, results in (("CALL two()", "2 results"), ("CALL three()", "3 results")):
                for method in (target.fetch_all, target.fetch_one, target.fetch_val):
                    with pytest.raises(QueryExecutionError, match=results) as caught:
                        await method(sql)
                    assert "nextset" in str(caught.value)
        assert [row["id"] async for row in ctx.iterate("CALL one()", batch=1)] == [1, 2, 3]
        seen = []
        with pytest.raises(QueryExecutionError, match="2 results"):
            async for row in ctx.iterate("CALL two()", batch=2):
                seen.append(row["id"])
        assert seen == [1, 2, 3]
        assert await ctx.execute("CALL written()") >= 0
        assert await ctx.fetch_all("CALL written()".replace("written", "one")) != []
        assert ctx.in_transaction
        assert await ctx.fetch_val("SELECT :x", {"x": 1}) == 1
    assert await observer.value("SELECT COUNT(*) FROM things") == 4


async def test_all_results_of_a_procedure_can_be_had(db: MySQLDatabase, procedures: None) -> None:
    for kind in (DictCursor, SSDictCursor):
        async with db.transaction() as ctx:
            results = []
            async with ctx.connection.cursor(kind) as cursor:
                await cursor.execute("CALL three()")
                while True:
                    results.append(await cursor.fetchall())
                    if not await cursor.nextset() or cursor.description is None:
                        break
        assert results == [[{"a": 1}], [{"b": 2}], [{"c": 3}]]
