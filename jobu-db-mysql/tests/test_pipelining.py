"""Proxies that do not take several commands in one write, as MySQL Router 9.7 does not."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import urlsplit

import pytest

from jobu_db_mysql import MySQLDatabase

from .conftest import OpenDatabase


def mangled(data: bytes) -> bytes:
    """Make every command behind the first one in a write an unknown one, as the proxy does."""
    written, position, commands = bytearray(data), 0, 0
    while position + 4 < len(data):
        length = int.from_bytes(data[position : position + 3], "little")
        if data[position + 3] == 0:  # else it belongs to the login, or to a long command
            commands += 1
            if commands > 1:
                written[position + 4] = 65
        position += 4 + length
    return bytes(written)


@pytest.fixture
async def router(mysql_url: str) -> AsyncIterator[str]:
    """The database's URL, through such a proxy."""
    parts = urlsplit(mysql_url)
    links: list[asyncio.Task[None]] = []

    async def relay(source: Any, target: Any, *, to_server: bool) -> None:
        while data := await source.read(1 << 20):
            target.write(mangled(data) if to_server else data)
            await target.drain()
        target.close()

    async def serve(reader: Any, writer: Any) -> None:
        server_reader, server_writer = await asyncio.open_connection(parts.hostname, parts.port)
        for source, target, to_server in (
            (reader, server_writer, True),
            (server_reader, writer, False),
        ):
            links.append(asyncio.create_task(relay(source, target, to_server=to_server)))

    server = await asyncio.start_server(serve, "127.0.0.1")
    port = server.sockets[0].getsockname()[1]
    login = parts.netloc.rpartition("@")[0]
    yield parts._replace(netloc=f"{login}@127.0.0.1:{port}").geturl()
    server.close()
    for link in links:
        link.cancel()
    await asyncio.gather(*links, return_exceptions=True)


async def use(db: MySQLDatabase) -> None:
    for number in range(4):
        async with db.transaction() as ctx:
            await ctx.execute("SET @mine = 5")
            await ctx.execute("INSERT INTO things VALUES (%s, 'x')", [number])
        assert await db.fetch_val("SELECT @mine") is None
        async with db.transaction(readonly=True) as ctx:
            assert await ctx.fetch_val("SELECT COUNT(*) FROM things") == number + 1
    sql = "UPDATE things SET note = %s WHERE id = %s"
    assert await db.executemany(sql, [["a", 0], ["b", 1]]) == 2


async def test_without_pipelining_nothing_fails_there(
    open_db: OpenDatabase, router: str, things: str, caplog: pytest.LogCaptureFixture
) -> None:
    db = await open_db(
        url=router, options={"pipelining": False}, pool={"max_size": 1, "timeout": 10.0}
    )
    with caplog.at_level("INFO"):
        await use(db)
    assert "could not be reset" not in caplog.text
    assert db.stats()["created"] == 1


async def test_it_is_noticed_and_told_once(
    open_db: OpenDatabase, router: str, things: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO"):
        db = await open_db(
            url=router, lazy=None, pool={"max_size": 1, "timeout": 30.0, "lazy": True}
        )
        await use(db)
    told = [record for record in caplog.records if "one by one" in record.getMessage()]
    assert [record.levelname for record in told] == ["WARNING"]
    assert db.stats()["created"] <= 3
