"""The half of a connection that lives in the event loop: it queues calls, and stops them.

Invariant: a call whose caller is gone never starts; if it runs already, it is stopped before
anything else is done on the connection.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
import threading
from collections.abc import Callable, Coroutine
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from jobu_db_sqlite import backup, fork
from jobu_db_sqlite._private import QueuedConnection
from jobu_db_sqlite.arrivals import Arrivals, arrivals_at
from jobu_db_sqlite.call import INTERRUPT_AGAIN, Call, Over, Timer
from jobu_db_sqlite.database_file import DatabaseFile, OpenFile
from jobu_db_sqlite.errors import ClosedError, OpenError, StatementTimeoutError
from jobu_db_sqlite.thread import BEGIN_READING, BEGIN_WRITING, Engine
from jobu_db_sqlite.values import bindable

_LASTING = frozenset({
    "create_function", "enable_load_extension", "load_extension", "set_progress_handler",
    "set_trace_callback",
})  # fmt: skip
"""Methods whose effect stays on the connection and cannot be taken back for certain."""

_WITH_VALUES = frozenset({"_execute_fetchall", "_execute_insert", "execute", "executemany"})
"""Functions behind aiosqlite's methods that take SQL and values."""

_CLOSING_LIMIT = 1.0
"""Seconds that a cancelled opening waits for its file to be closed: only a slow disk takes them."""


