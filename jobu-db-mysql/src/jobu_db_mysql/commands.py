"""Commands on one connection: one at a time, and never over the unread rows of another.

asyncmy itself keeps no order. Two tasks on one connection hang or get each other's rows, and a
statement beside an unbuffered cursor ends that one's rows early, without an error.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from functools import wraps
from typing import Any, Protocol, TypeVar

from asyncmy.constants.CR import CR_SERVER_LOST
from asyncmy.errors import InterfaceError, MySQLError, OperationalError

from jobu_db.errors import DatabaseError, TransactionError
from jobu_db_mysql.begun import Begun

T = TypeVar("T")
Method = TypeVar("Method", bound=Callable[..., Awaitable[Any]])


class Turn:
    """A lock, granted in order.

    With `async with`, the task that has it may take it again: asyncmy's methods call each other.
    With `take_now`, `take` and `give` it belongs to no task: for commands that call no others,
    and may run outside a task.
    """

    __slots__ = ("_depth", "_owner", "_waiting")

    def __init__(self) -> None:
        self._depth = 0
        self._owner: asyncio.Task[Any] | None = None
        self._waiting: deque[asyncio.Future[None]] = deque()

    def take_now(self) -> bool:
        """Take the turn if it is free."""
        if self._depth:
            return False
        self._depth = 1
        return True

    async def take(self) -> None:
        """Take the turn, or wait until it is granted."""
        if self._owner is not None and self._owner is asyncio.current_task():
            self._depth += 1
        elif not self.take_now():
            await self._wait()

    async def _wait(self) -> None:
        waiter = asyncio.get_running_loop().create_future()
        self._waiting.append(waiter)
        try:
            await waiter
        except BaseException:
            if not waiter.cancel() and not waiter.cancelled():
                self.give()  # it was granted just before
            raise

    def give(self) -> None:
        """Grant the turn to the waiter that has waited longest."""
        self._depth -= 1
        if self._depth:
            return
        self._owner = None
        while self._waiting:
            waiter = self._waiting.popleft()
            if not waiter.done():
                # Taken already for the waiter, before it runs: no one that comes in between can
                # have it.
                self._depth = 1
                waiter.set_result(None)
                return

    async def __aenter__(self) -> None:
        await self.take()
        self._owner = asyncio.current_task()

    async def __aexit__(self, *_: object) -> None:
        self.give()


class Commanded(Protocol):
    """A connection whose commands take turns."""

    turn: Turn
    touched: bool
    broken: bool
    begun: Begun | None
    limit: Callable[[], AbstractAsyncContextManager[Any]] | None

    @property
    def streaming(self) -> bool:
        """True while rows of an unbuffered cursor are unread."""

    async def limited(self, work: Awaitable[T]) -> T:
        """Await the work, within the time that a statement may take."""

    def note_failure(self, error: BaseException) -> None:
        """Note what the error of a command means for the connection."""

    def note_success(self) -> None:
        """Note what the server said of the session at the end of a command."""


def command(method: Method) -> Method:
    """Make a method of asyncmy take the turn, and note how it ended."""

    @wraps(method)
    async def call(self: Commanded, *args: Any, **options: Any) -> Any:
        async with self.turn:
            with Noting(self):
                return await method(self, *args, **options)

    return call  # type: ignore[return-value]


def unless_streaming(method: Method) -> Method:
    """Make a method of asyncmy a command that the unread rows of another one forbid.

    The method raises TransactionError then, before anything is sent.
    """

    @wraps(method)
    async def call(self: Commanded, *args: Any, **options: Any) -> Any:
        async with self.turn:
            refuse_if_streaming(self)
            with Noting(self):
                return await method(self, *args, **options)

    return call  # type: ignore[return-value]


def control(method: Method) -> Method:
    """Make a method that calls no command one itself; it may run outside a task."""

    @wraps(method)
    async def call(self: Commanded) -> Any:
        # Not refused over unread rows: what ends a transaction reads and drops them itself.
        if not self.turn.take_now():
            await self.turn.take()
        try:
            with Noting(self):
                return await method(self)
        finally:
            self.turn.give()

    return call  # type: ignore[return-value]


def statement(method: Method) -> Method:
    """Make a method that runs SQL, and calls no command, one that unread rows forbid.

    It is subject to the connection's time limit.
    """

    @wraps(method)
    async def call(self: Commanded, sql: str, *options: bool) -> Any:
        if not self.turn.take_now():
            await self.turn.take()
        try:
            refuse_if_streaming(self)
            with Noting(self):
                work = method(self, sql, *options)
                return await (work if self.limit is None else self.limited(work))
        finally:
            self.turn.give()

    return call  # type: ignore[return-value]


class Noting:
    """Notes how the command in its block ends.

    Raises:
        OperationalError: 2013, in place of whatever else asyncmy raises while it talks.
    """

    __slots__ = ("_connection",)

    def __init__(self, connection: Commanded) -> None:
        if connection.broken:
            raise InterfaceError(0, "the connection was lost, or is out of step with the server")
        # Before anything is sent: of a command that is cut off, the server may have run all.
        connection.touched = True
        if connection.begun is not None:
            connection.begun.sent = True
        self._connection = connection

    def __enter__(self) -> None:
        return

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if error is None:
            self._connection.note_success()
            return
        if isinstance(error, DatabaseError):  # ours: nothing was sent
            return
        self._connection.note_failure(error)
        if isinstance(error, Exception) and not isinstance(error, MySQLError):
            # asyncmy met what it does not understand, and stopped in the middle of an answer.
            text = f"the server's answer could not be read: {type(error).__name__}"
            raise OperationalError(CR_SERVER_LOST, text) from error


def refuse_if_streaming(connection: Commanded) -> None:
    """Raise TransactionError while rows of an unbuffered cursor are unread."""
    if connection.streaming:
        raise TransactionError(
            "rows of an unbuffered cursor are still unread, and another statement would cut them "
            "off: read them to the end, or close the cursor first"
        )
