"""Ctrl-C strikes anywhere in the pool: it can be closed all the same, and waits for nobody."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import threading
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

import jobu_db.pool
from jobu_db.pool import AsyncConnectionPool
from jobu_db.settings.models import PoolConfig
from jobu_db.testing.fake import FakeDriver
from jobu_db.testing.fake_server import FakeServer

HERE = str(Path(jobu_db.pool.__file__).parent)
LIMIT = 30.0


class Interrupt:
    """Raises `KeyboardInterrupt` at one line of the package, counted in the order they run."""

    def __init__(self, at: int) -> None:
        self.left = at

    def __call__(self, frame: FrameType, event: str, _: Any) -> Any:
        return self.line if frame.f_code.co_filename.startswith(HERE) else None

    def line(self, frame: FrameType, event: str, _: Any) -> Any:
        if event == "line":
            self.left -= 1
            if self.left == 0:
                sys.settrace(None)
                raise KeyboardInterrupt
        return self.line


async def use(pool: AsyncConnectionPool[Any]) -> None:
    async with pool.connection() as lease:
        await lease.connection.execute("SELECT 1")


async def main(server: FakeServer, interrupt: Interrupt) -> None:
    pool = AsyncConnectionPool("fake", FakeDriver(server), PoolConfig(max_size=2, timeout=600.0))
    await pool.open()
    try:
        callers = [asyncio.create_task(use(pool)) for _ in range(3)]
        sys.settrace(interrupt)
        await asyncio.gather(*callers)
    finally:
        sys.settrace(None)
        await pool.close()


def run_and_interrupt(interrupt: Interrupt) -> None:
    """Run a program until it ends or is interrupted, and close its loop, as `asyncio.run` does."""
    server = FakeServer()
    runner = asyncio.Runner()
    loop = runner.get_loop()
    watch = threading.Timer(LIMIT, loop.call_soon_threadsafe, (loop.stop,))
    watch.start()
    try:
        with contextlib.suppress(KeyboardInterrupt):
            try:
                runner.run(main(server, interrupt))
            finally:
                sys.settrace(None)
        with contextlib.suppress(KeyboardInterrupt):  # who waited for a task hears it once more
            runner.close()  # waits for all tasks; raises RuntimeError if it had to be stopped
    finally:
        watch.cancel()
        watch.join()


@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited:RuntimeWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_wherever_an_interrupt_strikes_the_pool_can_be_closed() -> None:
    at = 0
    while True:
        at += 1
        interrupt = Interrupt(at)
        run_and_interrupt(interrupt)
        if interrupt.left > 0:
            break  # the program came to its end before that line
    assert at > 100
