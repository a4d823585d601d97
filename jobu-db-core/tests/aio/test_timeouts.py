"""A limit in time that cancels what is waited for, not the task."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from jobu_db._aio.timeouts import LimitedTask, TimeLimits

LONG, SHORT = 5.0, 0.001


Within = Callable[..., Coroutine[Any, Any, Any]]


async def in_a_task(
    seconds: float, work: Coroutine[Any, Any, Any], limits: TimeLimits | None = None
) -> Any:
    """Limit work inside the task that runs already."""
    return await (limits or TimeLimits()).within(seconds, work)


async def in_line(
    seconds: float, work: Coroutine[Any, Any, Any], limits: TimeLimits | None = None
) -> Any:
    """Limit work that has no task, and wait for its end."""
    results: list[Any] = []

    async def keep() -> None:
        results.append(await work)

    over: asyncio.Future[LimitedTask] = asyncio.get_running_loop().create_future()
    line = LimitedTask(keep(), over.set_result, limits or TimeLimits())
    line.begin(seconds)
    try:
        await asyncio.wait({over})
    except asyncio.CancelledError:
        line.cancel()
        await asyncio.wait({over})
    assert over.result() is line
    if (error := line.exception()) is not None:
        assert line.cancelled() == isinstance(error, asyncio.CancelledError)
        raise error
    return results[0]


@pytest.fixture(params=[in_a_task, in_line], ids=["in_a_task", "in_line"])
def within(request: pytest.FixtureRequest) -> Within:
    """Both ways to limit work in time."""
    way: Within = request.param
    return way


def cancelling() -> int:
    """Return how many cancellations are asked of this task."""
    task = asyncio.current_task()
    assert task is not None
    return task.cancelling()


@pytest.mark.parametrize("turns", [0, 1, 3])
async def test_what_ends_in_time_returns_its_result(turns: int, within: Within) -> None:
    async def work() -> str:
        for _ in range(turns):
            await asyncio.sleep(0)
        return "result"

    assert await within(LONG, work()) == "result"


@pytest.mark.parametrize("turns", [0, 1])
async def test_what_fails_in_time_raises_its_error(turns: int, within: Within) -> None:
    async def work() -> None:
        for _ in range(turns):
            await asyncio.sleep(0)
        raise KeyError

    with pytest.raises(KeyError):
        await within(LONG, work())


async def test_work_that_takes_too_long_is_cancelled_and_the_task_is_not(within: Within) -> None:
    heard: list[BaseException] = []

    async def work() -> None:
        try:
            await asyncio.get_running_loop().create_future()
        except BaseException as error:
            heard.append(error)
            raise

    async with asyncio.timeout(LONG):
        with pytest.raises(TimeoutError, match=r"^$"):
            await within(SHORT, work())
    assert [type(error) for error in heard] == [asyncio.CancelledError]
    assert cancelling() == 0
    await asyncio.sleep(0)


async def test_work_that_only_turns_is_cancelled_too(within: Within) -> None:
    async def work() -> None:
        while True:  # noqa: ASYNC110 that is the case
            await asyncio.sleep(0)

    async with asyncio.timeout(LONG):
        with pytest.raises(TimeoutError, match=r"^$"):
            await within(SHORT, work())


async def test_an_answer_that_comes_as_time_ends_is_heard_and_the_next_wait_cancelled(
    within: Within,
) -> None:
    loop, heard = asyncio.get_running_loop(), []
    answer: asyncio.Future[str] = loop.create_future()

    async def work() -> None:
        heard.append(await answer)
        await asyncio.sleep(60)

    def be_late() -> None:
        time.sleep(10 * SHORT)
        loop.call_soon(answer.set_result, "answer")  # just before the timer, which is due now

    loop.call_soon(be_late)
    async with asyncio.timeout(LONG):
        with pytest.raises(TimeoutError, match=r"^$"):
            await within(SHORT, work())
    assert heard == ["answer"]


def after_being_late(passes: int, callback: Callable[[], object]) -> None:
    """Let the loop be busy until SHORT is over, and call back some passes later."""
    loop = asyncio.get_running_loop()

    def chain(left: int) -> None:
        if left:
            loop.call_soon(chain, left - 1)
        else:
            callback()

    def be_late() -> None:
        time.sleep(10 * SHORT)
        loop.call_soon(chain, passes)

    loop.call_soon(be_late)


@pytest.mark.parametrize("passes", [0, 1])
async def test_an_answer_within_two_passes_of_the_end_is_in_time(
    passes: int, within: Within
) -> None:
    answer: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def work() -> str:
        return await answer

    after_being_late(passes, lambda: answer.set_result("answer"))
    assert await within(SHORT, work()) == "answer"
    await asyncio.sleep(10 * SHORT)  # and nothing is cancelled later


async def test_an_answer_that_arrived_while_the_loop_was_busy_is_in_time(within: Within) -> None:
    ours, theirs = socket.socketpair()
    with theirs:
        reader, writer = await asyncio.open_connection(sock=ours)
        after_being_late(0, lambda: theirs.send(b"answer"))
        assert await within(SHORT, reader.readexactly(6)) == b"answer"
        writer.close()
        await writer.wait_closed()


@pytest.mark.parametrize("passes", range(6))
async def test_whenever_an_answer_comes_as_time_ends_the_next_wait_is_cancelled(
    passes: int, within: Within
) -> None:
    answer: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    heard: list[str] = []

    async def work() -> None:
        heard.append(await answer)
        await asyncio.sleep(60)

    after_being_late(passes, lambda: None if answer.done() else answer.set_result("answer"))
    async with asyncio.timeout(LONG):
        with pytest.raises(TimeoutError, match=r"^$"):
            await within(SHORT, work())
    assert heard == (["answer"] if answer.done() and not answer.cancelled() else [])


async def test_work_that_makes_something_else_of_its_time_being_up_is_heard(within: Within) -> None:
    async def work() -> None:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            raise KeyError from None

    with pytest.raises(KeyError):
        await within(SHORT, work())


@pytest.mark.parametrize("limit", [LONG, SHORT])
async def test_a_cancelled_task_is_cancelled_whatever_the_limit(
    limit: float, within: Within
) -> None:
    blocked = asyncio.Event()

    async def work() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            blocked.set()
            await asyncio.sleep(0.01)

    task = asyncio.create_task(within(limit, work()))
    if limit == SHORT:
        await blocked.wait()
    else:
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_cancellation_by_something_else_is_no_timeout(within: Within) -> None:
    waiting = asyncio.get_running_loop().create_future()

    async def work() -> None:
        await waiting

    task = asyncio.create_task(within(LONG, work()))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_limits_nest_and_the_shorter_one_counts() -> None:
    limits = TimeLimits()

    async def work(seconds: float) -> None:
        await limits.within(seconds, asyncio.sleep(60))

    with pytest.raises(TimeoutError):
        await limits.within(SHORT, work(LONG))
    with pytest.raises(TimeoutError):
        await limits.within(LONG, work(SHORT))


async def test_each_ends_at_its_own_time_whatever_the_order() -> None:
    limits, ended = TimeLimits(), []

    async def one(seconds: float) -> None:
        with pytest.raises(TimeoutError):
            await limits.within(seconds, asyncio.sleep(60))
        ended.append(seconds)

    times = [0.15, 0.05, 0.1, 0.0, 0.2]
    async with asyncio.timeout(LONG):
        await asyncio.gather(*map(one, times), limits.within(LONG, asyncio.sleep(0)))
    assert ended == sorted(times)


async def test_many_limits_have_one_timer(monkeypatch: pytest.MonkeyPatch, within: Within) -> None:
    limits, loop = TimeLimits(), asyncio.get_running_loop()
    waiting = loop.create_future()

    async def work() -> None:
        await waiting

    timers: list[float] = []
    call_later = loop.call_later

    def counted(delay: float, *rest: Any, **options: Any) -> asyncio.TimerHandle:
        timers.append(delay)
        return call_later(delay, *rest, **options)

    monkeypatch.setattr(loop, "call_later", counted)
    tasks = [asyncio.create_task(within(LONG, work(), limits)) for _ in range(100)]
    await asyncio.sleep(0)
    assert len(timers) == 1
    waiting.set_result(None)
    await asyncio.gather(*tasks)
