"""What a pool does by itself: upkeep, reports of leaks, events, and figures."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from typing import Any

import pytest

from jobu_db.errors import ConnectionFailedError
from jobu_db.events import events
from jobu_db.plugins import hookimpl
from jobu_db.testing.fake import FakeConnection
from jobu_db.testing.fake_server import FakeServer

MakePool = Any


class Listener:
    """Notes what it is told."""

    def __init__(self) -> None:
        self.told: list[tuple[Any, ...]] = []

    @hookimpl
    def jobu_db_connect(self, database: str, error: BaseException | None) -> None:
        self.told.append(("connect", database, error))

    @hookimpl
    def jobu_db_acquire(self, database: str, seconds: float) -> None:
        self.told.append(("acquire", database, seconds >= 0))

    @hookimpl
    def jobu_db_release(self, database: str, seconds: float) -> None:
        self.told.append(("release", database, seconds >= 0))

    @hookimpl
    def jobu_db_close(self, database: str, reason: str) -> None:
        self.told.append(("close", database, reason))


class Broken:
    """Fails whenever it is told something."""

    @hookimpl
    def jobu_db_acquire(self) -> None:
        raise RuntimeError("a broken listener")


@pytest.fixture
def listen() -> Iterator[Any]:
    """Register listeners for the length of a test."""
    listeners: list[Any] = []

    def register(listener: Any) -> Any:
        events.register(listener)
        listeners.append(listener)
        return listener

    yield register
    for listener in listeners:
        events.unregister(listener)


class Asks:
    """Asks for a connection as soon as it hears of a release: an eager task could do that."""

    def __init__(self, pool: Any) -> None:
        self._work = pool.acquire()
        self.waits = False

    @hookimpl
    def jobu_db_release(self) -> None:
        self.waits = self._work.send(None) is not None
        self._work.close()


async def test_a_listener_may_ask_while_the_next_holder_is_yet_to_be_woken(
    make_pool: MakePool, listen: Any
) -> None:
    pool = await make_pool(max_size=1, reset="never")
    lease = await pool.acquire()
    next_holder = asyncio.create_task(pool.acquire())
    await asyncio.sleep(0)
    listener = listen(Asks(pool))
    pool.release(lease)
    assert listener.waits
    pool.release(await next_holder)


async def test_events_tell_of_a_connections_life(make_pool: MakePool, listen: Any) -> None:
    listener = listen(Listener())
    pool = await make_pool()
    pool.release(await pool.acquire())
    await pool.close()
    assert listener.told == [
        ("connect", "main", None),
        ("acquire", "main", True),
        ("release", "main", True),
        ("close", "main", "pool closed"),
    ]


async def test_a_failed_connect_is_told_with_its_error(
    make_pool: MakePool, server: FakeServer, listen: Any
) -> None:
    listener = listen(Listener())
    server.refuse()
    with pytest.raises(ConnectionFailedError) as caught:
        await make_pool()
    assert listener.told == [("connect", "main", caught.value)]


async def test_a_listener_that_fails_harms_nobody(
    make_pool: MakePool, listen: Any, caplog: pytest.LogCaptureFixture
) -> None:
    listen(Broken())
    pool = await make_pool()
    pool.release(await pool.acquire())
    assert "a broken listener" in caplog.text


async def test_a_ping_into_a_black_hole_costs_the_connection_not_the_deadline(
    make_pool: MakePool, server: FakeServer
) -> None:
    """sqlx PR #4146: it held the slot for ever."""
    pool = await make_pool(max_size=1, check_after=0.01, check_timeout=0.05, timeout=10)
    server.hold("ping", times=1)
    await asyncio.sleep(0.02)
    async with pool.connection() as lease:
        await lease.connection.execute("SELECT 1")
    assert pool.stats()["closed"] == {"dead": 1}
    assert server.calls["connect"] == 2


async def test_min_size_is_filled_in_the_background(
    make_pool: MakePool, server: FakeServer
) -> None:
    hold = server.hold("connect", times=3)
    opening = asyncio.create_task(make_pool(min_size=3, max_size=3))
    await hold.reached(1)
    hold.release()
    pool = await opening
    await hold.reached(3)
    leases = [await pool.acquire() for _ in range(3)]
    assert server.calls["connect"] == 3
    for lease in leases:
        pool.release(lease)


