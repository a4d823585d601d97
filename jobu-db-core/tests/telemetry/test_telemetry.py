"""What OpenTelemetry is told is what its conventions ask for, and holds no value."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.trace import SpanKind, StatusCode

from jobu_db import QueryExecutionError, UniqueViolationError, telemetry
from jobu_db.errors import ConnectionPoolExhaustedError
from jobu_db.events import events
from jobu_db_mysql import MySQLDatabase
from jobu_db_postgres import PostgresDatabase
from jobu_db_sqlite import SQLiteDatabase

POOL = "db.client.connection.pool.name"

CONVENTION = {
    "db.client.operation.duration": "s",
    "db.client.connection.count": "{connection}",
    "db.client.connection.idle.max": "{connection}",
    "db.client.connection.idle.min": "{connection}",
    "db.client.connection.max": "{connection}",
    "db.client.connection.pending_requests": "{request}",
    "db.client.connection.timeouts": "{timeout}",
    "db.client.connection.create_time": "s",
    "db.client.connection.wait_time": "s",
    "db.client.connection.use_time": "s",
}


@pytest.fixture
async def db(told: Any, tmp_path: Path) -> AsyncIterator[SQLiteDatabase]:
    """A database with a table, opened while telemetry is on; then forget what that told."""
    config = {"path": str(tmp_path / "t.db"), "pool": {"min_size": 1, "max_size": 3}}
    db = await SQLiteDatabase.create("orders", config)
    await db.execute("CREATE TABLE items (id INTEGER PRIMARY KEY, name TEXT)")
    told.exporter.clear()
    yield db
    await db.close()


# -- metrics


async def test_every_metric_of_the_convention_is_there(told: Any, db: Any) -> None:
    await db.fetch_val("SELECT count(*) FROM items")
    metrics = told.metrics()
    assert {name: metric.unit for name, metric in metrics.items()} == CONVENTION
    assert all(metric.description.endswith(".") for metric in metrics.values())
    kinds = {name: type(metric.data).__name__ for name, metric in metrics.items()}
    assert {name for name, kind in kinds.items() if kind == "Histogram"} == {
        name for name, unit in CONVENTION.items() if unit == "s"
    }
    for name, metric in metrics.items():
        if kinds[name] == "Sum":  # only the number of timeouts never falls
            assert metric.data.is_monotonic == (name == "db.client.connection.timeouts")


async def test_the_state_of_a_pool(told: Any, db: Any) -> None:
    def value(name: str, **attributes: str) -> int:
        (point,) = [
            point
            for point in told.points(f"db.client.connection.{name}", "orders")
            if attributes.items() <= point.attributes.items()
        ]
        return int(point.value)

    state = "db.client.connection.state"
    async with db.pool.connection(), db.pool.connection():
        assert value("count", **{state: "used"}) == 2
        assert value("count", **{state: "idle"}) == 0
        assert value("max") == value("idle.max") == 3
        assert value("idle.min") == 1
        assert value("pending_requests") == 0

        async def one_more() -> None:
            async with db.pool.connection(timeout=0.2):
                pass

        async with db.pool.connection():
            waiting = asyncio.create_task(one_more())
            await asyncio.sleep(0.01)
            assert value("pending_requests") == 1
            assert value("timeouts") == 0
            with pytest.raises(ConnectionPoolExhaustedError):
                await waiting
        assert value("timeouts") == 1
    while value("count", **{state: "used"}):  # noqa: ASYNC110  while they are reset
        await asyncio.sleep(0.01)
    assert value("count", **{state: "idle"}) == db.pool.size


async def test_the_times_of_connections(told: Any, db: Any) -> None:
    def total(name: str) -> Any:
        (point,) = told.points(f"db.client.connection.{name}", "orders")
        return point

    before = total("use_time").count
    async with db.pool.connection():
        await asyncio.sleep(0.05)
    used = total("use_time")
    assert used.count == before + 1
    assert used.sum >= 0.05
    assert total("wait_time").count == used.count
    assert total("create_time").count == db.stats()["created"]
    assert set(used.attributes) == {POOL}
    assert used.explicit_bounds == (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 10)


async def test_the_duration_of_operations(told: Any, db: Any) -> None:
    await db.fetch_all("SELECT * FROM items WHERE name = 'hunter2'")
    with pytest.raises(QueryExecutionError):
        await db.execute("SELECT * FROM nowhere")
    points = {
        point.attributes["db.query.summary"]: point
        for point in told.points("db.client.operation.duration", "orders")
    }
    good, bad = points["SELECT items"], points["SELECT nowhere"]
    assert dict(good.attributes) == {
        "db.system.name": "sqlite",
        "db.namespace": str(db.driver.file.path),
        "db.query.summary": "SELECT items",
        POOL: "orders",
    }
    assert good.explicit_bounds == (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 10)
    assert bad.attributes["error.type"].endswith("Error")
    assert bad.attributes["db.response.status_code"] == "SQLITE_ERROR"


async def test_a_closed_pool_is_reported_no_more(told: Any, tmp_path: Path) -> None:
    db = await SQLiteDatabase.create("short", {"path": str(tmp_path / "s.db")})
    assert told.points("db.client.connection.max", "short")
    await db.close()
    assert "db.client.connection.max" not in told.metrics() or not told.points(
        "db.client.connection.max", "short"
    )


# -- spans


async def test_statements_are_spans_inside_the_span_of_their_transaction(
    told: Any, db: Any
) -> None:
    tracer = told.tracers.get_tracer("the program")
    with tracer.start_as_current_span("request") as request:
        async with db.transaction() as ctx:
            await ctx.execute("INSERT INTO items (name) VALUES ('hunter2')")
            await ctx.fetch_all("SELECT * FROM items WHERE id = :id", {"id": 4711})
    transaction = told.span("transaction orders")
    insert, select = told.span("INSERT items"), told.span("SELECT items")
    assert transaction.parent.span_id == request.get_span_context().span_id
    for span in (insert, select):
        assert span.parent.span_id == transaction.context.span_id
        assert span.kind is SpanKind.CLIENT
        assert transaction.start_time <= span.start_time <= span.end_time <= transaction.end_time
        assert span.status.status_code is StatusCode.UNSET
    assert dict(insert.attributes) == {
        "db.system.name": "sqlite",
        "db.namespace": str(db.driver.file.path),
        "db.query.summary": "INSERT items",
        "db.query.text": "INSERT INTO items (name) VALUES (?)",
        POOL: "orders",
    }
    assert select.attributes["db.query.text"] == "SELECT * FROM items WHERE id = :id"
    assert transaction.attributes["jobu_db.transaction.outcome"] == "committed"
    assert transaction.attributes["jobu_db.transaction.readonly"] is False
    everything = " ".join(span.to_json() for span in told.spans())
    assert "hunter2" not in everything
    assert "4711" not in everything


async def test_a_statement_alone_is_inside_the_programs_span(told: Any, db: Any) -> None:
    tracer = told.tracers.get_tracer("the program")
    with tracer.start_as_current_span("request") as request:
        await db.fetch_val("SELECT 1")
        assert trace.get_current_span() is request
    assert told.span("SELECT").parent.span_id == request.get_span_context().span_id


async def test_an_error_is_told_by_its_class_and_code_alone(told: Any, db: Any) -> None:
    await db.execute("CREATE TABLE once (name TEXT UNIQUE)")
    await db.execute("INSERT INTO once VALUES ('hunter2')")
    told.exporter.clear()
    with pytest.raises(UniqueViolationError):
        async with db.transaction() as ctx:
            await ctx.execute("INSERT INTO once VALUES (?)", ("hunter2",))
    insert, transaction = told.span("INSERT once"), told.span("transaction orders")
    assert insert.status.status_code is StatusCode.ERROR
    assert not insert.status.description
    assert insert.attributes["error.type"] == "UniqueViolationError"
    assert insert.attributes["db.response.status_code"].startswith("SQLITE_CONSTRAINT")
    assert insert.events == ()
    # It was rolled back because its block was left so: that is no error of its own.
    assert transaction.status.status_code is StatusCode.UNSET
    assert transaction.attributes["jobu_db.transaction.outcome"] == "rolled back"
    assert "hunter2" not in insert.to_json() + transaction.to_json()


async def test_a_commit_that_fails_is_an_error_of_the_transaction(told: Any, db: Any) -> None:
    await db.execute("CREATE TABLE child (item INTEGER REFERENCES items DEFERRABLE "
                     "INITIALLY DEFERRED)")  # fmt: skip
    told.exporter.clear()
    with pytest.raises(QueryExecutionError):
        async with db.transaction() as ctx:
            await ctx.execute("INSERT INTO child VALUES (5)")
    transaction = told.span("transaction orders")
    assert transaction.status.status_code is StatusCode.ERROR
    assert transaction.attributes["error.type"] == "ForeignKeyViolationError"


async def test_a_batch(told: Any, db: Any) -> None:
    await db.executemany("INSERT INTO items (name) VALUES (?)", [("a",), ("b",), ("c",)])
    batch = told.span("BATCH INSERT items")
    assert batch.attributes["db.operation.batch.size"] == 3
    await db.executemany("INSERT INTO items (name) VALUES (?)", [("d",)])
    assert "db.operation.batch.size" not in told.span("INSERT items").attributes


async def test_rows_that_are_streamed_are_one_span(told: Any, db: Any) -> None:
    await db.executemany("INSERT INTO items (name) VALUES (?)", [("a",), ("b",), ("c",)])
    told.exporter.clear()
    async with db.transaction(readonly=True) as ctx:
        async for _ in ctx.iterate("SELECT * FROM items", batch=1):
            pass
    assert (
        told.span("SELECT items").parent.span_id == told.span("transaction orders").context.span_id
    )


async def test_a_transaction_by_hand_is_two_spans(told: Any, db: Any) -> None:
    async with db.transaction() as ctx:
        await ctx.execute("INSERT INTO items (name) VALUES ('a')")
        await ctx.commit()
        await ctx.begin()
        await ctx.execute("INSERT INTO items (name) VALUES ('b')")
        await ctx.rollback()
    outcomes = [
        span.attributes["jobu_db.transaction.outcome"]
        for span in told.spans()
        if span.name == "transaction orders"
    ]
    assert outcomes == ["committed", "rolled back"]


async def test_transactions_of_many_tasks_are_kept_apart(told: Any, db: Any) -> None:
    async def work(number: int) -> None:
        async with db.transaction(readonly=True) as ctx:
            for _ in range(3):
                await ctx.fetch_val(f"SELECT count(*) FROM table_{number}")

    for number in range(5):
        await db.execute(f"CREATE TABLE table_{number} (id INTEGER)")
    told.exporter.clear()
    await asyncio.gather(*(work(number) for number in range(5)))
    spans = told.spans()
    parents = {
        span.name: {each.parent.span_id for each in spans if each.name == span.name}
        for span in spans
        if span.parent
    }
    assert len(parents) == 5
    assert len(set().union(*parents.values())) == 5


# -- turning it on and off


async def test_off_means_off(told: Any, db: Any) -> None:
    telemetry.uninstrument()
    telemetry.uninstrument()
    await db.fetch_val("SELECT 1")
    assert told.spans() == []
    assert [events.statement, events.acquire, events.transaction_begin] == [False] * 3
    assert not [
        point
        for metric in told.metrics().values()
        if type(metric.data).__name__ == "Sum"
        for point in metric.data.data_points
    ]


async def test_on_twice_tells_once(told: Any, db: Any) -> None:
    telemetry.instrument()
    await db.fetch_val("SELECT 1")
    assert len(told.spans()) == 1


async def test_only_what_is_asked_for(told: Any, db: Any) -> None:
    telemetry.uninstrument()
    telemetry.instrument(tracer_provider=told.tracers, meter_provider=told.meters, measures=False)
    async with db.transaction() as ctx:
        await ctx.fetch_val("SELECT 1")
    assert len(told.spans()) == 2
    told.exporter.clear()
    telemetry.uninstrument()
    telemetry.instrument(tracer_provider=told.tracers, meter_provider=told.meters, spans=False)
    async with db.transaction() as ctx:
        await ctx.fetch_val("SELECT 1")
    assert told.spans() == []
    assert told.points("db.client.connection.max", "orders")


def test_without_the_extra_it_says_what_to_install() -> None:
    code = "import sys; sys.modules['opentelemetry'] = None\nimport jobu_db.telemetry"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "pip install 'jobu-db-core[otel]'" in done.stderr


def test_the_api_alone_is_enough() -> None:
    code = """
