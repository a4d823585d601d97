"""Statements of one transaction take turns, whichever tasks they come from.

Invariant: at most one task is inside at a time, first come first served among those that may
enter; and a turn that was granted but can no longer be used goes to the next.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from jobu_db.errors import TransactionError


class Turns:
    """A queue for one connection. Whether somebody may enter can depend on open savepoints."""

    __slots__ = ("_line", "holder")

    def __init__(self) -> None:
        self.holder: str | None = None
        self._line: deque[tuple[asyncio.Future[None], str, Callable[[], bool]]] = deque()

    def take_now(self, may: bool) -> bool:
        """Enter at once if nobody is inside or before us."""
        if self.holder is not None or self._line or not may:
            return False
        self.holder = _task_name()
        return True

    async def take(self, may: Callable[[], bool], timeout: float | None, waits_for: str) -> None:
        """Wait for the turn.

        Args:
            may: Says whether the turn could be used now.
            timeout: Seconds, or None for as long as it takes.
            waits_for: Who must leave first, for the error.

        Raises:
            TransactionError: Time is up; names the holder.
        """
        future = asyncio.get_running_loop().create_future()
        entry = (future, _task_name(), may)
        self._line.append(entry)
        self.grant()
        try:
            async with asyncio.timeout(timeout):
                await future
        except BaseException as error:
            self._leave_line(entry)
            if isinstance(error, TimeoutError):
                raise TransactionError(
                    f"waited {timeout:g} s for {self.holder or waits_for} to be done with this "
                    "transaction"
                ) from None
            raise

    async def take_last(self) -> None:
        """Wait for whoever is inside, however long it takes, to end a level."""
        if not self.take_now(True):
            await self.take(lambda: True, None, "a statement")

    def give(self) -> None:
        """Leave, and let the next one in."""
        self.holder = None
        if self._line:
            self.grant()

    def grant(self) -> None:
        """Let in whoever is first among those that may; call when that may have changed."""
        if self.holder is not None:
            return
        for entry in self._line:
            future, name, may = entry
            if not future.done() and may():
                self._line.remove(entry)
                self.holder = name
                future.set_result(None)
                return

    def _leave_line(self, entry: tuple[asyncio.Future[None], str, Callable[[], bool]]) -> None:
        if entry in self._line:
            self._line.remove(entry)
        elif not entry[0].cancelled():
            self.give()


def _task_name() -> str:
    task = asyncio.current_task()
    return f"task {task.get_name()!r}" if task else "no task"
