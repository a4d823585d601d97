"""The half of a connection that lives in its thread: what happens within one thread hop.

Before a function runs, the connection is brought into the state it needs: read-only or not,
and the BEGIN issued that was put off until there was something to begin for.
"""

from __future__ import annotations

import secrets
import sqlite3
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any, Protocol, TypeVar

from jobu_db_sqlite._private import set_busy_timeout
from jobu_db_sqlite.authorizer import ATTACHED, HOLDERS_REFUSAL, Authorize, Authorizer
from jobu_db_sqlite.errors import (
    ClosedError,
    DeniedError,
    ReadOnlyFileError,
    RefusedError,
    is_busy,
    note_statement,
)
from jobu_db_sqlite.scripts import split

T = TypeVar("T")

BEGIN_READING = "BEGIN DEFERRED"
BEGIN_WRITING = "BEGIN IMMEDIATE"

# A text that no user's statement equals, or Python's statement cache would hand ours, prepared
# already, to a user who writes the same, and the authorizer would not see it.
_OURS = f"-- jobu_db {secrets.token_hex(8)}"
_QUERY_ONLY_SET = "PRAGMA query_only"
"""What the authorizer notes when a holder may have switched it."""
_BUSY_TIMEOUT_SET = "PRAGMA busy_timeout"
"""What it notes when a holder may have set that."""
_QUERY_ONLY = {on: f"PRAGMA query_only = {int(on)} {_OURS}" for on in (False, True)}

_ACTING_REFERENCES = f"""
    SELECT lower(reference."table"), child.name, reference."from"
    FROM sqlite_master AS child, pragma_foreign_key_list(child.name) AS reference
    WHERE child.type = 'table' AND reference.on_delete IN ('CASCADE', 'SET NULL', 'SET DEFAULT')
    AND lower(reference."table") <> lower(child.name) {_OURS}"""

_PAUSES = (0.001, 0.002, 0.005, 0.010, 0.015, 0.020, 0.025)
"""Seconds between attempts to get a lock, as in SQLite's own busy handler; the last one stays."""


class Stoppable(Protocol):
    """The call that a function runs for."""

    def check(self) -> None:
        """Raise if the caller does not want the result any more."""


