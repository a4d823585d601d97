"""What a holder leaves behind, and who got nothing, is counted and told."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest

from jobu_db import ConnectionPoolExhaustedError
from jobu_db.driver import READ_WRITE


async def test_a_transaction_left_open_is_rolled_back_logged_and_counted(
    make_pool: Any, caplog: pytest.LogCaptureFixture
) -> None:
    pool = await make_pool()
    async with pool.connection() as lease:
        await pool.driver.begin(lease.connection, READ_WRITE)
    (told,) = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert "a transaction left open by task" in told.getMessage()
    assert "test_left_open.py:" in told.getMessage()
    async with pool.connection() as lease:
        assert not lease.connection.session.in_transaction
    assert pool.stats()["left_open"] == 1


async def test_who_got_no_connection_is_counted_with_the_time_it_took(make_pool: Any) -> None:
    pool = await make_pool(max_size=1, max_waiting=0)
    lease = await pool.acquire()
    with pytest.raises(ConnectionPoolExhaustedError):
        await pool.acquire()
    assert pool.stats()["refused"] == 1
    pool.release(lease)

    pool = await make_pool(max_size=1)
    async with pool.connection():
        pass
    lease = await pool.acquire()
    with pytest.raises(ConnectionPoolExhaustedError):
        await _as_another_task(pool)
    stats = pool.stats()
    assert (stats["timeouts"], stats["refused"]) == (1, 0)
    assert stats["wait_in_vain"]["count"] == 1
    assert stats["wait_in_vain"]["max"] >= 0.02
    pool.release(lease)


async def _as_another_task(pool: Any) -> None:
    await asyncio.create_task(pool.acquire(timeout=0.02))
