"""Opening a connection to the first host that will do."""

from __future__ import annotations

import asyncio
from typing import Any

import asyncpg

from jobu_db.driver import HostState
from jobu_db.hosts import (
    HostOrder,
    UnsuitableHostError,
    connect_to_one,
    look_around,
    tell_unencrypted,
)
from jobu_db.settings import Address
from jobu_db.tcp import keep_alive
from jobu_db_postgres._private import Connection, encryption, socket_of
from jobu_db_postgres.codecs import set_codecs
from jobu_db_postgres.errors import connect_failure
from jobu_db_postgres.roles import INSTEAD_OF, Role, role_of
from jobu_db_postgres.schema import Schema
from jobu_db_postgres.settings import PostgresSettings
from jobu_db_postgres.transport import ConnectingLoop

_NO_LIMIT = 31_536_000
"""Seconds: asyncpg wants a limit, too. Ours covers everything."""

_FAILURES = (
    OSError,  # TimeoutError included
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
)


async def connect(
    settings: PostgresSettings, hosts: HostOrder, schema: Schema, role: Role
) -> Connection:
    """Open a connection to the first host that will do.

    Raises:
        ConnectionFailedError: None does, or one refuses us for a reason that will not pass.
    """
    arguments = await _arguments(settings)

    async def attempt(address: Address, attributes: str) -> Connection:
        connection = await _attempt(address, attributes, settings, arguments, hosts)
        connection.join(schema, role)
        connection.address = address
        # Last: what was sent to set it up is no use by a holder, and needs no reset.
        connection.settle()
        return connection

    return await connect_to_one(
        hosts, attempt, roles=settings.host_roles, timeout=settings.timeout_per_host
    )


async def see_who_answers(
    settings: PostgresSettings, hosts: HostOrder, host: Address, seconds: float
) -> HostState:
    """See whether a silent host answers, or another one has taken its place; see
    `Driver.look_around`."""
    arguments = await _arguments(settings)

    async def attempt(address: Address, attributes: str) -> Connection:
        return await _attempt(address, attributes, settings, arguments, hosts)

    return await look_around(
        hosts,
        attempt,
        host=host,
        roles=settings.host_roles,
        anything="any",
        timeout=seconds,
        terminate=Connection.terminate,
    )


async def _attempt(
    address: Address,
    attributes: str,
    settings: PostgresSettings,
    arguments: dict[str, Any],
    hosts: HostOrder,
) -> Connection:
    try:
        connection = await _connect_to(address, attributes, settings, arguments)
        hosts.in_role(address, role_of(connection.get_settings()))
        return connection
    except asyncpg.TargetServerAttributeNotMatched as error:
        raise UnsuitableHostError(
            f"{address} is not a {attributes} server", INSTEAD_OF.get(attributes)
        ) from error
    except _FAILURES as error:
        raise connect_failure(error, str(address)) from error


async def connect_beside(settings: PostgresSettings, address: Address) -> Connection:
    """Open a second connection to where a first one went, to ask about it.

    Raises:
        Exception: Whatever goes wrong.
    """
    return await _connect_to(address, "any", settings, await _arguments(settings))


async def _arguments(settings: PostgresSettings) -> dict[str, Any]:
    return {
        "user": settings.user,
        "password": await settings.current_password(),
        "database": settings.database,
        "ssl": await settings.tls_context() or False,
        "server_settings": settings.options.startup,
        "statement_cache_size": settings.options.statement_cache_size,
        "connection_class": Connection,
        "timeout": _NO_LIMIT,
    }


async def _connect_to(
    address: Address, attributes: str, settings: PostgresSettings, arguments: dict[str, Any]
) -> Connection:
    where = {"host": address.host, "port": address.port, "target_session_attrs": attributes}
    every: dict[str, Any] = {**arguments, **where}
    prefers_tls = settings.prefers_tls(address)
    if prefers_tls:
        # asyncpg's own mode: encrypted if the server can, whatever its certificate.
        every["ssl"] = "prefer"
    # The only way to get our transport in: asyncpg takes what the loop gives it.
    every["loop"] = ConnectingLoop(asyncio.get_running_loop())
    connection: Connection = await asyncpg.connect(**every)
    if prefers_tls and encryption(connection) is None:
        tell_unencrypted(str(address))
    try:
        keep_alive(socket_of(connection), settings.pool.silence_timeout)
        await set_codecs(connection, json=settings.options.json)
        # The COMMIT of a serializable reader can fail and is waited for; of any other, it is not.
        # Which it is where none is named has to be known.
        isolation = await connection.fetchval(
            "SELECT pg_catalog.current_setting('default_transaction_isolation')"
        )
        connection.serializable = isolation == "serializable"
    except BaseException:
        connection.terminate()
        raise
    return connection
