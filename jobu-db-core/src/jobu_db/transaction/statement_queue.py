"""Statements of one transaction follow one another, whichever tasks they come from.

Invariant: at most one task is inside at a time, first come first served among those that may
enter; and a turn that was granted but can no longer be used goes to the next. Once the queue is
closed, none waits.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import NamedTuple

from jobu_db.errors import TransactionError


class _Waiter(NamedTuple):
    granted: asyncio.Future[None]
    may: Callable[[], bool]


class StatementQueue:
    """A queue for one connection. Whether somebody may enter can depend on open savepoints."""

    __slots__ = ("_closed", "_taken", "_waiters")

    def __init__(self) -> None:
        self._closed = ""
        self._taken = False
        self._waiters: deque[_Waiter] = deque()

    def take_now(self, may: bool) -> bool:
        """Enter at once if none is inside or before us."""
        if self._taken or self._waiters or self._closed or not may:
            return False
        self._taken = True
        return True

    async def take(
        self, may: Callable[[], bool], timeout: float | None, obstacle: Callable[[], str]
    ) -> None:
        """Wait for the turn. A statement is waited for as long as it takes.

        Args:
            may: Says whether the turn could be used now.
            timeout: For how many seconds to wait while it could not.
            obstacle: Says who stands in the way then.

        Raises:
            TransactionError: Time is up, and names the obstacle; or the queue is closed.
        """
        if self._closed:
            raise TransactionError(self._closed)
        waiter = _Waiter(asyncio.get_running_loop().create_future(), may)
        self._waiters.append(waiter)
        # In line first, and then looked at like all others: it may be let in at once.
        self.grant()
        try:
            while not waiter.granted.done():
                # Not awaited itself: a cancellation would cancel the future, and a grant that comes
                # at the same moment would be lost.
                await asyncio.wait({waiter.granted}, timeout=timeout)
                if not waiter.granted.done() and not may():
                    raise TransactionError(f"waited {timeout:g} s for {obstacle()}")
            waiter.granted.result()
        except BaseException:
            self._withdraw(waiter)
            raise

    async def take_last(self) -> None:
        """Wait for the one that is inside, however long it takes, to end a level."""
        if not self.take_now(True):
            await self.take(lambda: True, None, str)

    def close(self, reason: str) -> None:
        """Let none in any more; those who wait need not wait for the one that is inside."""
        self._closed = self._closed or reason
        while self._waiters:
            self._waiters.popleft().granted.set_exception(TransactionError(self._closed))

    def give(self) -> None:
        """Leave, and let the next one in."""
        self._taken = False
        if self._waiters:
            self.grant()

    def grant(self) -> None:
        """Let in the first among those that may; call when that may have changed."""
        if self._taken:
            return
        # Those that may not are passed by: they wait for the end of a savepoint, whose own
        # statements have to go on.
        for waiter in self._waiters:
            if waiter.may():
                self._waiters.remove(waiter)
                self._taken = True
                waiter.granted.set_result(None)
                return

    def _withdraw(self, waiter: _Waiter) -> None:
        if waiter in self._waiters:
            self._waiters.remove(waiter)
        elif waiter.granted.exception() is None:  # granted, and cannot be used: to the next
            self.give()
