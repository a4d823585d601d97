"""The seam between the core and a backend: everything that only a backend knows.

The core decides when; a driver knows how. A driver keeps no pool, opens no transaction of its
own accord, starts no task that outlives a call, and lets the database's own exceptions out:
the core asks `translate` what they mean.

Guarantees the core gives a driver: no two calls run on one connection at once (`is_alive`,
`in_transaction`, `terminate` excepted: they are synchronous and may come at any time); after a
cancelled call, `abort` is the next one on that connection; after `terminate` there is none. (The
conformance suite goes further: after `terminate` it calls that again, which does nothing, and
`ping`, which raises.)
"""

from __future__ import annotations

import socket
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, Literal, Protocol, TypeVar

from jobu_db._aio.inline_task import InlineTask as InlineTask
from jobu_db.capabilities import Capabilities
from jobu_db.errors import DatabaseError
from jobu_db.placeholders import Dialect, statements_of
from jobu_db.replication import AnyReplication
from jobu_db.two_phase import Branch, Deciding, TwoPhase
from jobu_db.write_gate import WriteGate as WriteGate

C = TypeVar("C")
"""A driver's own connection type."""

HostState = Literal["answers", "silent", "replaced"]
"""Whether a server answers, or does not, or does not and another one has taken its place."""

Parameters = Sequence[Any] | Mapping[str, Any] | None


@dataclass(frozen=True, slots=True)
class TransactionMode:
    """How a transaction begins.

    Attributes:
        readonly: The server must refuse writes.
        isolation: A standard name in lower case ("read committed"), or None for the default.
        branch: What it is to be prepared as; None if it is not.
    """

    readonly: bool = False
    isolation: str | None = None
    # Not compared: how a transaction begins does not depend on its name, and backends keep the
    # texts for it by mode.
    branch: Branch | None = field(default=None, compare=False)


READ_WRITE = TransactionMode()
READ_ONLY = TransactionMode(readonly=True)


@dataclass(frozen=True, slots=True)
class ServerInfo:
    """What is at the other end of a connection.

    Attributes:
        product: Its name: "PostgreSQL".
        version: As it tells it: "15.18".
        role: "primary", "standby", "read-only"; None where there are no roles.
        tls: Protocol and cipher; None if the connection is not encrypted.
    """

    product: str
    version: str
    role: str | None = None
    tls: str | None = None


class Cursor(Protocol):
    """Rows of one statement, read piece by piece."""

    async def fetch(self) -> Sequence[Any]:
        """Return the next rows, at most `batch` of them; none at the end."""

    async def close(self) -> None:
        """Free the cursor, unread rows included. Raise if the connection is unusable then."""


