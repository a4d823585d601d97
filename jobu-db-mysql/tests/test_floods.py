"""A server that sends without end does not fill our memory."""

from __future__ import annotations

import asyncio
import socket
import tracemalloc
from typing import Any

import pytest

from jobu_db import ConnectionFailedError, QueryExecutionError
from jobu_db_mysql import MySQLDatabase

from .conftest import OpenDatabase
from .fake_mysql import FakeMySQL, handshake, packet

CHUNK = bytes(1 << 20)


class Flood(FakeMySQL):
    """Announces the longest packet instead of its first, or its second one, and sends on.

    Attributes:
        sent: Bytes, until the client closed.
    """

    def __init__(self, *, at_once: bool) -> None:
        super().__init__()
        self.at_once = at_once
        self.sent = 0

    def talk(self, client: socket.socket) -> None:
        number = 0
        if not self.at_once:
            client.sendall(packet(0, handshake(self.plugin)))
            number = self._hear(client) + 1
        while True:
            client.sendall(b"\xff\xff\xff" + bytes([number & 255]))
            number += 1
            for _ in range(16):
                self.sent += client.send(CHUNK)


@pytest.mark.parametrize("at_once", [True, False])
async def test_before_the_login_little_is_taken(at_once: bool) -> None:
    async with Flood(at_once=at_once) as server:
        tracemalloc.start()
        try:
            with pytest.raises(ConnectionFailedError, match="while logging in"):
                settings = server.settings | {"connect_timeout": 30.0}
                await asyncio.wait_for(MySQLDatabase.create("main", settings), 60)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert peak < 8 << 20
        assert server.sent < 64 << 20  # what the system's buffers took


LINES = "SELECT REPEAT('x', 1000) AS x FROM {0} AS a, {0} AS b, {0} AS c"


@pytest.fixture
async def digits(observer: Any) -> str:
    await observer.execute("CREATE TABLE digits (n INT)")
    await observer.execute("INSERT INTO digits VALUES " + ",".join(f"({n})" for n in range(10)))
    return "digits"


async def test_a_result_beyond_the_limit_is_an_error_that_says_so(
    open_db: OpenDatabase, digits: str
) -> None:
    db = await open_db(options={"result_limit": 200_000})
    lines = LINES.format(digits)
    for text in (lines, "SELECT REPEAT('x', 300000)"):
        with pytest.raises(QueryExecutionError, match="result_limit = 200000 bytes"):
            await db.fetch_all(text)
        with pytest.raises(QueryExecutionError, match="result_limit = 200000 bytes"):
            async with db.transaction() as ctx:
                await ctx.fetch_all(text)
    assert await db.fetch_val("SELECT 1") == 1


async def test_results_within_the_limit_do_not_add_up(open_db: OpenDatabase, digits: str) -> None:
    db = await open_db(options={"result_limit": 200_000}, pool={"max_size": 1, "timeout": 10.0})
    async with db.transaction() as ctx:
        for _ in range(5):
            rows = await ctx.fetch_all(LINES.format(digits) + " LIMIT 100")
            assert len(rows) == 100
        rows = [row async for row in ctx.iterate(LINES.format(digits), batch=10)]
        assert len(rows) == 1000
        assert await ctx.fetch_val("SELECT 1") == 1
