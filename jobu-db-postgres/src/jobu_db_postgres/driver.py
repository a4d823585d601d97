"""How PostgreSQL is talked to, through asyncpg."""

from __future__ import annotations

import socket
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from time import monotonic
from typing import Any

import asyncpg

from jobu_db.capabilities import SUPPORTED, Capabilities
from jobu_db.driver import (
    READ_ONLY,
    READ_WRITE,
    Driver,
    HostState,
    Parameters,
    ServerInfo,
    TransactionMode,
)
from jobu_db.errors import ConnectionLostError, DatabaseError, ProgrammingError, TransactionError
from jobu_db.hosts import HostListener, HostOrder
from jobu_db.placeholders import Dialect
from jobu_db_postgres import _private, effects
from jobu_db_postgres import reset as reset_text
from jobu_db_postgres._private import Connection
from jobu_db_postgres.connecting import connect, connect_beside, see_who_answers
from jobu_db_postgres.cursor import PortalCursor
from jobu_db_postgres.errors import translate
from jobu_db_postgres.guard import PostgresGuard
from jobu_db_postgres.replication import PostgresReplication
from jobu_db_postgres.roles import Role, role_of
from jobu_db_postgres.schema import Schema
from jobu_db_postgres.settings import PostgresSettings
from jobu_db_postgres.status import Status
from jobu_db_postgres.transport import Begin, begin_of
from jobu_db_postgres.two_phase import PostgresDeciding, PostgresTwoPhase

_ISOLATION_LEVELS = ("read uncommitted", "read committed", "repeatable read", "serializable")

_AGE_SLACK = 5.0
"""Seconds by which a session's age on the server may differ from ours: it takes time to open."""

INITIALIZE_LOCK = 0x6A6F_6275_2D64_6201
"""Key of the advisory lock under which processes take turns to run `init_sql`."""


