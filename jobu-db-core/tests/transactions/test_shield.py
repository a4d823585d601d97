"""Work that is run to its end: it starts at once, in a task of its own, and is not cut short."""

from __future__ import annotations

import asyncio
from contextvars import ContextVar

import pytest

from jobu_db._shield import finish

LIMIT = 5.0
HERE: ContextVar[str] = ContextVar("here", default="outside")


async def test_the_first_step_is_taken_before_the_loop_turns() -> None:
    steps: list[str] = []

    async def work() -> None:
        steps.append("first")
        await asyncio.sleep(0)
        steps.append("second")

    asyncio.get_running_loop().call_soon(steps.append, "turn")
    assert await finish(work(), LIMIT) == (None, None)
    assert steps == ["first", "turn", "second"]


async def test_all_steps_are_taken_by_one_task_that_is_not_the_callers() -> None:
    tasks: list[object] = []

    async def work() -> None:
        tasks.append(asyncio.current_task())
        await asyncio.sleep(0)
        tasks.append(asyncio.current_task())

    await finish(work(), LIMIT)
    assert tasks[0] is tasks[1]
    assert tasks[0] is not asyncio.current_task()
    assert asyncio.current_task() is not None


async def test_all_steps_share_a_context_that_is_not_the_callers() -> None:
    async def work() -> None:
        token = HERE.set("inside")
        await asyncio.sleep(0)
        assert HERE.get() == "inside"
        HERE.reset(token)

    assert await finish(work(), LIMIT) == (None, None)
    assert HERE.get() == "outside"


@pytest.mark.parametrize("seconds", [0, 0.001])
async def test_a_timeout_inside_the_work_is_the_works_own(seconds: float) -> None:
    async def work() -> None:
        async with asyncio.timeout(seconds):
            await asyncio.sleep(60)

    error, cancelled = await finish(work(), LIMIT)
    assert isinstance(error, TimeoutError)
    assert cancelled is None
    current = asyncio.current_task()
    assert current is not None
    assert current.cancelling() == 0


@pytest.mark.parametrize("turns", [0, 1])
async def test_an_error_is_told_not_raised_in_the_first_step_and_later(turns: int) -> None:
    async def work() -> None:
        for _ in range(turns):
            await asyncio.sleep(0)
        raise KeyError

    error, cancelled = await finish(work(), LIMIT)
    assert isinstance(error, KeyError)
    assert cancelled is None


async def test_a_cancelled_caller_comes_back_when_the_work_is_over() -> None:
    waiting = asyncio.get_running_loop().create_future()

    async def work() -> None:
        await waiting

    task = asyncio.create_task(finish(work(), LIMIT))
    await asyncio.sleep(0)
    assert task.cancel("first")
    task.cancel("second")
    await asyncio.sleep(0.01)
    assert not task.done()
    waiting.set_result(None)
    error, cancelled = await task
    assert error is None
    assert cancelled is not None
    assert cancelled.args == ("first",)


async def test_a_cancellation_together_with_the_end_is_not_lost() -> None:
    waiting = asyncio.get_running_loop().create_future()

    async def work() -> None:
        await waiting
        task.cancel()

    task = asyncio.create_task(finish(work(), LIMIT))
    await asyncio.sleep(0)
    waiting.set_result(None)
    error, cancelled = await task
    assert error is None
    assert cancelled is not None


async def test_what_is_given_up_is_cancelled() -> None:
    cut_off = asyncio.Event()

    async def work() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            cut_off.set()

    error, cancelled = await finish(work(), 0.01, hurry=True)
    assert isinstance(error, TimeoutError)
    assert cancelled is None
    await asyncio.wait_for(cut_off.wait(), LIMIT)
