"""Ctrl-C twice: the second one strikes anywhere, and the program ends all the same."""

from __future__ import annotations

import asyncio

import pytest
from interrupts import LIMIT, Interrupt, strike_every_line

import jobu_db._aio
from jobu_db._aio.shield import finish
from jobu_db._aio.timeouts import TimeLimits


async def work(limits: TimeLimits) -> None:
    async def answer() -> None:
        await asyncio.sleep(0)
        await asyncio.sleep(0.001)

    await limits.within(LIMIT, answer())


@pytest.mark.parametrize("taskless", [False, True])
def test_wherever_an_interrupt_strikes_the_loop_can_be_closed(taskless: bool) -> None:
    async def caller() -> None:
        await finish(work(TimeLimits()), 0.01, taskless=taskless)

    async def main(interrupt: Interrupt) -> None:
        callers = [asyncio.create_task(caller()) for _ in range(2)]
        interrupt.start()
        await asyncio.gather(*callers)

    assert strike_every_line(jobu_db._aio, main) > 50
