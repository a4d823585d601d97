"""The connection pool that every backend shares.

`_pool_state` decides, `_connection_work` does the I/O, and this module is the thin shell around
them: it passes the time in, performs the actions that come out, and lets callers wait.
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
import warnings
import weakref
from collections.abc import Awaitable, Callable, Coroutine, Generator
from time import monotonic
from typing import Any, Generic, TypeVar

from jobu_db import _diagnosis as diagnosis
from jobu_db import _pool_state as decide
from jobu_db._connection_work import ConnectionWork
from jobu_db._holder import Holder
from jobu_db._pool_state import Phase, PoolState, Slot, Waiter
from jobu_db.driver import Driver
from jobu_db.errors import (
    ConfigurationError,
    ConnectionFailedError,
    DatabaseError,
    PoolClosedError,
)
from jobu_db.events import events
from jobu_db.pooled_connection import Loan, PooledConnection
from jobu_db.settings import PoolConfig
from jobu_db.stats import PoolStats

C = TypeVar("C")
logger = logging.getLogger("jobu_db")

_POLITE = frozenset({"idle", "lifetime", "resized", "pool closed"})
"""Reasons for which a connection is sound, so that the server deserves a goodbye."""


class _Done:
    """An awaitable that is done: what `release` returns to those who await it."""

    def __await__(self) -> Generator[Any, None, None]:
        return iter(())  # type: ignore[return-value]


_DONE = _Done()


class _Queued(Waiter[C]):
    __slots__ = ("future",)

    def __init__(self, future: asyncio.Future[None]) -> None:
        super().__init__()
        self.future = future


class AsyncConnectionPool(Generic[C]):
    """Connections of one database, lent first come, first served.

    Args:
        name: Name of the database, for messages.
        driver: How to talk to it.
        config: Sizes and times; see `PoolConfig`.
    """

    def __init__(self, name: str, driver: Driver[C], config: PoolConfig) -> None:
        self.name = name
        self.driver = driver
        self.config = config
        self._stats = PoolStats()
        self._work = ConnectionWork(name, driver, config)
        limits = decide.Limits(
            min_size=config.min_size,
            max_size=config.max_size,
            max_waiting=config.max_waiting,
            max_idle=config.max_idle,
            max_lifetime=config.max_lifetime,
            check_after=config.check_after,
        )
        self._state: PoolState[C] = PoolState(limits, driver.is_alive, random.random)
        self._tasks: set[asyncio.Task[None]] = set()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._pid: int | None = None
        self._drained: asyncio.Event = asyncio.Event()
        self._always_reset = config.reset == "always"
        self._with_stack = config.leak_after is not None

    # -- opening and closing

    async def open(self) -> None:
        """Open the first connection, unless `lazy`, and start the upkeep.

        Raises:
            ConnectionFailedError: At once, whatever the cause.
        """
        self._loop = asyncio.get_running_loop()
        self._pid = os.getpid()
        if not self.config.lazy and self.config.max_size:
            connection = await self._connect()
            slot: Slot[C] = Slot(0, monotonic())
            self._state.slots.add(slot)
            self._perform(self._state.opened(slot, connection, monotonic()))
        self._forgotten = weakref.finalize(
            self, _forgotten, self.name, self.driver, self._state.slots, self._pid
        )
        self._period = _upkeep_period(self.config)
        self._upkeep = self._loop.call_later(self._period, _upkeep, weakref.ref(self))

    async def close(self, timeout: float | None = None) -> list[str]:
        """Lend nothing more, wait for holders at most `timeout` seconds, then terminate.

        Waiters get `PoolClosedError` at once. Closing again does nothing.

        Args:
            timeout: Seconds; the pool's own `timeout` if None.

        Returns:
            Who still held a connection when time was up, one text each; logged as well.
        """
        self._check_process_and_loop()
        if not self._state.closing:
            self._upkeep.cancel()
            self._forgotten.detach()
            self._perform(self._state.close(monotonic()))
            for task in [t for t in self._tasks if t.get_name() == "jobu-db open"]:
                task.cancel()
        limit = self.config.timeout if timeout is None else timeout
        if not self._state.slots:
            return []
        try:
            async with asyncio.timeout(limit):
                await self._drained.wait()
            return []
        except TimeoutError:
            return self._terminate()
        except asyncio.CancelledError:
            self._terminate()
            raise

    def _terminate(self) -> list[str]:
        now = monotonic()
        held = [f"{slot.holder} for {now - slot.since:.1f} s" for slot in self._state.leased()]
        for who in held:
            logger.warning("%s: closed while in use by %s", self.name, who)
        for slot in list(self._state.slots):
            if slot.connection is not None:
                self.driver.terminate(slot.connection)
            self._stats.closed["terminated"] += 1
        self._state.slots.clear()
        for task in self._tasks:
            task.cancel()
        return held

    # -- acquiring and releasing

    async def acquire(self, timeout: float | None = None) -> PooledConnection[C]:
        """Borrow a connection.

        Args:
            timeout: Seconds for waiting, connecting and checking together; the pool's own
                `timeout` if None.

        Raises:
            ConnectionPoolExhaustedError: None came free in time, `max_waiting` others wait, or
                this task holds them all itself.
            ConnectionFailedError: The server cannot be reached, or refuses the settings.
            PoolClosedError: The pool is closed.
        """
        lease = self.acquire_nowait()
        return lease if lease is not None else await self._wait(timeout)

    def acquire_nowait(self) -> PooledConnection[C] | None:
        """Borrow a connection if one is idle and nobody waits; else None."""
        self._check_usable()
        now = monotonic()
        actions: decide.Actions = []
        slot = self._state.take(now, actions)
        if actions:
            self._perform(actions)
        return None if slot is None else self._lend(slot, 0.0)

    def release(
        self, lease: PooledConnection[C], *, clean: bool = False, discard: str | None = None
    ) -> Awaitable[None]:
        """Give a connection back, at once; awaiting the result is allowed and changes nothing.

        Args:
            lease: What `acquire` returned.
            clean: The reset has been done already.
            discard: Why the connection must be closed instead of lent again.

        Raises:
            DatabaseError: Released before, or borrowed from another pool.
        """
        slot = lease._slot
        if lease._pool is not self:
            raise DatabaseError(f"this connection belongs to pool {lease._pool.name!r}")
        if slot is None:
            raise DatabaseError("this connection has been released to its pool already")
        lease._slot = None
        if slot in self._state.slots:
            self._take_back(slot, lease, clean, discard)
        return _DONE

    def _take_back(
        self, slot: Slot[C], lease: PooledConnection[C], clean: bool, discard: str | None
    ) -> None:
        now = monotonic()
        held = now - slot.since
        self._stats.use.record(held)
        if events.release:
            events.tell("release", database=self.name, seconds=held)
        reset = discard is None and self._needs_reset(slot, lease, clean)
        slot.interrupted = lease.interrupted
        actions = self._state.release(slot, now, reset=reset, discard=discard)
        if actions:
            self._perform(actions)

    def _needs_reset(self, slot: Slot[C], lease: PooledConnection[C], clean: bool) -> bool:
        connection = slot.connection
        if lease.interrupted:
            return True
        if not lease._touched or connection is None:
            return False
        if self.driver.in_transaction(connection):
            return True
        return self._always_reset and not clean and self.driver.needs_reset(connection)

    def connection(self, timeout: float | None = None) -> Loan[C]:
        """Borrow for the length of an `async with` block; see `acquire`."""
        return Loan(self, timeout)

    def _lend(self, slot: Slot[C], waited: float) -> PooledConnection[C]:
        slot.holder = Holder(with_stack=self._with_stack)
        slot.leak_reported = False
        stats = self._stats
        stats.acquired += 1
        stats.wait.record(waited)
        if events.acquire:
            events.tell("acquire", database=self.name, seconds=waited)
        return PooledConnection(self, slot)
    # -- waiting

    async def _wait(self, timeout: float | None) -> PooledConnection[C]:
        started = monotonic()
        self._refuse_to_wait_in_vain()
        loop = asyncio.get_running_loop()
        waiter: _Queued[C] = _Queued(loop.create_future())
        self._perform(self._state.enqueue(waiter, started))
        limit = self.config.timeout if timeout is None else timeout
        timer = loop.call_later(limit, self._expire, waiter, started)
        try:
            await waiter.future
        except BaseException:
            self._step_back(waiter)
            raise
        finally:
            timer.cancel()
        slot = waiter.slot
        assert slot is not None
        return self._lend(slot, monotonic() - started)

    def _step_back(self, waiter: _Queued[C]) -> None:
        """A waiter gives up; what it was granted meanwhile goes to the next."""
        if waiter.slot is not None:
            if waiter.slot in self._state.slots:
                self._perform(self._state.release(waiter.slot, monotonic()))
        elif waiter in self._state.waiters:
            self._state.withdraw(waiter)

    def _expire(self, waiter: _Queued[C], started: float) -> None:
        if waiter in self._state.waiters and not waiter.future.done():
            error = diagnosis.exhausted(self.name, self._state, monotonic() - started, monotonic())
            self._state.withdraw(waiter)
            self._stats.timeouts += 1
            waiter.future.set_exception(error)

    def _refuse_to_wait_in_vain(self) -> None:
        state = self._state
        if not state.may_wait():
            raise diagnosis.queue_full(self.name, state)
        task = asyncio.current_task()
        full = len(state.slots) >= state.limits.max_size
        if full and all(slot.phase is Phase.LEASED and slot.holder.task is task for slot in state.slots):
            raise diagnosis.self_deadlock(self.name, state, Holder(with_stack=False))

    # -- performing what the state decided

    def _perform(self, actions: decide.Actions) -> None:
        for action in actions:
            _PERFORM[type(action)](self, action)

    def _grant(self, action: decide.Grant) -> None:
        waiter: Any = action.waiter
        if not waiter.future.done():
            waiter.future.set_result(None)

    def _refuse(self, action: decide.Refuse) -> None:
        waiter: Any = action.waiter
        if not waiter.future.done():
            waiter.future.set_exception(diagnosis.refused(self.name, action.cause))

    def _open(self, action: decide.Open) -> None:
        self._start(self._opening(action.slot), "jobu-db open")

    def _check(self, action: decide.Check) -> None:
        self._start(self._checking(action.slot), "jobu-db check")

    def _reset(self, action: decide.Reset) -> None:
        self._start(self._resetting(action.slot), "jobu-db reset")

    def _close(self, action: decide.Close) -> None:
        self._stats.closed[action.reason] += 1
        if events.close:
            events.tell("close", database=self.name, reason=action.reason)
        if action.reason in _POLITE:
            self._start(self._closing(action.slot), "jobu-db close")
        else:
            self.driver.terminate(action.slot.connection)
            self._gone(action.slot)

    def _wake_at(self, action: decide.WakeAt) -> None:
        delay = max(0.0, action.when - monotonic())
        asyncio.get_running_loop().call_later(delay, _tick, weakref.ref(self))

    def _start(self, work: Coroutine[Any, Any, None], name: str) -> None:
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _opening(self, slot: Slot[C]) -> None:
        try:
            connection = await self._connect()
        except ConnectionFailedError as error:
            failed = self._state.open_failed(slot, error, monotonic(), transient=error.transient)
            self._perform(failed)
            self._note_if_drained()
        except BaseException as error:
            self._state.open_failed(slot, error, monotonic(), transient=True)
            self._note_if_drained()
            raise
        else:
            self._perform(self._state.opened(slot, connection, monotonic()))

    async def _connect(self) -> C:
        started = monotonic()
        try:
            connection = await self._work.open()
        except ConnectionFailedError as error:
            self._stats.errors += 1
            if events.connect:
                events.tell("connect", database=self.name, seconds=monotonic() - started, error=error)
            raise
        self._stats.created += 1
        if events.connect:
            events.tell("connect", database=self.name, seconds=monotonic() - started, error=None)
        return connection

    async def _checking(self, slot: Slot[C]) -> None:
        await self._settle(slot, self._work.check(slot.connection), "dead")

    async def _resetting(self, slot: Slot[C]) -> None:
        work = self._work.reset(slot.connection, interrupted=slot.interrupted)
        await self._settle(slot, work, "not clean")

    async def _settle(self, slot: Slot[C], work: Awaitable[bool], reason: str) -> None:
        fit = False
        try:
            fit = await work
        finally:
            if slot in self._state.slots:
                now = monotonic()
                done = self._state.ready(slot, now) if fit else self._state.broken(slot, reason, now)
                self._perform(done)

    async def _closing(self, slot: Slot[C]) -> None:
        try:
            await self._work.close(slot.connection)
        finally:
            if slot in self._state.slots:
                self._gone(slot)

    def _gone(self, slot: Slot[C]) -> None:
        self._perform(self._state.closed(slot, monotonic()))
        self._note_if_drained()

    def _note_if_drained(self) -> None:
        if self._state.closing and not self._state.slots:
            self._drained.set()

    # -- upkeep

    def tick(self) -> None:
        """Do the upkeep that is due: retire, refill, keep alive, report leaks."""
        if self._state.closing:
            return
        now = monotonic()
        self._perform(self._state.tick(now))
        if self.config.leak_after is not None:
            self._report_leaks(now, self.config.leak_after)

    def _report_leaks(self, now: float, leak_after: float) -> None:
        for slot in self._state.leased():
            if now - slot.since >= leak_after and not slot.leak_reported:
                slot.leak_reported = True
                held, stack = now - slot.since, slot.holder.stack
                logger.warning("%s: held for %.1f s by %s\n%s", self.name, held, slot.holder, stack)

    def _reclaim(self, slot: Slot[C]) -> None:
        """A lease was garbage-collected, in whatever thread."""
        message = f"{self.name}: a connection was never released by {slot.holder}"
        warnings.warn(message, ResourceWarning, stacklevel=2)
        if self._pid != os.getpid() or slot not in self._state.slots:
            return
        try:
            assert self._loop is not None
            self._loop.call_soon_threadsafe(self._discard_lost, slot)
        except RuntimeError:  # the loop is closed: nobody else will use the pool
            self.driver.terminate(slot.connection)

    def _discard_lost(self, slot: Slot[C]) -> None:
        if slot in self._state.slots:
            self._perform(self._state.release(slot, monotonic(), discard="never released"))

    # -- figures and settings

    @property
    def size(self) -> int:
        """Number of connections, held ones included."""
        return self._state.established

    @property
    def available(self) -> int:
        """How many more could be lent now, opening new ones included, without waiting for a holder."""
        state = self._state
        return len(state.idle) + max(0, state.limits.max_size - len(state.slots))

    @property
    def closed(self) -> bool:
        """True once `close` was called."""
        return self._state.closing

    def stats(self) -> dict[str, Any]:
        """Return the figures: counts, closed by reason, and wait and use times in seconds."""
        return diagnosis.figures(self._state, self._stats)

    def resize(self, *, min_size: int | None = None, max_size: int | None = None) -> None:
        """Change the sizes of the running pool.

        Raises:
            ConfigurationError: The sizes contradict each other.
        """
        limits = self._state.limits
        low = limits.min_size if min_size is None else min_size
        high = limits.max_size if max_size is None else max_size
        if not 0 <= low <= high or high < 1:
            raise ConfigurationError(
                f"{self.name}: min_size={low}, max_size={high}: need 0 <= min_size <= max_size"
            )
        self._perform(self._state.resize(low, high, monotonic()))

    # -- guards

    def _check_usable(self) -> None:
        if self._state.closing:
            raise PoolClosedError("the pool is closed", database=self.name)
        self._check_process_and_loop()

    def _check_process_and_loop(self) -> None:
        if self._loop is not asyncio.get_running_loop() or self._pid != os.getpid():
            raise diagnosis.wrong_place(self.name, self._loop, self._pid)

    def __repr__(self) -> str:
        return f"<AsyncConnectionPool {self.name}: {diagnosis.counts(self._state)}>"


_PERFORM: dict[type[Any], Callable[[Any, Any], None]] = {
    decide.Open: AsyncConnectionPool._open,
    decide.Check: AsyncConnectionPool._check,
    decide.Reset: AsyncConnectionPool._reset,
    decide.Close: AsyncConnectionPool._close,
    decide.Grant: AsyncConnectionPool._grant,
    decide.Refuse: AsyncConnectionPool._refuse,
    decide.WakeAt: AsyncConnectionPool._wake_at,
}


def _tick(reference: weakref.ref[AsyncConnectionPool[Any]]) -> None:
    pool = reference()
    if pool is not None:
        pool.tick()


def _upkeep(reference: weakref.ref[AsyncConnectionPool[Any]]) -> None:
    """Tick and come again. Only a weak reference, so that an abandoned pool can die."""
    pool = reference()
    if pool is not None and not pool.closed:
        pool.tick()
        pool._upkeep = asyncio.get_running_loop().call_later(pool._period, _upkeep, reference)


def _upkeep_period(config: PoolConfig) -> float:
    times = (config.max_idle, config.max_lifetime, config.check_after, config.leak_after)
    return min([1.0, *(max(0.01, time / 4) for time in times if time is not None)])


def _forgotten(name: str, driver: Driver[Any], slots: set[Slot[Any]], pid: int) -> None:
    """The pool was garbage-collected, or the program ended, without `close`."""
    if pid != os.getpid():
        return
    warnings.warn(f"{name}: the pool was never closed", ResourceWarning, stacklevel=2)
    for slot in slots:
        if slot.connection is not None:
            driver.terminate(slot.connection)
