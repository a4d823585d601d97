"""The inner workings of asyncio and of Python that the core relies on, one test for each.

There is no way around any of them in the code. A test that fails here says what a new Python or a
new event loop does otherwise; `Used by` says where that matters.
"""

from __future__ import annotations

import asyncio
import socket
import sys
import types
from collections.abc import Callable, Generator
from types import FrameType
from typing import Any

import pytest

from jobu_db._aio.callsite import Callsite, note, where_asked
from jobu_db.pool.waiters import Queued


class StandIn:
    """As little of a future as asyncio's tasks ask for; it notes what that is."""

    def __init__(self) -> None:
        self._asyncio_future_blocking = True
        self.loop = asyncio.get_running_loop()
        self.asked: list[str] = []
        self.wake: Callable[[Any], None]
        self.context: Any = None
        self.error: BaseException | None = None

    def get_loop(self) -> asyncio.AbstractEventLoop:
        self.asked.append("get_loop")
        return self.loop

    def add_done_callback(self, callback: Callable[[Any], None], *, context: Any = None) -> None:
        self.asked.append("add_done_callback")
        self.wake, self.context = callback, context

    def wake_soon(self) -> None:
        """Wake the task by hand, as the loop would."""
        self.loop.call_soon(self.wake, self, context=self.context)

    def cancel(self, msg: Any = None) -> bool:
        """Refuse; but a canary that fails must not keep its loop from closing."""
        self.loop.call_later(1.0, self.wake_soon)
        self.asked.append(f"cancel({msg})")
        return False

    def result(self) -> None:
        self.asked.append("result")
        if self.error is not None:
            raise self.error


@types.coroutine
def shown(what: Any) -> Generator[Any, Any, Any]:
    """Let whoever steps this see `what`."""
    return (yield what)


async def wait_for(what: Any) -> Any:
    """Wait for `what` in a coroutine that a task takes."""
    return await shown(what)


@types.coroutine
def flag_of(future: asyncio.Future[Any]) -> Generator[Any, Any, Any]:
    """Await a future as `await` does, and return what it yields, unanswered."""
    return next(iter(future.__await__()))
    yield


async def passes(number: int) -> None:
    for _ in range(number):
        await asyncio.sleep(0)


async def wait_for_future(future: asyncio.Future[Any]) -> Any:
    return await future


# -- `_aio/stepper.py`


async def test_a_future_that_is_awaited_yields_itself_with_asyncio_future_blocking_true() -> None:
    """Used by: `Stepper.advance`, which takes the future up by setting it to False."""
    future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    assert future._asyncio_future_blocking is False
    assert await flag_of(future) is future, "`await future` yields something else than the future"
    assert future._asyncio_future_blocking is True, "`_asyncio_future_blocking` is not set"
    future.cancel()


async def test_a_task_is_awaited_as_a_future_is() -> None:
    """Used by: `Stepper.advance`."""
    task = asyncio.create_task(asyncio.sleep(0))
    assert await flag_of(task) is task, "`await task` yields something else than the task"
    assert task._asyncio_future_blocking is True, "`_asyncio_future_blocking` is not set"
    task._asyncio_future_blocking = False
    await task


def test_sleep_0_yields_none_once() -> None:
    """Used by: `Stepper.advance`, and `start` in `shield.py`, which takes this step itself."""
    sleeping = asyncio.sleep(0)
    assert sleeping.send(None) is None, "`asyncio.sleep(0)` yields something else than None"
    with pytest.raises(StopIteration):
        sleeping.send(None)


async def test_a_task_waits_for_whatever_looks_like_a_future() -> None:
    """Used by: `InnerStepper`, which has just what is asked for here."""
    stand_in = StandIn()
    task = asyncio.create_task(wait_for(stand_in))
    await passes(1)
    assert stand_in.asked == ["get_loop", "add_done_callback"] or stand_in.asked == [
        "add_done_callback"
    ], "a task asks something else of what it waits for"
    assert stand_in._asyncio_future_blocking is False, "a task no longer takes a future up"
    assert stand_in.context is not None, "a task no longer says in which context to call it back"
    stand_in.wake_soon()
    await task


async def test_what_a_cancelled_task_waits_for_may_refuse_and_the_task_hears_when_woken() -> None:
    """Used by: `_Shield.cancel`, which refuses and notes the cancellation."""
    stand_in = StandIn()
    task = asyncio.create_task(wait_for(stand_in))
    await passes(1)
    assert task.cancel("why")
    assert stand_in.asked[-1] == "cancel(why)", "Task.cancel() asks something else of the future"
    await passes(3)
    assert not task.done(), "a task is woken although what it waits for refused to be cancelled"
    stand_in.wake_soon()
    with pytest.raises(asyncio.CancelledError):
        await task


@pytest.mark.parametrize("error", [None, KeyError()])
async def test_a_tasks_wake_up_can_be_called_by_hand_and_asks_for_the_result(
    error: KeyError | None,
) -> None:
    """Used by: `_Shield._wake`, which wakes the caller from what is not done."""
    stand_in = StandIn()
    stand_in.error = error
    task = asyncio.create_task(wait_for(stand_in))
    await passes(1)
    stand_in.wake_soon()
    if error is None:
        await task
    else:
        with pytest.raises(KeyError):
            await task
    assert stand_in.asked[-1] == "result", "a task's wake-up does not ask for result()"


async def test_a_tasks_wake_up_stands_among_the_callbacks_of_what_it_waits_for() -> None:
    """Used by: `_Shield._wake`."""
    for future in (asyncio.get_running_loop().create_future(), asyncio.create_task(passes(9))):
        task = asyncio.create_task(wait_for_future(future))
        await passes(1)
        callbacks: Any = future._callbacks
        assert [callback.__self__ for callback, _ in callbacks] == [task], (
            "`_callbacks` holds no (callback, context), or no callback bound to the task"
        )
        assert future.remove_done_callback(callbacks[0][0]) == 1
        callbacks[0][1].run(asyncio.get_running_loop().call_soon, callbacks[0][0], future)
        future.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