class PostgresDriver(Driver[Connection]):
    """The seam's PostgreSQL side.

    Args:
        settings: Where to connect to, and what every session is set to.
    """

    capabilities = Capabilities(
        two_phase=SUPPORTED, replicas=SUPPORTED, isolation_levels=frozenset(_ISOLATION_LEVELS)
    )
    replication = PostgresReplication()
    variadic = True
    taskless = True
    dialect = effects.DIALECT
    _without_standard_strings = replace(dialect, backslash_escapes=True)

    def __init__(self, settings: PostgresSettings) -> None:
        self._settings = settings
        self._hosts = HostOrder(settings.addresses, settings.host_order)
        self._schema = Schema()
        self._role = Role(settings.target_session_attrs, settings.options.startup)
        self._tells_positions = settings.replicas is not None
        self.two_phase = PostgresTwoPhase(_end_transaction)

    @property
    def deciding(self) -> PostgresDeciding:
        return PostgresDeciding(self)

    def dialect_of(self, connection: Connection) -> Dialect:
        # The server reports this setting with the answer to whatever changed it.
        standard = getattr(connection.get_settings(), "standard_conforming_strings", "on")
        return self.dialect if standard == "on" else self._without_standard_strings

    # -- connections

    async def connect(self) -> Connection:
        return await connect(self._settings, self._hosts, self._schema, self._role)

    async def close(self, connection: Connection) -> None:
        await connection.close()

    def terminate(self, connection: Connection) -> None:
        # Once the loop is closed, asyncio raises after asyncpg has sent the server its Terminate.
        with suppress(RuntimeError):
            connection.terminate()

    def socket_of(self, connection: Connection) -> socket.socket | None:
        return _private.socket_of(connection)

    async def is_running(self, connection: Connection) -> bool:
        # A session is ours if number and age fit. Behind a pooler the number is the pooler's.
        if connection.address is None:
            return False
        side = await connect_beside(self._settings, connection.address)
        try:
            rows = await side.run(
                "SELECT state, extract(epoch FROM pg_catalog.clock_timestamp() - backend_start)"
                " FROM pg_catalog.pg_stat_activity WHERE pid = $1",
                (connection.get_server_pid(),),
            )
        finally:
            side.terminate()
        age = monotonic() - connection.opened_at
        return any(state == "active" and abs(float(old) - age) < _AGE_SLACK for state, old in rows)

    def host_of(self, connection: Connection) -> str | None:
        return str(connection.address) if self._hosts.several else None

    async def look_around(self, host: str, seconds: float) -> HostState:
        return await see_who_answers(self._settings, self._hosts, self._hosts.named(host), seconds)

    def lost_host(self, connection: Connection) -> bool:
        role = connection.demoted_to
        if role is None and not connection.is_closed():
            reported = connection.get_settings()
            role = None if self._role.fits(reported) else role_of(reported)
        if role is None or connection.address is None:
            return False
        self._hosts.demoted(connection.address, monotonic(), role)
        return True

    def host_figures(self) -> list[dict[str, Any]]:
        return self._hosts.figures() if self._hosts.several else []

    def watch_hosts(self, listener: HostListener | None) -> None:
        self._hosts.listener = listener

    def is_alive(self, connection: Connection) -> bool:
        # A transaction may end on a server that has changed its role; it is not lent after that.
        return not connection.is_closed() and (
            connection.is_in_transaction() or self._role.fits(connection.get_settings())
        )

    async def ping(self, connection: Connection) -> None:
        await connection.command("SELECT")

    async def describe(self, connection: Connection) -> ServerInfo:
        ((version, standby, readonly),) = await connection.run(
            "SELECT pg_catalog.current_setting('server_version'), pg_catalog.pg_is_in_recovery(),"
            " pg_catalog.current_setting('transaction_read_only') = 'on'",
            (),
        )
        role = "standby" if standby else "read-only" if readonly else "primary"
        # Debian adds the name of its package.
        version = str(version).partition(" ")[0]
        return ServerInfo("PostgreSQL", version, role, _private.encryption(connection))

    @property
    def attributes(self) -> dict[str, str | int]:
        return {"db.system.name": "postgresql", **self._settings.attributes}

    def needs_reset(self, connection: Connection) -> bool:
        return connection.touched

    async def reset(self, connection: Connection) -> None:
        if connection.beyond_reset:
            raise DatabaseError("something was set on the connection that cannot be undone")
        _private.end_handles(connection)
        await connection.command(_completed(connection, reset_text.RESET))
        _settle(connection)

    async def abort(self, connection: Connection) -> None:
        # asyncpg has asked the server to cancel, over another connection, and lets the next
        # statement wait for that to be over. So an answer means that all is quiet, be it a refusal
        # because the cancelled statement has failed the transaction.
        if connection.begin_is_unsent:
            return
        with suppress(asyncpg.InFailedSQLTransactionError):
            await connection.command("SELECT")

    # -- transactions

    def begin_later(self, connection: Connection, mode: TransactionMode) -> bool:
        if connection.has_handles:  # of a session
            return False
        _begin_with_what_follows(connection, mode)
        return True

    async def begin(self, connection: Connection, mode: TransactionMode) -> None:
        _begin_with_what_follows(connection, mode)
        await connection.begin_now()

    async def commit(self, connection: Connection, *, reset: bool) -> bool:
        # Of an earlier commit on this connection: it would be taken for this one's.
        connection.position_told = None
        if await _dropped(connection):
            return False
        if not connection.is_in_transaction():
            raise TransactionError("there is no transaction to commit: it had ended already")
        try:
            if reset and not connection.beyond_reset:
                return await self._commit_and_reset(connection)
            if self._tells_positions:
                return await self._commit_and_tell(connection)
            status = await connection.command("COMMIT")
        finally:
            # Also where that failed. Whether it is still open, asyncpg's own flag tells.
            _end_transaction(connection)
        if status != "COMMIT":
            raise TransactionError(
                f"the server answered COMMIT with {status}: a statement had failed, and the "
                "transaction is rolled back; catch such errors around a nested transaction()"
            )
        connection.refuse_local_commit()
        return False

    async def _commit_and_reset(self, connection: Connection) -> bool:
        tells = self._tells_positions and connection.writing
        text = reset_text.COMMIT_TELL_AND_RESET if tells else reset_text.COMMIT_AND_RESET
        try:
            await connection.command(_completed(connection, text))
        except asyncpg.PostgresError:
            if connection.is_closed() or connection.is_in_transaction():
                raise
            if not await _was_committed(connection):
                raise
            return False
        _settle(connection)
        connection.refuse_local_commit()
        return True

    async def _commit_and_tell(self, connection: Connection) -> bool:
        try:
            await connection.command(reset_text.COMMIT_AND_TELL)
        except asyncpg.PostgresError:
            if connection.is_closed() or connection.is_in_transaction():
                raise
            if not await _was_committed(connection):
                raise
            await connection.command("RESET jobu_db.committed")
        connection.refuse_local_commit()
        return False

    def end_later(self, connection: Connection, mode: TransactionMode) -> bool:
        if _drop_unsent(connection):
            return True
        # Whether a reader saw what a serial order could have shown, its COMMIT tells.
        serializable = mode.isolation == "serializable" or (
            mode.isolation is None and connection.may_be_serializable
        )
        quiet = mode.readonly and not serializable and not connection.shown
        return quiet and connection.is_in_transaction_for_certain()

    def may_owe_end(self, connection: Connection) -> bool:
        # Behind PgBouncer, which has no cache, one transaction after the other without a rest
        # would keep its session from all others. What is reported here changes how texts are read
        # and whether the server is of use; that the reset undoes it is reported too late.
        reported = connection.get_settings()
        return (
            self._settings.options.statement_cache_size > 0
            and connection.may_owe_end
            and self._role.fits(reported)
            and _reads_as_usual(reported)
        )

    def begin_behind(self, connection: Connection, mode: TransactionMode, *, reset: bool) -> None:
        _end_transaction(connection)
        if reset:
            _settle(connection)
        end = reset_text.OWED_COMMIT_AND_RESET if reset else reset_text.OWED_COMMIT
        connection.begin_behind(end, _begin_for(connection, mode))

    async def rollback(self, connection: Connection, *, reset: bool = False) -> bool:
        if await _dropped(connection):
            return False
        resets = reset and not connection.beyond_reset
        text = _completed(connection, reset_text.ROLLBACK_AND_RESET) if resets else "ROLLBACK"
        try:
            await connection.command(text)
        finally:
            _end_transaction(connection)
        if resets:
            _settle(connection)
        return resets

    def in_transaction(self, connection: Connection) -> bool:
        return connection.is_in_live_transaction()

    async def confirm_in_transaction(self, connection: Connection) -> bool:
        await connection.make_sure()
        return self.in_transaction(connection)

    def repeatable(self, connection: Connection, sql: str) -> bool:
        # Nothing else takes effect before COMMIT.
        return not effects.must_go_alone(sql)

    async def prepare_commit(self, connection: Connection) -> None:
        if not connection.begin_is_unsent:
            await connection.command("SET CONSTRAINTS ALL IMMEDIATE")

    async def limit_lock_waits(self, connection: Connection, seconds: float) -> None:
        await connection.order(
            f"SELECT pg_catalog.set_config('lock_timeout', '{max(1, round(seconds * 1000))}', true)"
            " WHERE pg_catalog.current_setting('lock_timeout') = '0'"
        )

    async def savepoint(self, connection: Connection, name: str, *, readonly: bool) -> None:
        # The server ends the read-only mode together with the savepoint, and not before.
        mode = ";SET TRANSACTION READ ONLY" if readonly else ""
        await connection.order(f"SAVEPOINT {name}{mode}")

    async def release_savepoint(self, connection: Connection, name: str, *, readonly: bool) -> None:
        await connection.command(f"RELEASE SAVEPOINT {name}")

    async def rollback_to_savepoint(
        self, connection: Connection, name: str, *, readonly: bool
    ) -> None:
        connection.end_scope()
        await connection.command(f"ROLLBACK TO SAVEPOINT {name};RELEASE SAVEPOINT {name}")

    # -- statements

    def begin_session(self, connection: Connection) -> None:
        connection.without_cursors = False  # one WITH HOLD may be declared without a transaction

    # Plain functions where they can return asyncpg's coroutines: one less to step through for each.

    async def execute(self, connection: Connection, sql: str, parameters: Parameters) -> Status:
        values = _values(parameters)
        if not values:
            return Status(await connection.execute(sql))
        _, status, _ = await connection.run(sql, values, return_status=True)
        return Status(status, "utf-8")

    def executemany(
        self, connection: Connection, sql: str, rows: Iterable[Any]
    ) -> Coroutine[Any, Any, None]:
        return connection.executemany(sql, rows)

    async def execute_script(self, connection: Connection, script: str) -> None:
        await connection.execute(script)

    async def fetch_one(
        self, connection: Connection, sql: str, parameters: Parameters
    ) -> asyncpg.Record | None:
        rows = await connection.run(sql, _values(parameters), 1)
        return rows[0] if rows else None

    def fetch_all(
        self, connection: Connection, sql: str, parameters: Parameters
    ) -> Coroutine[Any, Any, list[asyncpg.Record]]:
        return connection.run(sql, _values(parameters))

    async def fetch_val(self, connection: Connection, sql: str, parameters: Parameters) -> Any:
        rows = await connection.run(sql, _values(parameters), 1)
        try:
            return rows[0][0] if rows else None
        except IndexError:
            raise ProgrammingError("the statement ran, but what it returns has no column") from None

    async def open_cursor(
        self, connection: Connection, sql: str, parameters: Parameters, batch: int
    ) -> PortalCursor:
        # Without a name, the statement leaves nothing on the server, wherever PgBouncer sends
        # what follows; the portal has its own hold on it.
        statement = await connection.prepare(sql, name="")
        cursor = await statement.cursor(*_values(parameters))
        return PortalCursor(connection, cursor, batch)

    async def initialize(self, connection: Connection, script: str) -> None:
        # All in one message, which the server takes for one transaction: the lock ends with it,
        # and a script that fails leaves nothing behind. The wait for other processes is not
        # subject to the session's limits, the script is.
        await connection.execute(
            "SET LOCAL statement_timeout = 0;SET LOCAL lock_timeout = 0;"
            f"SELECT pg_catalog.pg_advisory_xact_lock({INITIALIZE_LOCK});"
            "SET LOCAL statement_timeout TO DEFAULT;SET LOCAL lock_timeout TO DEFAULT;" + script
        )
        if connection.is_in_transaction():
            raise DatabaseError("the script of init_sql leaves a transaction open")

    def guard(self, connection: Connection, check: Callable[[], None]) -> PostgresGuard:
        return PostgresGuard(connection, check)

    # -- errors

    def translate(self, error: BaseException) -> DatabaseError | None:
        return translate(error)


