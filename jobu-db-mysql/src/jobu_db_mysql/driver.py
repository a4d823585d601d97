"""MySQL and MariaDB, as the core sees them."""

from __future__ import annotations

import asyncio
import hashlib
import socket
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from time import monotonic
from typing import Any

from jobu_db.capabilities import SUPPORTED, Capabilities, emulated, unsupported
from jobu_db.driver import (
    Cursor,
    Driver,
    HostState,
    Parameters,
    ServerInfo,
    TransactionMode,
)
from jobu_db.errors import (
    ConnectionLostError,
    DatabaseError,
    LockTimeoutError,
    TransactionError,
)
from jobu_db.hosts import HostListener, HostOrder
from jobu_db.placeholders import Dialect
from jobu_db_mysql import errors, implicit_commit, many, scripts, two_phase
from jobu_db_mysql.connecting import connect, login, see_who_answers
from jobu_db_mysql.cursor import RowCursor, reads_only
from jobu_db_mysql.deadline import Deadline
from jobu_db_mysql.guard import GuardedConnection
from jobu_db_mysql.kill import KILL_LIMIT, is_running, kill
from jobu_db_mysql.pipelining import Pipelining
from jobu_db_mysql.reading import dialect
from jobu_db_mysql.replication import MySQLReplication
from jobu_db_mysql.session import MySQLConnection
from jobu_db_mysql.settings import MySQLSettings
from jobu_db_mysql.two_phase import MySQLDeciding, MySQLTwoPhase
from jobu_db_mysql.values import AffectedRows, fill_in, refuse_more_results

_INITIALIZE_LIMIT = 60
"""Seconds to wait for other processes that initialise the same database."""

_ISOLATION = {
    level: f"SET TRANSACTION ISOLATION LEVEL {level.upper()}"
    for level in ("read uncommitted", "read committed", "repeatable read", "serializable")
}


MYSQL = Capabilities(
    nested_readonly=unsupported(
        "MySQL cannot make an open transaction read-only: it is not enforced, and `ctx.readonly` "
        "is false"
    ),
    concurrent_cursors=unsupported("MySQL sends the rows of one statement at a time"),
    transactional_ddl=unsupported("MySQL commits at every CREATE, ALTER, DROP and TRUNCATE"),
    deferred_constraints=unsupported("InnoDB checks every constraint at once"),
    returning=unsupported("MySQL does not know it; MariaDB does"),
    statement_timeout=emulated(
        "MySQL's own limit stops SELECT alone, so that other statements are killed through a "
        "second connection"
    ),
    two_phase=SUPPORTED,
    replicas=SUPPORTED,
    isolation_levels=frozenset(_ISOLATION),
)

MARIADB = replace(MYSQL, returning=SUPPORTED, statement_timeout=SUPPORTED)


