"""One leased connection in one transaction, shared by all its levels.

A statement passes through `Session.call`: is it possible at all, has it its turn, does a cursor
or a cancelled call have to make way first, then the driver, then what became of the transaction.

Invariant: calls of the driver follow one another, and after one that was cancelled comes its
`abort`, or none at all because the connection is discarded (`lose`).
"""

from __future__ import annotations

import asyncio
import itertools
import warnings
from collections.abc import Awaitable, Callable, Coroutine
from functools import partial
from time import monotonic
from typing import Any, Protocol

from jobu_db._aio.callsite import Callsite
from jobu_db._aio.generators import EnclosingGenerator
from jobu_db.driver import Driver, TransactionMode, WriteGate
from jobu_db.errors import (
    ConnectionLostError,
    DatabaseError,
    NoTransactionError,
    QueryTimeoutError,
    ReadOnlyTransactionError,
    TransactionError,
)
from jobu_db.guard import redirect, tell_first
from jobu_db.logs import logger_of
from jobu_db.pool.lease import PooledConnection
from jobu_db.pool.pool import AsyncConnectionPool
from jobu_db.transaction import ambient
from jobu_db.transaction.lender import Lender
from jobu_db.transaction.statement_queue import StatementQueue

Callback = Callable[[], Awaitable[None] | None]
"""What `on_commit` takes."""


_serials = itertools.count()


class Block:
    """What is left at once: the level of one transaction, or those of all members of a unit.

    Attributes:
        serial: Its place in the order in which blocks were entered.
        around: By the home of its savepoints, the innermost block that would undo a part of what
            they do; empty for a block that ends by itself.
        enlisted: Transactions of blocks that were left inside this one, which end with it, in
            their order.
        left: Nothing more is enlisted.
    """

    # This class and the next are written out: every transaction makes one of each, and what
    # `dataclasses` writes costs twice as much.

    __slots__ = ("around", "enlisted", "left", "serial")

    def __init__(self) -> None:
        self.serial = next(_serials)
        self.around: dict[Any, Block] = {}
        self.enlisted: list[ambient.Enlisted] = []
        self.left = False


class Root(Protocol):
    """A root transaction, as far as its levels ask."""

    unit: str

    @property
    def held_gate(self) -> WriteGate | None:
        """The gate in which it has the turn to write itself, or None."""

    def holds_gate(self, gate: WriteGate) -> bool:
        """True while it, or a transaction around it, has the turn to write there."""


class _Over:
    """Stands for the root of a transaction that is over: a level that knew the root itself, and
    is known to it, would be left to the garbage collector, and so would all that they know."""

    unit = ""
    held_gate = None

    def holds_gate(self, gate: WriteGate) -> bool:
        """It has no turn any more."""
        return False


OVER = _Over()