async def _was_committed(connection: Connection) -> bool:
    try:
        committed: bool = await connection.fetchval(reset_text.WAS_COMMITTED)
    except Exception as error:
        raise ConnectionLostError("the server does not say whether it committed") from error
    return committed


def _completed(connection: Connection, text: str) -> str:
    if connection.prepared_by_sql:
        text += reset_text.DEALLOCATE
    return text + "".join(f"DEALLOCATE {name};" for name in connection.take_stale())


def _begin_with_what_follows(connection: Connection, mode: TransactionMode) -> None:
    connection.begin_later(_begin_for(connection, mode))


def _begin_for(connection: Connection, mode: TransactionMode) -> Begin:
    begins = _BEGIN_AFTER_RESET if connection.without_cursors else _BEGIN
    connection.without_cursors = False
    connection.writing = not mode.readonly
    return begins[mode]


def _reads_as_usual(reported: Any) -> bool:
    standard = getattr(reported, "standard_conforming_strings", "on")
    return bool(standard == "on" and reported.client_encoding == "UTF8")


def _drop_unsent(connection: Connection) -> bool:
    """Forget a transaction of which nothing was sent; say whether it was one."""
    if not connection.begin_is_unsent:
        return False
    _end_transaction(connection)
    return True


async def _dropped(connection: Connection) -> bool:
    """The same, where the end of the transaction before has no other to see to it."""
    if connection.begin_is_unsent:
        await connection.end_owed()
    return _drop_unsent(connection)


