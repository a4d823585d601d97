"""A database server in memory, for tests: sessions, transactions, and faults on order.

It speaks SQLite's SQL. A transaction works on a snapshot; at commit its statements are
applied to what is committed by then, all or none. Nothing ever waits for a lock.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Any

from jobu_db.driver import Parameters
from jobu_db.errors import ConnectionFailedError, SerializationError
from jobu_db.testing.faults import FOREVER, FakeError, Faults

Statement = tuple[str, Any]


class Result:
    """What a statement returned.

    Attributes:
        rows: All of them.
        rowcount: How many it changed; -1 if it does not say.
        lastrowid: Of the last INSERT, or None.
        changed: It may have changed something.
    """

    def __init__(self, database: sqlite3.Connection, sql: str, parameters: Parameters) -> None:
        before = database.total_changes
        cursor = database.execute(sql, parameters or ())
        self.rows: list[sqlite3.Row] = cursor.fetchall()
        self.rowcount = cursor.rowcount
        self.lastrowid = cursor.lastrowid
        # CREATE changes no row, and INSERT … RETURNING returns some: either sign alone would miss
        # one.
        self.changed = cursor.description is None or database.total_changes != before


class FakeServer(Faults):
    """What all connections of a fake database talk to.

    Attributes:
        sessions: Those that are open.
        committed: Statements that took effect, each with its parameters, in order.
        violations: Rules of the seam that the caller of the driver broke; a test of the core
            checks that there are none.
        max_sessions: How many it accepts, or None for any number.
    """

    def __init__(self, max_sessions: int | None = None) -> None:
        super().__init__()
        self.max_sessions = max_sessions
        self.sessions: list[Session] = []
        self.committed: list[Statement] = []
        self.violations: list[str] = []
        self._database = _open()
        self._next_id = 1

    def refuse(self, error: Exception | None = None) -> None:
        """End all sessions and refuse new ones until `accept`, as if nothing listened there, or
        with this error."""
        self.drop_all()
        message = "connection refused"
        refused = FakeError(message, ConnectionFailedError(message, transient=True))
        self.fail("connect", error or refused, times=FOREVER)

    def accept(self) -> None:
        """Accept connections again."""
        self.heal("connect")

    def drop_all(self, *, noticed: bool = True) -> None:
        """End all sessions; `noticed` if the clients know without asking."""
        for session in list(self.sessions):
            session.end(noticed=noticed)

    def rows(self, sql: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Query what is committed."""
        return [tuple(row) for row in self._database.execute(sql, parameters)]

    # -- for the fake driver's use

    def admit(self) -> Session:
        """Open a session."""
        if self.max_sessions is not None and len(self.sessions) >= self.max_sessions:
            message = "too many connections"
            raise FakeError(message, ConnectionFailedError(message, transient=True))
        session = Session(self, self._next_id)
        self._next_id += 1
        self.sessions.append(session)
        return session

    def snapshot(self) -> sqlite3.Connection:
        """Copy what is committed."""
        copy = _open()
        self._database.backup(copy)
        return copy

    def run(self, sql: str, parameters: Parameters) -> Result:
        """Run one statement that commits by itself."""
        result = Result(self._database, sql, parameters)
        if result.changed:
            self.committed.append((sql, parameters))
        return result

    def apply(self, statements: list[Statement]) -> None:
        """Let the statements of a transaction take effect, or none of them."""
        self._database.execute("BEGIN")
        try:
            for sql, parameters in statements:
                Result(self._database, sql, parameters)
        except sqlite3.Error as error:
            self._database.execute("ROLLBACK")
            # What was free in the snapshot is taken by now. A real server would have had one of the
            # two wait, and then have told it the same.
            message = f"another transaction got in the way: {error}"
            raise FakeError(message, SerializationError(message)) from error
        self._database.execute("COMMIT")
        self.committed += statements