class MySQLDriver(Driver[MySQLConnection]):
    """Talks to MySQL or MariaDB through asyncmy.

    Sessions are lent with autocommit off, so that a transaction begins with its first statement
    and nothing need be sent ahead; see `begun`. Where commands must not share a write, autocommit
    is on, and START TRANSACTION is sent.
    """

    capabilities = MYSQL
    taskless = True
    replication = MySQLReplication()
    two_phase = MySQLTwoPhase()

    def __init__(self, settings: MySQLSettings) -> None:
        self.settings = settings
        self._pipelining = Pipelining(wanted=settings.options.pipelining)
        self._hosts = HostOrder(settings.addresses, settings.host_order)
        # As far as it can be told before there is a connection; each knows its own.
        self.dialect = dialect(settings.options.sql_mode or "")

    @property
    def deciding(self) -> MySQLDeciding:
        """How MySQL decides atomic units."""
        return MySQLDeciding(self)

    # -- connections

    async def connect(self) -> MySQLConnection:
        """Open a connection, fully set up."""
        connection = await connect(self.settings, self._hosts, self._pipelining)
        # `type: mysql` may lead to either product, and its version counts: only now that is known,
        # and what was assumed of the class is replaced.
        usual = MARIADB if connection.is_mariadb else MYSQL
        self.capabilities = two_phase.capabilities(usual, connection)
        limit = self.settings.options.statement_timeout
        if limit is not None and not connection.is_mariadb:
            connection.limit = partial(Deadline, connection, limit / 1000, self._open_side)
        return connection

    async def _open_side(self, connection: MySQLConnection) -> MySQLConnection:
        # Not set up: all it does is to ask for sessions, and KILL.
        return await login(self.settings, connection.address)

    async def close(self, connection: MySQLConnection) -> None:
        """Tell the server that we leave, and close."""
        await connection.ensure_closed()

    def terminate(self, connection: MySQLConnection) -> None:
        """Close at once."""
        connection.terminate()

    def socket_of(self, connection: MySQLConnection) -> socket.socket | None:
        """Return the socket while the connection is open."""
        return connection.socket

    async def is_running(self, connection: MySQLConnection) -> bool:
        """Ask the server, over a second connection, whether the session still works."""
        return await is_running(connection, self._open_side)

    def host_of(self, connection: MySQLConnection) -> str | None:
        """Return where it was to go."""
        return str(connection.address) if self._hosts.several else None

    async def look_around(self, host: str, seconds: float) -> HostState:
        """Try a new connection there, and then elsewhere."""
        return await see_who_answers(self.settings, self._hosts, self._hosts.named(host), seconds)

    def lost_host(self, connection: MySQLConnection) -> bool:
        """Say so if it refused writes, or a statement for want of its cluster."""
        if connection.demoted:
            self._hosts.demoted(connection.address, monotonic())
        return connection.demoted

    def host_figures(self) -> list[dict[str, Any]]:
        """Return what connecting has shown of each."""
        return self._hosts.figures() if self._hosts.several else []

    def watch_hosts(self, listener: HostListener | None) -> None:
        """Tell of roles as connecting shows them."""
        self._hosts.listener = listener

    def is_alive(self, connection: MySQLConnection) -> bool:
        """Say False if the connection is dead, out of step with the server, or leads to one that
        takes no writes any more: a transaction that is open there may still end."""
        return connection.alive and (not connection.demoted or connection.get_transaction_status())

    async def ping(self, connection: MySQLConnection) -> None:
        """Ask the server for an answer."""
        await connection.ping()

    async def describe(self, connection: MySQLConnection) -> ServerInfo:
        """Ask for version, role and encryption, in two statements."""
        ((version, readonly),) = (await connection.run("SELECT @@version, @@read_only")).rows
        status = await connection.run(
            "SHOW SESSION STATUS WHERE Variable_name IN ('Ssl_version', 'Ssl_cipher')"
        )
        tls = dict(status.rows)
        protocol, cipher = tls.get("Ssl_version"), tls.get("Ssl_cipher")
        return ServerInfo(
            "MariaDB" if connection.is_mariadb else "MySQL",
            str(version).partition("-")[0],
            "primary" if readonly in (0, "OFF") else "read-only",
            f"{protocol} {cipher}" if cipher else None,
        )

    @property
    def attributes(self) -> dict[str, str | int]:
        """The product is known for certain once a connection was opened."""
        mariadb = bool(self.capabilities.returning) or self.settings.type == "mariadb"
        return {"db.system.name": "mariadb" if mariadb else "mysql", **self.settings.attributes}

    def needs_reset(self, connection: MySQLConnection) -> bool:
        """Say whether any command was sent since the last reset."""
        return connection.touched

    async def reset(self, connection: MySQLConnection) -> None:
        """Make the session what it was at the beginning, in one round trip."""
        await connection.reset()

    async def abort(self, connection: MySQLConnection) -> None:
        """Kill the session of a cancelled call: asyncmy has closed our side, the server runs on.

        Raises:
            ConnectionLostError: Always, unless nothing had been sent.
        """
        # asyncmy closes the connection whenever a call is cut off, so that nothing runs on an open
        # one.
        if connection.alive:
            return
        connection.terminate()
        async with asyncio.timeout(KILL_LIMIT):
            killed = await kill(connection, "CONNECTION", self._open_side)
        what = "its session was killed" if killed else "session not identified"
        raise ConnectionLostError(f"asyncmy closed the connection on cancellation, and {what}")

    # -- transactions

    def begin_later(self, connection: MySQLConnection, mode: TransactionMode) -> bool:
        """Leave it to the server, which begins with the first statement that touches a table."""
        return connection.begin_with_next(
            readonly=mode.readonly, isolation=_isolation(mode), xid=_xid(mode)
        )

    async def begin(self, connection: MySQLConnection, mode: TransactionMode) -> None:
        """Begin, in one round trip."""
        await connection.begin_now(
            readonly=mode.readonly, isolation=_isolation(mode), xid=_xid(mode)
        )

    async def commit(self, connection: MySQLConnection, *, reset: bool) -> bool:
        """Commit, with the reset in the same round trip.

        Raises:
            TransactionError: The transaction had ended before.
        """
        if connection.forget_unsent():
            return False
        # Its COMMIT would be answered behind the rows, and before that nothing can be asked.
        if connection.streaming:
            await connection.drop_unread()
        # Without this, success could be told of what is gone: where no transaction is open, the
        # server answers a COMMIT with OK.
        if not await self.confirm_in_transaction(connection):
            raise TransactionError("not committed: the transaction had ended before its COMMIT")
        if reset and connection.pipelines:
            return await connection.commit_and_reset()
        await connection.commit()
        connection.lend()
        return False

    def end_later(self, connection: MySQLConnection, mode: TransactionMode) -> bool:
        """Say yes where nothing was sent, or nothing can have been written."""
        return connection.forget_unsent() or (mode.readonly and connection.only_reads)

    async def rollback(self, connection: MySQLConnection, *, reset: bool = False) -> bool:
        """Roll back. The reset does so by itself, but for what was begun to be prepared."""
        if connection.forget_unsent():
            return False
        if connection.xid:
            await two_phase.roll_back(connection)
            return False
        await (connection.reset() if reset else connection.rollback())
        connection.lend()
        return reset

    async def prepare_commit(self, connection: MySQLConnection) -> None:
        """Ask for an answer, unless nothing was sent that could be lost."""
        if connection.begun is None or connection.begun.sent:
            await connection.ping()

    def in_transaction(self, connection: MySQLConnection) -> bool:
        """Say what the server said last: errors do not tell."""
        return connection.get_transaction_status()

    async def confirm_in_transaction(self, connection: MySQLConnection) -> bool:
        """Ask the server, if an error came last."""
        return await connection.confirm()

    def repeatable(self, connection: MySQLConnection, sql: str) -> bool:
        """Say yes for what takes effect with the COMMIT at the earliest."""
        return implicit_commit.stays_inside(sql) or implicit_commit.first_word(sql) == "SAVEPOINT"

    def commits_implicitly(self, sql: str) -> bool:
        """Say whether DDL, or another statement that commits, is in this text."""
        return any(map(implicit_commit.commits_implicitly, scripts.statements(sql, self.dialect)))

    def committed_by(self, connection: MySQLConnection) -> str:
        """Name the DDL on `ctx.connection` that committed the transaction, by its first words."""
        return connection.committed_by

    async def savepoint(self, connection: MySQLConnection, name: str, *, readonly: bool) -> None:
        """Set a savepoint."""
        await connection.order([f"SAVEPOINT `{name}`"])

    async def release_savepoint(
        self, connection: MySQLConnection, name: str, *, readonly: bool
    ) -> None:
        """Forget a savepoint."""
        await connection.order([f"RELEASE SAVEPOINT `{name}`"])

    async def rollback_to_savepoint(
        self, connection: MySQLConnection, name: str, *, readonly: bool
    ) -> None:
        """Undo the work since a savepoint, and forget it."""
        await connection.order([f"ROLLBACK TO SAVEPOINT `{name}`", f"RELEASE SAVEPOINT `{name}`"])

    # -- statements

    def dialect_of(self, connection: MySQLConnection) -> Dialect:
        """Say how this session reads SQL."""
        return connection.dialect

    def autocommit(self, connection: MySQLConnection, *, readonly: bool) -> None:
        """Have the next statement of the core commit by itself."""
        connection.lend()
        connection.gtids, connection.gtids_dropped = [], False

    def begin_session(self, connection: MySQLConnection) -> None:
        """Let autocommit be what the session's holder sets."""
        connection.hold()

    async def execute(
        self, connection: MySQLConnection, sql: str, parameters: Parameters
    ) -> AffectedRows:
        """Run one statement and return its affected rows."""
        sql = _written(connection, sql, parameters)
        outcome = await connection.run(sql, connection.unattended)
        return AffectedRows(outcome.affected, outcome.lastrowid)

    async def executemany(
        self, connection: MySQLConnection, sql: str, rows: Iterable[Any]
    ) -> AffectedRows:
        """Run one statement for each row: as few INSERTs of many rows, or many at once."""
        count = 0
        connection.note_text(sql, filled_in=True)
        for place, text in enumerate(many.texts(connection, sql, list(rows), connection.dialect)):
            # From the second text on the server has run one: an error then is none of a connection
            # that died while idle, after which all of it would be sent again.
            with errors.behind_an_answer() if place else nullcontext():
                if text.several:
                    count += await connection.run_all(text.sql, True)
                else:
                    count += (await connection.run(text.sql, connection.unattended)).affected
        return AffectedRows(count)

    async def execute_script(self, connection: MySQLConnection, script: str) -> None:
        """Run several statements: outside a transaction, in one that lasts to their end, or to the
        first that commits implicitly."""
        if scripts.is_empty(script, connection.dialect):
            return
        alone = not self.in_transaction(connection)
        if alone:
            await connection.begin_now(autocommit=True)
        try:
            connection.note_text(script, filled_in=False)
            await connection.run_all(scripts.without_empty_statements(script, connection.dialect))
        except Exception:
            if alone and connection.alive:
                await self.rollback(connection)
            raise
        if alone:
            with errors.behind_an_answer():
                await connection.commit()
            connection.lend()

    async def fetch_one(self, connection: MySQLConnection, sql: str, parameters: Parameters) -> Any:
        """Return the first row as a dict, or None."""
        sql = _written(connection, sql, parameters)
        outcome = await connection.run(sql, connection.unattended)
        refuse_more_results(outcome.dropped)
        for row in outcome.rows:
            return dict(zip(outcome.columns, row, strict=True))
        return None

    async def fetch_all(
        self, connection: MySQLConnection, sql: str, parameters: Parameters
    ) -> list[Any]:
        """Return all rows as dicts."""
        sql = _written(connection, sql, parameters)
        rows, dropped = await connection.run_dicts(sql, connection.unattended)
        refuse_more_results(dropped)
        return rows

    async def fetch_val(self, connection: MySQLConnection, sql: str, parameters: Parameters) -> Any:
        """Return the first column of the first row, or None."""
        sql = _written(connection, sql, parameters)
        outcome = await connection.run(sql, connection.unattended)
        refuse_more_results(outcome.dropped)
        return outcome.rows[0][0] if outcome.rows else None

    async def open_cursor(
        self, connection: MySQLConnection, sql: str, parameters: Parameters, batch: int
    ) -> Cursor:
        """Start a statement whose rows are read piece by piece."""
        cursor = RowCursor(connection, batch, self._open_side, reads=reads_only(sql))
        await cursor.open(_written(connection, sql, parameters))
        return cursor

    async def initialize(self, connection: MySQLConnection, script: str) -> None:
        """Run a script, one process at a time.

        Raises:
            LockTimeoutError: Another process does so, and takes too long.
        """
        if scripts.is_empty(script, connection.dialect):
            return
        database = self.settings.database.encode()
        # The name of a lock has at most 64 characters, and holds for the whole server.
        lock = f"'jobu-db initialize {hashlib.sha256(database).hexdigest()[:32]}'"
        # DDL commits as it goes, and all else is to do so as well: the lock is released before any
        # COMMIT of ours could come.
        connection.autocommit_wanted = True
        got = await connection.run(f"SELECT GET_LOCK({lock}, {_INITIALIZE_LIMIT})")
        if got.rows[0][0] != 1:
            raise LockTimeoutError(
                f"another process has been initialising the database for {_INITIALIZE_LIMIT} s"
            )
        try:
            connection.note_text(script, filled_in=False)
            await connection.run_all(scripts.without_empty_statements(script, connection.dialect))
        finally:
            # A lock ends with its session: on a lost connection there is nothing to release.
            if connection.alive:
                await connection.run(f"SELECT RELEASE_LOCK({lock})")

    def guard(self, connection: MySQLConnection, check: Callable[[], None]) -> Any:
        """Wrap the connection for `ctx.connection`."""
        return GuardedConnection(connection, check)

    # -- errors

    def translate(self, error: BaseException) -> DatabaseError | None:
        """Say what an exception of asyncmy means."""
        return errors.translate(error)


def _isolation(mode: TransactionMode) -> str | None:
    return None if mode.isolation is None else _ISOLATION[mode.isolation]


def _xid(mode: TransactionMode) -> str:
    return "" if mode.branch is None else two_phase.xid(mode.branch)


def _written(connection: MySQLConnection, sql: str, parameters: Parameters) -> str:
    """Write the parameters into the SQL."""
    connection.note_text(sql, filled_in=bool(parameters))
    return fill_in(connection, sql, parameters)
