"""Copying a database while others use it; stopped at once when nobody wants the copy any more.

sqlite3's own `backup` goes on for as long as SQLite says that the database is locked: for ever, in
a transaction that writes, for its own lock stands in the way.
"""

from __future__ import annotations

import os
import secrets
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from time import monotonic
from typing import Any

from jobu_db_sqlite.errors import BackupError, locked_error
from jobu_db_sqlite.thread import BEGIN_READING, Engine

PAGES = 500
"""Pages between two looks at whether the copy is still wanted."""

_PAUSE = 0.025
"""Seconds between two attempts to get a lock."""

Progress = Callable[[int, int, int], object]


def copy_file(engine: Engine, path: Path) -> None:
    """Copy the database, as it is now, into a new file. It appears at the path when it is whole.

    Raises:
        BackupError: The file is there already, or can't be written.
        sqlite3.OperationalError: Another program kept the database locked.
    """
    if path.exists():
        raise BackupError(f"{path} is there already: delete it, or choose another name")
    # Beside the target: only within one file system does a rename put the whole file there in one
    # step.
    partial = path.with_name(f".{path.name}.{secrets.token_hex(4)}.partial")
    try:
        # As private as the original.
        os.close(os.open(partial, os.O_CREAT | os.O_EXCL | os.O_WRONLY, _mode(engine)))
        with closing(sqlite3.connect(partial)) as target:
            copy(engine, target)
        os.rename(partial, path)
    except OSError as error:
        raise BackupError(f"{path} cannot be written: {error.strerror or error}") from error
    finally:
        # After the rename there is none; after an error, or when it was cancelled, nothing is to
        # stay.
        for suffix in ("", "-journal"):
            partial.with_name(partial.name + suffix).unlink(missing_ok=True)


def _mode(engine: Engine) -> int:
    ((_, _, file), *_) = engine.ask("PRAGMA database_list")
    return os.stat(file).st_mode & 0o777 if file else 0o600


def copy(
    engine: Engine,
    target: sqlite3.Connection,
    *,
    pages: int = -1,
    progress: Progress | None = None,
    name: str = "main",
    sleep: float = _PAUSE,
) -> None:
    """Do as sqlite3's `backup`, but within limits.

    Args:
        pages: How many at a time. If 0 or less, the copy is of one moment: it is made inside a
            read transaction, so that SQLite need not start again when somebody else writes.
        sleep: Has no effect: what is waited for is a lock, for as long as `busy_timeout` allows.

    Raises:
        BackupError: The connection has a transaction open that writes.
        sqlite3.OperationalError: A lock stood in the way for `busy_timeout`.
    """
    if engine.writing:
        raise BackupError(
            "a transaction that writes cannot be backed up from its own connection, where its lock "
            "stands in the way: use db.backup(path), or a read-only transaction"
        )
    at_one_moment = pages <= 0 and not engine.open
    if at_one_moment:
        engine.wait_for_lock(_begin_reading, engine.raw)
    limit = _Limit(engine, progress)
    try:
        # `limit` decides how long a lock is waited for, and sqlite3 asks it only between SQLite's
        # own waits.
        with engine.without_waiting():
            engine.raw.backup(
                target,
                pages=pages if pages > 0 else PAGES,
                progress=limit,
                name=name,
                sleep=_PAUSE,
            )
    finally:
        if at_one_moment:
            engine.run_all("ROLLBACK")


def _begin_reading(raw: sqlite3.Connection) -> None:
    raw.execute(BEGIN_READING).close()
    try:
        # BEGIN DEFERRED begins nothing by itself: the first read takes the snapshot.
        raw.execute("SELECT 1 FROM sqlite_schema").fetchone()
    except BaseException:
        raw.execute("ROLLBACK").close()
        raise


class _Limit:
    """Called by sqlite3 after each step."""

    def __init__(self, engine: Engine, progress: Progress | None) -> None:
        self._engine = engine
        self._progress = progress
        self._locked_since: float | None = None

    def __call__(self, status: int, remaining: int, total: int) -> Any:
        # sqlite3 calls this after each step, before it sleeps for a lock, which it would do for
        # ever: an exception ends its loop.
        self._engine.check()
        if status in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            now = monotonic()
            self._locked_since = self._locked_since or now
            if now - self._locked_since >= self._engine.busy_timeout / 1000:
                raise locked_error("the database stayed locked while it was being copied")
        else:
            self._locked_since = None
        if self._progress is not None:
            self._progress(status, remaining, total)
