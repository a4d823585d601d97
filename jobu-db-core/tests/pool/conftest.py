"""A pool's state on the bench: no loop, no clock; and pools on a fake server."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from itertools import count
from typing import Any

import pytest

from jobu_db.pool import AsyncConnectionPool
from jobu_db.pool.slots import (
    Actions,
    Check,
    Close,
    Ending,
    Grant,
    Limits,
    Open,
    Owe,
    Phase,
    Refuse,
    Reset,
    Slot,
    WakeAt,
)
from jobu_db.pool.state import PoolState
from jobu_db.settings import PoolConfig
from jobu_db.testing.fake import FakeDriver
from jobu_db.testing.fake_server import FakeServer

Connection = int


class Waiter:
    """Somebody in the queue."""

    slot: Slot[Connection] | None = None
    deadline = float("inf")

    def __init__(self, *, begins: bool = False) -> None:
        self.begins = begins


class Bench:
    """Plays the runner: keeps what it was told to do, and reports as the test says."""

    def __init__(self, random: Callable[[], float] = lambda: 0.0, **limits: Any) -> None:
        self.now = 1000.0
        self.dead: set[Connection] = set()
        self.told: Actions = []
        self._connections = count(1)
        limits = {"min_size": 0, "max_size": 3, **limits}
        self.state: PoolState[Connection] = PoolState(
            Limits(**limits), lambda connection: connection not in self.dead, random
        )

    # -- what was told

    def tell(self, actions: Actions) -> None:
        """Keep actions until the test takes them."""
        self.told += actions

    def take_told(self, kind: type[Any]) -> list[Any]:
        """Return the actions of one kind that are yet to be done, and consider them done."""
        told = [action for action in self.told if isinstance(action, kind)]
        self.told = [action for action in self.told if not isinstance(action, kind)]
        return told

    def to_open(self) -> list[Slot[Connection]]:
        return [action.slot for action in self.take_told(Open)]

    def to_check(self) -> list[Slot[Connection]]:
        return [action.slot for action in self.take_told(Check)]

    def to_reset(self) -> list[Slot[Connection]]:
        return [action.slot for action in self.take_told(Reset)]

    def to_close(self) -> list[tuple[int, str]]:
        return [(action.slot.id, action.reason) for action in self.take_told(Close)]

    def granted(self) -> list[Waiter]:
        return [action.waiter for action in self.take_told(Grant)]

    def refused(self) -> list[tuple[Waiter, BaseException | None]]:
        return [(action.waiter, action.cause) for action in self.take_told(Refuse)]

    def wake_ups(self) -> list[float]:
        return [action.when - self.now for action in self.take_told(WakeAt)]

    # -- what happens

    def grow(self, number: int) -> list[Slot[Connection]]:
        """Let so many idle connections be there, opened one second after another."""
        grown = []
        for _ in range(number):
            self.now += 1
            connection = next(self._connections)
            self.tell(self.state.adopted(connection, self.now))
            grown += [slot for slot in self.state.slots if slot.connection == connection]
        return grown

    def take(self, *, begins: bool = False) -> Slot[Connection] | None:
        actions: Actions = []
        slot = self.state.take(self.now, actions, begins=begins)
        self.tell(actions)
        return slot

    def wait(self, number: int = 1, *, begins: bool = False) -> list[Waiter]:
        waiters = [Waiter(begins=begins) for _ in range(number)]
        for waiter in waiters:
            self.tell(self.state.enqueue(waiter, self.now))
        return waiters

    def opened(self, slot: Slot[Connection]) -> None:
        self.tell(self.state.opened(slot, next(self._connections), self.now))

    def open_failed(self, slot: Slot[Connection], *, transient: bool = True) -> Exception:
        error = OSError(f"connect {slot.id}")
        self.tell(self.state.open_failed(slot, error, self.now, transient=transient))
        return error

    def ready(self, slot: Slot[Connection]) -> None:
        self.tell(self.state.ready(slot, self.now))

    def broken(self, slot: Slot[Connection]) -> None:
        self.tell(self.state.broken(slot, "broken", self.now))

    def closed(self, slot: Slot[Connection]) -> None:
        self.tell(self.state.closed(slot, self.now))

    def release(self, slot: Slot[Connection], **how: Any) -> None:
        self.tell(self.state.release(slot, self.now, **how))

    def owe(self, slot: Slot[Connection]) -> None:
        """Release what a reader had, whose end can be owed."""
        slot.ends = Ending.COMMIT
        self.release(slot, reset=True, owes=True)

    def owed(self) -> list[Slot[Connection]]:
        return [action.slot for action in self.take_told(Owe)]

    def tick(self, seconds: float = 0.0) -> None:
        self.now += seconds
        self.tell(self.state.tick(self.now))

    def phases(self) -> dict[int, Phase]:
        return {slot.id: slot.phase for slot in self.state.slots}


@pytest.fixture
def bench() -> type[Bench]:
    """Make a bench with these limits: `bench(max_size=3, check_after=30)`."""
    return Bench


MakePool = Callable[..., Awaitable[AsyncConnectionPool[Any]]]


@pytest.fixture
def server() -> Iterator[FakeServer]:
    """A fake server. The test fails if the core broke a rule of the seam on it."""
    server = FakeServer()
    yield server
    assert server.violations == []


@pytest.fixture
def taskless() -> bool:
    """Whether the driver declares that its resets need no task."""
    return True


@pytest.fixture
async def make_pool(server: FakeServer, taskless: bool) -> AsyncIterator[MakePool]:
    """Open pools on the server: `await make_pool(max_size=2)`; they are closed after the test."""
    pools: list[AsyncConnectionPool[Any]] = []

    async def make(**config: Any) -> AsyncConnectionPool[Any]:
        config = {"max_size": 2, "timeout": 5.0, **config}
        driver = FakeDriver(server)
        driver.taskless = taskless
        pool = AsyncConnectionPool("main", driver, PoolConfig(**config))
        await pool.open()
        pools.append(pool)
        return pool

    yield make
    for pool in pools:
        await pool.close(timeout=0)
