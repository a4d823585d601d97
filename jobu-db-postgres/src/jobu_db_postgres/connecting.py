"""Opening a connection: one host after the other, each with its share of the time."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import asyncpg

from jobu_db.errors import ConnectionFailedError
from jobu_db.settings import Address
from jobu_db_postgres._private import Connection, notice_silence
from jobu_db_postgres.errors import connect_failure
from jobu_db_postgres.settings import PostgresSettings

_FAILURES = (
    OSError,  # TimeoutError included
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
)


async def connect(settings: PostgresSettings) -> Connection:
    """Open a connection to the first host that will do.

    Raises:
        ConnectionFailedError: None does, or one refuses us for a reason that will not pass.
    """
    attempts = list(_attempts(settings))
    arguments = await _arguments(settings)
    # asyncpg would give all of the time to a first host that never answers.
    arguments["timeout"] = settings.pool.timeout / len(attempts)
    failures = []
    for address, attributes in attempts:
        try:
            return await _connect_to(address, attributes, settings, arguments)
        except _FAILURES as error:
            failure = connect_failure(error, _where(address))
            failure.__cause__ = error
            failures.append(failure)
            if not failure.transient:
                break
    raise _summary(failures) from failures[-1].__cause__


def _attempts(settings: PostgresSettings) -> Iterator[tuple[Address, str]]:
    attributes = settings.target_session_attrs
    prefer = attributes == "prefer-standby"
    for attribute in ("standby", "any") if prefer else (attributes,):
        for address in settings.addresses:
            yield address, attribute


async def _arguments(settings: PostgresSettings) -> dict[str, Any]:
    return {
        "user": settings.user,
        "password": await settings.current_password(),
        "database": settings.database,
        "ssl": settings.ssl.context() or False,
        "server_settings": settings.options.startup,
        "statement_cache_size": settings.options.statement_cache_size,
        "connection_class": Connection,
    }


async def _connect_to(
    address: Address, attributes: str, settings: PostgresSettings, arguments: dict[str, Any]
) -> Connection:
    where = {"host": address.host, "port": address.port, "target_session_attrs": attributes}
    every: dict[str, Any] = {**arguments, **where}
    connection: Connection = await asyncpg.connect(**every)
    notice_silence(connection)
    if settings.options.json:
        for name in ("json", "jsonb"):
            await connection.set_type_codec(
                name, schema="pg_catalog", encoder=json.dumps, decoder=json.loads
            )
    return connection


def _where(address: Address) -> str:
    return f"{address.host}:{address.port}"


def _summary(failures: list[ConnectionFailedError]) -> ConnectionFailedError:
    last = failures[-1]
    return ConnectionFailedError(
        "; ".join(dict.fromkeys(failure.message for failure in failures)),
        transient=last.transient,
        code=last.code,
    )