class Session:
    """The server's end of a connection: its transaction, and what its client has set.

    Attributes:
        is_open: Until the client closes it, or the server ends it.
        noticed: If the server ended it: whether the client knows.
        variables: Whatever a client sets; a reset clears it.
    """

    def __init__(self, server: FakeServer, id: int) -> None:
        self.server = server
        self.id = id
        self.is_open = True
        self.noticed = False
        self.variables: dict[str, Any] = {}
        self._snapshot: sqlite3.Connection | None = None
        self._statements: list[Statement] = []
        self._marks: dict[str, int] = {}

    @property
    def in_transaction(self) -> bool:
        """True from BEGIN to COMMIT or ROLLBACK."""
        return self._snapshot is not None and self._snapshot.in_transaction

    def end(self, *, noticed: bool = True) -> None:
        """End the session, which rolls back."""
        if self.is_open:
            self.rollback()
            self.is_open, self.noticed = False, noticed
            self.server.sessions.remove(self)

    def begin(self, *, readonly: bool = False) -> None:
        """Begin, with what is committed now as the snapshot."""
        if self.in_transaction:
            raise FakeError("a transaction is open already")
        self._snapshot = self.server.snapshot()
        self._snapshot.execute("BEGIN")
        self._set_readonly(readonly)

    def commit(self) -> None:
        """Make the statements of the transaction visible to all."""
        if not self.in_transaction:
            raise FakeError("no transaction is open")
        # Remembered first, since `rollback` forgets them; it closes the snapshot, which is over
        # either way.
        statements = self._statements
        self.rollback()
        self.server.apply(statements)

    def rollback(self) -> None:
        """Forget the transaction, if one is open."""
        if self._snapshot is not None:
            self._snapshot.close()
        self._snapshot, self._statements, self._marks = None, [], {}

    def savepoint(self, name: str, *, readonly: bool) -> None:
        """Set a savepoint."""
        self._marks[name] = len(self._statements)
        self._transaction.execute(f'SAVEPOINT "{name}"')
        if readonly:
            self._set_readonly(True)

    def release(self, name: str, *, readonly: bool) -> None:
        """Keep what was done since a savepoint, and forget the savepoint."""
        self._transaction.execute(f'RELEASE "{name}"')
        if readonly:
            self._set_readonly(False)

    def rollback_to(self, name: str, *, readonly: bool) -> None:
        """Undo what was done since a savepoint, and forget the savepoint."""
        del self._statements[self._marks[name] :]
        self._transaction.execute(f'ROLLBACK TO "{name}"')
        self.release(name, readonly=readonly)

    def run(self, sql: str, parameters: Parameters) -> Result:
        """Run one statement, in the transaction if one is open, else committed at once."""
        words = sql.upper().rstrip("; \n").split(None, 2)
        # BEGIN and COMMIT in the text of a statement take effect, as on a real server, and return
        # no rows.
        if words and words[0] in _CONTROL:
            self._control(words[0], " ".join(words[1:2]))
            sql, parameters = "SELECT 1 WHERE 0", None
        if self._snapshot is None:
            return self.server.run(sql, parameters)
        result = Result(self._snapshot, sql, parameters)
        if result.changed:
            self._statements.append((sql, parameters))
        return result

    def _control(self, word: str, next_word: str) -> None:
        if word == "BEGIN":
            self.begin()
        elif word in ("COMMIT", "END"):
            self.commit()
        elif word == "ROLLBACK" and next_word != "TO":
            self.rollback()
        else:
            raise FakeError("savepoints are set by transaction(), not by SQL text")

    @property
    def _transaction(self) -> sqlite3.Connection:
        if self._snapshot is None:
            raise FakeError("no transaction is open")
        return self._snapshot

    def _set_readonly(self, on: bool) -> None:
        self._transaction.execute(f"PRAGMA query_only = {int(on)}")


_CONTROL = frozenset({"BEGIN", "COMMIT", "END", "ROLLBACK", "SAVEPOINT", "RELEASE"})


def _open() -> sqlite3.Connection:
    connection = sqlite3.connect(":memory:", isolation_level=None)
    connection.row_factory = sqlite3.Row
    connection.execute("PRAGMA foreign_keys = ON")
    return connection
