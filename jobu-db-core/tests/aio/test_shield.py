"""Work that is run to its end: it starts at once and is not cut short, with or without a task."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Coroutine
from contextvars import ContextVar

import pytest

from jobu_db._aio.shield import Finished, start
from jobu_db._aio.shield import finish as finish_steps
from jobu_db._aio.timeouts import TimeLimits

LIMIT = 5.0
anyhow = pytest.mark.parametrize("taskless", [False, True])
HERE: ContextVar[str] = ContextVar("here", default="outside")


async def finish(
    work: Coroutine[None, None, None],
    limit: float = LIMIT,
    *,
    hurry: bool = False,
    taskless: bool = False,
) -> Finished:
    """Make it a coroutine that a task takes."""
    return await finish_steps(work, limit, hurry=hurry, taskless=taskless)


async def test_without_a_task_the_first_step_is_taken_before_the_loop_turns() -> None:
    steps: list[str] = []

    async def work() -> None:
        steps.append("first")
        await asyncio.sleep(0)
        steps.append("second")

    asyncio.get_running_loop().call_soon(steps.append, "turn")
    assert await finish(work(), taskless=True) == (None, None)
    assert steps == ["first", "turn", "second"]


async def test_all_steps_are_taken_by_one_task_that_is_not_the_callers() -> None:
    tasks: list[object] = []

    async def work() -> None:
        tasks.append(asyncio.current_task())
        await asyncio.sleep(0)
        tasks.append(asyncio.current_task())

    await finish(work())
    assert tasks[0] is tasks[1]
    assert tasks[0] is not asyncio.current_task()
    assert asyncio.current_task() is not None


async def test_all_steps_share_a_context_that_is_not_the_callers() -> None:
    async def work() -> None:
        token = HERE.set("inside")
        await asyncio.sleep(0)
        assert HERE.get() == "inside"
        HERE.reset(token)

    assert await finish(work()) == (None, None)
    assert HERE.get() == "outside"


@pytest.mark.parametrize("seconds", [0, 0.001])
async def test_a_timeout_inside_the_work_is_the_works_own(seconds: float) -> None:
    async def work() -> None:
        async with asyncio.timeout(seconds):
            await asyncio.sleep(60)

    error, cancelled = await finish(work())
    assert isinstance(error, TimeoutError)
    assert cancelled is None
    current = asyncio.current_task()
    assert current is not None
    assert current.cancelling() == 0


@anyhow
@pytest.mark.parametrize("turns", [0, 1])
async def test_an_error_is_told_not_raised_in_the_first_step_and_later(
    turns: int, taskless: bool
) -> None:
    async def work() -> None:
        for _ in range(turns):
            await asyncio.sleep(0)
        raise KeyError

    error, cancelled = await finish(work(), taskless=taskless)
    assert isinstance(error, KeyError)
    assert cancelled is None


@anyhow
async def test_a_cancelled_caller_comes_back_when_the_work_is_over(taskless: bool) -> None:
    waiting = asyncio.get_running_loop().create_future()

    async def work() -> None:
        await waiting

    task = asyncio.create_task(finish(work(), taskless=taskless))
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

    task = asyncio.create_task(finish(work()))
    await asyncio.sleep(0)
    waiting.set_result(None)
    error, cancelled = await task
    assert error is None
    assert cancelled is not None


async def test_a_cancellation_in_the_last_step_reaches_what_the_caller_does_next() -> None:
    waiting = asyncio.get_running_loop().create_future()
    ended: list[Finished] = []

    async def work() -> None:
        await waiting
        task.cancel()

    async def caller() -> None:
        ended.append(await finish(work(), taskless=True))
        await asyncio.sleep(0)

    task = asyncio.create_task(caller())
    await asyncio.sleep(0)
    waiting.set_result(None)
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ended == [(None, None)]


async def test_without_a_task_all_is_done_in_the_callers() -> None:
    tasks: list[object] = []

    async def work() -> None:
        tasks.append(asyncio.current_task())
        await asyncio.get_running_loop().create_task(asyncio.sleep(0))
        tasks.append(asyncio.current_task())

    await finish(work(), taskless=True)
    assert tasks == [asyncio.current_task()] * 2


@anyhow
async def test_a_cancelled_caller_of_work_that_fails_hears_of_both(taskless: bool) -> None:
    waiting = asyncio.get_running_loop().create_future()

    async def work() -> None:
        await waiting

    task = asyncio.create_task(finish(work(), taskless=taskless))
    await asyncio.sleep(0)
    task.cancel()
    waiting.set_exception(KeyError())
    error, cancelled = await task
    assert isinstance(error, KeyError)
    assert cancelled is not None


@anyhow
async def test_a_caller_that_is_cancelled_waits_no_longer_than_the_limit(taskless: bool) -> None:
    wound_up = asyncio.Event()

    async def work() -> None:
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            await asyncio.sleep(0)
            wound_up.set()

    task = asyncio.create_task(finish(work(), 0.01, taskless=taskless))
    await asyncio.sleep(0)
    task.cancel()
    async with asyncio.timeout(LIMIT):
        error, cancelled = await task
        assert isinstance(error, TimeoutError)
        assert cancelled is not None
        await wound_up.wait()


@anyhow
async def test_work_that_cannot_be_cancelled_is_given_up_all_the_same(taskless: bool) -> None:
    release = asyncio.Event()

    async def stubborn() -> None:
        while not release.is_set():
            try:
                await release.wait()
            except asyncio.CancelledError:
                continue

    async def work() -> None:
        await asyncio.get_running_loop().create_task(stubborn())

    async with asyncio.timeout(LIMIT):
        error, _ = await finish(work(), 0.01, hurry=True, taskless=taskless)
    assert isinstance(error, TimeoutError)
    release.set()
    await asyncio.sleep(0)


@anyhow
async def test_a_timeout_around_it_waits_for_the_work_and_then_takes_effect(taskless: bool) -> None:
    loop = asyncio.get_running_loop()
    waiting, caller = loop.create_future(), asyncio.current_task()

    async def work() -> None:
        await waiting

    def go_on() -> None:
        """Let the work end once the limit has struck."""
        assert caller is not None
        if caller.cancelling():
            waiting.set_result(None)
        else:
            loop.call_later(0.001, go_on)

    loop.call_soon(go_on)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.001):
            error, cancelled = await finish(work(), taskless=taskless)
            assert error is None
            assert cancelled is not None
            raise cancelled


async def test_limits_within_the_work_count_also_where_the_caller_is_shielded() -> None:
    async def work() -> None:
        await TimeLimits().within(0.001, asyncio.sleep(60))

    error, cancelled = await finish(work(), taskless=True)
    assert isinstance(error, TimeoutError)
    assert cancelled is None


async def test_a_limit_counts_also_for_work_that_only_lets_others_run() -> None:
    ended: list[str] = []

    async def work() -> None:
        for _ in range(1_000_000):
            await asyncio.sleep(0)
        ended.append("not cut off")

    error, cancelled = await finish(TimeLimits().within(0.001, work()), taskless=True)
    assert isinstance(error, TimeoutError)
    assert cancelled is None
    assert ended == []


@anyhow
async def test_what_is_given_up_is_cancelled(taskless: bool) -> None:
    cut_off = asyncio.Event()

    async def work() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            cut_off.set()

    error, cancelled = await finish(work(), 0.01, hurry=True, taskless=taskless)
    assert isinstance(error, TimeoutError)
    assert cancelled is None
    await asyncio.wait_for(cut_off.wait(), LIMIT)


@anyhow
async def test_time_that_is_up_together_with_an_answer_is_up_for_the_next_wait(
    taskless: bool,
) -> None:
    loop = asyncio.get_running_loop()
    answer = loop.create_future()
    heard: list[str] = []

    async def work() -> None:
        heard.append(await answer)
        await asyncio.sleep(60)

    def be_late() -> None:
        time.sleep(0.01)
        loop.call_soon(answer.set_result, "answer")  # just before the timer, which is due now

    loop.call_soon(be_late)
    async with asyncio.timeout(LIMIT):
        error, cancelled = await finish(work(), 0.001, hurry=True, taskless=taskless)
    assert isinstance(error, TimeoutError)
    assert cancelled is None
    if taskless:
        assert heard == ["answer"]


@anyhow
async def test_an_answer_that_arrived_while_the_loop_was_busy_is_in_time(taskless: bool) -> None:
    loop = asyncio.get_running_loop()
    ours, theirs = socket.socketpair()
    heard: list[bytes] = []

    async def work() -> None:
        heard.append(await loop.sock_recv(ours, 6))

    def be_busy() -> None:
        time.sleep(0.05)
        theirs.send(b"answer")

    with ours, theirs:
        ours.setblocking(False)
        # In a task the work begins a pass later.
        loop.call_soon(loop.call_soon, be_busy)
        assert await finish(work(), 0.01, hurry=True, taskless=taskless) == (None, None)
    assert heard == [b"answer"]


async def test_work_that_was_just_started_hears_of_a_cancellation() -> None:
    heard: list[str] = []

    async def work() -> None:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            heard.append("cancelled")
            raise

    task = start(work(), asyncio.get_running_loop())
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert heard == ["cancelled"]


@anyhow
async def test_an_answer_that_comes_after_giving_up_does_not_let_the_work_go_on(
    taskless: bool,
) -> None:
    answer = asyncio.get_running_loop().create_future()
    went_on: list[str] = []

    async def work() -> None:
        await answer
        went_on.append("went on")

    error, _ = await finish(work(), 0.001, hurry=True, taskless=taskless)
    if not answer.done():  # before the loop turns
        answer.set_result(None)
    await asyncio.sleep(0.01)
    assert isinstance(error, TimeoutError)
    assert went_on == []


@anyhow
def test_the_end_of_the_program_cancels_the_caller_while_no_loop_runs(taskless: bool) -> None:
    ended: list[Finished] = []

    async def caller() -> None:
        ended.append(await finish(asyncio.sleep(0.01), taskless=taskless))

    async def main() -> None:
        callers.append(asyncio.create_task(caller()))
        await asyncio.sleep(0)

    callers: list[asyncio.Task[None]] = []
    asyncio.run(main())
    assert isinstance(ended[0].cancelled, asyncio.CancelledError)


@anyhow
def test_the_end_of_the_program_keeps_no_work_from_beginning(taskless: bool) -> None:
    steps: list[str] = []

    async def work() -> None:
        steps.append("begun")
        try:
            await asyncio.sleep(0)
        finally:
            steps.append("given back")

    async def main() -> None:
        callers.append(asyncio.create_task(finish(work(), taskless=taskless)))
        await asyncio.sleep(0)  # where it needs a task, that has been made, and is yet to run

    callers: list[asyncio.Task[Finished]] = []
    asyncio.run(main())
    assert steps == ["begun", "given back"]


@anyhow
def test_what_is_given_up_winds_up_even_at_the_end_of_the_program(taskless: bool) -> None:
    steps: list[str] = []

    async def work() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                steps.append("heard")
                raise

    async def main() -> None:
        error, _ = await finish(work(), 0.01, hurry=True, taskless=taskless)
        assert isinstance(error, TimeoutError)
        if not taskless:
            await asyncio.sleep(0)  # in a task of its own it hears once of being given up

    asyncio.run(main())
    assert steps == ["heard"]
