"""The connection pool that every backend shares.

`state` decides, `runner` performs, and this is what callers see: they borrow a connection, wait
for one, and give it back.

No method awaits between a decision of the state and its effect. So a caller who is cancelled has
either got the connection, and gives it back, or never had it: see `acquire` and `_step_back`.
"""

from __future__ import annotations

import asyncio
import warnings
import weakref
from collections.abc import Awaitable, Callable, Generator
from contextlib import suppress
from threading import get_ident
from time import monotonic
from types import TracebackType
from typing import Any, Generic, Protocol, TypeVar

from jobu_db._aio.callsite import Callsite, note, where_asked
from jobu_db._aio.timeouts import check_seconds, check_whole
from jobu_db.driver import Driver
from jobu_db.errors import (
    ConfigurationError,
    ConnectionLostError,
    DatabaseError,
    PoolClosedError,
    TransactionError,
)
from jobu_db.events import events
from jobu_db.logs import logger_of
from jobu_db.pool import fork, messages
from jobu_db.pool.handover import held_by_caller_alone
from jobu_db.pool.lease import PooledConnection
from jobu_db.pool.runner import PoolRunner, forgotten
from jobu_db.pool.slots import COMMIT, Actions, Ending, Phase, Slot
from jobu_db.pool.two_phase_notes import TwoPhaseNotes
from jobu_db.pool.waiters import Queued
from jobu_db.settings.models import PoolConfig

C = TypeVar("C")
T = TypeVar("T")

_TIME_TO_CLOSE = 1.0


class _Done:
    """An awaitable that is done: what `release` returns to those who await it."""

    def __await__(self) -> Generator[Any, None, None]:
        return
        yield


_DONE = _Done()

_open_pools: weakref.WeakValueDictionary[int, AsyncConnectionPool[Any]]
_open_pools = weakref.WeakValueDictionary()


def open_pools() -> list[AsyncConnectionPool[Any]]:
    """Return the pools that are open in this process. May be called from any thread."""
    known = [reference() for reference in _open_pools.valuerefs()]
    return [pool for pool in known if pool is not None and pool.is_open_here]


class Positions(Protocol):
    """Keeps where the running task's writes are, so that replicas can be asked for them."""

    def committed(self, connection: Any) -> None:
        """A writing transaction was committed on a connection just now."""

    def lost(self) -> None:
        """Something may have been committed whose position was not told."""

    async def ask(self, connection: Any) -> None:
        """A statement outside a transaction may have committed something just now."""


