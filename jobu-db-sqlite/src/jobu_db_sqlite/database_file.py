"""Where a database is, and opening it; what goes wrong is told with the path and the fix."""

from __future__ import annotations

import logging
import os
import sqlite3
import threading
from contextlib import closing, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from urllib.parse import quote

from jobu_db_sqlite import fork
from jobu_db_sqlite._private import never_free
from jobu_db_sqlite.call import INTERRUPT_AGAIN
from jobu_db_sqlite.errors import ClosedError, OpenError, is_busy
from jobu_db_sqlite.settings import (
    JOURNAL_MODES,
    MEMORY,
    READ_ONLY,
    SYNCHRONOUS,
    Mode,
    SQLiteOptions,
)
from jobu_db_sqlite.thread import Engine, Stoppable

logger = logging.getLogger("jobu_db")


@dataclass(slots=True)
class SeenFile:
    """A file that connections have open.

    Attributes:
        identity: Device and inode.
        told: Somebody heard already that it was deleted or replaced.
    """

    identity: fork.Identity
    told: bool = False


class DatabaseFile:
    """One file, or a database in memory.

    Args:
        path: A path, or `:memory:`. A relative one counts from the working directory of now,
            wherever the program goes later.
        options: What is set on each connection.
        mode: How the file is opened.
        resets: What a holder sets on a connection is undone before another one gets it.

    Attributes:
        seen: The file that was at the path when the first connection was opened.
        closing: One connection at a time: only one that finds itself the last takes the
            write-ahead log away, and two that close together both find another.
    """

    def __init__(
        self, path: Path, options: SQLiteOptions, *, mode: Mode = "rwc", resets: bool = True
    ) -> None:
        self.in_memory = path == MEMORY
        self.path = path if self.in_memory else Path(os.path.abspath(path))
        self._name = os.fspath(self.path)  # which stat takes sooner
        self.options = options
        self.mode = mode
        self.read_only = mode in READ_ONLY
        self.resets = resets
        self.closing = threading.Lock()
        self.seen: SeenFile | None = None

    def identity(self) -> fork.Identity | None:
        """Return device and inode: the same for every path to the file; None if there is none."""
        if self.in_memory:
            return None
        try:
            status = os.stat(self.path)
        except OSError:
            return None
        return status.st_dev, status.st_ino

    def has_moved(self, identity: fork.Identity) -> bool:
        """Say whether another file than that one is at the path, or none. One call of stat."""
        try:
            status = os.stat(self._name)
        except (FileNotFoundError, NotADirectoryError):
            return True
        except OSError:  # it cannot be looked at, which does not mean that it is another one
            return False
        return (status.st_dev, status.st_ino) != identity

    def tell_moved(self, seen: SeenFile | None) -> sqlite3.Error | None:
        """Say what became of a file that is open, if something did.

        Returns:
            An `OpenError`, for the first who asks to be told; a `ClosedError` after that: whoever
            gets it may go on with a new connection. None if the file is still there.
        """
        if seen is None or not self.has_moved(seen.identity):
            return None
        text = f"{self.path} was deleted or replaced while it was open"
        if seen.told:
            return ClosedError(text)
        seen.told = True
        text += ": what is written to the old one is in no file that can be opened again"
        logger.warning("%s", text)
        return OpenError(text)

    def _refuse_stale_log(self) -> None:
        """Use a new file at the path, unless the log of the old one lies beside it.

        SQLite does not notice that they don't belong together, and writes it into the new one.

        Raises:
            OpenError: It does.
        """
        if self.seen is None or not self.has_moved(self.seen.identity):
            return
        log = self._log()
        if log is not None:
            raise OpenError(
                f"{self.path} was deleted or replaced while it was open, and SQLite would write "
                f"the log of the old one, {log.name}, into the new one: close the database, delete "
                f"{self.path.name}-wal, -shm and -journal unless they came with the new one, and "
                "open it again"
            )
        self.seen = None

    def _log(self) -> Path | None:
        """Return the log that lies beside the file, if one does that is not empty."""
        for suffix in ("-wal", "-journal"):
            log = Path(f"{self.path}{suffix}")
            if log.exists() and log.stat().st_size > 0:
                return log
        return None

    def create(self) -> None:
        """Create an empty database, unless there is one.

        By SQLite: a file that we opened and closed ourselves would lose the locks that SQLite
        has on it in this process.

        Raises:
            OpenError: It can't be created.
        """
        try:
            self._make_parent()
            with closing(self._connect()):
                pass
        except (OSError, sqlite3.Error) as error:
            raise self._explain(error) from error

    def open(self, call: Stoppable) -> Engine:
        """Open a connection and set it up, in the thread that it will be used in.

        Raises:
            OpenError: With what to do about it.
        """
        before = self.identity()
        if before in fork.inherited_files:
            raise self._inherited()
        self._refuse_stale_log()
        if self.mode == "immutable" and (log := self._log()) is not None:
            raise OpenError(
                f"{self.path}: its log {log.name} holds what a program committed that crashed or "
                "still runs, and `mode: immutable` would ignore it: open it with `mode: ro`"
            )
        try:
            if not self.in_memory:
                self._make_parent()
            engine = self._open(call)
        except (OSError, sqlite3.Error) as error:
            raise self._explain(error) from error
        after = self.identity()
        # SQLite opened the path somewhere between the two looks: if they differ, nobody can say
        # which file it has.
        if before is not None and before != after:
            engine.close()
            raise OpenError(f"{self.path} was replaced while it was being opened", transient=True)
        if self.seen is None and after is not None:
            self.seen = SeenFile(after)
        engine.tell_moved = partial(self.tell_moved, self.seen)
        return engine

    def _connect(self) -> sqlite3.Connection:
        """Open it; SQLite itself looks at the file when it is first asked for something."""
        # `isolation_level=None`: sqlite3 neither begins nor commits by itself, whatever a statement
        # looks like.
        timeout = (self.options.busy_timeout or 0) / 1000
        if self.in_memory or self.mode == "rwc":
            return sqlite3.connect(self.path, timeout=timeout, isolation_level=None)
        query = "mode=ro&immutable=1" if self.mode == "immutable" else f"mode={self.mode}"
        # From bytes: a file's name need not be UTF-8, and a ? or # in it ends no path.
        uri = f"file:{quote(os.fsencode(self.path))}?{query}"
        return sqlite3.connect(uri, timeout=timeout, isolation_level=None, uri=True)

    def _open(self, call: Stoppable) -> Engine:
        busy_timeout = self.options.busy_timeout or 0
        raw = self._connect()
        try:
            raw.row_factory = sqlite3.Row
            engine = Engine(raw, busy_timeout, call, shared=not self.in_memory, resets=self.resets)
            engine.authorizer.foreign_keys = self.options.foreign_keys
            engine.read_only_file = self.read_only
            if self.read_only:
                # Nothing is to be set here: reading shows whether it is a database.
                engine.wait_for_lock(engine.ping)
            elif not self.in_memory:
                # Processes that create a file together switch its mode together, and all but one
                # are told at once that it is busy.
                engine.wait_for_lock(lambda: self._set_journal_mode(raw))
                engine.log_ahead = self.options.journal_mode == "WAL"
            self.set_up(raw)
            # Last: what is set for everybody is no change of a holder's.
            raw.set_authorizer(engine.authorizer)
        except BaseException:
            with self.closing:
                raw.close()
            raise
        return engine

    def set_up(self, raw: sqlite3.Connection) -> None:
        """Set what lasts as long as the connection."""
        options = self.options
        raw.execute(SYNCHRONOUS[options.synchronous])
        raw.execute(f"PRAGMA foreign_keys = {int(options.foreign_keys)}")
        # It is off in a new connection, but not in one that is kept because its database is in
        # memory.
        raw.execute("PRAGMA query_only = 0")
        if options.cache_size is not None:
            raw.execute(f"PRAGMA cache_size = {options.cache_size:d}")

    def _set_journal_mode(self, raw: sqlite3.Connection) -> None:
        wanted = self.options.journal_mode
        # Asked first: as a rule there is nothing to set. Where a mode cannot be had, as WAL without
        # shared memory, SQLite does not raise: it answers with the one that stays.
        (current,) = raw.execute("PRAGMA journal_mode").fetchone()
        if current.upper() != wanted:
            (current,) = raw.execute(JOURNAL_MODES[wanted]).fetchone()
        if current.upper() != wanted:
            raise sqlite3.NotSupportedError(f"the journal mode stays {current.upper()}")

    # -- what went wrong

    def _inherited(self) -> OpenError:
        return OpenError(
            f"{self.path}: this process was forked while its parent had the file open, and SQLite "
            "would take the parent's locks for its own: fork before it is opened, or after it was "
            "closed, or start processes by spawn or forkserver"
        )

    def _make_parent(self) -> None:
        if self.mode == "rwc" and not self.path.parent.is_dir():
            self.path.parent.mkdir(parents=True, exist_ok=True)

    def _explain(self, error: OSError | sqlite3.Error) -> OpenError:
        busy = isinstance(error, sqlite3.Error) and is_busy(error)
        return OpenError(f"{self.path}: {self._problem(error)}", error, transient=busy)

    def _problem(self, error: OSError | sqlite3.Error) -> str:
        if isinstance(error, OSError):
            reason = error.strerror or str(error)
            return f"its directory cannot be created ({reason}): change `path`, or create it"
        if self.path.is_dir():
            return "is a directory: `path` must name a file in it"
        mode = self.options.journal_mode
        match getattr(error, "sqlite_errorcode", 0) & 0xFF:
            case sqlite3.SQLITE_NOTADB:
                return "is not an SQLite database, or it is encrypted: change `path`, or move it"
            case sqlite3.SQLITE_CORRUPT:
                return f"is damaged ({error}): restore a backup, or try sqlite3's .recover"
            case sqlite3.SQLITE_CANTOPEN:
                return self._why_not_openable(error)
            case sqlite3.SQLITE_READONLY if self.read_only:
                return (
                    "its journal mode is WAL, and its directory is not writable, where SQLite "
                    "keeps what readers share: make it writable, or open the file with "
                    "`mode: immutable` if nobody writes to it"
                )
            case sqlite3.SQLITE_READONLY:
                return (
                    f"it or its directory is read-only, and journal mode {mode} has to write: make "
                    "it writable, or set `options.journal_mode` to the mode that the file has"
                )
            case sqlite3.SQLITE_BUSY:
                return f"stayed locked for {self.options.busy_timeout or 0} ms: {error}"
            case sqlite3.SQLITE_FULL:
                return "its disk is full: make room"
            case sqlite3.SQLITE_IOERR:
                return f"cannot be read or written ({error}): check the disk"
        return f"{error}: `options.journal_mode` may be one that its file system does not support"

    def _why_not_openable(self, error: sqlite3.Error) -> str:
        if not self.path.exists() and self.mode != "rwc":
            return f"does not exist: change `path`, or create it (`mode` is {self.mode})"
        if self.read_only and os.access(self.path, os.R_OK) and (log := self._log()) is not None:
            return (
                f"its log {log.name} holds what a program committed that crashed, and SQLite needs "
                f"to create {self.path.name}-shm to read that: make the directory writable, or "
                "have somebody open the file once who may write it"
            )
        if self.path.exists() and not os.access(self.path, os.R_OK):
            return "is not readable: change its permissions, or `path`"
        if not os.access(self.path.parent, os.W_OK):
            return "its directory is not writable: make it so, or change `path`"
        return f"{error}: check its permissions and those of its directory"


