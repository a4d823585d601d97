"""Coroutines that run without a task: each rule of the task that they must keep by themselves."""

from __future__ import annotations

import asyncio
import types
from collections.abc import Coroutine, Generator
from typing import Any

import pytest

from jobu_db._aio.inline_task import InlineTask
from jobu_db._aio.timeouts import TimeLimits


class Told:
    """What became of the work.

    Attributes:
        steps: Those that have ended, once for each time that it was told.
    """

    def __init__(self) -> None:
        self.steps: list[InlineTask] = []

    def start(self, work: Coroutine[Any, Any, None]) -> InlineTask:
        steps = InlineTask(work, self.steps.append)
        steps.step()
        return steps


async def turns(number: int = 3) -> None:
    for _ in range(number):
        await asyncio.sleep(0)


async def for_ever() -> None:
    await asyncio.get_running_loop().create_future()


@types.coroutine
def hand_made(what: Any) -> Generator[Any, Any, Any]:
    """Await in one's own way, and look at nothing afterwards."""
    if asyncio.isfuture(what):
        what._asyncio_future_blocking = True
    return (yield what)


async def test_work_that_waits_for_nothing_is_over_at_once() -> None:
    async def work() -> None:
        return

    told = Told()
    steps = told.start(work())
    assert told.steps == [steps]
    assert (steps.cancelled(), steps.exception()) == (False, None)


async def test_the_first_step_is_taken_at_once_and_the_next_when_the_future_is_done() -> None:
    seen: list[Any] = []
    future: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def work() -> None:
        seen.append("sent")
        seen.append(await future)
        await asyncio.sleep(0)

    told = Told()
    steps = told.start(work())
    assert seen == ["sent"]
    future.set_result("answer")
    await turns()
    assert seen == ["sent", "answer"]
    assert told.steps == [steps]


async def test_a_future_can_be_waited_for_by_others_too() -> None:
    future: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def work() -> None:
        await future

    told = Told()
    steps, more = told.start(work()), told.start(work())
    task = asyncio.create_task(work())
    await turns(1)
    future.set_result(None)
    await task
    assert told.steps == [steps, more]
    assert [one.exception() for one in told.steps] == [None, None]


@pytest.mark.parametrize("wait", ["await", "hand-made"])
async def test_what_a_future_raises_is_raised_in_the_work(wait: str) -> None:
    future: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def work() -> None:
        await (future if wait == "await" else hand_made(future))

    told = Told()
    steps = told.start(work())
    future.set_exception(KeyError("lost"))
    await turns()
    assert told.steps == [steps]
    assert isinstance(steps.exception(), KeyError)


async def test_whatever_is_no_future_is_refused() -> None:
    async def work() -> None:
        await hand_made("a word")

    told = Told()
    steps = told.start(work())
    await turns()
    assert told.steps == [steps]
    assert "awaits 'a word'" in str(steps.exception())


@pytest.mark.parametrize("where", ["at a future", "at a future that is done", "between turns"])
async def test_a_cancellation_is_raised_where_the_work_waits(where: str) -> None:
    future: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def work() -> None:
        if where == "between turns":
            await asyncio.sleep(0)
        else:
            await future
        raise AssertionError("it went on")

    told = Told()
    steps = told.start(work())
    if where == "at a future that is done":
        future.set_result(None)
    steps.cancel()
    await turns()
    assert told.steps == [steps]
    assert steps.cancelled()


async def test_a_cancellation_during_a_step_is_raised_where_it_waits_next() -> None:
    future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    told = Told()
    all_steps: list[InlineTask] = []

    async def work() -> None:
        await asyncio.sleep(0)
        all_steps[0].cancel()
        await future

    all_steps.append(told.start(work()))
    await turns()
    assert told.steps == all_steps
    assert future.cancelled()


async def test_it_can_be_limited_in_time() -> None:
    over = asyncio.Event()
    steps = InlineTask(_limited(0.001, for_ever()), lambda _: over.set())
    steps.step()
    async with asyncio.timeout(10):
        await over.wait()
    assert isinstance(steps.exception(), TimeoutError)


async def _limited(seconds: float, work: Coroutine[Any, Any, None]) -> None:
    await TimeLimits().within(seconds, work)


async def test_what_is_not_for_the_work_to_report_is_raised_after_the_end_was_told() -> None:
    async def work() -> None:
        raise KeyboardInterrupt

    told = Told()
    with pytest.raises(KeyboardInterrupt):
        told.start(work())
    assert len(told.steps) == 1
