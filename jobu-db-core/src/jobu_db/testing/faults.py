"""Faults on order: what the next calls to a fake server meet on their way."""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict, deque
from dataclasses import dataclass

from jobu_db.errors import ConnectionLostError, DatabaseError, QueryExecutionError

FOREVER = 1 << 60


class FakeError(Exception):
    """What the fake's driver raises, as every driver has its own errors.

    Attributes:
        meaning: The error of jobu-db that it stands for.
    """

    def __init__(self, message: str, meaning: DatabaseError | None = None) -> None:
        super().__init__(message)
        self.meaning = meaning or QueryExecutionError(message)


def lost(message: str = "the server closed the connection") -> FakeError:
    """Make the error of a call whose connection broke."""
    return FakeError(message, ConnectionLostError(message))


class Hold:
    """Calls that wait until `release`.

    Attributes:
        arrived: How many calls have come here.
    """

    def __init__(self) -> None:
        self.arrived = 0
        self._held: list[asyncio.Future[None]] = []
        self._released = False
        self._news = asyncio.Event()

    async def reached(self, calls: int = 1) -> None:
        """Wait until so many calls have arrived; `TimeoutError` after ten seconds."""
        async with asyncio.timeout(10):
            while self.arrived < calls:
                # Nothing awaits between the look and this, so that no arrival is missed.
                self._news.clear()
                await self._news.wait()

    def release(self) -> None:
        """Let all of them go on, and those that come later too."""
        self._released = True
        for call in self._held:
            go_on(call)

    def keep(self, call: asyncio.Future[None]) -> None:
        """Hold a call; for the fake server's own use."""
        self.arrived += 1
        self._news.set()
        if self._released:
            go_on(call)
        else:
            self._held.append(call)


def go_on(call: asyncio.Future[None]) -> None:
    """Let a call go on, unless it was cancelled or its connection broke before that."""
    if not call.done():
        call.set_result(None)


@dataclass
class Fault:
    """What some calls meet.

    Attributes:
        left: How many calls will still meet it.
        hold, delay: Where, or for how many seconds, a call waits.
        error: What is raised instead of doing the work.
        cut: The connection breaks, before the work or, if `done`, before the answer.
    """

    left: int
    hold: Hold | None = None
    delay: float = 0.0
    error: Exception | None = None
    cut: bool = False
    done: bool = False

    def keep(self, call: asyncio.Future[None]) -> None:
        """Let a call wait for as long as it has to."""
        if self.hold is not None:
            self.hold.keep(call)
        else:
            call.get_loop().call_later(self.delay, go_on, call)


class Faults:
    """Faults by the name of the operation: "connect", "ping", "begin", "commit", "execute", …

    Several for one operation are met one after another, oldest first.

    Attributes:
        calls: How often each operation was called.
    """

    def __init__(self) -> None:
        self.calls: Counter[str] = Counter()
        self._ordered: defaultdict[str, deque[Fault]] = defaultdict(deque)
        self._stopped: Hold | None = None

    def fail(self, operation: str, error: Exception | None = None, *, times: int = 1) -> None:
        """Let the next calls raise this error, or some error, without effect."""
        error = error or FakeError(f"{operation} was told to fail")
        self._ordered[operation].append(Fault(times, error=error))

    def lose(self, operation: str, *, done: bool = False, times: int = 1) -> None:
        """Break the connection of the next calls, before or after the server did the work."""
        self._ordered[operation].append(Fault(times, cut=True, done=done))

    def delay(self, operation: str, seconds: float, *, times: int = FOREVER) -> None:
        """Let the next calls take so long."""
        self._ordered[operation].append(Fault(times, delay=seconds))

    def hold(self, operation: str, *, times: int = FOREVER) -> Hold:
        """Let the next calls wait until the returned `Hold` is released; never: a black hole."""
        hold = Hold()
        self._ordered[operation].append(Fault(times, hold=hold))
        return hold

    def heal(self, operation: str | None = None) -> None:
        """Forget the faults of one operation, or of all. Calls that are held stay held."""
        if operation is None:
            self._ordered.clear()
        else:
            self._ordered.pop(operation, None)

    def stop(self) -> Hold:
        """Answer no more, like a server that was sent SIGSTOP, until released."""
        self._stopped = Hold()
        return self._stopped

    def next(self, operation: str) -> Fault | None:
        """Count a call and say what it meets; for the fake server's own use."""
        self.calls[operation] += 1
        # Before all others: what a stopped server was told to do comes after it goes on.
        if self._stopped is not None:
            return Fault(1, hold=self._stopped)
        ordered = self._ordered.get(operation)
        if not ordered:
            return None
        fault = ordered[0]
        fault.left -= 1
        if not fault.left:
            ordered.popleft()
        return fault