class OpenFile:
    """A file while one connection has it open: what its thread does with it.

    It doesn't know its connection: the thread remembers what it did last, and a connection that
    it remembered would not be noticed when it is forgotten.

    Attributes:
        file: The file.
        engine: The connection, once it is open.
    """

    def __init__(self, file: DatabaseFile) -> None:
        self.file = file
        self.engine: Engine | None = None
        self._seen: SeenFile | None = None
        self._closing = threading.Event()
        self._interrupting = threading.Lock()

    def open(self, call: Stoppable) -> None:
        """Open it; see `DatabaseFile.open`."""
        # Before it is open: a fork meanwhile must find it, or the child would free what is the
        # parent's.
        fork.watch(self)
        self.engine = self.file.open(call)
        self._seen = self.file.seen

    @property
    def told(self) -> bool:
        """Whether it was found to be deleted or replaced."""
        return self._seen is not None and self._seen.told

    def tell_moved(self) -> sqlite3.Error | None:
        """Say what became of the file at the path since; see `DatabaseFile.tell_moved`."""
        return self.file.tell_moved(self._seen)

    def close(self) -> None:
        """Close it, if it ever was open."""
        # From here on nobody interrupts: that would stop the checkpoint which closing makes, and a
        # closed connection must not be touched.
        with self._interrupting:
            self._closing.set()
        if self.engine is not None:
            with self.file.closing:
                self.engine.close()
        fork.unwatch(self)

    def inherit(self) -> None:
        """In a forked child: leave what SQLite has open as it is, also at exit."""
        # Not known yet while it is being opened: then what lies at the path is taken for it.
        identity = self.file.identity() if self._seen is None else self._seen.identity
        if identity is not None:
            fork.inherited_files.add(identity)
        if self.engine is not None:
            for each in self.engine.handles():
                never_free(each)

    def interrupt_until_closed(self) -> None:
        """Stop what its thread is doing, so that it gets to closing. For another thread."""
        with suppress(sqlite3.ProgrammingError):  # it is closed
            while not self._closing.wait(INTERRUPT_AGAIN):
                # Between the look and the interrupt its thread must not begin to close, or the
                # checkpoint would be stopped.
                with self._interrupting:
                    if self.engine is not None and not self._closing.is_set():
                        self.engine.raw.interrupt()
