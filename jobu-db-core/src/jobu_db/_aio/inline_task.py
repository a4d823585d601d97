"""Coroutines that need no task, because they await futures only: see `Driver.taskless`.

A task for each would cost more than all the rest of a reset.

Invariant: once started, the work is in one place: taking a step, or called back by the one future
that it waits for, or ended; and of its end `ended` hears once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from jobu_db._aio.stepper import Stepper, failure


class InlineTask(Stepper[None]):
    """A coroutine under way. It can be cancelled and tells how it ended, as a task does."""

    __slots__ = ("_ended", "_error", "_must_cancel")

    def __init__(
        self,
        work: Coroutine[Any, Any, None],
        ended: Callable[[InlineTask], None],
    ) -> None:
        super().__init__(work)
        self._ended = ended
        self._must_cancel = False
        self._error: BaseException | None = None

    def cancel(self, msg: Any = None) -> bool:
        """Raise `CancelledError` in the work, where it waits or will wait next."""
        # During a step, `future` is the one that led to it, or None: not to be cancelled any more.
        if self.future is None or not self.future.cancel(msg):
            self._must_cancel = True
        return True

    def cancelled(self) -> bool:
        """Say whether it ended by a cancellation."""
        return isinstance(self._error, asyncio.CancelledError)

    def exception(self) -> BaseException | None:
        """Return what it raised."""
        return self._error

    def step(self, error: BaseException | None = None) -> None:
        """Go on, with an error if there is one. The first step sends what there is to send."""
        if self._must_cancel:
            self._must_cancel, error = False, asyncio.CancelledError()
        try:
            self.advance(error)
        except StopIteration:
            self._finish()
        except BaseException as failure:
            self._error = failure
            self._finish()
            if not isinstance(failure, (Exception, asyncio.CancelledError)):
                raise
        else:
            self.future.add_done_callback(self._wake)
            # Cancelled during the step, when there was nothing to cancel: now there is.
            if self._must_cancel and self.future.cancel():
                self._must_cancel = False
        finally:
            error = None  # else this frame and the error keep one another

    def _finish(self) -> None:
        # First: where Ctrl-C strikes in what is told of the end, this shows that nothing is under
        # way any more.
        self.future = None
        self._ended(self)

    def _wake(self, future: asyncio.Future[Any]) -> None:
        self.step(failure(future))