class Level:
    """One level of a transaction, as data: the outermost block, or a savepoint inside it.

    It is what is ambient for the code inside; what that code is handed is its face.

    Attributes:
        root: Whose level it is, until that is over.
        pool: The pool whose transaction it is.
        owner: The task that opened the block, for messages.
        readonly: The server refuses writes.
        face: Its `TransactionContext`.
        outer: What was ambient before it, if that is open.
        closed: The block has been left.
        begun: False after a manual commit or rollback, until `begin()`.
        refusal: Why this level can only be rolled back, or "".
        parent: The level around it; None at the outermost.
        depth: How many levels there are around it.
        callbacks: What `on_commit` noted.
        block: With which it ends: its own, or, once that is left, the one in which it is enlisted.
        kept: Its own block is left.
        of_test: A test fixture opened it; the program under test takes itself to be outside.
        generator: The async generator in which the block was opened, or None.
        lent_to: Who last wrote through this level while that generator was suspended, or None.
    """

    __slots__ = (
        "__weakref__",
        "begun",
        "block",
        "callbacks",
        "closed",
        "depth",
        "face",
        "generator",
        "kept",
        "lent_to",
        "of_test",
        "outer",
        "owner",
        "parent",
        "pool",
        "readonly",
        "refusal",
        "root",
    )

    def __init__(
        self,
        root: Root,
        pool: AsyncConnectionPool[Any],
        owner: str,
        readonly: bool,
        parent: Level | None = None,
    ) -> None:
        self.root = root
        self.pool = pool
        self.owner = owner
        self.readonly = readonly
        self.face: Any = None
        self.outer: Level | None = None
        self.closed = False
        self.begun = True
        self.refusal = ""
        self.parent = parent
        self.depth: int = 0 if parent is None else parent.depth + 1
        self.callbacks: list[Callback] = []
        self.block = Block()
        self.kept = False
        self.of_test = False
        self.generator: EnclosingGenerator | None = None
        self.lent_to: Callsite | None = None

    @property
    def suspended_at(self) -> str:
        """Where the generator in which the block was opened waits for its reader, or ""."""
        generator = self.generator
        return "" if generator is None or generator.is_running() else generator.place

    def check_place(self) -> None:
        """Raise `TransactionError` in another process or event loop than the pool's."""
        self.pool.check_transaction_place()

    @property
    def held_gate(self) -> WriteGate | None:
        """The gate in which its transaction itself has the turn to write, or None."""
        return None if self.closed else self.root.held_gate

    def holds_gate(self, gate: WriteGate) -> bool:
        """True while its transaction, or one around it, has the turn to write there."""
        return not self.closed and self.root.holds_gate(gate)


class Reader(Protocol):
    """An open cursor, as far as the session asks.

    Attributes:
        level: The level that opened it.
        abandoned: It cannot be read on; it is closed before the next statement.
    """

    level: Level
    abandoned: bool

    async def close_cursor(self) -> None:
        """Close without taking a turn: for a caller who has it."""

    def refuse_others(self) -> None:
        """Raise because another statement would spoil what is still to be read."""


