"""What is measured as the floor sends the messages that jobu-db sends, and no others."""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import pytest
from waiting import eventually

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
METHODS = ["read", "write", "single"]
WARM, CALLS = 4, 10
"""Calls for both connections to have done everything once, and those that are compared."""


@pytest.fixture(autouse=True)
def path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("number", [0, 1])
async def test_of_postgres(postgres_url: str, number: int, method: str) -> None:
    await compare("postgres", postgres_url, number, method)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("number", [0, 1])
async def test_of_mysql(mysql_url: str, number: int, method: str) -> None:
    await compare("mysql", mysql_url, number, method)


@pytest.mark.parametrize("number", [0, 1])
async def test_of_postgres_where_tasks_wait_for_each_other(postgres_url: str, number: int) -> None:
    await compare("postgres", postgres_url, number, "read", tasks=8)


async def compare(kind: str, url: str, number: int, method: str, tasks: int = 1) -> None:
    floor = import_module(f"{kind}_floor").FLOORS[number]
    ours = import_module("ours")
    (same,) = [each for each in (ours.Ours, ours.OursWithoutReset) if each.title == floor.floor]
    places = import_module("places")
    async with places.fresh_place(kind, url, 10) as place:
        found = [await messages_of(each, place, method, tasks) for each in (floor, same)]
    assert found[0] == found[1]
    assert sum(found[0].values()) >= 2 * CALLS


async def messages_of(make: Any, place: Any, method: str, tasks: int) -> Counter[bytes]:
    """Return what is sent with some calls of each task."""
    size = import_module("contestant").Size(rows=10, factor=1, pool=2)
    async with Recorder(place.url) as recorder:
        contestant = make(type(place)(place.kind, recorder.url), size)
        await contestant.open()
        for calls in (WARM, CALLS):
            await at_rest(contestant)  # all has been answered, and so recorded
            recorder.forget()
            await asyncio.gather(
                *(repeat(getattr(contestant, method), calls) for _ in range(tasks))
            )
        await at_rest(contestant)
        found = [message for each in recorder.streams for message in MESSAGES[place.kind](each)]
        await contestant.close()
    return Counter(found)


async def repeat(work: Callable[[int], Awaitable[None]], calls: int) -> None:
    for _ in range(calls):
        await work(7)


async def at_rest(contestant: Any) -> None:
    if hasattr(contestant, "settle"):
        await contestant.settle()
    else:
        await eventually(lambda: contestant.db.stats()["idle"] == contestant.size.pool)


def _postgres(stream: bytearray) -> Iterator[bytes]:
    while stream:
        length = int.from_bytes(stream[1:5], "big") + 1
        # Without the length: asyncpg numbers its statements.
        yield bytes(stream[:1]) + re.sub(rb"__asyncpg_stmt_\w+__", b"name", stream[5:length])
        stream = stream[length:]


def _mysql(stream: bytearray) -> Iterator[bytes]:
    while stream:
        length = int.from_bytes(stream[:3], "little") + 4
        yield bytes(stream[:length])
        stream = stream[length:]


MESSAGES = {"postgres": _postgres, "mysql": _mysql}


class Recorder:
    """A proxy to a server that keeps what clients send.

    Attributes:
        url: Of the same database, through the proxy.
        streams: What came by each connection since `forget`.
    """

    def __init__(self, url: str) -> None:
        self._parts = urlsplit(url)
        self._served: list[asyncio.Task[None]] = []
        self.streams: list[bytearray] = []

    async def __aenter__(self) -> Recorder:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        port = self._server.sockets[0].getsockname()[1]
        login = self._parts.netloc.rpartition("@")[0]
        self.url = urlunsplit(self._parts._replace(netloc=f"{login}@127.0.0.1:{port}"))
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        async with asyncio.timeout(10):
            await asyncio.gather(*self._served)

    def forget(self) -> None:
        """Begin anew."""
        for stream in self.streams:
            stream.clear()

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._served.append(asyncio.ensure_future(self._serve(reader, writer)))

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        stream = bytearray()
        self.streams.append(stream)
        back, there = await asyncio.open_connection(self._parts.hostname, self._parts.port)
        await asyncio.gather(_pump(reader, there, stream), _pump(back, writer, bytearray()))


async def _pump(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, record: bytearray
) -> None:
    with suppress(ConnectionError):
        while data := await reader.read(65536):
            record += data
            writer.write(data)
            await writer.drain()
    writer.close()
