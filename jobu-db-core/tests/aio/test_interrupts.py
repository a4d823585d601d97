"""Ctrl-C twice: the second one strikes anywhere, and the program ends all the same."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import threading
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

import jobu_db._aio
from jobu_db._aio.shield import finish
from jobu_db._aio.timeouts import TimeLimits

HERE = str(Path(jobu_db._aio.__file__).parent)
LIMIT = 30.0


class Interrupt:
    """Raises `KeyboardInterrupt` at one line of the package, counted in the order they run."""

    def __init__(self, at: int) -> None:
        self.left = at

    def __call__(self, frame: FrameType, event: str, _: Any) -> Any:
        if frame.f_code.co_filename.startswith(HERE):
            return self.line
        return None

    def line(self, frame: FrameType, event: str, _: Any) -> Any:
        if event == "line":
            self.left -= 1
            if self.left == 0:
                sys.settrace(None)
                raise KeyboardInterrupt
        return self.line


async def work(limits: TimeLimits) -> None:
    async def answer() -> None:
        await asyncio.sleep(0)
        await asyncio.sleep(0.001)

    await limits.within(LIMIT, answer())


def run_and_interrupt(interrupt: Interrupt, *, taskless: bool) -> None:
    """Run a program until it ends or is interrupted, and close its loop, as `asyncio.run` does."""

    async def caller() -> None:
        await finish(work(TimeLimits()), 0.01, taskless=taskless)

    async def main() -> None:
        callers = [asyncio.create_task(caller()) for _ in range(2)]
        sys.settrace(interrupt)
        await asyncio.gather(*callers)

    runner = asyncio.Runner()
    loop = runner.get_loop()
    watch = threading.Timer(LIMIT, loop.call_soon_threadsafe, (loop.stop,))
    watch.start()
    try:
        with contextlib.suppress(KeyboardInterrupt):
            try:
                runner.run(main())
            finally:
                sys.settrace(None)
        with contextlib.suppress(KeyboardInterrupt):  # who waited for a task hears it once more
            runner.close()  # waits for all tasks; raises RuntimeError if it had to be stopped
    finally:
        watch.cancel()
        watch.join()


@pytest.mark.parametrize("taskless", [False, True])
def test_wherever_an_interrupt_strikes_the_loop_can_be_closed(taskless: bool) -> None:
    at = 0
    while True:
        at += 1
        interrupt = Interrupt(at)
        run_and_interrupt(interrupt, taskless=taskless)
        if interrupt.left > 0:
            break  # the program came to its end before that line
    assert at > 50