class Session:
    """What is true of the connection and its transaction as a whole.

    Attributes:
        pool: Whose connection it is; that of a replica, where one answers.
        lender: From whom the connection comes, and another one if it had died.
        asked_at: When it was asked for, in seconds on the monotonic clock.
        levels: The open levels, outermost first; the last one is inside the deepest savepoint.
        queue: Who may run a statement.
        raw_used: The driver's connection was handed out.
        refusal: Why no statement is possible any more, or "" while all is well.
        replaceable_until: When to stop trying the first statement on other connections, if BEGIN
            travels with it, in seconds on the monotonic clock; None once it was answered.
        guards: Those of the connection, as long as it may be replaced.
        failed: The last statement failed.
        may_pass: The last statement failed in a way that running all of it again may help.
        discard: Why the connection must not be lent again, or None.
        beyond_undo: Statements that committed implicitly what came before them.
        aborting: The task that stops a cancelled call on the server, or None.
        started: When the transaction began, in seconds on the monotonic clock.
    """

    __slots__ = (
        "__weakref__",
        "aborting",
        "asked_at",
        "beyond_undo",
        "connection",
        "discard",
        "driver",
        "failed",
        "guards",
        "lease",
        "lender",
        "levels",
        "may_pass",
        "mode",
        "pool",
        "queue",
        "raw_used",
        "readers",
        "refusal",
        "replaceable_until",
        "started",
    )

    def __init__(
        self,
        lender: Lender,
        lease: PooledConnection[Any],
        mode: TransactionMode,
        asked_at: float,
    ) -> None:
        self.lender = lender
        self.asked_at = asked_at
        self.pool: AsyncConnectionPool[Any] = lease.pool
        self.driver: Driver[Any] = self.pool.driver
        self.lease = lease
        self.connection = lease.connection
        self.mode = mode
        self.queue = StatementQueue()
        self.levels: list[Level] = []
        self.readers: list[Reader] = []
        self.raw_used = False
        self.refusal = ""
        self.failed = False
        self.may_pass = False
        self.replaceable_until: float | None = None
        self.guards: list[Any] = []
        self.discard: str | None = None
        self.beyond_undo: list[str] = []
        self.aborting: asyncio.Task[None] | None = None
        self.started = monotonic()

    # -- what is possible

    def check(self, level: Level) -> None:
        """Raise unless a statement is possible at this level.

        Raises:
            TransactionError: The block is over, doomed by a cancelled statement, ended behind our
                back, or needs `begin()` after a manual commit or rollback.
        """
        if level.closed or not self.pool.is_here():
            self.check_open(level)
        reason = level.refusal or self.refusal
        if reason:
            raise self.refused(level, f"{reason}: leave the block to roll it back")
        if not level.begun:
            raise NoTransactionError(
                "the transaction was ended by commit() or rollback(): call begin() first",
                database=self.pool.name,
            )

    def refused(self, level: Level, text: str) -> TransactionError:
        """Make the error that says what this level cannot do after what went wrong before.

        Who caught a deadlock and went on is told by it, and is to be run again as well.
        """
        error = TransactionError(text, database=self.pool.name)
        error.retryable = self.may_pass and not level.refusal
        return error

    def check_open(self, level: Level) -> None:
        """Raise `TransactionError` once the block of this level is left, and in another process
        or event loop than its own."""
        self.pool.check_transaction_place()
        if level.closed:
            raise TransactionError(
                "this transaction is over: its block has been left", database=self.pool.name
            )

    def check_control(self, level: Level) -> None:
        """Raise `TransactionError` unless this is the only level, open, and ends by itself."""
        self.check_open(level)
        if level.block.enlisted and not level.kept:
            names = ", ".join(repr(one.pool.name) for one in level.block.enlisted)
            raise TransactionError(
                f"commit() and rollback() are refused while {names} ends with this transaction: a "
                "unit of work enlisted it; leave the block instead",
                database=self.pool.name,
            )
        if self.levels != [level]:
            raise TransactionError(
                "commit(), rollback() and begin() are refused inside a nested transaction: "
                "leave its block, or raise to undo it",
                database=self.pool.name,
            )

    def obstacle_to_keeping(self, level: Level) -> str:
        """Say why the work of this level can only be undone, or ""."""
        reason = level.refusal or self.refusal
        open_inside = (
            one
            for one in reversed(self.levels)
            if one is level or not (one.kept and one.block is level.block)
        )
        inside = next(open_inside, level)  # there is none once the outermost block is left
        if not reason and inside is not level:
            reason = f"{inside.owner} is still inside a nested transaction"
        return reason

    def drop_kept(self) -> None:
        """Let the savepoints end that are enlisted in the block which ends now."""
        while (kept := self.levels[-1]).kept and kept.parent is not None:
            self.levels.pop()
            kept.closed = True
            kept.parent.callbacks.extend(kept.callbacks)

    # -- turns

    async def take_turn(self, level: Level) -> None:
        """Wait until no statement runs and no other task is inside a deeper savepoint.

        Raises:
            TransactionError: Another task was inside for longer than the pool's timeout.
        """
        inside = ambient.current(self.pool)

        def may() -> bool:
            usable = not (level.closed or self.refusal)  # else it is to hear of that
            return not usable or self.levels[-1] in (level, inside)

        def obstacle() -> str:
            return f"the savepoint of {self.levels[-1].owner} to be done with this transaction"

        deepest = self.levels[-1]
        if deepest.generator is not None and deepest is not level and deepest.suspended_at:
            raise TransactionError(  # it would wait for its own reader, who waits here
                f"the generator at {deepest.suspended_at} is suspended inside a nested "
                "transaction: read it to its end, or close it with aclose(), before its reader "
                "uses the transaction around it",
                database=self.pool.name,
            )

        if not self.queue.take_now(may()):
            try:
                await self.queue.take(may, self.pool.config.timeout, obstacle)
            except TransactionError as error:
                error.database = self.pool.name
                raise

    async def _wait_for_turn(self, level: Level) -> None:
        await self.take_turn(level)
        try:
            self.check(level)  # once more: what ran before us may have ended the transaction
        except TransactionError:
            self.queue.give()
            raise

    def rest_now(self) -> bool:
        """Take the turn in which a level ends, if nothing is to be waited for."""
        return self.aborting is None and self.queue.take_now(True)

    async def come_to_rest(self) -> bool:
        """Take the turn in which a level ends; say False if the connection is lost instead."""
        try:
            await self.queue.take_last()
        except TransactionError:
            return False
        await self.quiet()
        return True

    @property
    def taskless(self) -> bool:
        """True if ending the transaction asks of the driver what it can do without a task."""
        usual = not (self.readers or self.raw_used or self.aborting)
        return usual and self.driver.taskless

    # -- the driver's connection, behind guards

    def guard(self, check: Callable[[], None]) -> Any:
        """Hand out the driver's connection behind a guard."""
        self.raw_used = True
        guard = self.driver.guard(self.connection, check)
        if self.replaceable_until is not None:
            self.guards.append(guard)
            tell_first(guard, self._first)
        return guard

    def _first(
        self, call: Callable[[], Awaitable[Any]] | None, statement: str
    ) -> Awaitable[Any] | None:
        if call is not None and self.replaceable_until is not None:
            return self._call_first(call, statement)
        self.settled()
        return None if call is None else call()

    async def _call_first(self, call: Callable[[], Awaitable[Any]], statement: str) -> Any:
        has_turn = False
        try:
            while True:
                try:
                    return await call()
                except Exception as error:
                    meaning = self.pool.explain(error, statement)
                    if not isinstance(meaning, ConnectionLostError):
                        raise
                    has_turn = has_turn or self.queue.take_now(True)
                    if not has_turn:  # another one is under way, and sees to it
                        raise
                    if not await self._replace(meaning, statement):
                        raise
        finally:
            if has_turn:
                self.queue.give()
            self.settled()

    async def _replace(self, error: ConnectionLostError, statement: str) -> bool:
        """The connection was lost with the first statement: go on with another one, if it had died
        while it was idle and nothing can have taken effect. Say whether that is so.

        Raises:
            DatabaseError: No other connection can be had.
        """
        deadline, lease = self.replaceable_until, self.lease
        if deadline is None or self.readers or monotonic() >= deadline:
            return False
        harmless = not error.sent or self.driver.repeatable(self.connection, statement)
        if not self.lender.may_repeat(error, lease, self.asked_at, repeatable=harmless):
            return False
        if lease.behind:
            self.pool.end_failed(error)
        # Before another one is asked for: this one may have had the last place in the pool.
        self.lender.release(lease, discard="lost")
        begin = partial(begin_in_time, mode=self.mode, deadline=deadline)
        try:
            self.lease, later = await self.lender.acquire_for(begin, deadline, repeatable=True)
        except BaseException:
            self.lose("the connection was lost")
            raise
        self.lease.in_generator = lease.in_generator
        self.pool = self.lease.pool
        self.driver, self.connection = self.pool.driver, self.lease.connection
        for guard in self.guards:
            # What was handed out before goes on with the new connection, and so do methods taken
            # from it.
            redirect(guard, self.connection)
        if not later:
            self.settled()
        return True

    def settled(self) -> None:
        """Something was answered: from here on there is no other connection to go on with."""
        self.replaceable_until = None
        for guard in self.guards:
            tell_first(guard, None)
        self.guards.clear()

    # -- statements

    async def call(
        self,
        level: Level,
        statement: str,
        work: Callable[[], Awaitable[Any]],
        reader: Reader | None = None,
    ) -> Any:
        """Run one operation of the driver in its turn, and notice what became of the transaction.

        Args:
            level: At which it runs.
            statement: Its SQL, for errors and warnings.
            work: Calls the driver.
            reader: The cursor that it reads, which need not make way.

        Raises:
            TransactionError: The transaction is over, doomed, or ended by this statement.
            DatabaseError: What the driver's exception means.
        """
        self.check(level)
        if not self.queue.take_now(self.levels[-1] is level):
            await self._wait_for_turn(level)
        try:
            if self.readers or self.aborting is not None:
                await self._make_way(level, reader)
            # Once more only after `_replace` has found a connection, which it does at most until
            # the deadline.
            while True:
                try:
                    with self.pool.translating(statement):
                        result = await work()
                    break
                except ConnectionLostError as error:
                    if not await self._replace(error, statement):
                        raise
            if self.replaceable_until is not None:
                self.settled()
            if self.failed:
                self.failed = self.may_pass = False  # what failed before was undone
            # In SQL that nobody here reads, a transaction can end: the driver's flag tells.
            if not self.driver.in_transaction(self.connection):
                await self._ended_by(statement)
            return result
        except BaseException as error:
            await self._failed(level, statement, error)
            raise
        finally:
            self.queue.give()

    async def _failed(self, level: Level, statement: str, error: BaseException) -> None:
        """Note what a failed call means for the transaction. The order matters: a call that was
        cut off may still run, a lost connection can be asked nothing, and only then is it worth a
        question whether the transaction is still open."""
        self.failed = True
        if isinstance(error, TransactionError) and error.__cause__ is None:
            return  # ours: the driver was not asked, or what it did is dealt with already
        self.settled()
        if not isinstance(error, Exception):
            self.interrupt(level, "a statement was cancelled")
            return
        if isinstance(error, DatabaseError):
            self._judge(level, error)
        if isinstance(error, QueryTimeoutError):
            level.refusal = "a statement timed out"
        if isinstance(error, ConnectionLostError) or not self.driver.is_alive(self.connection):
            self.lose("the connection was lost")
        elif not self.refusal and not await self.still_open() and self.discard is None:
            self._rolled_back_by(statement, error)

    def _judge(self, level: Level, error: DatabaseError) -> None:
        """Note whether running the whole transaction again may help."""
        if isinstance(error, ReadOnlyTransactionError):
            meant_to_write = not (level.readonly or self.mode.readonly)
            if meant_to_write and self.driver.capabilities.sessions:
                error.retryable = True
                self.lose("the server may no longer be written to")
        elif isinstance(error, TransactionError):  # of the server, on account of what failed before
            error.retryable = error.retryable or self.may_pass
        self.may_pass = error.retryable

    def interrupt(self, level: Level, reason: str) -> None:
        """A call was cancelled: doom its block, and stop what still runs on the server."""
        level.refusal = reason
        if self.aborting is None and self.discard is None:
            # Until `_abort` has stopped the call: if the connection goes back before, the pool does
            # it.
            self.lease.interrupted = True
            # In a task: the caller who was cancelled is not kept waiting. What comes next on the
            # connection waits (`quiet`).
            self.aborting = asyncio.get_running_loop().create_task(self._abort())

    async def _abort(self) -> None:
        pool = self.pool
        abort = self.driver.abort(self.connection)
        try:
            await pool.time_limits.within(pool.config.cleanup_timeout, abort)
            self.lease.interrupted = False
        except BaseException as error:
            logger_of(pool.name).info(
                "%s: a cancelled call could not be stopped: %s", pool.name, pool.told(error)
            )
            self.lose("a cancelled call could not be stopped")
            if not isinstance(error, Exception):
                raise

    async def quiet(self) -> None:
        """Wait until a cancelled call is over on the server, or the connection lost."""
        if self.aborting is not None:
            # Not awaited itself: who is cancelled here must not cancel the abort.
            await asyncio.wait({self.aborting})
            self.aborting = None

    def lose(self, reason: str) -> None:
        """Nothing can be done on this connection any more."""
        self.refusal = self.refusal or reason
        self.discard = self.discard or reason
        self.queue.close(f"{self.refusal}: leave the block to roll it back")

    def give_up(self, error: BaseException | None) -> None:
        """Lose the connection if our own work on it was cut off: a call may be under way."""
        if error is not None and not isinstance(error, Exception):
            self.lose("rollback interrupted")

    async def clean_up(self, work: Coroutine[Any, Any, None], what: str) -> None:
        """Do what must be done before anybody may use the connection again, or lose it."""
        pool = self.pool
        try:
            await pool.time_limits.within(pool.config.cleanup_timeout, work)
        except BaseException as error:
            logger_of(pool.name).warning("%s: %s failed: %s", pool.name, what, pool.told(error))
            self.lose(f"{what} failed")
            if not isinstance(error, Exception):
                raise

    async def begin(self) -> None:
        """Begin once more, on the same connection."""
        if not self.driver.begin_later(self.connection, self.mode):
            await self.driver.begin(self.connection, self.mode)

    # -- a transaction that ended behind our back

    async def still_open(self) -> bool:
        """Ask the server, where the driver's flag may be stale; losing the connection is a no."""
        pool = self.pool
        try:
            confirm = self.driver.confirm_in_transaction(self.connection)
            return await pool.time_limits.within(pool.config.cleanup_timeout, confirm)
        except BaseException as error:
            self.lose("the connection was lost")
            if not isinstance(error, Exception):
                raise
            return False

    def _rolled_back_by(self, statement: str, error: BaseException) -> None:
        if self._committed_by(statement):
            self.refusal = f"{_short(statement)} failed, and committed what came before it"
        else:
            self.refusal = "the database rolled the whole transaction back"
        error.add_note(self.refusal)

    def _committed_by(self, statement: str) -> bool:
        implicitly = self.driver.commits_implicitly(statement)
        if implicitly and statement not in self.beyond_undo:
            self.beyond_undo.append(statement)
        return implicitly

    async def _ended_by(self, statement: str) -> None:
        # Inside a nested transaction a new one would not do: the savepoints are gone.
        if not self._committed_by(statement) or len(self.levels) > 1:
            self.refusal = f"the transaction was ended by {_short(statement)}, not by its block"
            raise TransactionError(self.refusal, database=self.pool.name, statement=statement)
        with self.pool.translating("BEGIN"):
            await self.begin()
        warnings.warn(
            f"{self.pool.name}: {_short(statement)} committed the transaction implicitly; "
            "a new one was begun",
            RuntimeWarning,
            stacklevel=4,
        )

    # -- cursors

    async def _make_way(self, level: Level, reader: Reader | None) -> None:
        await self.quiet()
        for other in [other for other in self.readers if other is not reader]:
            if other.abandoned:
                await other.close_cursor()
            elif not self.driver.capabilities.concurrent_cursors:
                other.refuse_others()
        # Once more: while we waited, the transaction may have been lost.
        self.check(level)

    async def close_readers(self, level: Level | None = None) -> None:
        """Close the open cursors, of one level or of all."""
        for reader in list(self.readers):
            if level is None or reader.level is level:
                await reader.close_cursor()


async def begin_in_time(
    lease: PooledConnection[Any], mode: TransactionMode, deadline: float
) -> bool:
    """Begin on a connection, until the time to wait for one is over; say whether BEGIN travels
    with the first statement."""
    pool, connection = lease.pool, lease.connection
    if lease.take_owed():
        pool.driver.begin_behind(connection, mode, reset=pool.resets)
        return True
    if pool.driver.begin_later(connection, mode):
        return True
    begin = pool.driver.begin(connection, mode)
    try:
        await pool.time_limits.within(deadline - monotonic(), begin)
    except TimeoutError as error:
        if monotonic() < deadline:
            raise  # the driver's own
        text = f"no answer to BEGIN within {pool.config.timeout:g} s"
        raise ConnectionLostError(text, database=pool.name) from error
    return False


def _short(statement: str) -> str:
    text = " ".join(statement.split())
    return repr(text if len(text) <= 80 else text[:77] + "...")
