"""A connection that cannot be made says why, and whether waiting may help."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

import asyncpg
import pytest

import jobu_db


def changed(url: str, **parts: str) -> str:
    from urllib.parse import urlsplit

    split = urlsplit(url)
    user, host = parts.get("user", split.username), parts.get("host", split.hostname)
    port = parts.get("port", split.port)
    login = user if ":" in user else f"{user}:{split.password}"
    return f"postgresql://{login}@{host}:{port}/{parts.get('database', split.path[1:])}"


CONNECT_FAILURES: list[tuple[dict[str, str], bool, str | None]] = [
    ({"database": "nowhere"}, False, "3D000"),
    ({"port": "1"}, True, None),
    ({"host": "no-such-host.invalid"}, True, None),
]


@pytest.mark.parametrize(("parts", "transient", "code"), CONNECT_FAILURES)
async def test_a_failed_connection_says_whether_waiting_may_help(
    open_db: Any, postgres_url: str, parts: dict[str, str], transient: bool, code: str | None
) -> None:
    with pytest.raises(jobu_db.ConnectionFailedError) as caught:
        await open_db(url=changed(postgres_url, **parts))
    assert (caught.value.transient, caught.value.code) == (transient, code)
    assert caught.value.__cause__ is not None


async def test_an_unknown_server_setting_fails_at_once(open_db: Any) -> None:
    with pytest.raises(jobu_db.ConnectionFailedError, match="no_such_setting") as caught:
        await open_db(options={"server_settings": {"no_such_setting": "1"}})
    assert not caught.value.transient


async def test_a_role_that_may_have_no_more_connections_can_wait(
    open_db: Any, postgres_url: str, observer: asyncpg.Connection
) -> None:
    database = await observer.fetchval("SELECT current_database()")
    role = f"{database}_role"
    await observer.execute(f"CREATE ROLE {role} LOGIN CONNECTION LIMIT 0 PASSWORD 'pw'")
    try:
        url = changed(postgres_url, user=f"{role}:pw")
        with pytest.raises(jobu_db.ConnectionFailedError, match="too many") as caught:
            await open_db(url=url)
        assert (caught.value.transient, caught.value.code) == (True, "53300")
    finally:
        await observer.execute(f"DROP ROLE {role}")


Answer = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Coroutine[Any, Any, None]]


async def closes(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.close()


async def babbles(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read(1)
    writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
    await writer.drain()
    writer.close()


async def is_starting_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read(1)
    fields = b"SFATAL\0VFATAL\0C57P03\0Mthe database system is starting up\0\0"
    writer.write(b"E" + (len(fields) + 4).to_bytes(4, "big") + fields)
    await writer.drain()
    writer.close()


@pytest.fixture
async def serve() -> AsyncIterator[Callable[[Answer], Coroutine[Any, Any, str]]]:
    servers = []

    async def start(answer: Answer) -> str:
        servers.append(await asyncio.start_server(answer, "127.0.0.1", 0))
        port = servers[-1].sockets[0].getsockname()[1]
        return f"postgresql://jobu@127.0.0.1:{port}/jobu"

    yield start
    for server in servers:
        server.close()


@pytest.mark.parametrize("answer", [closes, is_starting_up])
async def test_a_server_that_is_not_ready_can_be_waited_for(
    open_db: Any, serve: Any, answer: Answer
) -> None:
    with pytest.raises(jobu_db.ConnectionFailedError) as caught:
        await open_db(url=await serve(answer))
    assert caught.value.transient


async def test_another_protocol_is_no_success(open_db: Any, serve: Any) -> None:
    with pytest.raises(jobu_db.ConnectionFailedError):
        await open_db(url=await serve(babbles), pool={"timeout": 2.0})


async def test_a_silent_server_is_given_up_in_time(open_db: Any, serve: Any) -> None:
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    started = asyncio.get_running_loop().time()
    with pytest.raises(jobu_db.ConnectionFailedError) as caught:
        await open_db(url=await serve(silent), pool={"timeout": 0.3})
    assert caught.value.transient
    assert asyncio.get_running_loop().time() - started < 5


async def test_the_password_is_in_no_error(open_db: Any, postgres_url: str) -> None:
    with pytest.raises(jobu_db.ConnectionFailedError) as caught:
        await open_db(url=changed(postgres_url, user="jobu:hunter2", port="1"))
    assert "hunter2" not in repr(caught.value) + str(caught.value)
