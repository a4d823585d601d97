"""What other tests rely on when they count round trips and break the network."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from jobu_db.testing.proxy import TcpProxy

SOON = 5.0


class Echo:
    """A server that answers each line with itself in capitals and remembers it."""

    def __init__(self) -> None:
        self.received: list[bytes] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await reader.readline():
            self.received.append(line)
            writer.write(line.upper())
            if line == b"bye\n":
                break
        writer.close()


@pytest.fixture
async def echo() -> AsyncIterator[tuple[Echo, TcpProxy]]:
    echo = Echo()
    server = await asyncio.start_server(echo.serve, "127.0.0.1", 0)
    async with TcpProxy("127.0.0.1", server.sockets[0].getsockname()[1]) as proxy:
        yield echo, proxy
    server.close()


Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def connect(proxy: TcpProxy) -> Streams:
    return await asyncio.open_connection(proxy.host, proxy.port)


async def ask(streams: Streams, line: bytes) -> bytes:
    reader, writer = streams
    writer.write(line)
    return await asyncio.wait_for(reader.readline(), SOON)


async def gone(streams: Streams) -> bool:
    try:
        return await asyncio.wait_for(streams[0].read(), SOON) == b""
    except ConnectionError:
        return True


async def test_a_round_trip_is_a_burst_after_an_answer(echo: tuple[Echo, TcpProxy]) -> None:
    _, proxy = echo
    streams = await connect(proxy)
    with proxy.counting() as trips:
        assert await ask(streams, b"a\n") == b"A\n"
        assert await ask(streams, b"b\nc\n") == b"B\n"
        assert await asyncio.wait_for(streams[0].readline(), SOON) == b"C\n"
        streams[1].write(b"d")
        assert await ask(streams, b"e\n") == b"DE\n"
    assert trips.count == 3
    assert (proxy.round_trips, proxy.accepted, proxy.connections) == (3, 1, 1)


async def test_last_words_of_the_server_are_delivered(echo: tuple[Echo, TcpProxy]) -> None:
    _, proxy = echo
    streams = await connect(proxy)
    assert await ask(streams, b"bye\n") == b"BYE\n"
    assert await gone(streams)


async def test_cut_closes_what_is_open_and_new_connections_work(
    echo: tuple[Echo, TcpProxy],
) -> None:
    _, proxy = echo
    streams = await connect(proxy)
    await ask(streams, b"a\n")
    proxy.cut()
    assert await gone(streams)
    assert await ask(await connect(proxy), b"b\n") == b"B\n"


@pytest.mark.parametrize("answered", [True, False])
async def test_cut_at_loses_the_answer_or_the_request(
    echo: tuple[Echo, TcpProxy], answered: bool
) -> None:
    server, proxy = echo
    streams = await connect(proxy)
    proxy.cut_at(b"COMMIT", answered=answered)
    assert await ask(streams, b"insert\n") == b"INSERT\n"
    streams[1].write(b"COMMIT\n")
    assert await gone(streams)
    await asyncio.wait_for(proxy.sprung(), SOON)
    assert (b"COMMIT\n" in server.received) is answered
    assert await ask(await connect(proxy), b"COMMIT\n") == b"COMMIT\n"


@pytest.mark.parametrize("answered", [True, False])
async def test_stall_at_holds_everything_back_until_resume(
    echo: tuple[Echo, TcpProxy], answered: bool
) -> None:
    server, proxy = echo
    streams, other = await connect(proxy), await connect(proxy)
    proxy.stall_at(b"COMMIT", answered=answered)
    streams[1].write(b"COMMIT\n")
    await asyncio.wait_for(proxy.sprung(), SOON)
    other[1].write(b"x\n")
    late = await connect(proxy)
    late[1].write(b"y\n")
    await asyncio.sleep(0.05)
    assert server.received == ([b"COMMIT\n"] if answered else [])
    proxy.resume()
    for line, one in ((b"COMMIT\n", streams), (b"X\n", other), (b"Y\n", late)):
        assert await asyncio.wait_for(one[0].readline(), SOON) == line


@pytest.mark.parametrize("answered", [True, False])
async def test_a_fault_that_has_not_happened_can_be_forgotten(
    echo: tuple[Echo, TcpProxy], answered: bool
) -> None:
    _, proxy = echo
    streams = await connect(proxy)
    proxy.cut_at(b"COMMIT", answered=answered)
    proxy.disarm()
    assert await ask(streams, b"COMMIT\n") == b"COMMIT\n"


async def test_a_fault_that_waits_for_an_answer_can_be_forgotten(
    echo: tuple[Echo, TcpProxy],
) -> None:
    _, proxy = echo
    streams = await connect(proxy)
    proxy.cut_at(b"COMMIT", answered=True)
    streams[1].write(b"COMMIT\n")
    proxy.disarm()
    assert await ask(streams, b"a\n") in (b"COMMIT\n", b"COMMIT\nA\n")
    assert await ask(await connect(proxy), b"COMMIT\n") == b"COMMIT\n"


async def test_refuse_and_accept_keep_the_port(echo: tuple[Echo, TcpProxy]) -> None:
    _, proxy = echo
    open_before, port = await connect(proxy), proxy.port
    await ask(open_before, b"a\n")
    await proxy.refuse()
    with pytest.raises(ConnectionRefusedError):
        await connect(proxy)
    assert await ask(open_before, b"b\n") == b"B\n"
    await proxy.accept()
    assert proxy.port == port
    assert await ask(await connect(proxy), b"c\n") == b"C\n"


async def test_a_dead_target_looks_closed() -> None:
    server = await asyncio.start_server(Echo().serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    server.close()
    async with TcpProxy("127.0.0.1", port) as proxy:
        assert await gone(await connect(proxy))


async def test_leaving_the_block_ends_stalled_connections() -> None:
    server = await asyncio.start_server(Echo().serve, "127.0.0.1", 0)
    async with TcpProxy("127.0.0.1", server.sockets[0].getsockname()[1]) as proxy:
        streams = await connect(proxy)
        proxy.stall()
        streams[1].write(b"a\n")
        await asyncio.sleep(0.01)
    assert await gone(streams)
    server.close()
