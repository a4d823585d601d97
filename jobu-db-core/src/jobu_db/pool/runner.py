"""Performs what the pool's state decided: I/O in tasks, wake-ups of waiters, and the upkeep.

It does not know the pool, so that an abandoned pool can die while a task here still runs.

Invariant: what works on a connection, a task or an `InlineTask`, ends in exactly one report to the
state, also if it is cancelled before its first step. It reports its success; `_ended` reports the
rest.
"""

from __future__ import annotations

import asyncio
import random
import warnings
import weakref
from collections.abc import Callable, Coroutine
from functools import partial
from math import inf
from time import monotonic
from typing import Any, Generic, TypeVar

from jobu_db._aio.callsite import Callsite
from jobu_db._aio.inline_task import InlineTask
from jobu_db._aio.timeouts import LimitedTask, TimeLimits
from jobu_db.driver import Driver
from jobu_db.errors import ConnectionFailedError
from jobu_db.logs import logger_of
from jobu_db.pool import fork, messages
from jobu_db.pool import slots as decided
from jobu_db.pool.maintenance import Maintenance
from jobu_db.pool.observer import Observer
from jobu_db.pool.silence import SilenceWatch
from jobu_db.pool.slots import Limits, Phase, Slot
from jobu_db.pool.state import PoolState
from jobu_db.pool.stats import PoolStats
from jobu_db.pool.takeover import TakeoverWatch
from jobu_db.pool.translation import Translation
from jobu_db.pool.waiters import Deadlines
from jobu_db.settings.models import PoolConfig
from jobu_db.tcp import sever

C = TypeVar("C")

_GRACEFUL = frozenset({"idle", "lifetime", "resized", "pool closed", "drained"})
"""Reasons for which a connection is sound, so that it is closed gracefully."""