async def test_a_future_calls_back_in_c_where_no_signal_is_heard() -> None:
    """Used by: `InnerStepper.run`; see there."""
    for future in (asyncio.get_running_loop().create_future(), asyncio.create_task(passes(1))):
        assert isinstance(future.add_done_callback, types.BuiltinMethodType), (
            "futures are written in Python"
        )
        assert isinstance(future.get_loop, types.BuiltinMethodType), "futures are in Python"


async def test_what_a_pass_of_the_loop_is() -> None:
    """Used by: `after_passes`. A callback that is asked for in one pass runs in the next, and the
    sockets are looked at in between."""
    loop, seen = asyncio.get_running_loop(), []
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setblocking(False)
        loop.add_reader(ours, lambda: seen.append("socket" if ours.recv(1) else "end"))
        await passes(3)
        theirs.send(b"x")
        for number in range(3):
            await passes(1)
            seen.append(f"pass {number}")
        loop.remove_reader(ours)
    assert "socket" in seen[:2], "call_soon() runs before the sockets were looked at"


# -- `_aio/shield.py`


async def test_a_coroutine_that_has_begun_can_be_made_a_task() -> None:
    """Used by: `start`."""
    begun: list[str] = []

    async def work() -> None:
        begun.append("begun")
        await asyncio.sleep(0)
        begun.append("ended")

    coroutine = work()
    coroutine.send(None)
    task = asyncio.Task(coroutine, loop=asyncio.get_running_loop())
    assert begun == ["begun"]
    await task
    assert begun == ["begun", "ended"], "a task begins with something else than send(None)"


async def test_a_task_cancelled_before_its_first_step_throws_into_its_coroutine() -> None:
    """Used by: `start`. What is cancelled while it runs hears of it at its next wait."""
    heard: list[str] = []

    async def work() -> None:
        try:
            await asyncio.sleep(0)
        except asyncio.CancelledError:
            heard.append("before the first step")
        task = asyncio.current_task()
        assert task is not None
        task.uncancel()
        task.cancel()
        heard.append("going on")
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            heard.append("at the next wait")

    coroutine = work()
    coroutine.send(None)
    task = asyncio.Task(coroutine, loop=asyncio.get_running_loop())
    task.cancel()
    await task
    assert heard == ["before the first step", "going on", "at the next wait"]


async def test_what_cancel_of_a_future_returns_and_does() -> None:
    """Used by: `_Shield.cut_off`, `InlineTask.cancel`, and `expire` of what is limited in time."""
    future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    assert future.cancel() is True, "a future that waits can no longer be cancelled"
    assert future.done(), "a cancelled future is not done at once"
    assert future.cancel() is False, "a future that is done can be cancelled"
    task = asyncio.create_task(asyncio.sleep(60))
    await passes(1)
    assert task.cancel() is True, "a task that waits can no longer be cancelled"
    assert not task.done(), "a task ends in cancel(), before the loop turns"
    with pytest.raises(asyncio.CancelledError):
        await task


# -- `pool/runner.py`


async def test_the_constructor_of_a_task_asks_no_factory_and_takes_no_step() -> None:
    """Used by: `PoolRunner._start`: a task that ended before the slot knows it would be lost."""
    loop, asked = asyncio.get_running_loop(), []
    steps: list[str] = []

    async def work() -> None:
        steps.append("first")

    def factory(
        loop: asyncio.AbstractEventLoop, coroutine: Any, **options: Any
    ) -> asyncio.Task[Any]:
        asked.append(coroutine)
        return asyncio.Task(coroutine, loop=loop, **options)

    loop.set_task_factory(factory)
    try:
        task = asyncio.Task(work(), loop=loop, name="a name")
    finally:
        loop.set_task_factory(None)
    assert asked == [], "asyncio.Task() asks the loop's factory"
    assert steps == [], "asyncio.Task() takes the first step at once"
    await task
    assert task.get_name() == "a name"


# -- `pool/waiters.py`


async def test_a_future_can_be_subclassed_with_slots_and_has_no_dict_then() -> None:
    """Used by: `Queued`, of which there are thousands."""
    loop = asyncio.get_running_loop()
    waiter: Queued[Any] = Queued(loop, where_asked(with_stack=False), 0.0, 1.0)
    assert not hasattr(waiter, "__dict__"), "a subclass of asyncio.Future has a __dict__"
    loop.call_soon(waiter.set_result, None)
    await waiter
    assert waiter.task is asyncio.current_task()


# -- `_aio/callsite.py`


async def test_the_frames_above_a_coroutine_are_those_that_await_it() -> None:
    """Used by: `where_asked`, which looks for the first frame outside the package."""

    async def inner() -> FrameType:
        return sys._getframe(1)

    async def outer() -> tuple[FrameType, FrameType]:
        return await inner(), sys._getframe()

    above, own = await outer()
    assert above is own, "sys._getframe(1) in a coroutine is not the frame that awaits it"


async def test_f_lasti_and_co_lines_tell_the_line() -> None:
    """Used by: `Callsite.place`."""
    place = _in_the_core()
    line = sys._getframe().f_lineno - 1
    told = Callsite(note(asyncio.current_task(), place)).place
    assert told == f"{__file__}:{line}", "f_lasti does not lead to the line any more"


def _in_the_core() -> Any:
    """`where_asked` looks above whoever wants to know."""
    return where_asked(with_stack=False)
