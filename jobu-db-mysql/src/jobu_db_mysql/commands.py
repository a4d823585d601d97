"""Commands on one connection: one at a time, and never over the unread rows of another.

asyncmy itself keeps no order. Two tasks on one connection hang or get each other's rows, and a
statement beside an unbuffered cursor ends that one's rows early, without an error.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import wraps
from typing import Any, Protocol, TypeVar

from asyncmy.errors import InterfaceError

from jobu_db.errors import TransactionError

Method = TypeVar("Method", bound=Callable[..., Awaitable[Any]])


class Turn:
    """A lock that the task which has it may take again: asyncmy's methods call each other."""

    __slots__ = ("_depth", "_lock", "_owner")

    def __init__(self) -> None:
        self._lock = asyncio.Lock()
        self._owner: asyncio.Task[Any] | None = None
        self._depth = 0

    async def __aenter__(self) -> None:
        task = asyncio.current_task()
        if self._owner is None or self._owner is not task:
            await self._lock.acquire()
            self._owner = task
        self._depth += 1

    async def __aexit__(self, *_: object) -> None:
        self._depth -= 1
        if not self._depth:
            self._owner = None
            self._lock.release()


class Commanded(Protocol):
    """A connection whose commands take turns."""

    turn: Turn
    touched: bool
    broken: bool

    @property
    def streaming(self) -> bool:
        """True while rows of an unbuffered cursor are unread."""

    def note_failure(self, error: BaseException) -> None:
        """Note what the error of a command means for the connection."""

    def note_success(self) -> None:
        """Note what the server said of the session at the end of a command."""


def command(method: Method) -> Method:
    """Make a coroutine method take the turn, and note how it ended."""

    @wraps(method)
    async def call(self: Commanded, *args: Any, **options: Any) -> Any:
        async with self.turn:
            return await _noted(self, method, args, options)

    return call  # type: ignore[return-value]


def unless_streaming(method: Method) -> Method:
    """Make a coroutine method a command that the unread rows of another one forbid.

    The method raises TransactionError then, before anything is sent.
    """

    @wraps(method)
    async def call(self: Commanded, *args: Any, **options: Any) -> Any:
        async with self.turn:
            if self.streaming:
                raise TransactionError(
                    "rows of an unbuffered cursor are still unread, and another statement would "
                    "cut them off: read them to the end, or close the cursor first"
                )
            return await _noted(self, method, args, options)

    return call  # type: ignore[return-value]


async def _noted(
    connection: Commanded,
    method: Callable[..., Awaitable[Any]],
    args: tuple[Any, ...],
    options: dict[str, Any],
) -> Any:
    if connection.broken:
        raise InterfaceError(0, "the connection was lost, or is out of step with the server")
    connection.touched = True
    try:
        result = await method(connection, *args, **options)
    except BaseException as error:
        connection.note_failure(error)
        raise
    connection.note_success()
    return result