class PoolRunner(Generic[C]):
    """The state of one pool, and what carries out its decisions.

    Args:
        patient: Who waits for a connection goes on waiting while the server is away.

    Attributes:
        drained: Set once a closing pool has no connection left.
        time_limits: For work on the connections, of holders as well.
        translation: What the driver's errors mean.
    """

    def __init__(
        self, name: str, driver: Driver[C], config: PoolConfig, *, patient: bool = True
    ) -> None:
        self.name = name
        self._patient = patient
        self.config = config
        self.stats = PoolStats()
        self.drained = asyncio.Event()
        self.time_limits = TimeLimits()
        self.translation = Translation(name, driver, values=config.values_in_causes)
        self.observer = Observer(name, driver, config)
        self.work = Maintenance(
            name, driver, config, self.time_limits, self.translation, self.stats
        )
        self.state: PoolState[C] = PoolState(_limits(config), self.work.is_alive, random.random)
        self.deadlines = Deadlines(self.state, weakref.WeakMethod(self.perform))
        self._driver = driver
        self._taskless = driver.taskless
        self._period = _upkeep_period(config)
        self._timer: asyncio.TimerHandle | None = None
        self.silence = SilenceWatch(
            name, driver, config, self.state, self.time_limits, self.work.terminate
        )
        self._silence_timer: asyncio.TimerHandle | None = None
        self._takeover: TakeoverWatch[C] | None = None
        self._takeover_timer: asyncio.TimerHandle | None = None
        if driver.host_figures():
            leave = weakref.WeakMethod(self.leave)
            self._takeover = TakeoverWatch(
                name, driver, config, self.state, self.work.terminate, leave
            )
            driver.watch_hosts(self.observer.host_changed)
        self._attempt_awaited: set[asyncio.Future[None]] = set()

    def perform(self, actions: decided.Actions) -> None:
        """Carry out what the state decided."""
        # May be entered again from within (`_close`, `_reset`). That is safe, because the state
        # noted all of these decisions before the first is carried out.
        for action in actions:
            _PERFORM[type(action)](self, action)
        if self.state.closing and not self.state.slots:
            self.drained.set()

    # -- starting and stopping

    async def start(self) -> None:
        """Open the first connection, unless `lazy`."""
        if not self.config.lazy:
            connection = await self.connect()
            self._keep_up()
            self.perform(self.state.adopted(connection, monotonic()))

    def stop(self) -> None:
        """Refuse waiters, close what is idle, stop opening what is being opened."""
        self._stop_timers()
        self._stop_watches()
        self.deadlines.stop()
        self.perform(self.state.close(monotonic()))
        self._let_go_of_what_nobody_works_on()
        self._tell_of_attempt()
        for slot in self.state.slots:
            # Only these: checks and resets have limits of their own, and end in a close now.
            if slot.phase is Phase.OPENING:
                slot.task.cancel()
        # What is lent out goes on until it comes back, but for who only waits: idle sessions end.
        for slot in list(self.state.leased()):
            end_session = None if slot.session is None else slot.session()
            if end_session is not None:
                end_session()
            if slot.phase is Phase.LEASED and Callsite(slot.asked).interrupted:
                self.reclaim(slot)  # its frames are kept, so it is not collected

    def _let_go_of_what_nobody_works_on(self) -> None:
        """Ctrl-C may have struck between a decision and what carries it out."""
        for slot in list(self.state.slots):
            # Right after a decision it is noted who has the lease, or what works on the connection.
            # Where that is missing, nobody will ever report.
            if slot.phase is Phase.LEASED:
                nobody = slot.asked is None
            else:
                task = slot.task
                nobody = task is None or (isinstance(task, InlineTask) and task.future is None)
            if nobody:
                if slot.connection is not None:
                    self.work.terminate(slot.connection)
                self.state.remove(slot)
        self.perform([])

    def disown(self) -> None:
        """In a forked child: nothing that still runs here reaches the parent's connections."""
        self._stop_timers()
        for slot in self.state.slots:
            if slot.connection is not None:
                sever(self._driver.socket_of(slot.connection))

    def _stop_timers(self) -> None:
        for timer in (self._timer, self._silence_timer, self._takeover_timer):
            if timer is not None:
                timer.cancel()

    def _stop_watches(self) -> None:
        self.silence.stop()
        if self._takeover is not None:
            self._takeover.stop()

    def terminate(self) -> list[str]:
        """Close everything at once; return who held what."""
        self._stop_watches()
        now, state = monotonic(), self.state
        held = [f"{Callsite(slot.asked)} for {now - slot.since:.1f} s" for slot in state.leased()]
        for slot in list(state.slots):
            if slot.task is not None:
                slot.task.cancel()
            if slot.connection is not None:
                self.work.terminate(slot.connection)
            if slot.phase not in (Phase.OPENING, Phase.CLOSING):  # a close is counted already
                self.stats.closed["terminated"] += 1
            # At once: what holds one, or works on one, finds its slot gone, and reports nothing.
            state.remove(slot)
        self.perform([])
        return held

    # -- one method per action

    def _grant(self, action: decided.Grant) -> None:
        waiter: Any = action.waiter
        # From the decision on the lease is the waiter's, before its task runs: what looks at it
        # in between (`_let_go_of_what_nobody_works_on`) must see who has it.
        waiter.slot.asked = waiter.asked()
        if not waiter.done():  # else it was cancelled, and will give the grant back
            waiter.set_result(None)

    def _refuse(self, action: decided.Refuse) -> None:
        waiter: Any = action.waiter
        if not waiter.done():
            self.stats.wait_in_vain.record(monotonic() - waiter.asked_at)
            waiter.set_exception(messages.refused(self.name, action.cause))

    def _expire(self, action: decided.Expire) -> None:
        waiter: Any = action.waiter
        if not waiter.done():  # else it was cancelled, and hears of that
            now = monotonic()
            self.stats.timeouts += 1
            self.stats.wait_in_vain.record(now - waiter.asked_at)
            if waiter.full:
                self.stats.demand.given_up += 1
                self.stats.demand.queued += now - waiter.asked_at
            waiter.set_exception(
                messages.exhausted(
                    self.name, self.state, now - waiter.asked_at, now, action.waiting
                )
            )

    def _open(self, action: decided.Open) -> None:
        self._keep_up()
        self._start(action.slot, self._opening(action.slot))

    def _check(self, action: decided.Check) -> None:
        slot = action.slot
        self._start(slot, self._proving(slot, partial(self.work.check, slot.connection)))

    def _reset(self, action: decided.Reset) -> None:
        slot, interrupted = action.slot, action.slot.interrupted_at is not None
        # All is taken off the slot before the work begins: the first step may be the last, and the
        # connection may be lent to somebody else within it.
        slot.interrupted_at = None
        always, slot.session = slot.session is not None, None
        ends, slot.ends = slot.ends, None
        connection, work = slot.connection, self.work
        if interrupted or not self._taskless:
            reset = partial(
                work.reset, connection, interrupted=interrupted, always=always, ends=ends
            )
            self._start(slot, self._proving(slot, reset))
        else:
            undoing = work.undo(connection, always=always, ends=ends)
            task = LimitedTask(undoing, partial(self._undone, slot), self.time_limits)
            slot.task = task  # before its first step, which may be its last: `_undone` compares
            task.begin(self.config.cleanup_timeout)

    def _owe(self, action: decided.Owe) -> None:
        # For each: a note that one is on its way would outlast one that Ctrl-C struck.
        asyncio.get_running_loop().call_soon(_send_owed, weakref.ref(self))

    def send_owed(self) -> None:
        """Send alone what nobody has sent ahead of a BEGIN."""
        if self.state.owing:
            self.perform(self.state.send_owed())

    def _close(self, action: decided.Close) -> None:
        slot, reason = action.slot, action.reason
        self.stats.closed[reason] += 1
        self.observer.closing(reason)
        # Closing gracefully takes a round trip, whose end a broken connection would never see. One
        # that was interrupted is stopped first: else its statement runs on, on the server.
        if reason in _GRACEFUL or slot.interrupted_at is not None:
            closing = self.work.close(slot.connection, interrupted_at=slot.interrupted_at)
            self._start(slot, closing)
        else:
            # Asked before: a connection that was terminated may not tell any more.
            host = self._lost_host(slot.connection)
            self.work.terminate(slot.connection)
            self.perform(self.state.closed(slot, monotonic()))
            if host is not None:
                self.leave(host)

    def _wake_at(self, action: decided.WakeAt) -> None:
        delay = max(0.0, action.when - monotonic())
        loop = asyncio.get_running_loop()
        # Not kept: a tick that is not needed any more does no harm.
        loop.call_later(delay, _wake, weakref.ref(self), action.when)

    # -- I/O

    def _start(self, slot: Slot[C], work: Coroutine[Any, Any, None]) -> None:
        # Not the loop's own factory: an eager task may have reported before `slot` knows it.
        loop = asyncio.get_running_loop()
        task = asyncio.Task(work, loop=loop, name=f"jobu-db {self.name}")
        task.add_done_callback(partial(self._ended, slot))
        slot.task = task

    async def connect(self) -> C:
        """Open a connection; see `Maintenance.open`."""
        started = monotonic()
        error: ConnectionFailedError | None = None
        try:
            connection = await self.work.open()
        except ConnectionFailedError as failed:
            self.stats.errors += 1
            error = failed
            raise
        else:
            self.stats.created += 1
            return connection
        finally:
            self.observer.connected(monotonic() - started, error)

    async def _opening(self, slot: Slot[C]) -> None:
        connection = await self.connect()
        slot.task = None  # before the report, which may start other work on the same connection
        self.perform(self.state.opened(slot, connection, monotonic()))
        self._tell_of_attempt()

    async def attempt(self) -> None:
        """Wait until some attempt to connect ends, or the pool is closed."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._attempt_awaited.add(future)
        try:
            await future
        finally:
            self._attempt_awaited.discard(future)

    def _tell_of_attempt(self) -> None:
        for future in self._attempt_awaited:
            if not future.done():
                future.set_result(None)

    async def _proving(self, slot: Slot[C], work: Callable[[], Coroutine[Any, Any, bool]]) -> None:
        if await work():
            slot.task = None  # as in `_opening`
            self.perform(self.state.ready(slot, monotonic()))

    def _undone(self, slot: Slot[C], task: LimitedTask) -> None:
        error = task.exception()
        if error is None and slot.task is task:
            slot.task = None  # as in `_opening`
            self.perform(self.state.ready(slot, monotonic()))
            return
        if isinstance(error, Exception):
            self.work.tell_unclean(error)
        self._over(slot, task, error)

    def _ended(self, slot: Slot[C], task: asyncio.Task[None]) -> None:
        error = asyncio.CancelledError() if task.cancelled() else task.exception()
        if isinstance(error, Exception) and not isinstance(error, ConnectionFailedError):
            logger_of(self.name).error("%s: unexpected", self.name, exc_info=error)
        self._over(slot, task, error)

    def _over(
        self, slot: Slot[C], task: asyncio.Task[None] | InlineTask, error: BaseException | None
    ) -> None:
        if slot.task is not task:
            return  # it has reported its success
        slot.task = None
        if slot in self.state.slots:  # else the pool was terminated
            opening = slot.phase is Phase.OPENING
            self.perform(self._report(slot, error))
            if opening:
                self._tell_of_attempt()

    def _report(self, slot: Slot[C], error: BaseException | None) -> decided.Actions:
        state, now = self.state, monotonic()
        if slot.phase is Phase.CLOSING:
            return state.closed(slot, now)
        if slot.phase is Phase.OPENING:
            assert error is not None
            transient = not isinstance(error, ConnectionFailedError) or error.transient
            return state.open_failed(slot, error, now, transient=transient and self._patient)
        return state.broken(slot, "dead" if slot.phase is Phase.CHECKING else "not clean", now)

    # -- upkeep

    def tick(self, now: float) -> None:
        """Do the upkeep that is due: retire, refill, keep alive, probe, report leaks."""
        if not self.state.closing:
            self.perform(self.state.tick(now))
            if self.config.leak_after is not None:
                self._report_leaks(self.config.leak_after, now)

    def _keep_up(self) -> None:
        """Tick periodically, from the first connection on."""
        if self._timer is None:
            self.come_again()
            self.listen_again()
            self.look_around_again()

    def come_again(self) -> None:
        """Tick once more after a while."""
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(self._period, _upkeep, weakref.ref(self))

    def listen_again(self) -> None:
        """Look for silent connections once more after a while."""
        loop, period = asyncio.get_running_loop(), self.silence.period
        self._silence_timer = loop.call_later(period, _listen, weakref.ref(self))

    def look_around_again(self) -> None:
        """Look for servers that were replaced once more after a while."""
        if self._takeover is not None:
            loop, period = asyncio.get_running_loop(), self._takeover.period
            self._takeover_timer = loop.call_later(period, _look_around, weakref.ref(self))

    def look_around(self) -> None:
        """See which servers are silent."""
        if self._takeover is not None:
            self._takeover.look(monotonic())

    def _lost_host(self, connection: C) -> str | None:
        if self._takeover is None:
            return None
        host = self._host_of(connection)
        try:
            return host if host is not None and self._driver.lost_host(connection) else None
        except Exception:
            logger_of(self.name).exception("%s: lost_host() failed", self.name)
            return None

    def leave(self, host: str) -> None:
        """Use no connection any more that leads to a server that is of no use."""
        self.perform(self.state.leave(lambda one: self._host_of(one) == host, monotonic()))

    def _host_of(self, connection: C) -> str | None:
        try:
            return self._driver.host_of(connection)
        except Exception:
            logger_of(self.name).exception("%s: host_of() failed", self.name)
            return None

    def _report_leaks(self, leak_after: float, now: float) -> None:
        for slot in self.state.leased():
            held = now - slot.since
            if held >= leak_after and not slot.leak_reported and slot.session is None:
                slot.leak_reported = True
                holder = Callsite(slot.asked)
                logger_of(self.name).warning(
                    "%s: held for %.1f s by %s\n%s", self.name, held, holder, holder.stack
                )

    def reclaim(self, slot: Slot[C]) -> None:
        """Nobody will release this lease any more; this runs in the loop."""
        if slot in self.state.slots:
            self.stats.demand.in_use -= 1
            self.perform(self.state.release(slot, monotonic(), discard="never released"))


_PERFORM: dict[type[Any], Callable[[Any, Any], None]] = {
    decided.Open: PoolRunner._open,
    decided.Check: PoolRunner._check,
    decided.Reset: PoolRunner._reset,
    decided.Owe: PoolRunner._owe,
    decided.Close: PoolRunner._close,
    decided.Grant: PoolRunner._grant,
    decided.Refuse: PoolRunner._refuse,
    decided.Expire: PoolRunner._expire,
    decided.WakeAt: PoolRunner._wake_at,
}


def _wake(reference: weakref.ref[PoolRunner[Any]], when: float) -> None:
    runner = reference()
    if runner is not None:
        runner.tick(max(when, monotonic()))  # a loop's timer may be early by its resolution


def _send_owed(reference: weakref.ref[PoolRunner[Any]]) -> None:
    runner = reference()
    if runner is not None:
        runner.send_owed()


def _upkeep(reference: weakref.ref[PoolRunner[Any]]) -> None:
    """Tick and come again. Only a weak reference, so that an abandoned pool can die."""
    runner = reference()
    if runner is not None and not runner.state.closing:
        runner.come_again()
        runner.tick(monotonic())


def _listen(reference: weakref.ref[PoolRunner[Any]]) -> None:
    """Look for silent connections and come again, also while a closing pool waits for holders."""
    runner = reference()
    if runner is not None and (runner.state.slots or not runner.state.closing):
        runner.listen_again()
        runner.silence.look(monotonic())


def _look_around(reference: weakref.ref[PoolRunner[Any]]) -> None:
    """Look for servers that were replaced and come again."""
    runner = reference()
    if runner is not None and not runner.state.closing:
        runner.look_around_again()
        runner.look_around()


def _upkeep_period(config: PoolConfig) -> float:
    times = (config.max_idle, config.max_lifetime, config.check_after, config.leak_after)
    return min([1.0, *(max(0.01, time / 4) for time in times if time is not None)])


def _limits(config: PoolConfig) -> Limits:
    return Limits(
        min_size=config.min_size,
        max_size=config.max_size,
        max_waiting=config.max_waiting,
        max_idle=_or_never(config.max_idle),
        max_lifetime=_or_never(config.max_lifetime),
        check_after=_or_never(config.check_after),
    )


def _or_never(seconds: float | None) -> float:
    return inf if seconds is None else seconds


def forgotten(name: str, work: Maintenance[Any], state: PoolState[Any], pid: int) -> None:
    """The pool was garbage-collected, or the program ended, without `close`."""
    if pid != fork.pid:
        return
    state.closing = True  # what a task is doing just now opens nothing any more
    for slot in state.slots:
        if slot.connection is not None:
            work.terminate(slot.connection)
    warnings.warn(f"{name}: the pool was never closed", ResourceWarning, stacklevel=2)