def _end_transaction(connection: Connection) -> None:
    connection.ended()
    _private.end_handles(connection)
    connection.end_scope()
    connection.writing = True


def _settle(connection: Connection) -> None:
    _private.forget_callbacks(connection)
    connection.leave_scope()
    connection.prepared_by_sql = False
    connection.without_cursors = True
    connection.settle()


def _values(parameters: Parameters) -> Sequence[Any]:
    if parameters is None:
        return ()
    if type(parameters) is tuple:
        return parameters
    return (parameters,) if isinstance(parameters, Mapping) else parameters


_MODES = [
    READ_WRITE,  # these two as they come: to find another one by value takes longer
    READ_ONLY,
    *(
        TransactionMode(readonly, level)
        for readonly in (False, True)
        for level in _ISOLATION_LEVELS
    ),
]


def _begin(mode: TransactionMode, to_take_a_snapshot: str) -> Begin:
    text = "BEGIN"
    if mode.isolation:
        text += f" ISOLATION LEVEL {mode.isolation.upper()}"
    if not mode.readonly:
        return begin_of(text)
    # Once there is a snapshot, the server refuses SET TRANSACTION READ WRITE.
    return begin_of(f"{text} READ ONLY", to_take_a_snapshot)


_BEGIN = {mode: _begin(mode, "SELECT WHERE false") for mode in _MODES}
_BEGIN_AFTER_RESET = {mode: _begin(mode, "CLOSE ALL") for mode in _MODES}
"""This costs less, but would close cursors WITH HOLD."""
