"""Ctrl-C strikes anywhere in the pool: it can be closed all the same, and waits for nobody."""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import pytest
from interrupts import Interrupt, strike_every_line

import jobu_db.pool
from jobu_db.pool import AsyncConnectionPool
from jobu_db.settings.models import PoolConfig
from jobu_db.testing.fake import FakeDriver
from jobu_db.testing.fake_server import FakeServer


async def use(pool: AsyncConnectionPool[Any]) -> None:
    async with pool.connection() as lease:
        await lease.connection.execute("SELECT 1")


async def main(interrupt: Interrupt) -> None:
    pool = AsyncConnectionPool(
        "fake", FakeDriver(FakeServer()), PoolConfig(max_size=2, timeout=600.0)
    )
    await pool.open()
    try:
        callers = [asyncio.create_task(use(pool)) for _ in range(3)]
        interrupt.start()
        await asyncio.gather(*callers)
    finally:
        sys.settrace(None)
        await pool.close()


@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited:RuntimeWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_wherever_an_interrupt_strikes_the_pool_can_be_closed() -> None:
    assert strike_every_line(jobu_db.pool, main) > 100
