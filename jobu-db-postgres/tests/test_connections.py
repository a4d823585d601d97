"""Opening, checking and closing connections, without a pool."""

from __future__ import annotations

import asyncio
import gc
import socket
import sys
import warnings
from typing import Any

import asyncpg
import pytest

from jobu_db.driver import READ_WRITE, TransactionMode
from jobu_db_postgres.driver import PostgresDriver

SESSIONS = (
    "SELECT count(*) FROM pg_stat_activity "
    "WHERE datname = current_database() AND pid <> pg_backend_pid()"
)


@pytest.fixture
def no_session_left(observer: asyncpg.Connection, eventually: Any) -> Any:
    """`await no_session_left()` waits until the server knows that all are gone."""

    async def none() -> bool:
        return await observer.fetchval(SESSIONS) == 0

    return lambda: eventually(none)


async def test_a_closed_connection_is_dead(driver: PostgresDriver, connection: Any) -> None:
    await driver.ping(connection)
    assert driver.is_alive(connection)
    await driver.close(connection)
    assert not driver.is_alive(connection)
    assert not driver.in_transaction(connection)
    with pytest.raises(asyncpg.InterfaceError):
        await driver.ping(connection)
    driver.terminate(connection)


async def test_a_terminated_connection_is_in_no_transaction(
    driver: PostgresDriver, connection: Any, no_session_left: Any
) -> None:
    await driver.begin(connection, READ_WRITE)
    assert driver.in_transaction(connection)
    for _ in range(2):
        driver.terminate(connection)
        assert not driver.is_alive(connection)
        assert not driver.in_transaction(connection)
    await no_session_left()


async def test_a_session_ended_while_idle_is_noticed_without_a_round_trip(
    driver: PostgresDriver, connection: Any, observer: asyncpg.Connection, eventually: Any
) -> None:
    await observer.execute("SELECT pg_terminate_backend($1)", connection.get_server_pid())
    await eventually(lambda: not driver.is_alive(connection))


@pytest.mark.parametrize("closed", [False, True])
async def test_terminate_works_where_no_event_loop_runs(
    driver: PostgresDriver, no_session_left: Any, closed: bool
) -> None:
    def elsewhere() -> None:
        loop = asyncio.new_event_loop()
        connection = loop.run_until_complete(driver.connect())
        if closed:
            loop.close()
        with warnings.catch_warnings():
            # What asyncio could not close is closed with the garbage.
            warnings.simplefilter("ignore", ResourceWarning)
            driver.terminate(connection)
            assert not driver.is_alive(connection)
            del connection
            loop.close()
            gc.collect()

    await asyncio.to_thread(elsewhere)
    await no_session_left()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="others have fewer options")
async def test_a_silent_network_is_noticed_by_the_system_within_a_minute(connection: Any) -> None:
    """No proxy can be that silent: it acknowledges. So the kernel is asked what it will do."""
    peer = connection._transport.get_extra_info("socket")
    assert peer.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
    idle, interval, count = (
        peer.getsockopt(socket.IPPROTO_TCP, getattr(socket, f"TCP_{name}"))
        for name in ("KEEPIDLE", "KEEPINTVL", "KEEPCNT")
    )
    assert idle + interval * count <= 60


async def test_commit_and_rollback_end_a_transaction_of_any_mode(
    driver: PostgresDriver, connection: Any
) -> None:
    for isolation in (None, *driver.capabilities.isolation_levels):
        for readonly in (False, True):
            for end in (
                lambda: driver.commit(connection, reset=True),
                lambda: driver.rollback(connection),
            ):
                await driver.begin(connection, TransactionMode(readonly, isolation))
                assert driver.in_transaction(connection)
                await end()
                assert not driver.in_transaction(connection)