async def test_a_held_connection_is_reported_with_the_stack(
    make_pool: MakePool, caplog: pytest.LogCaptureFixture
) -> None:
    reported = asyncio.Event()

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            reported.set()

    handler = Handler(logging.WARNING)
    logging.getLogger("jobu_db").addHandler(handler)
    pool = await make_pool(leak_after=0.02)
    lease = await pool.acquire()
    async with asyncio.timeout(10):
        await reported.wait()
    logging.getLogger("jobu_db").removeHandler(handler)
    assert "main: held for 0." in caplog.text
    assert "in test_a_held_connection_is_reported_with_the_stack" in caplog.text
    assert "lease = await pool.acquire()" in caplog.text
    pool.release(lease)


async def test_on_connect_prepares_each_new_connection(
    make_pool: MakePool, server: FakeServer
) -> None:
    async def prepare(connection: FakeConnection) -> None:
        await connection.execute("SELECT 1")
        connection.session.variables["prepared"] = True

    pool = await make_pool(on_connect=prepare)
    async with pool.connection() as lease:
        assert lease.connection.variables == {"prepared": True}
    assert server.calls["execute"] == 1


async def test_an_on_connect_that_fails_leaves_no_session_behind(
    make_pool: MakePool, server: FakeServer
) -> None:
    async def prepare(connection: FakeConnection) -> None:
        raise ValueError("no such extension")

    with pytest.raises(ConnectionFailedError, match="ValueError: no such extension"):
        await make_pool(on_connect=prepare)
    assert server.sessions == []


async def test_a_connection_lost_as_soon_as_it_was_opened_is_a_failed_attempt(
    make_pool: MakePool, server: FakeServer
) -> None:
    """Else it would be opened again and again, at full speed."""

    async def lose(connection: FakeConnection) -> None:
        server.drop_all()

    pool = await make_pool(on_connect=lose, lazy=True)
    with pytest.raises(ConnectionFailedError, match="lost as soon as it was opened"):
        await pool.acquire(timeout=0.2)
    assert server.calls["connect"] < 20
    with pytest.raises(ConnectionFailedError, match="lost as soon as it was opened"):
        await make_pool(on_connect=lose)


async def test_a_lazy_pool_opens_at_first_use(make_pool: MakePool, server: FakeServer) -> None:
    pool = await make_pool(lazy=True)
    assert server.calls["connect"] == 0
    pool.release(await pool.acquire())
    assert server.calls["connect"] == 1


async def test_the_figures_add_up(make_pool: MakePool) -> None:
    pool = await make_pool(max_size=3)
    first, second = await pool.acquire(), await pool.acquire()
    pool.release(second)
    figures = pool.stats()
    counted = {name: figures[name] for name in ("size", "idle", "in_use", "waiting", "max_size")}
    assert counted == {"size": 2, "idle": 1, "in_use": 1, "waiting": 0, "max_size": 3}
    assert (figures["acquired"], figures["created"]) == (2, 2)
    assert (figures["wait"]["count"], figures["use"]["count"]) == (2, 1)
    assert (pool.size, pool.available) == (2, 2)
    pool.release(first)


class Cancels:
    """Raises a cancellation that nobody asked for, at every event."""

    @hookimpl
    def jobu_db_connect(self) -> None:
        raise asyncio.CancelledError

    jobu_db_acquire = jobu_db_release = jobu_db_close = jobu_db_connect


async def test_a_listener_that_raises_a_cancellation_leaks_no_connection(
    make_pool: MakePool, listen: Any, caplog: pytest.LogCaptureFixture
) -> None:
    listen(Cancels())
    pool = await make_pool(max_size=1, min_size=1)
    for _ in range(3):
        pool.release(await pool.acquire())
    assert pool.stats()["in_use"] == 0
    await pool.close()
    failed = {record.getMessage() for record in caplog.records}
    events_told = ("connect", "acquire", "release", "close")
    assert failed == {f"a listener of jobu_db_{name} failed" for name in events_told}
