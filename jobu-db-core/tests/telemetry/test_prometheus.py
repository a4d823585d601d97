"""A real process that serves its metrics, and a real scrape."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.request import urlopen

import pytest

PROGRAM = """
import asyncio, sys
from opentelemetry import metrics
from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.sdk.metrics import MeterProvider
from prometheus_client import start_http_server
from jobu_db import telemetry
from jobu_db_sqlite import SQLiteDatabase

metrics.set_meter_provider(MeterProvider([PrometheusMetricReader()]))
server, thread = start_http_server(0, "127.0.0.1")
telemetry.instrument()

async def main():
    db = await SQLiteDatabase.create("orders", {"path": "app.db", "pool": {"pool_size": 5}})
    await db.execute("CREATE TABLE items (id INTEGER PRIMARY KEY, name TEXT)")

    async def work(number):
        async with db.transaction() as ctx:
            await ctx.execute("INSERT INTO items (name) VALUES (?)", (f"secret {number}",))

    await asyncio.gather(*(work(number) for number in range(20)))
    async with db.pool.connection():
        print(server.server_port, flush=True)
        await asyncio.to_thread(sys.stdin.read)
    await db.close()

asyncio.run(main())
"""


@pytest.fixture
def served(tmp_path: Path) -> Iterator[str]:
    """The address of the metrics of a program that holds a connection."""
    program = subprocess.Popen(
        [sys.executable, "-c", PROGRAM],
        cwd=tmp_path,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert program.stdin is not None
    assert program.stdout is not None
    yield f"http://127.0.0.1:{int(program.stdout.readline())}/metrics"
    program.stdin.close()
    assert program.wait(timeout=60) == 0
    program.stdout.close()


def test_a_scrape_has_every_metric(served: str) -> None:
    with urlopen(served, timeout=60) as answer:
        text = answer.read().decode()
    found = dict(re.findall(r'^(db_client_\w+)\{.*pool_name="orders".*\} (\S+)$', text, re.M))
    gauges = {
        "db_client_connection_max": 5,
        "db_client_connection_idle_max": 5,
        "db_client_connection_idle_min": 5,
        "db_client_connection_pending_requests": 0,
        "db_client_connection_timeouts_total": 0,
        "db_client_operation_duration_seconds_count": 20,  # of the last: INSERT items
    }
    assert {name: float(found[name]) for name in gauges} == gauges
    used = re.search(r'db_client_connection_count\{.*state="used".*\} (\S+)', text)
    assert used is not None
    assert float(used[1]) == 1
    for name in ("create_time", "wait_time", "use_time"):
        assert float(found[f"db_client_connection_{name}_seconds_count"]) >= 1
    assert "secret" not in text
