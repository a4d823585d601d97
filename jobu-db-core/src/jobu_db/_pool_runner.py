"""Performs what the pool's state decided: I/O in tasks, wake-ups of waiters, and the upkeep.

It does not know the pool, so that an abandoned pool can die while a task here still runs.
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
import warnings
import weakref
from collections.abc import Awaitable, Callable, Coroutine
from time import monotonic
from typing import Any, Generic, TypeVar

from jobu_db import _diagnosis as diagnosis
from jobu_db import _pool_state as decide
from jobu_db._connection_work import ConnectionWork
from jobu_db._pool_state import PoolState, Slot, Waiter
from jobu_db.driver import Driver
from jobu_db.errors import ConnectionFailedError
from jobu_db.events import events
from jobu_db.settings import PoolConfig
from jobu_db.stats import PoolStats

C = TypeVar("C")
logger = logging.getLogger("jobu_db")

_POLITE = frozenset({"idle", "lifetime", "resized", "pool closed"})
"""Reasons for which a connection is sound, so that the server deserves a goodbye."""


class Queued(Waiter[C]):
    """A waiter with the future that its task awaits."""

    __slots__ = ("future",)

    def __init__(self, future: asyncio.Future[None]) -> None:
        super().__init__()
        self.future = future


class PoolRunner(Generic[C]):
    """The state of one pool, and the hands that carry out its decisions.

    Attributes:
        drained: Set once a closing pool has no connection left.
    """

    def __init__(self, name: str, driver: Driver[C], config: PoolConfig) -> None:
        self.name = name
        self.driver = driver
        self.config = config
        self.stats = PoolStats()
        self.drained = asyncio.Event()
        self._work = ConnectionWork(name, driver, config)
        self.state: PoolState[C] = PoolState(_limits(config), driver.is_alive, random.random)
        self._tasks: set[asyncio.Task[None]] = set()
        self._timer: asyncio.TimerHandle | None = None

    def perform(self, actions: decide.Actions) -> None:
        """Carry out what the state decided."""
        for action in actions:
            _PERFORM[type(action)](self, action)

    # -- starting and stopping

    async def start(self) -> None:
        """Open the first connection, unless `lazy`, and begin the upkeep."""
        if not self.config.lazy:
            connection = await self.connect()
            self.perform(self.state.adopted(connection, monotonic()))
        self._period = _upkeep_period(self.config)
        self._come_again()

    def stop(self) -> None:
        """Refuse waiters, close what is idle, give up what is being opened."""
        if self._timer is not None:
            self._timer.cancel()
        self.perform(self.state.close(monotonic()))
        for task in self._tasks:
            if task.get_name() == _OPEN:
                task.cancel()
        self._note_if_drained()

    def terminate(self) -> list[str]:
        """Close everything at once; return who held what."""
        now = monotonic()
        held = [f"{slot.holder} for {now - slot.since:.1f} s" for slot in self.state.leased()]
        for slot in self.state.slots:
            if slot.connection is not None:
                self.driver.terminate(slot.connection)
                self.stats.closed["terminated"] += 1
        self.state.slots.clear()
        for task in self._tasks:
            task.cancel()
        self._note_if_drained()
        return held

    # -- one method per action

    def _grant(self, action: decide.Grant) -> None:
        waiter: Any = action.waiter
        if not waiter.future.done():  # else it was cancelled, and will hand the grant back
            waiter.future.set_result(None)

    def _refuse(self, action: decide.Refuse) -> None:
        waiter: Any = action.waiter
        if not waiter.future.done():
            waiter.future.set_exception(diagnosis.refused(self.name, action.cause))

    def _open(self, action: decide.Open) -> None:
        self._start(self._opening(action.slot), _OPEN)

    def _check(self, action: decide.Check) -> None:
        self._start(self._settle(action.slot, self._work.check(action.slot.connection), "dead"))

    def _reset(self, action: decide.Reset) -> None:
        slot = action.slot
        work = self._work.reset(slot.connection, interrupted=slot.interrupted)
        self._start(self._settle(slot, work, "not clean"))

    def _close(self, action: decide.Close) -> None:
        self.stats.closed[action.reason] += 1
        if events.close:
            events.tell("close", database=self.name, reason=action.reason)
        if action.reason in _POLITE:
            self._start(self._closing(action.slot))
        else:
            self.driver.terminate(action.slot.connection)
            self._gone(action.slot)

    def _wake_at(self, action: decide.WakeAt) -> None:
        delay = max(0.0, action.when - monotonic())
        asyncio.get_running_loop().call_later(delay, _tick, weakref.ref(self))

    # -- I/O

    def _start(self, work: Coroutine[Any, Any, None], name: str = "jobu-db") -> None:
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def connect(self) -> C:
        """Open a connection; see `ConnectionWork.open`."""
        started = monotonic()
        error: ConnectionFailedError | None = None
        try:
            connection = await self._work.open()
        except ConnectionFailedError as failed:
            self.stats.errors += 1
            error = failed
            raise
        else:
            self.stats.created += 1
            return connection
        finally:
            if events.connect:
                seconds = monotonic() - started
                events.tell("connect", database=self.name, seconds=seconds, error=error)

    async def _opening(self, slot: Slot[C]) -> None:
        try:
            connection = await self.connect()
        except ConnectionFailedError as error:
            transient = error.transient
            self.perform(self.state.open_failed(slot, error, monotonic(), transient=transient))
            self._note_if_drained()
        except BaseException as error:
            self.perform(self.state.open_failed(slot, error, monotonic(), transient=True))
            self._note_if_drained()
            raise
        else:
            self.perform(self.state.opened(slot, connection, monotonic()))

    async def _settle(self, slot: Slot[C], work: Awaitable[bool], reason: str) -> None:
        fit = False
        try:
            fit = await work
        finally:
            if slot in self.state.slots:
                now, state = monotonic(), self.state
                self.perform(state.ready(slot, now) if fit else state.broken(slot, reason, now))

    async def _closing(self, slot: Slot[C]) -> None:
        try:
            await self._work.close(slot.connection)
        finally:
            if slot in self.state.slots:
                self._gone(slot)

    def _gone(self, slot: Slot[C]) -> None:
        self.perform(self.state.closed(slot, monotonic()))
        self._note_if_drained()

    def _note_if_drained(self) -> None:
        if self.state.closing and not self.state.slots:
            self.drained.set()

    # -- upkeep

    def tick(self) -> None:
        """Do the upkeep that is due: retire, refill, keep alive, probe, report leaks."""
        if not self.state.closing:
            self.perform(self.state.tick(monotonic()))
            if self.config.leak_after is not None:
                self._report_leaks(self.config.leak_after)

    def _come_again(self) -> None:
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(self._period, _upkeep, weakref.ref(self))

    def _report_leaks(self, leak_after: float) -> None:
        now = monotonic()
        for slot in self.state.leased():
            if now - slot.since >= leak_after and not slot.leak_reported:
                slot.leak_reported = True
                held, stack = now - slot.since, slot.holder.stack
                logger.warning("%s: held for %.1f s by %s\n%s", self.name, held, slot.holder, stack)

    def reclaim(self, slot: Slot[C]) -> None:
        """A lease was garbage-collected; this runs in the loop."""
        if slot in self.state.slots:
            self.perform(self.state.release(slot, monotonic(), discard="never released"))


_OPEN = "jobu-db open"

_PERFORM: dict[type[Any], Callable[[Any, Any], None]] = {
    decide.Open: PoolRunner._open,
    decide.Check: PoolRunner._check,
    decide.Reset: PoolRunner._reset,
    decide.Close: PoolRunner._close,
    decide.Grant: PoolRunner._grant,
    decide.Refuse: PoolRunner._refuse,
    decide.WakeAt: PoolRunner._wake_at,
}


def _tick(reference: weakref.ref[PoolRunner[Any]]) -> None:
    runner = reference()
    if runner is not None:
        runner.tick()


def _upkeep(reference: weakref.ref[PoolRunner[Any]]) -> None:
    """Tick and come again. Only a weak reference, so that an abandoned pool can die."""
    runner = reference()
    if runner is not None and not runner.state.closing:
        runner.tick()
        runner._come_again()


def _upkeep_period(config: PoolConfig) -> float:
    times = (config.max_idle, config.max_lifetime, config.check_after, config.leak_after)
    return min([1.0, *(max(0.01, time / 4) for time in times if time is not None)])


def _limits(config: PoolConfig) -> decide.Limits:
    return decide.Limits(
        min_size=config.min_size,
        max_size=config.max_size,
        max_waiting=config.max_waiting,
        max_idle=config.max_idle,
        max_lifetime=config.max_lifetime,
        check_after=config.check_after,
    )


def forgotten(name: str, driver: Driver[Any], slots: set[Slot[Any]], pid: int) -> None:
    """The pool was garbage-collected, or the program ended, without `close`."""
    if pid != os.getpid():
        return
    warnings.warn(f"{name}: the pool was never closed", ResourceWarning, stacklevel=2)
    for slot in slots:
        if slot.connection is not None:
            driver.terminate(slot.connection)