class Engine:
    """The connection as its thread sees it.

    Attributes:
        raw: The connection of the sqlite3 module.
        shared: Other connections may hold locks on the database.
        log_ahead: Its journal mode is WAL: who has begun to write needs no more locks.
        resets: What a holder sets on the connection is undone when it goes back to the pool.
        busy_timeout: For how many milliseconds to wait for a lock.
        call: The one that is running, or None: it must not be kept, nor what it returned.
        authorizer: Notes what the holder changes on the connection.
        readonly: Whether the next statement must not write.
        read_only_file: The file was opened so that nothing can be written.
        pending: The BEGIN that the next statement needs first, or None.
        alone: The next statement is a transaction of its own.
        in_session: What a statement outside a transaction sets holds until the next reset.
        ending: The transaction that is open is over as soon as the thread gets to it.
        tell_moved: Says what became of the file, if it was deleted or replaced.
        open: A transaction was open when the last function had run.
        writing: It is one of ours that may write.
        total_changes: How many rows had been changed on the connection by then.
    """

    def __init__(
        self,
        raw: sqlite3.Connection,
        busy_timeout: int,
        call: Stoppable,
        *,
        shared: bool,
        resets: bool,
    ) -> None:
        self.raw = raw
        self.resets = resets
        self.shared = shared
        self.log_ahead = False
        self.busy_timeout = busy_timeout
        self._busy_timeout_set = busy_timeout
        self.call: Stoppable | None = call
        # Weakly: SQLite's connection holds the authorizer.
        in_transaction = partial(_is_in_transaction, weakref.ref(self))
        self.authorizer = Authorizer(in_transaction, memory=not shared)
        self.readonly = False
        self.read_only_file = False
        self.pending: str | None = None
        self.alone = False
        self.in_session = False
        self.ending = False
        self.open = False
        self.writing = False
        self.total_changes = 0
        self.tell_moved: Callable[[], Exception | None] = lambda: None
        self._is_readonly: bool | None = False
        self._cursors: set[weakref.ref[sqlite3.Cursor]] = set()

    # -- statements

    def run(self, call: Stoppable, function: Callable[..., T], args: tuple[Any, ...]) -> T:
        """Run a function inside the transaction that is to be open.

        A BEGIN that fails stays pending: nothing has happened yet, and it may be tried again.

        Raises:
            OpenError, ClosedError: The file was deleted or replaced; nothing was done. Only what
                begins something asks, a transaction or a statement of its own.
        """
        self.call = call
        try:
            # Not within a transaction: what it writes is refused at COMMIT, once for all its
            # statements.
            if not self.open and (moved := self.tell_moved()) is not None:
                raise moved
            if self._busy_timeout_set != self.busy_timeout and not self._has_all_locks:
                self.let_sqlite_wait()
            if self._is_readonly is not self.readonly or _QUERY_ONLY_SET in self.authorizer.changes:
                self._turn_readonly(self.readonly)
            if self.authorizer.deferring:
                self._note_parents()
            if self.pending is not None:
                self._begin(self.pending)
            elif self.alone:
                return self._run_alone(function, args)
            return self._run_inside(function, args)
        except sqlite3.OperationalError as error:
            note_statement(error, args[0] if args else None)
            if self._file_is_readonly(error):
                raise ReadOnlyFileError(f"the database file is read-only: {error}") from error
            raise
        except sqlite3.DatabaseError as error:
            reason = self.authorizer.take_refusal()
            if reason and getattr(error, "sqlite_errorcode", 0) == sqlite3.SQLITE_AUTH:
                refusal = DeniedError if reason is HOLDERS_REFUSAL else RefusedError
                raise refusal(reason) from error
            raise
        finally:
            self.authorizer.alone = False
            self.call = None
            self._note()

    def _run_inside(self, function: Callable[..., T], args: tuple[Any, ...]) -> T:
        try:
            return function(self, *args)
        except sqlite3.OperationalError as error:
            waited = self._busy_timeout_set == self.busy_timeout
            if waited or not (self.authorizer.changes and is_busy(error)):
                raise
        # ATTACH, which needs a lock that a writer has not got: it has done nothing yet.
        self.let_sqlite_wait()
        return function(self, *args)

    def _run_alone(self, function: Callable[..., T], args: tuple[Any, ...]) -> T:
        authorizer = self.authorizer
        undone = self.resets and not self.in_session
        authorizer.alone = undone
        if self.readonly:
            return function(self, *args)
        result = self.wait_for_lock(function, self, *args)
        if undone and ATTACHED in authorizer.changes:
            if not self._has_attached():
                authorizer.changes.discard(ATTACHED)
            elif authorizer.refuse_attached():
                raise RefusedError(authorizer.take_refusal())
        return result

    def _has_attached(self) -> bool:
        names = {name for _, name, _ in self.ask(f"PRAGMA database_list {_OURS}")}
        return not names <= {"main", "temp"}

    def ask(self, sql: str) -> list[Any]:
        """Return the rows of a statement of our own, whatever the holder set on the connection."""
        cursor, text_factory = self.raw.cursor(), self.raw.text_factory
        cursor.row_factory = None
        self.authorizer.own, self.raw.text_factory = True, str
        try:
            return cursor.execute(sql).fetchall()
        finally:
            self.authorizer.own, self.raw.text_factory = False, text_factory
            cursor.close()

    def check(self) -> None:
        """Raise if the caller does not want the result any more."""
        if self.call is not None:
            self.call.check()

    def _begin(self, statement: str) -> None:
        if statement == BEGIN_READING:  # which takes no lock yet
            self._begin_now(statement)
        else:
            self.wait_for_lock(self._begin_now, statement)
            # The caller may have given up while the lock was waited for: then its statement must
            # not run.
            self.check()

    def _begin_now(self, statement: str) -> None:
        self.raw.execute(statement).close()
        self.open = True
        self.writing = statement == BEGIN_WRITING
        self.pending = None

    def run_all(self, *statements: str) -> None:
        """Run statements that return nothing."""
        for statement in statements:
            if self.authorizer.deferring:
                self._note_parents()
            self.raw.execute(statement).close()

    def _note_parents(self) -> None:
        """Tell the authorizer which tables take rows of others with them when they are dropped."""
        parents: set[str] = set()
        for parent, child, column in self.ask(_ACTING_REFERENCES):
            quoted = [name.replace('"', '""') for name in (child, column)]
            if self.ask('SELECT 1 FROM "{}" WHERE "{}" IS NOT NULL LIMIT 1'.format(*quoted)):
                parents.add(parent)
        self.authorizer.parents = frozenset(parents)

    def run_script(self, script: str) -> sqlite3.Cursor:
        """Run a script statement by statement; sqlite3's own executescript commits first."""
        self.let_sqlite_wait()
        self.run_all(*split(script))
        # As aiosqlite's `executescript`, which returns its cursor.
        return self.raw.cursor()

    def end(self, statement: str) -> None:
        """Commit or roll back. Closes all cursors: COMMIT refuses to leave one behind.

        Raises:
            ClosedError: The file was deleted or replaced: what was written would be lost.
        """
        try:
            if self.writing and statement == "COMMIT" and (moved := self.tell_moved()) is not None:
                raise ClosedError(str(moved))
            # Before the statement: a cursor that is still being read keeps COMMIT from letting go
            # of its snapshot.
            self.close_cursors()
            self.raw.execute(statement).close()
        finally:
            self._note()

    def _note(self) -> None:
        """Note what the event loop may ask for while the next statement runs.

        SQLite itself answers these under the connection's mutex (seen with 3.53), and Python waits
        for that with the interpreter locked: nobody could even interrupt the statement.
        """
        raw = self.raw
        self.open = raw.in_transaction
        if not self.open:
            self.authorizer.deferring = self.writing = False
        self.total_changes = raw.total_changes

    def end_reading(self) -> None:
        """Leave a transaction that only read. Rolling back, unlike committing, never fails.

        Should it fail nevertheless, the connection is in a transaction still, and seen to be.
        """
        try:
            self.end("ROLLBACK")
        finally:
            self.ending = False

    # -- read-only

    def _turn_readonly(self, on: bool) -> None:
        # Unknown until it is done: if it is cut off, the next call sets it anew.
        self._is_readonly = None
        self.authorizer.own = True
        try:
            self.raw.execute(_QUERY_ONLY[on]).close()
        finally:
            self.authorizer.own = False
        self._is_readonly = self.authorizer.readonly = on

    def _file_is_readonly(self, error: sqlite3.OperationalError) -> bool:
        # The plain code is also that of `query_only` and of a file opened to be read, which is as
        # it should be; the extended ones tell of the file itself.
        code = getattr(error, "sqlite_errorcode", 0)
        if code == sqlite3.SQLITE_READONLY:
            return not (self.readonly or self.read_only_file)
        return code & 0xFF == sqlite3.SQLITE_READONLY and code != sqlite3.SQLITE_READONLY_DBMOVED

    # -- waiting for a lock

    def wait_for_lock(self, attempt: Callable[..., T], *args: Any) -> T:
        """Try until the busy timeout is over, in steps."""
        if not self.shared:
            return attempt(*args)
        # SQLite's own wait cannot be interrupted, and one that nobody waits for any more must end.
        self._set_busy_timeout(0)
        try:
            # As a rule the lock is free: our own writers have the turn. So the clock is not looked
            # at before.
            try:
                return attempt(*args)
            except sqlite3.OperationalError as error:
                if not (is_busy(error) and self.busy_timeout):
                    raise
            return self._try_again(attempt, args)
        finally:
            if not self._has_all_locks:
                self._set_busy_timeout(self.busy_timeout)

    def _try_again(self, attempt: Callable[..., T], args: tuple[Any, ...]) -> T:
        left = self.busy_timeout / 1000
        deadline, pauses = time.monotonic() + left, iter(_PAUSES)
        while True:
            time.sleep(min(left, next(pauses, _PAUSES[-1])))
            # Whoever gave up meanwhile must not get the lock: nobody would let go of it.
            self.check()
            try:
                return attempt(*args)
            except sqlite3.OperationalError as error:
                left = deadline - time.monotonic()
                if not is_busy(error) or left <= 0:
                    raise

    @property
    def _has_all_locks(self) -> bool:
        """Whether what runs needs no lock but the writer's, for which we wait ourselves.

        So it is in WAL mode. Setting the busy timeout back and forth would take as long as BEGIN.
        """
        writes = self.writing or self.pending == BEGIN_WRITING or (self.alone and not self.readonly)
        return writes and self.log_ahead and not self.authorizer.changes

    def let_sqlite_wait(self) -> None:
        """Have SQLite wait for locks by itself, unless the holder said for how long."""
        if _BUSY_TIMEOUT_SET not in self.authorizer.changes:
            self._set_busy_timeout(self.busy_timeout)

    @contextmanager
    def without_waiting(self) -> Iterator[None]:
        """Have SQLite say at once that a lock is taken: its own wait can't be stopped."""
        self._set_busy_timeout(0)
        try:
            yield
        finally:
            self._set_busy_timeout(self.busy_timeout)

    def _set_busy_timeout(self, milliseconds: int) -> None:
        changes = self.authorizer.changes
        if milliseconds == self._busy_timeout_set and _BUSY_TIMEOUT_SET not in changes:
            return
        self.authorizer.own = True
        try:
            set_busy_timeout(self.raw, milliseconds)
            self._busy_timeout_set = milliseconds
        finally:
            self.authorizer.own = False

    # -- what a holder leaves behind

    def track(self, function: Callable[[], Any]) -> Any:
        """Run a function of the holder's, and remember the cursor that it may return."""
        result = function()
        if isinstance(result, sqlite3.Cursor):
            self._cursors.add(weakref.ref(result, self._cursors.discard))
        return result

    def add_authorizer(self, authorize: Authorize | None) -> None:
        """Ask a holder's authorizer too; ours stays. SQLite prepares all statements anew."""
        self.authorizer.changes.add("set_authorizer")
        self.authorizer.others = authorize
        self.raw.set_authorizer(self.authorizer)

    @property
    def has_cursors(self) -> bool:
        """Whether a holder still has a cursor: unread, it would hold on to its snapshot."""
        return bool(self._cursors)

    def handles(self) -> Iterator[object]:
        """Yield what SQLite has open for this connection."""
        yield self.raw
        yield from filter(None, (reference() for reference in list(self._cursors)))

    def close_cursors(self) -> None:
        """Close every cursor that was given out."""
        for reference in list(self._cursors):
            cursor = reference()
            if cursor is not None:
                cursor.close()
        self._cursors.clear()

    def recover(self, _: Stoppable) -> None:
        """Leave nothing of an interrupted call: an unread cursor would make the next one fail."""
        self.close_cursors()

    def restore(self, set_up: Callable[[sqlite3.Connection], None], *, foreign_keys: bool) -> None:
        """Undo what can be undone without closing: for a database that would be gone then."""
        self.close_cursors()
        self.in_session = False
        if self.authorizer.changes:
            self.authorizer.own = True
            try:
                set_up(self.raw)
            finally:
                self.authorizer.own = False
            self._set_busy_timeout(self.busy_timeout)
            self._is_readonly = self.authorizer.readonly = False
            self.authorizer.foreign_keys = foreign_keys
            self.add_authorizer(None)
            self.authorizer.changes.clear()

    def ping(self) -> None:
        """Read from the file."""
        self.let_sqlite_wait()
        # `SELECT 1` would not look at the file.
        self.raw.execute("PRAGMA schema_version").fetchone()

    def close(self) -> None:
        """Close the connection. An open cursor would keep the file and its locks.

        An interrupt that found nothing to stop would stop the last checkpoint: it is used up first.
        """
        self.close_cursors()
        with suppress(sqlite3.Error):  # a holder's authorizer may refuse even that
            self.run_all("SELECT 1")
        self.raw.close()


def _is_in_transaction(engine: weakref.ref[Engine]) -> bool:
    """Ask SQLite, between the statements of a script as well."""
    this = engine()
    return this is not None and this.raw.in_transaction
