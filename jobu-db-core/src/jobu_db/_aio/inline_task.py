"""Coroutines that need no task, because they await futures only: see `Driver.taskless`.

A task for each would cost more than all the rest of a reset.

Invariant: once started, the work is in one place: taking a step, or called back by the one future
(or the next turn of the loop) that it waits for, or ended; and of its end `ended` hears once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any


class InlineTask:
    """A coroutine under way. It can be cancelled and tells how it ended, as a task does."""

    __slots__ = ("_ended", "_error", "_must_cancel", "_waits_for", "_work")

    def __init__(
        self,
        work: Coroutine[Any, Any, None],
        ended: Callable[[InlineTask], None],
    ) -> None:
        self._work = work
        self._ended = ended
        self._waits_for: asyncio.Future[Any] | None = None
        self._must_cancel = False
        self._error: BaseException | None = None

    def cancel(self) -> None:
        """Raise `CancelledError` in the work, where it waits."""
        if self._waits_for is None or not self._waits_for.cancel():
            self._must_cancel = True

    def cancelled(self) -> bool:
        """Say whether it ended by a cancellation."""
        return isinstance(self._error, asyncio.CancelledError)

    def exception(self) -> BaseException | None:
        """Return what it raised."""
        return self._error

    def step(self, error: BaseException | None = None) -> None:
        """Go on, with an error if there is one. The first step sends what there is to send."""
        self._waits_for = None
        if self._must_cancel:
            self._must_cancel, error = False, asyncio.CancelledError()
        try:
            waits_for = self._work.send(None) if error is None else self._work.throw(error)
        except StopIteration:
            self._end(None)
        except BaseException as failure:
            self._end(failure)
            if not isinstance(failure, (Exception, asyncio.CancelledError)):
                raise
        else:
            self._wait(waits_for)

    def _end(self, error: BaseException | None) -> None:
        self._error = error
        self._ended(self)

    def _wait(self, waits_for: Any) -> None:
        if waits_for is None:  # as in `asyncio.sleep(0)`
            asyncio.get_running_loop().call_soon(self.step)
        elif getattr(waits_for, "_asyncio_future_blocking", False):
            waits_for._asyncio_future_blocking = False  # says that it is being waited for
            waits_for.add_done_callback(self._wake)
            self._waits_for = waits_for
            if self._must_cancel and waits_for.cancel():
                self._must_cancel = False
        else:
            error = RuntimeError(f"a driver that is taskless awaits {waits_for!r}")
            asyncio.get_running_loop().call_soon(self.step, error)

    def _wake(self, future: asyncio.Future[Any]) -> None:
        try:
            future.result()
        except BaseException as error:
            self.step(error)
        else:
            self.step()
