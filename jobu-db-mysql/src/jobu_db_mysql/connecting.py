"""Opening a connection to the first host that will do."""

from __future__ import annotations

import asyncio
from typing import Any

from asyncmy.constants.CLIENT import FOUND_ROWS

from jobu_db.driver import HostState
from jobu_db.errors import ConnectionFailedError
from jobu_db.hosts import HostOrder, connect_to_one, look_around, tell_unencrypted
from jobu_db.settings import Address, HostRole, TLSSettings
from jobu_db.settings.files import UnusableFileError, read_file
from jobu_db.tcp import keep_alive
from jobu_db_mysql.errors import connect_failed
from jobu_db_mysql.logging_in import LoginRules
from jobu_db_mysql.pipelining import Pipelining
from jobu_db_mysql.roles import check_role
from jobu_db_mysql.session import MySQLConnection
from jobu_db_mysql.session_setup import setup_sql
from jobu_db_mysql.settings import MySQLSettings

_ANY_SERVER = TLSSettings(mode="require")
"""Where `ssl` is not set: encrypted, with any server."""

_LONGEST = 31_536_000
"""Seconds: asyncmy wants a limit for the TCP connect. Ours covers the login as well."""


async def connect(
    settings: MySQLSettings, hosts: HostOrder, pipelining: Pipelining
) -> MySQLConnection:
    """Open a connection to the first server that will do, and set the session up.

    Raises:
        ConnectionFailedError: None does, or one refuses us for a reason that will not pass.
    """

    async def attempt(address: Address, role: HostRole) -> MySQLConnection:
        connection = await login(settings, address)
        connection.pipelining = pipelining
        connection.is_to_write = settings.wants_writable
        # Where any host will do and there is one, its role is not asked for: a round trip or two
        # less.
        if hosts.several or settings.target_session_attrs != "any":
            return await _set_up(connection, settings, hosts, role)
        return await _set_up(connection, settings)

    return await connect_to_one(
        hosts, attempt, roles=settings.host_roles, timeout=settings.timeout_per_host
    )


async def see_who_answers(
    settings: MySQLSettings, hosts: HostOrder, host: Address, seconds: float
) -> HostState:
    """See whether a silent host answers, or another one has taken its place; see
    `Driver.look_around`."""

    async def attempt(address: Address, role: HostRole) -> MySQLConnection:
        return await _set_up(await login(settings, address), settings, hosts, role)

    return await look_around(
        hosts,
        attempt,
        host=host,
        roles=settings.host_roles,
        anything="any",
        timeout=seconds,
        terminate=MySQLConnection.terminate,
    )


async def login(settings: MySQLSettings, address: Address) -> MySQLConnection:
    """Open a connection to one server, with the session as the server sets it up.

    Raises:
        ConnectionFailedError: It refuses us.
    """
    connection = MySQLConnection(address=address, **await _options(settings, address))
    try:
        await connection.connect()
    except Exception as error:
        raise _failed(error, address) from error
    if settings.prefers_tls(address) and not connection.encrypted:
        tell_unencrypted(str(address))
    return connection


async def _set_up(
    connection: MySQLConnection,
    settings: MySQLSettings,
    hosts: HostOrder | None = None,
    role: HostRole = "any",
) -> MySQLConnection:
    """Set the session up; with hosts, see that the server is in a role, and note that."""
    mariadb = connection.is_mariadb
    keep_alive(connection.socket, settings.pool.silence_timeout)
    # A new session and one that is lent on are set up alike, by the same code.
    try:
        if hosts is not None:
            hosts.in_role(connection.address, await check_role(connection, role, mariadb=mariadb))
        connection.autocommit_lent = settings.options.autocommit
        text = setup_sql(
            settings,
            mariadb=mariadb,
            # A transaction that begins with its first statement needs it off before.
            autocommit=not connection.pipelines and settings.options.autocommit,
            tracks=connection.tells_changes,
        )
        # COM_RESET_CONNECTION keeps the current database, so that it is selected anew as well.
        connection.setup = connection.to_run(text), connection.to_select(settings.database)
        await connection.reset()
    except BaseException as error:
        connection.terminate()
        if isinstance(error, ConnectionFailedError) or not isinstance(error, Exception):
            raise
        raise _failed(error, connection.address) from error
    return connection


async def _options(settings: MySQLSettings, address: Address) -> dict[str, Any]:
    password = await settings.current_password() or ""
    where: dict[str, Any] = {"host": address.host, "port": address.port}
    if address.unix_socket:
        where = {"unix_socket": address.unix_socket}
    # With the server's key the password is safe without TLS: see `logging_in`.
    optional = settings.prefers_tls(address) and settings.server_public_key is None
    return {
        **where,
        "user": settings.user,
        # asyncmy would encode a text as latin-1.
        "password": password.encode(),
        "database": settings.database,
        "charset": settings.options.charset,
        "ssl": _ANY_SERVER.context() if optional else await settings.tls_context(),
        "rules": await _rules(settings, tls_is_optional=optional),
        "result_limit": settings.options.result_limit,
        # An UPDATE counts the rows that it matched, as on other databases, not those that it
        # changed.
        "client_flag": FOUND_ROWS,
        "connect_timeout": _LONGEST,
        # COM_RESET_CONNECTION would undo what asyncmy sets.
        "autocommit": None,
    }


async def _rules(settings: MySQLSettings, *, tls_is_optional: bool) -> LoginRules:
    key = None
    if path := settings.server_public_key:
        try:
            key, _ = await asyncio.to_thread(read_file, path)
        except UnusableFileError as error:
            raise ConnectionFailedError(f"server_public_key: {path} {error}") from error
    return LoginRules(tls_is_optional, key, frozenset(settings.unsafe_logins))


def _failed(error: Exception, address: Address) -> ConnectionFailedError:
    return connect_failed(error, str(address))