class Connection(QueuedConnection):
    """aiosqlite's connection, with transactions that begin at the first statement.

    Its public methods work as in aiosqlite, except that `executescript` doesn't commit first,
    and that cursors are closed when their transaction ends.

    Args:
        file: What to open.
    """

    def __init__(self, file: DatabaseFile) -> None:
        super().__init__()
        timeout = file.options.statement_timeout
        self.statement_timeout = None if timeout is None else timeout / 1000
        self._file = OpenFile(file)
        self._over = Over()
        self._shut = False
        fork.watch(self)
        self._abandoned = False
        self._factories: tuple[Any, Any] = (None, None)
        self._engine: Engine | None = None
        self._loop: asyncio.AbstractEventLoop
        self._arrivals: Arrivals

    def __repr__(self) -> str:
        return f"<Connection to {self._file.file.path}{'' if self.is_open else ', closed'}>"

    @property
    def engine(self) -> Engine:
        """The half that lives in the thread."""
        engine = self._engine
        if engine is None:
            raise ClosedError(self.why_closed)
        return engine

    # -- opening and closing

    async def open(self) -> None:
        """Open the file. If that is cancelled, it is closed again, and a moment waited for that.

        Raises:
            OpenError: It can't be opened.
        """
        self._loop = asyncio.get_running_loop()
        self._arrivals = arrivals_at(self._loop)
        self.start()
        try:
            await self.call(self._file.open)
            engine = self._engine = self._file.engine
            assert engine is not None
            self.opened(engine.raw)
            # What `on_connect` sets is added later, by `settle` again.
            self.settle()
        except BaseException:
            # Behind the opening in the queue, which may be waiting for a lock and is stopped there.
            closed = self._unstoppable(lambda _: self._file.close())
            self._terminate(closed.run)
            await asyncio.wait({closed.future}, timeout=_CLOSING_LIMIT)
            raise

    async def close(self) -> None:
        """Close behind what is queued."""
        if not self._shut:
            closed = self._unstoppable(lambda _: self._file.close())
            self._shut_down(closed.run)
            await closed.future

    def terminate(self) -> None:
        """Close without waiting: what is queued doesn't start, what runs is stopped."""
        self._terminate(self._file.close)

    def _terminate(self, close: Callable[[], None]) -> None:
        # In this order: what is queued does not start any more, then what runs is interrupted, and
        # closing comes last in the queue.
        self._over.now = True
        if self.has_thread:
            with suppress(RuntimeError):  # none can be started while the interpreter ends
                threading.Thread(target=self._file.interrupt_until_closed, daemon=True).start()
        if not self._shut:
            self._shut_down(close)

    def stop(self) -> None:
        """As `terminate`: what aiosqlite calls on a connection that was forgotten."""
        self.terminate()

    def _shut_down(self, close: Callable[[], None]) -> None:
        self._shut = True
        # From here on nothing is queued behind the closing.
        self._engine = None
        self.shut(close)

    def inherit(self) -> None:
        """In a forked child: be closed, without closing anything: it is the parent's."""
        self._shut = True
        self._engine = None
        self.why_closed = (
            f"the connection belongs to process {os.getppid()}, which forked this one: "
            "open the database after the fork"
        )
        self.forget()

    # -- calls

    async def call(self, function: Callable[[Call], Any]) -> Any:
        """Run a function in the thread: one hop."""
        if self._abandoned:
            await self.abort()
        if self._shut:
            raise ClosedError(self.why_closed)
        call = Call(self._loop, self._arrivals, self._over, function)
        self.post(call.run)
        try:
            return await call.future
        except asyncio.CancelledError:
            self._abandoned = True
            raise

    async def run(self, function: Callable[..., Any], *args: Any) -> Any:
        """As `call`, inside the transaction that is to be open; `function` gets the engine first.

        Raises:
            OpenError, ClosedError: The file was deleted or replaced; nothing was done.
            StatementTimeoutError: It took longer than `statement_timeout`.
        """
        if self._abandoned:
            await self.abort()
        # Not by the property: this is run for each statement.
        engine, limit = self._engine, self.statement_timeout
        if engine is None:
            raise ClosedError(self.why_closed)
        call = Call(self._loop, self._arrivals, self._over, engine.run, function, args)
        self.post(call.run)
        timer = Timer(call, limit, engine.raw.interrupt) if limit is not None else None
        try:
            return await call.future
        except (asyncio.CancelledError, StatementTimeoutError):
            # It may run still: `abort` stops it before anything else is done here.
            self._abandoned = True
            raise
        except (OpenError, ClosedError):
            self.terminate()
            raise
        finally:
            if timer is not None:
                timer.cancel()
            if engine.alone:
                # They held for this statement, however it ended.
                engine.alone = engine.readonly = False

    def _unstoppable(self, function: Callable[[Call], Any]) -> Call:
        return Call(self._loop, self._arrivals, None, function)

    async def perform(self, function: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        """Run what a method of aiosqlite asks for, and keep track of what it leaves behind."""
        engine = self.engine
        name = getattr(function, "__name__", "")
        if name == "executescript":
            function = engine.run_script
        elif name == "backup":
            return await self._copy(partial(backup.copy, **kwargs), *args)
        elif name == "set_authorizer":
            function = engine.add_authorizer
        elif name in _WITH_VALUES and len(args) > 1:
            values = map(bindable, args[1]) if name == "executemany" else bindable(args[1])
            args = (args[0], values, *args[2:])
        # These are no SQL, so that no authorizer hears of them.
        elif name in _LASTING:
            engine.authorizer.changes.add(name)
        return await self.run(Engine.track, partial(function, *args, **kwargs))

    async def copy_file(self, path: Path) -> None:
        """Copy the database into a new file; see `backup.copy_file`."""
        await self._copy(backup.copy_file, path)

    async def _copy(self, function: Callable[..., None], *args: Any) -> None:
        """As `run`, however long it takes: it is no statement."""
        engine = self.engine
        await self.call(lambda call: engine.run(call, function, args))

    # -- stopping

    async def quiet(self) -> None:
        """Stop what a cancelled or timed-out call left behind, if there was one."""
        if self._abandoned:
            await self.abort()

    async def abort(self) -> None:
        """Stop what calls left queued or running; return once the thread is idle."""
        engine = self.engine
        # An interrupt reaches only what runs. What is queued sees by itself that its caller is
        # gone, and this one tells that the thread has come past all of it.
        idle = self._unstoppable(lambda _: None)
        self.post(idle.run)
        while not idle.future.done():
            engine.raw.interrupt()
            await asyncio.wait({idle.future}, timeout=INTERRUPT_AGAIN)
        recovered = self._unstoppable(self.engine.recover)  # unless closed meanwhile
        self.post(recovered.run)
        await recovered.future
        self._abandoned = False

    # -- transactions

    def _refuse_moved_file(self) -> None:
        """Be closed if the file is still found to have moved: who comes next is to get a new
        connection."""
        moved = self._file.tell_moved()
        if moved is not None:
            self.terminate()
            raise moved

    def begin(self, *, readonly: bool) -> None:
        """Begin at the next statement. No hop.

        Raises:
            ClosedError: The file was deleted or replaced, as somebody was told already.
        """
        engine = self.engine
        # Somebody was told already: to ask here would cost a fifth of a transaction. It is found
        # out in the thread.
        if self._file.told:
            self._refuse_moved_file()
        engine.pending = BEGIN_READING if readonly or engine.read_only_file else BEGIN_WRITING
        engine.readonly = readonly

    def autocommit(self, *, readonly: bool) -> None:
        """Let the next statement be a transaction of its own.

        Raises:
            ClosedError: The file was deleted or replaced, as somebody was told already.
        """
        engine = self.engine
        if self._file.told:  # as in `begin`
            self._refuse_moved_file()
        engine.readonly = readonly
        engine.alone = True

    async def savepoint(self, name: str, *, readonly: bool) -> None:
        """Set a savepoint, from which on nothing can be written if `readonly`."""
        await self.run(Engine.run_all, f'SAVEPOINT "{name}"')
        # Only then: with `query_only` on, SQLite refuses the BEGIN IMMEDIATE that may travel ahead.
        self.engine.readonly |= readonly

    async def release_savepoint(self, name: str, *, undo: bool, readonly: bool) -> None:
        """Forget a savepoint, and what was done since if `undo`; `readonly` as it was set."""
        engine = self.engine
        back = (f'ROLLBACK TO "{name}"',) if undo else ()
        await self.call(lambda _: engine.run_all(*back, f'RELEASE "{name}"'))
        engine.readonly &= not readonly

    def commit(self) -> Coroutine[Any, Any, None]:
        """Commit: one hop, or none if nothing was begun yet.

        Raises:
            ClosedError: The file was deleted or replaced: what was written would be lost.
        """
        return self._end("COMMIT")

    @property
    def began(self) -> bool:
        """False while the transaction that is open waits for its first statement."""
        return self.engine.pending is None

    def end_later(self) -> bool:
        """Leave a transaction that wrote nothing, without waiting; say whether that can be done."""
        engine = self.engine
        if self._abandoned:
            return False
        if engine.pending is None:
            # Counts as over at once: the thread gets to it before anything that is queued from here
            # on.
            engine.ending = True
            self.post(engine.end_reading)
        engine.pending = None
        engine.readonly = False
        return True

    async def rollback(self) -> None:
        """Roll back, if there is something to roll back."""
        await self.quiet()
        if self.in_transaction:
            await self._end("ROLLBACK")
        self.engine.readonly = False

    async def _end(self, statement: str) -> None:
        engine = self.engine
        if engine.pending is None:
            await self.call(lambda _: engine.end(statement))
        engine.pending = None
        engine.readonly = False

    @property
    def in_transaction(self) -> bool:
        """Whether a transaction is open, or will be as soon as a statement runs."""
        # All in one place: the core asks five times in a transaction.
        engine = self._engine
        if engine is None:
            return False
        return engine.pending is not None or (engine.open and not engine.ending)

    @property
    def total_changes(self) -> int:
        """How many rows were changed on the connection, as of the last statement that ended."""
        return self.engine.total_changes

    # -- what a holder leaves behind

    def settle(self) -> None:
        """Take what is set on the connection now for what every holder is to find."""
        self._factories = (self.raw.row_factory, self.raw.text_factory)
        authorizer = self.engine.authorizer
        authorizer.setting_up = False
        authorizer.changes.clear()

    @property
    def is_clean(self) -> bool:
        """Whether the next holder finds the connection as it was."""
        engine = self.engine
        return (
            not engine.authorizer.changes
            and not engine.has_cursors
            and not engine.readonly
            and not engine.in_session
            and not self._abandoned
            # Attributes of Python's, of which SQLite knows nothing: so they are compared.
            and (engine.raw.row_factory, engine.raw.text_factory) == self._factories
        )

    async def clean(self) -> None:
        """Undo what a holder left behind.

        Raises:
            sqlite3.ProgrammingError: Some of it can't be undone but by closing.
        """
        engine = self.engine
        changes = engine.authorizer.changes
        if changes and not self._file.file.in_memory:
            raise sqlite3.ProgrammingError(f"its holder used {', '.join(sorted(changes))}")
        engine.readonly = False
        engine.raw.row_factory, engine.raw.text_factory = self._factories
        file = self._file.file
        foreign_keys = file.options.foreign_keys
        await self.call(lambda _: engine.restore(file.set_up, foreign_keys=foreign_keys))

    async def ping(self) -> None:
        """Make sure that the database answers."""
        engine = self.engine
        await self.call(lambda _: engine.ping())