import asyncio, sys
sys.modules["opentelemetry.sdk"] = None
from jobu_db import telemetry
from jobu_db_sqlite import SQLiteDatabase
telemetry.instrument()

async def main():
    db = await SQLiteDatabase.create("main", {"path": ":memory:"})
    async with db.transaction() as ctx:
        print(await ctx.fetch_val("SELECT 1"))
    await db.close()

asyncio.run(main())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("1\n", "")


# -- where a database is


async def attributes_on(told: Any, db: Any) -> dict[str, Any]:
    async with db.transaction() as ctx:
        await ctx.fetch_val("SELECT 1")
    await db.close()
    return dict(told.span("SELECT").attributes)


async def test_postgres(told: Any, postgres_url: str) -> None:
    db = await PostgresDatabase.create("pg", {"url": postgres_url})
    settings: Any = db.settings
    attributes = await attributes_on(told, db)
    assert attributes["db.system.name"] == "postgresql"
    assert attributes["db.namespace"] == settings.database
    assert attributes["server.address"] in (settings.host, settings.unix_socket)
    assert attributes.get("server.port") in (None, settings.port)
    assert ("server.port" in attributes) == (settings.port != 5432 and settings.unix_socket is None)


async def test_mysql(told: Any, mysql_url: str) -> None:
    db = await MySQLDatabase.create("my", {"url": mysql_url})
    version = await db.fetch_val("SELECT version()")
    told.exporter.clear()
    settings: Any = db.settings
    attributes = await attributes_on(told, db)
    expected = "mariadb" if "MariaDB" in version else "mysql"
    assert attributes["db.system.name"] == expected
    assert attributes["db.namespace"] == settings.database
    assert attributes["server.address"] in (settings.host, settings.unix_socket)
