"""A coroutine that is stepped by hand does what it does when a task steps it."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import types
import weakref
from collections.abc import Awaitable, Callable, Coroutine, Generator
from typing import Any

import pytest

from jobu_db._aio.inline_task import InlineTask
from jobu_db._aio.stepper import PASSES, InnerStepper, after_passes
from jobu_db._aio.timeouts import TimeLimits

LIMIT = 10.0
Work = Coroutine[Any, Any, Any]


class FailureError(Exception):
    """An exception that can be referred to weakly."""


# -- ways to step a coroutine


async def in_a_task(work: Work) -> Any:
    return await asyncio.create_task(work)


async def by_hand(work: Work) -> Any:
    return await InnerStepper(work).run()


async def by_hand_twice(work: Work) -> Any:
    return await InnerStepper(by_hand(work)).run()


async def within_a_limit(work: Work) -> Any:
    return await TimeLimits().within(LIMIT, work)


async def without_a_task(work: Work) -> Any:
    """Return or raise what an `InlineTask` tells; and cancel that when this is cancelled."""
    told: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    results: list[Any] = []

    async def keep_result() -> None:
        results.append(await work)

    def ended(inline: InlineTask) -> None:
        error = inline.exception()
        if told.cancelled() or error is None:
            if not told.cancelled():
                told.set_result(results[0])
        elif inline.cancelled():
            told.cancel()
        else:
            told.set_exception(error)

    inline = InlineTask(keep_result(), ended)
    inline.step()
    while not told.done():
        try:
            await asyncio.shield(told)
        except asyncio.CancelledError:
            if told.done():
                raise
            inline.cancel()
    return told.result()


WAYS = [in_a_task, by_hand, by_hand_twice, within_a_limit, without_a_task]
every_way = pytest.mark.parametrize("way", WAYS, ids=[way.__name__ for way in WAYS])
Way = Callable[[Work], Awaitable[Any]]


# -- what coroutines do


@types.coroutine
def hand_made(what: Any) -> Generator[Any, Any, Any]:
    """Await in one's own way, and look at nothing afterwards."""
    if asyncio.isfuture(what):
        what._asyncio_future_blocking = True
    return (yield what)


def soon(what: Callable[[asyncio.Future[Any]], object]) -> asyncio.Future[Any]:
    """Return a future to which that is done in the next pass."""
    future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().call_soon(what, future)
    return future


async def returns() -> str:
    return "result"


async def waits() -> list[Any]:
    await asyncio.sleep(0)
    return [
        await soon(lambda future, result=number: future.set_result(result))  # type: ignore[misc]
        for number in range(3)
    ]


async def waits_for_what_is_done() -> Any:
    future = asyncio.get_running_loop().create_future()
    future.set_result("there already")
    return await future


async def waits_for_a_task() -> Any:
    return await asyncio.create_task(waits())


async def raises() -> None:
    raise FailureError("at once")


async def raises_later() -> None:
    await asyncio.sleep(0)
    raise FailureError("later")


async def hears_an_error() -> Any:
    try:
        await soon(lambda future: future.set_exception(FailureError("heard")))
    except FailureError as error:
        await asyncio.sleep(0)
        return error.args


async def hears_an_error_it_does_not_ask_for() -> Any:
    try:
        await hand_made(soon(lambda future: future.set_exception(FailureError("heard"))))
    except FailureError as error:
        return error.args


async def hears_a_cancellation() -> Any:
    try:
        await soon(lambda future: future.cancel())
    except asyncio.CancelledError:
        await asyncio.sleep(0)
        return "cancelled"


async def is_cancelled() -> None:
    await soon(lambda future: future.cancel())


async def hears_that_it_awaits_no_future() -> Any:
    try:
        await hand_made("a word")
    except RuntimeError:
        return await waits()


async def hears_that_it_does_not_await_a_future() -> Any:
    future = asyncio.get_running_loop().create_future()
    try:
        await _yielded(future)
    except RuntimeError:
        return "refused"


@types.coroutine
def _yielded(future: asyncio.Future[Any]) -> Generator[Any, Any, Any]:
    return (yield future)


async def raises_nothing_of_what_it_heard() -> Any:
    with contextlib.suppress(FailureError):
        await soon(lambda future: future.set_exception(FailureError("heard")))
    try:
        raise KeyError
    except KeyError as error:
        return error.__context__


PROGRAMS = [
    returns,
    waits,
    waits_for_what_is_done,
    waits_for_a_task,
    raises,
    raises_later,
    hears_an_error,
    hears_an_error_it_does_not_ask_for,
    hears_a_cancellation,
    is_cancelled,
    hears_that_it_awaits_no_future,
    hears_that_it_does_not_await_a_future,
    raises_nothing_of_what_it_heard,
]


async def outcome(awaitable: Awaitable[Any]) -> tuple[str, Any]:
    try:
        return "returned", await awaitable
    except (Exception, asyncio.CancelledError) as error:
        return type(error).__name__, error.args


@every_way
@pytest.mark.parametrize("program", PROGRAMS, ids=[program.__name__ for program in PROGRAMS])
async def test_every_program_ends_as_if_it_were_awaited(
    way: Way, program: Callable[[], Work]
) -> None:
    async with asyncio.timeout(LIMIT):
        assert await outcome(way(program())) == await outcome(program())


@every_way
async def test_a_cancelled_caller_cancels_the_work_where_it_waits(way: Way) -> None:
    heard: list[str] = []

    async def work() -> str:
        try:
            await asyncio.get_running_loop().create_future()
        except asyncio.CancelledError:
            heard.append("once")
        return "its own result"

    task = asyncio.ensure_future(way(work()))
    for _ in range(3):
        await asyncio.sleep(0)
    task.cancel()
    async with asyncio.timeout(LIMIT):
        assert await task == "its own result"
    assert heard == ["once"]


@every_way
async def test_an_error_that_comes_out_leaves_no_cycle(way: Way) -> None:
    gone: weakref.ref[FailureError]
    gc.collect()
    gc.disable()
    try:
        try:
            await way(raises_later())
        except FailureError as error:
            gone = weakref.ref(error)
        if way is without_a_task or way is in_a_task:
            return  # these keep the error, as tasks do
        assert gone() is None
    finally:
        gc.enable()


async def test_work_under_way_can_be_taken_over() -> None:
    async def work() -> list[str]:
        return [await first, await second]

    loop = asyncio.get_running_loop()
    first, second = loop.create_future(), loop.create_future()
    coroutine = work()
    stepper = InnerStepper(coroutine)
    stepper.advance()
    assert stepper.future is first
    rest = asyncio.ensure_future(by_hand_from(coroutine, stepper.future))
    await asyncio.sleep(0)
    first.set_result("a")
    await asyncio.sleep(0)
    second.set_result("b")
    assert await rest == ["a", "b"]


async def by_hand_from(work: Work, future: Any) -> Any:
    return await InnerStepper(work, future).run()


async def test_two_passes_are_made_first() -> None:
    loop, order = asyncio.get_running_loop(), []

    def chain(left: int) -> None:
        order.append(f"{left} left")
        if left:
            loop.call_soon(chain, left - 1)

    loop.call_soon(chain, PASSES - 1)
    after_passes(loop, order.append, "time is up")
    for _ in range(PASSES + 2):
        await asyncio.sleep(0)
    assert order == [*(f"{left} left" for left in reversed(range(PASSES))), "time is up"]