class AsyncConnectionPool(Generic[C]):
    """Connections of one database, lent first come, first served.

    Args:
        name: Name of the database, for messages.
        driver: How to talk to it.
        config: Sizes and times; see `PoolConfig`.
        replica_of: The pool of the database, if this one reads from a replica of it.

    Attributes:
        positions: Who is to hear of what is committed, or None.
        replica_of: As given. A replica that cannot be reached is no reason to wait, since others
            can answer: who waits for a connection hears of it at once.
        time_limits: For work on its connections; for the core's own use.
        observer: To whom the core tells what happens; likewise.
        translating: `with pool.translating(sql):` raises the driver's errors as what they mean.
        resets: What a holder sets on a connection is undone when it comes back.
        two_phase: What is known here of atomic units; likewise.
    """

    ends_transactions = True  # that nobody needs to wait for, once their connection is back
    replaces = True  # a connection that died while it was idle

    def __init__(
        self,
        name: str,
        driver: Driver[C],
        config: PoolConfig,
        replica_of: AsyncConnectionPool[C] | None = None,
    ) -> None:
        self.name = name
        self.driver = driver
        self.config = config
        self.positions: Positions | None = None
        self.replica_of = replica_of
        self.resets = config.reset == "always"
        self.two_phase = TwoPhaseNotes()
        self._runner = PoolRunner(name, driver, config, patient=replica_of is None)
        self._state = self._runner.state
        self._work = self._runner.work
        self._stats = self._runner.stats
        self._demand = self._stats.demand
        self._translation = self._runner.translation
        self.translating = self._translation.translating
        self.time_limits = self._runner.time_limits
        self.observer = self._runner.observer
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: int | None = None
        self._pid: int | None = None
        self._with_stack = config.leak_after is not None

    # -- opening and closing

    async def open(self) -> None:
        """Open the first connection, unless `lazy`, and start the upkeep.

        Raises:
            ConnectionFailedError: At once, whatever the cause.
            DatabaseError: It has been opened before; a pool is used once.
        """
        if self._loop is not None:
            raise DatabaseError("the pool has been opened already", database=self.name)
        await self._runner.start()
        self._loop, self._thread = asyncio.get_running_loop(), get_ident()
        self._pid = fork.pid
        fork.keep_from_children(self._runner)
        _open_pools[id(self)] = self
        self._forgotten = weakref.finalize(
            self, forgotten, self.name, self._work, self._state, self._pid
        )

    async def close(self, timeout: float | None = None) -> list[str]:
        """Lend nothing more, wait for holders at most `timeout` seconds, then terminate.

        Waiters get `PoolClosedError` at once. Closing again does nothing more.

        Args:
            timeout: Seconds; the pool's own `timeout` if None.

        Returns:
            Who still held a connection when time was up, one text each; logged as well.
        """
        self._check_place()
        check_seconds("timeout", timeout)
        if not self.closed:
            self._forgotten.detach()
            self._runner.stop()
            self._tell_advice()
        try:
            async with asyncio.timeout(self.config.timeout if timeout is None else timeout):
                await self._runner.drained.wait()
        except TimeoutError:
            held = self._runner.terminate()
            for who in held:
                logger_of(self.name).warning("%s: closed while in use by %s", self.name, who)
            return held
        except asyncio.CancelledError:
            # Nobody will wait for the holders any more, and nothing may outlive the caller.
            self._runner.terminate()
            raise
        return []

    def _tell_advice(self) -> None:
        advice = messages.advice(self._state, self._stats)
        if advice.verdict != "too early":
            logger_of(self.name).info("%s: %s", self.name, advice.text)

    async def wait(self, timeout: float | None = None) -> None:
        """Wait until the server lets us in and `min_size` connections are open, at least one.

        Args:
            timeout: Seconds; the pool's own `timeout` if None.

        Raises:
            ConnectionFailedError: They are not, with the last cause; or waiting will not help.
            ConnectionPoolExhaustedError: All connections were in use all the time.
            PoolClosedError: The pool is closed.
        """
        check_seconds("timeout", timeout)
        limit = self.config.timeout if timeout is None else timeout
        until = monotonic() + limit
        while True:
            async with self.connection(max(0.0, until - monotonic())):
                pass  # as any caller, which has one opened where there is none
            # Nothing awaits from this look to the future of `attempt`: none ends unheard in
            # between.
            if self._state.established >= self._state.limits.min_size:
                return
            try:
                async with asyncio.timeout(until - monotonic()):
                    await self._runner.attempt()
            except TimeoutError as error:
                raise messages.too_few(self.name, self._state, limit) from error.__cause__

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
        check_seconds("timeout", timeout)
        lease = self.acquire_nowait()
        if lease is not None:
            return lease
        return await self._wait_for_one(self.config.timeout if timeout is None else timeout)

    async def _wait_for_one(self, limit: float, *, begins: bool = False) -> PooledConnection[C]:
        waiter = self._enqueue(limit, begins=begins)
        try:
            await waiter
        except BaseException:
            # A task may be cancelled between the grant and its next step: then the grant is passed
            # on.
            self._step_back(waiter)
            del waiter  # else the error, which knows this frame, and the waiter keep one another
            raise
        # Nothing awaits from here to the lease: what was granted cannot be lost.
        assert waiter.slot is not None
        waited = monotonic() - waiter.asked_at
        if waiter.full:
            self._demand.queued += waited
        slow = self.observer.slow
        if slow.acquire is not None and waited >= slow.acquire:
            slow.tell_acquire(waited, waiter.slot.asked, messages.counts(self._state))
        return self._lend(waiter.slot, waited)

    async def acquire_for(
        self,
        first: Callable[[PooledConnection[C]], Awaitable[T]],
        deadline: float,
        *,
        statement: str = "BEGIN",
        repeatable: bool = False,
        begins: bool = False,
    ) -> tuple[PooledConnection[C], T]:
        """Borrow a connection and run a first operation on it.

        A connection that turns out to have died while it was idle costs the caller nothing: the
        operation runs on another one, provided that it cannot take effect twice.

        Args:
            first: The operation.
            deadline: Until when to wait for a connection, on the monotonic clock.
            statement: What it sends, for errors.
            repeatable: It takes no effect by itself, even if it was sent (a BEGIN). Else it is
                repeated only if it was certainly not sent.
            begins: It is `begin_in_time`, which can take a connection whose end is owed.

        Returns:
            The lease, and what `first` returned.

        Raises:
            DatabaseError: As `acquire`, or what `first` raised; then the connection is back.
        """
        started = monotonic()
        while True:
            lease = self.acquire_nowait(begins=begins) or await self._wait_for_one(
                max(0.0, deadline - monotonic()), begins=begins
            )
            lease.slot_of(self).scoped = True
            try:
                with self.translating(statement):
                    return lease, await first(lease)
            except BaseException as error:
                again = self.may_repeat(error, lease, started, repeatable=repeatable)
                # Before `release`, which reads it: what was cut off must be stopped on the server.
                lease.interrupted = not isinstance(error, Exception)
                self.release(lease, discard=self._unfit_after(error, repeatable))
                if not again or monotonic() >= deadline:
                    raise

    def may_repeat(
        self, error: BaseException, lease: PooledConnection[C], started: float, *, repeatable: bool
    ) -> bool:
        """Say whether what was sent first on a connection may be tried on another one.

        Args:
            error: With what it failed.
            lease: The connection.
            started: When it was asked for, on the monotonic clock.
            repeatable: It took no effect, even if it was sent. Else it may be tried again only if
                it was certainly not sent.
        """
        if not isinstance(error, ConnectionLostError):
            return False
        slot = lease.slot_of(self)
        if lease.behind and (repeatable or not error.sent):
            return True  # the end ahead of it may have failed; the next one has none
        if error.sent:  # on one that has just answered, it is what was sent that broke it
            return repeatable and slot.proven_at < started
        # One that was opened since then has not died while it was idle: trying again might never
        # end.
        return slot.created_at < started

    def _unfit_after(self, error: BaseException, beginning: bool) -> str | None:
        """Say why a connection must be closed after its first operation failed, or None.

        After a BEGIN that failed, what was set for the transaction may still hold. One that was
        cut off is stopped, and cleaned by the reset.
        """
        if isinstance(error, ConnectionLostError):
            return "lost"
        resets = not isinstance(error, Exception) and self.config.reset == "always"
        return "begin failed" if beginning and not resets else None

    def end_failed(self, error: BaseException) -> None:
        """What was to end the transaction before, ahead of the first statement, was lost."""
        self._work.end_failed(error)

    def acquire_nowait(self, *, begins: bool = False) -> PooledConnection[C] | None:
        """Borrow a connection if one is idle and nobody waits; else None. With `begins`, it may be
        one whose end is owed."""
        if self._state.closing:
            raise PoolClosedError("the pool is closed", database=self.name)
        if not self.is_here():
            self._check_place()
        actions: Actions = []
        slot = self._state.take(monotonic(), actions, begins=begins)
        if actions:
            self._runner.perform(actions)
        if slot is None:
            return None
        task = asyncio.current_task(self._loop)  # given the loop, Python 3.11 needs no system call
        slot.asked = note(task, where_asked(with_stack=self._with_stack))
        return self._lend(slot, 0.0)

    def connection(self, timeout: float | None = None) -> Loan[C]:
        """Borrow for the length of an `async with` block; see `acquire`."""
        if timeout is not None:
            check_seconds("timeout", timeout)
        return Loan(self, timeout)

    def release(
        self,
        lease: PooledConnection[C],
        *,
        clean: bool = False,
        discard: str | None = None,
        ends: Ending | None = None,
    ) -> Awaitable[None]:
        """Give a connection back, at once; awaiting the result is allowed and changes nothing.

        Args:
            lease: What `acquire` returned.
            clean: The reset has been done already.
            discard: Why the connection must be closed instead of lent again.
            ends: How the transaction that is open on it is for the pool to end. If None, one that
                is open was left so by its holder: it is rolled back, and that is logged.

        Raises:
            DatabaseError: Released before, or borrowed from another pool.
        """
        slot = lease.slot_of(self)
        if not self.is_here():
            self._check_place()
        if slot in self._state.slots:  # else it was terminated by `close`
            now = monotonic()
            held = now - slot.since
            reset = owes = False
            if ends is not None and lease.behind and not lease.answered:
                ends = COMMIT  # nothing of its holder's was sent: open is the transaction before
            if discard is None:
                reset = (
                    lease.interrupted_at is not None
                    or slot.session is not None
                    or self._needs_reset(lease, slot, clean, ends)
                )
                # A session's, or what was cut off, is never left as it is for anybody.
                owes = (
                    reset
                    and ends is COMMIT
                    and slot.session is None
                    and lease.interrupted_at is None
                    and self._work.may_owe_end(slot.connection)
                )
            # If its holder has not begun behind what was owed, that is owed still.
            slot.ends = (ends or slot.ends) if reset else None
            slot.interrupted_at = lease.interrupted_at
            slot.scoped = False
            slot.unanswered_since = None
            if discard is not None and not self._work.is_alive(slot.connection):
                self._state.suspect_idle()  # what ended this one may have ended its like
            used = lease.touched and lease.answered
            actions = self._state.release(
                slot, now, used=used, reset=reset, owes=owes, discard=discard
            )
            # Before `perform`, which may lend it at once, and notes who has it then.
            slot.asked = None
            self._stats.use.record(held)
            self._demand.in_use -= 1
            if events.release:
                self.observer.released(held)
            if actions:
                self._runner.perform(actions)
        lease.end()
        return _DONE

    def _needs_reset(
        self, lease: PooledConnection[C], slot: Slot[C], clean: bool, ends: Ending | None
    ) -> bool:
        if slot.ends is not None:  # it was lent with its end owed, and nobody has begun
            return True
        if not lease.touched:
            return False
        if self._work.in_transaction(slot.connection):
            if ends is None:
                self._stats.left_open += 1
                logger_of(self.name).warning(
                    "%s: a transaction left open by %s is rolled back",
                    self.name,
                    Callsite(slot.asked),
                )
            return True
        return not clean and self._work.needs_reset(slot.connection)

    def _lend(self, slot: Slot[C], waited: float) -> PooledConnection[C]:
        slot.leak_reported = False
        self._stats.wait.record(waited)
        demand = self._demand
        demand.in_use += 1
        if demand.in_use > demand.peak:
            demand.peak = demand.in_use
        if events.acquire:
            self.observer.acquired(waited)
        return PooledConnection(self, slot)

    # -- waiting

    def _enqueue(self, limit: float, *, begins: bool = False) -> Queued[C]:
        now, loop = monotonic(), asyncio.get_running_loop()
        place = where_asked(with_stack=self._with_stack)
        waiter: Queued[C] = Queued(loop, place, now, now + limit, begins=begins)
        self._refuse_to_wait_in_vain(waiter)
        self._note_demand(waiter)
        self._runner.perform(self._state.enqueue(waiter, now))
        self._runner.deadlines.mind(waiter.deadline)
        return waiter

    def _note_demand(self, asking: Queued[C]) -> None:
        state, demand = self._state, self._demand
        asking.full = len(state.slots) >= state.limits.max_size
        demand.wanted = max(demand.wanted, demand.in_use + len(state.waiters) + 1)

    def _step_back(self, waiter: Queued[C]) -> None:
        """A waiter leaves the line; what it was granted before that goes to the next."""
        if waiter.slot is not None:
            if waiter.slot in self._state.slots:  # else `terminate` has removed it
                self._runner.perform(self._state.give_back(waiter.slot, monotonic()))
        elif waiter in self._state.waiters:
            self._state.withdraw(waiter)

    def _refuse_to_wait_in_vain(self, asking: Queued[C]) -> None:
        state, task = self._state, asking.task
        if not state.may_wait():
            self._stats.refused += 1
            raise messages.queue_full(self.name, state)
        if (
            len(state.slots) >= state.limits.max_size
            and all(
                slot.phase is Phase.LEASED and Callsite(slot.asked).task is task
                for slot in state.slots
            )
            and held_by_caller_alone(state.slots, asking.get_loop())
        ):
            self._stats.refused += 1
            raise messages.self_deadlock(self.name, state, Callsite(asking.asked()))

    # -- leases that were dropped

    def reclaim(self, slot: Slot[C], *, in_generator: bool = False) -> None:
        """Take back what a garbage-collected lease held; called from whatever thread.

        An async generator that is dropped is closed by the event loop, which gives the lease back
        as if it had been left early. Both are collected together, in whatever order, so that is
        waited for.
        """
        # In whatever thread: here the state is only read; what changes it is handed to the loop.
        if self._pid != fork.pid or slot not in self._state.slots or self._loop is None:
            return
        if in_generator and not self._loop.is_closed():
            with suppress(RuntimeError):  # it was closed just now
                self._loop.call_soon_threadsafe(
                    self._loop.call_later,
                    self.time_to_close,
                    self._reclaim_if_unchanged,
                    slot,
                    slot.uses,
                )
                return
        message = f"{self.name}: a connection was never released by {Callsite(slot.asked)}"
        try:
            self._loop.call_soon_threadsafe(self._runner.reclaim, slot)
        except RuntimeError:  # the loop is closed: nobody else will use the pool
            self._work.terminate(slot.connection)
        warnings.warn(message, ResourceWarning, stacklevel=3)

    @property
    def time_to_close(self) -> float:
        """Seconds in which the event loop closes a generator that was dropped, and more."""
        return self.config.cleanup_timeout + _TIME_TO_CLOSE

    def _reclaim_if_unchanged(self, slot: Slot[C], uses: int) -> None:
        # `uses` has grown if it was given back after all; somebody else may have it now.
        if slot.uses == uses and slot.phase is Phase.LEASED:
            self.reclaim(slot)

    # -- what errors mean

    def explain(self, error: BaseException, statement: str | None = None) -> DatabaseError | None:
        """Say what a driver's error means, with database and statement filled in; None if it is
        not known. Never raises."""
        return self._translation.explain(error, statement)

    def told(self, error: BaseException) -> str:
        """Return what a log may say of a driver's error, without values of statements."""
        return self._translation.told(error)

    # -- figures, settings, and what the owner asks for

    @property
    def size(self) -> int:
        """Number of connections, held ones included."""
        return self._state.established

    @property
    def busy(self) -> int:
        """Number of connections that are held, and of callers who wait for one."""
        return self._demand.in_use + len(self._state.waiters)

    @property
    def available(self) -> int:
        """How many more could be lent without waiting for a holder, new ones included."""
        return len(self._state.idle) + max(0, self._state.limits.max_size - len(self._state.slots))

    @property
    def closed(self) -> bool:
        """True once `close` was called."""
        return self._state.closing

    @property
    def is_open_here(self) -> bool:
        """True from `open` to `close`, in the process that opened it."""
        return self._pid == fork.pid and not self._state.closing

    def stats(self) -> dict[str, Any]:
        """Return the figures: counts, closed by reason, wait and use times in seconds, and the
        advice that follows from them; see `Advice`. May be called from any thread."""
        return messages.figures(self._state, self._stats, self.driver)

    def resize(self, *, min_size: int | None = None, max_size: int | None = None) -> None:
        """Change the sizes of the running pool.

        Raises:
            ConfigurationError: The sizes contradict each other.
            TypeError: One is no whole number.
        """
        self._check_place()
        check_whole("min_size", min_size)
        check_whole("max_size", max_size)
        limits = self._state.limits
        low = limits.min_size if min_size is None else min_size
        high = limits.max_size if max_size is None else max_size
        if not 0 <= low <= high or high < 1:
            raise ConfigurationError(
                f"{self.name}: min_size={low}, max_size={high}: need 0 <= min_size <= max_size, "
                "and max_size at least 1"
            )
        self._runner.perform(self._state.resize(low, high, monotonic()))

    def drain(self) -> None:
        """Replace all connections: the idle ones now, others as they come back.

        For what only a new connection has: another password, privilege, or default of the server.
        Does nothing for a database in memory, which is gone with its connection.
        """
        self._check_place()
        if self.driver.replaceable:
            self._runner.perform(self._state.drain(monotonic()))

    async def check(self) -> None:
        """Prove that the idle connections answer, each within `check_timeout`; close the others."""
        self._check_place()
        idle = list(self._state.idle)
        self._runner.perform(self._state.check(monotonic()))
        if proofs := [slot.task for slot in idle if slot.task is not None]:
            await asyncio.wait(proofs)

    # -- one process, one event loop

    def is_here(self) -> bool:
        """Say whether this is the process and the event loop that the pool was opened in.

        Elsewhere nothing of it may be touched: a forked child shares the parent's sockets, and
        what another loop does falls between the statements of this one.
        """
        # A loop that runs is the one of its thread. Asking for the running loop would cost a
        # system call on Python 3.11.
        return (
            get_ident() == self._thread  # None until it is opened
            and self._pid == fork.pid
            and self._loop.is_running()  # type: ignore[union-attr]
        )

    @property
    def in_its_process(self) -> bool:
        """True unless this is a child that was forked after the pool was opened."""
        return self._pid == fork.pid

    def check_transaction_place(self, what: str = "transaction") -> None:
        """Raise `TransactionError` where a transaction of this pool must not be touched."""
        if not self.is_here():
            message = messages.wrong_place(self._loop, self._pid, what)
            raise TransactionError(message, database=self.name)

    def _check_place(self) -> None:
        if not self.is_here():
            message = messages.wrong_place(self._loop, self._pid, "pool")
            raise DatabaseError(message, database=self.name)

    def __repr__(self) -> str:
        return f"<AsyncConnectionPool {self.name}: {messages.counts(self._state)}>"


class Loan(Generic[C]):
    """`async with pool.connection() as conn`."""

    __slots__ = ("_lease", "_pool", "_timeout")

    def __init__(self, pool: AsyncConnectionPool[C], timeout: float | None) -> None:
        self._pool = pool
        self._timeout = timeout

    async def __aenter__(self) -> PooledConnection[C]:
        pool = self._pool
        self._lease = pool.acquire_nowait() or await pool.acquire(self._timeout)
        self._lease.slot_of(pool).scoped = True
        return self._lease

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        # `asyncio.timeout` and `wait_for` cancel, too, and say TimeoutError.
        if error is not None and isinstance(error, (asyncio.CancelledError, TimeoutError)):
            self._lease.interrupted = True
        self._pool.release(self._lease)