class Driver(ABC, Generic[C]):
    """What a backend implements. Times are in seconds.

    Class attributes:
        capabilities: What the database can do, and why it cannot do the rest.
        variadic: True if statements take `(sql, *args)`, False for `(sql, parameters=None)`.
        taskless: `begin`, `commit`, `rollback` and `reset` await futures only: no asyncio.timeout,
            wait_for, TaskGroup or current_task. They may then run outside a task, or in one whose
            cancellation is held back, and cost less.

    Attributes:
        dialect: How the database writes placeholders, strings and comments; see `dialect_of`.
        write_gate: Where writers of this database take turns, or None if the server sees to it.
        replaceable: False if a connection is the database itself, so that it is never drained.
        two_phase: How transactions are prepared; None unless `two_phase` is declared.
        replication: Where the servers are in what they write and replay; None if `replicas` is
            no capability.
    """

    capabilities: Capabilities
    variadic: bool = False
    taskless: bool = False
    dialect: Dialect
    write_gate: WriteGate | None = None
    replaceable: bool = True
    two_phase: TwoPhase[C] | None = None
    replication: AnyReplication | None = None

    @property
    def deciding(self) -> Deciding[C]:
        """How this database decides atomic units. Override where the default does not do: it
        cannot tell a copy, nor whether what is committed lasts."""
        return Deciding(self)

    # -- connections

    @abstractmethod
    async def connect(self) -> C:
        """Open a connection, fully set up. Leave nothing behind on failure or cancellation."""

    async def close(self, connection: C) -> None:
        """Close gracefully. May take a while; the core limits it and then calls `terminate`."""
        self.terminate(connection)

    @abstractmethod
    def terminate(self, connection: C) -> None:
        """Close at once, without waiting. Works without a running event loop. Never raises."""

    def socket_of(self, connection: C) -> socket.socket | None:
        """Return the socket of the connection, so that a silent network can be noticed; None if
        there is none, or it is no TCP socket. It is only looked at."""
        return None

    async def is_running(self, connection: C) -> bool:
        """Say whether the server still works on what was sent last, by asking over another one.

        Asked about a commit, or a statement outside a transaction, that is unanswered for long.
        False if it does not, or the session is gone or cannot be told from others: then the
        outcome is unknown. The default says that it cannot be told: it is waited for to the limit.
        """
        return True

    # -- several servers, of which one is used

    def host_of(self, connection: C) -> str | None:
        """Say which of several servers a connection leads to; None where there is only one."""
        return None

    async def look_around(self, host: str, seconds: float) -> HostState:
        """See whether a server from which nothing comes answers to a new connection within so many
        seconds; if not, whether another one is what is wanted, which is then tried first."""
        return "answers"

    def lost_host(self, connection: C) -> bool:
        """Say whether the server has told on this connection that it may no longer be written to,
        or does not belong to its cluster any more. Note it: another one is tried first."""
        return False

    def host_figures(self) -> list[dict[str, Any]]:
        """Return of each of several servers: `host`, its address as in `host_of`; `role`; `errors`;
        and `last_failover`, the Unix time at which it was last lost after it had been good, or
        None. Nothing where there is only one."""
        return []

    def watch_hosts(self, listener: Callable[[str, str | None, str | None], None] | None) -> None:
        """Have the listener called with a server's address, and its role before and now, whenever
        that changes; None for no listener."""
        return

    @abstractmethod
    def is_alive(self, connection: C) -> bool:
        """Say False if the connection is known to be dead. Costs no round trip."""

    async def ping(self, connection: C) -> None:
        """Ask the server for an answer; raise if there is none, or `terminate` was called."""
        await self.execute(connection, "SELECT 1", None)

    async def describe(self, connection: C) -> ServerInfo:
        """Say what is at the other end, for people; no transaction is open."""
        return ServerInfo("unknown", "unknown")

    @property
    def attributes(self) -> Mapping[str, str | int]:
        """The database in OpenTelemetry's words: `db.system.name`, and where there are some
        `db.namespace`, `server.address`, `server.port`. Asked for once a connection was opened."""
        return {"db.system.name": "other_sql"}

    def needs_reset(self, connection: C) -> bool:
        """Say False if the holder certainly changed nothing that `reset` would undo."""
        return True

    @abstractmethod
    async def reset(self, connection: C) -> None:
        """Undo whatever a holder may have set; no transaction is open. Raise to have it closed."""

    @abstractmethod
    async def abort(self, connection: C) -> None:
        """Stop what a cancelled call left running, and return once the connection is quiet.

        Raise if that cannot be had: the connection is then thrown away. Whether the transaction
        is still open afterwards is for `in_transaction` to say.
        """

    # -- transactions

    def begin_later(self, connection: C, mode: TransactionMode) -> bool:
        """Have BEGIN travel with whatever is sent first, by the core or on `ctx.connection`; say
        False if it must be sent by itself, which is `begin`.

        Sends nothing. `in_transaction` is true from here on; what BEGIN raises, that first call
        raises. A transaction of which nothing was sent is committed, prepared or rolled back
        without sending anything, and `needs_reset` does not mind it.
        """
        return False

    @abstractmethod
    async def begin(self, connection: C, mode: TransactionMode) -> None:
        """Begin now; `in_transaction` is true from here on."""

    async def commit(self, connection: C, *, reset: bool) -> bool:
        """Commit. Raise unless the server says that this transaction is committed.

        Raise a `CommitOutcomeUnknownError` if it says that it is, and may not last.

        With `reset`, what `reset` does may travel with it; return True if it did.
        """
        await self.execute(connection, "COMMIT", None)
        return False

    def end_later(self, connection: C, mode: TransactionMode) -> bool:
        """Say whether the transaction that is open needs no waiting for at its end.

        True for one of which nothing was sent, which is then over; and for a read-only one, which
        has nothing to commit. Its connection is given back at once, and if the transaction is
        still open then, it is ended in the background before anybody else gets it. Say False
        where such a commit can fail in a way that matters to the reader.
        """
        return False

    def may_owe_end(self, connection: C) -> bool:
        """Say whether the COMMIT of the transaction that is open, and that `end_later` left open,
        and what `reset` does, can travel ahead of the next BEGIN; see `begin_behind`.

        Asked when its holder gives the connection back. Until the next pass of the event loop
        nothing is sent then, and whoever begins a transaction first may be given the connection.
        """
        return False

    def begin_behind(self, connection: C, mode: TransactionMode, *, reset: bool) -> None:
        """Do what `begin_later` does, and have the COMMIT of the transaction that is open travel
        ahead of the BEGIN, with `reset` also what `reset` does. Asked only if `may_owe_end`.

        The transaction before is over for all that is asked from here on. If no first statement
        is sent in the same pass of the event loop, or none that can share a write with the end,
        that is sent alone first. If anything fails ahead of the first statement, that must not
        run: the connection is then to be lost with it. The core runs it on another one.
        """
        raise NotImplementedError

    async def rollback(self, connection: C, *, reset: bool = False) -> bool:
        """Roll back. Nothing to roll back is no error. `reset` and the answer as with `commit`."""
        if self.in_transaction(connection):
            await self.execute(connection, "ROLLBACK", None)
        return False

    @abstractmethod
    def in_transaction(self, connection: C) -> bool:
        """Say whether a transaction is open, as far as is known without a round trip."""

    async def confirm_in_transaction(self, connection: C) -> bool:
        """Say for certain; override where the flag of `in_transaction` can be stale."""
        return self.in_transaction(connection)

    def commits_implicitly(self, sql: str) -> bool:
        """Say whether this statement, which ended the transaction, did so by committing (DDL)."""
        return False

    def repeatable(self, connection: C, sql: str) -> bool:
        """Say whether a statement that was sent first in a transaction, on a connection that was
        lost before it answered, certainly left nothing behind: it commits nothing by itself."""
        return not self.commits_implicitly(sql)

    def committed_by(self, connection: C) -> str:
        """Name the statement on `ctx.connection` that committed the open transaction; "" if none
        is known to have done so. Override where DDL commits."""
        return ""

    async def prepare_commit(self, connection: C) -> None:
        """Raise whatever a commit would raise, as far as can be known before it."""
        # The least that there is to know: a COMMIT cannot succeed on a connection that is gone.
        await self.ping(connection)

    async def limit_lock_waits(self, connection: C, seconds: float) -> None:
        """Limit how long this transaction waits for a lock, unless it is limited already.

        Asked for where other databases take part: no server sees a deadlock of which another one
        has the other half. Override where the server would let it wait without a limit.
        """
        return

    async def savepoint(self, connection: C, name: str, *, readonly: bool) -> None:
        """Set a savepoint. With `readonly`, the server refuses writes until it is left; that is
        asked for only of a backend that declares `nested_readonly`."""
        await self.execute(connection, f"SAVEPOINT {name}", None)

    async def release_savepoint(self, connection: C, name: str, *, readonly: bool) -> None:
        """Keep the work since the savepoint and forget it. `readonly` as it was set."""
        await self.execute(connection, f"RELEASE SAVEPOINT {name}", None)

    async def rollback_to_savepoint(self, connection: C, name: str, *, readonly: bool) -> None:
        """Undo the work since the savepoint and forget it. `readonly` as it was set."""
        # ROLLBACK TO leaves the savepoint itself set. The next block at this depth takes the same
        # name, and the server would pile them up.
        await self.execute(connection, f"ROLLBACK TO SAVEPOINT {name}", None)
        await self.execute(connection, f"RELEASE SAVEPOINT {name}", None)

    # -- statements

    def dialect_of(self, connection: C) -> Dialect:
        """Say how the next statement on a connection is read; override if that can change.

        Raises:
            QueryExecutionError: It is not known for certain.
        """
        return self.dialect

    def autocommit(self, connection: C, *, readonly: bool) -> None:
        """Prepare for one statement outside a transaction."""
        return

    def begin_session(self, connection: C) -> None:
        """Have what is set on the connection hold from here to the next `reset`: a session has it.

        Override where a statement outside a transaction would undo or refuse such a setting.
        """
        return

    @abstractmethod
    async def execute(self, connection: C, sql: str, parameters: Parameters) -> Any:
        """Run one statement and return what this backend's `execute` returns."""

    async def executemany(self, connection: C, sql: str, rows: Iterable[Any]) -> Any:
        """Run one statement for each row of parameters; the core sees to it that all count."""
        for row in rows:
            await self.execute(connection, sql, row)

    async def execute_script(self, connection: C, script: str) -> None:
        """Run several statements; a transaction is open, which they are not to end.

        Override where a semicolon may stand in the body of a trigger or procedure: the default
        knows only strings and comments. Where `transactional_ddl` is declared unsupported, it is
        called outside a transaction as well, and is to see by itself that as many of the
        statements as can be count together.
        """
        for statement in statements_of(script, self.dialect_of(connection)):
            await self.execute(connection, statement, None)

    async def fetch_one(self, connection: C, sql: str, parameters: Parameters) -> Any:
        """Return the first row or None; override to leave the others on the server."""
        rows = await self.fetch_all(connection, sql, parameters)
        return rows[0] if rows else None

    @abstractmethod
    async def fetch_all(self, connection: C, sql: str, parameters: Parameters) -> list[Any]:
        """Return all rows. A row answers `row["column"]`, `row[0]` and `dict(row)`."""

    async def fetch_val(self, connection: C, sql: str, parameters: Parameters) -> Any:
        """Return the first column of the first row, or None."""
        row = await self.fetch_one(connection, sql, parameters)
        return None if row is None else row[0]

    @abstractmethod
    async def open_cursor(
        self, connection: C, sql: str, parameters: Parameters, batch: int
    ) -> Cursor:
        """Start a statement whose rows are read piece by piece, inside a transaction."""

    @abstractmethod
    async def initialize(self, connection: C, script: str) -> None:
        """Run a script of statements once, safely when several processes do so together."""

    def guard(self, connection: C, check: Callable[[], None]) -> Any:
        """Wrap the connection for `ctx.connection`: every use calls `check` first, which raises
        once the transaction is over. Override if objects made from it could outlive it."""
        from jobu_db.guard import ConnectionGuard

        return ConnectionGuard(connection, check)

    # -- errors

    @abstractmethod
    def translate(self, error: BaseException) -> DatabaseError | None:
        """Say what an exception of the database driver means; None if it is not one.

        From `connect`, this is a `ConnectionFailedError` with `transient` set. Sets `code`; the
        core adds `database`, `statement` and the cause.
        """
