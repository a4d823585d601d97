"""A limit in time that leaves the task alone: it cancels what is waited for."""

from __future__ import annotations

import asyncio
import types
from collections.abc import Coroutine, Generator
from typing import Any, TypeVar

from jobu_db._stand_in import StandIn

T = TypeVar("T")


@types.coroutine
def within(seconds: float, work: Coroutine[Any, Any, T]) -> Generator[Any, Any, T]:
    """Run work; time is limited from where it first waits for something.

    Unlike `asyncio.timeout` it works in any task, and outside one, and costs less.

    Raises:
        TimeoutError: It did not end in time, and was cancelled.
    """
    limit = None
    try:
        waits_for = work.send(None)
        limit = _Limit(seconds)
        while True:
            try:
                yield limit.before(waits_for)
            except BaseException as error:
                waits_for = work.throw(error)
            else:
                waits_for = work.send(None)
    except StopIteration as end:
        result: T = end.value
        return result
    except asyncio.CancelledError as error:
        if limit is None or not limit.alone:
            raise
        raise TimeoutError from error
    finally:
        if limit is not None:
            limit.timer.cancel()


class _Limit(StandIn):
    """Cancels the future when time is up.

    Attributes:
        alone: Nothing but this limit cancelled it.
    """

    __slots__ = ("alone", "timer")

    def __init__(self, seconds: float) -> None:
        self.alone = False
        self.timer = asyncio.get_running_loop().call_later(seconds, self._expire)

    def _expire(self) -> None:
        self.alone = self.future.cancel()

    def cancel(self, msg: Any = None) -> bool:
        """The task is cancelled, and that counts whatever the limit did."""
        self.alone = False
        return super().cancel(msg)
