"""Cancel a scenario at each of its awaits in turn, and once more while it cleans up."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Generator
from functools import partial
from pathlib import Path
from typing import Any

Scenario = Callable[[], Coroutine[Any, Any, object]]
Check = Callable[[], Awaitable[object]]


async def cancel_at_every_await(scenario: Scenario, check: Check, *, limit: float = 10.0) -> int:
    """Run a scenario again and again, each time cancelled at another await.

    Each await is cancelled as it begins, and just as it ends, when what was awaited is there
    already. Each run is repeated with a second cancellation at every await that is left.

    Args:
        scenario: Makes a new coroutine for each run; it must end by itself.
        check: Awaited after each run: raises if something was lost, or cannot be used any more.
        limit: Seconds after which a run counts as hung.

    Returns:
        How many awaits the scenario has.

    Raises:
        AssertionError: A cancellation did not reach the caller, a run hung, or `check` failed;
            it names the awaits.
    """
    # Once without a cancellation, which tells how many awaits there are.
    awaits = await _run(scenario, check, limit, (), late=False)
    for late in (False, True):
        for first in range(1, awaits + 1):
            # Cleaning up has awaits of its own: each run says how many there are after this one.
            left = await _run(scenario, check, limit, (first,), late=late)
            for second in range(first + 1, left + 1):
                await _run(scenario, check, limit, (first, second), late=late)
    return awaits


async def _run(
    scenario: Scenario, check: Check, limit: float, cancel_at: tuple[int, ...], *, late: bool
) -> int:
    watched = _Watched(scenario(), cancel_at, late=late)
    task = asyncio.create_task(watched.run())
    done, _ = await asyncio.wait({task}, timeout=limit)
    if not done:
        raise AssertionError(f"hung for {limit:g} s, {watched}")
    if not watched.places:
        task.result()
    elif not task.cancelled():
        error = task.exception()
        raise AssertionError(f"the cancellation became {error!r}, {watched}") from error
    try:
        await check()
    except Exception as error:
        raise AssertionError(f"{error!r}, {watched}") from error
    return watched.awaits


class _Watched:
    """A coroutine whose awaits are counted, and some of them cancelled.

    Attributes:
        awaits: How many there were so far.
        places: Where it was cancelled.
    """

    def __init__(
        self, coroutine: Coroutine[Any, Any, object], cancel_at: tuple[int, ...], *, late: bool
    ) -> None:
        self.awaits = 0
        self.places: list[str] = []
        self._coroutine = coroutine
        self._cancel_at = cancel_at
        self._late = late

    async def run(self) -> object:
        return await self

    def __await__(self) -> Generator[Any, Any, object]:
        # Stepped by hand, so that each future is seen before the task waits for it: only so can it
        # be cancelled at one particular await, and at its beginning or its end.
        resume: Callable[[], Any] = partial(self._coroutine.send, None)
        while True:
            try:
                awaited = resume()
            except StopIteration as end:
                return end.value
            self._arrived(awaited)
            try:
                yield awaited
            except BaseException as error:
                resume = partial(self._coroutine.throw, error)
            else:
                resume = partial(self._coroutine.send, None)

    def _arrived(self, awaited: Any) -> None:
        self.awaits += 1
        if self.awaits not in self._cancel_at:
            return
        self.places.append(f"await {self.awaits} at {_place(self._coroutine)}")
        task = asyncio.current_task()
        assert task is not None
        if self._late and asyncio.isfuture(awaited):
            # Called before the task's own callback, which is added later.
            awaited.add_done_callback(lambda _: task.cancel())
        else:
            task.cancel()

    def __str__(self) -> str:
        when = "just as it ended" if self._late else "as it began"
        return f"cancelled {when}: {', '.join(self.places)}" if self.places else "not cancelled"


def _place(awaiting: Any) -> str:
    place = "?"
    while awaiting is not None:
        frame = getattr(awaiting, "cr_frame", None) or getattr(awaiting, "gi_frame", None)
        if frame is not None:
            place = f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno}"
        awaiting = getattr(awaiting, "cr_await", None) or getattr(awaiting, "gi_yieldfrom", None)
    return place
