"""Opening a connection: one host after the other, each with its share of the time."""

from __future__ import annotations

import asyncio
from typing import Any

from asyncmy.constants.CLIENT import FOUND_ROWS

from jobu_db.errors import ConnectionFailedError
from jobu_db.settings import Address
from jobu_db_mysql.errors import connect_failed
from jobu_db_mysql.session import MySQLConnection
from jobu_db_mysql.session_setup import setup_sql
from jobu_db_mysql.settings import MySQLSettings

_LONGEST = 31_536_000
"""Seconds: asyncmy wants a limit for the TCP connect. Ours covers the login as well."""


async def connect(settings: MySQLSettings) -> MySQLConnection:
    """Open a connection to the first server that will do, and set the session up.

    Raises:
        ConnectionFailedError: None does, or one refuses us for a reason that will not pass.
    """
    failures: list[ConnectionFailedError] = []
    share = settings.pool.timeout / len(settings.addresses)
    for address in settings.addresses:
        try:
            async with asyncio.timeout(share):
                return await _set_up(await login(settings, address), settings)
        except ConnectionFailedError as error:
            failures.append(error)
            if not error.transient:
                break
        except TimeoutError as error:
            failures.append(_failed(error, address))
    raise _summary(failures) from failures[-1].__cause__


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
    return connection


async def _set_up(connection: MySQLConnection, settings: MySQLSettings) -> MySQLConnection:
    # A new session and one that is handed on are set up alike, by the same code.
    try:
        connection.setup = connection.to_run(setup_sql(settings, mariadb=is_mariadb(connection)))
        await connection.reset()
    except Exception as error:
        connection.terminate()
        raise _failed(error, connection.address) from error
    except BaseException:
        connection.terminate()
        raise
    return connection


def is_mariadb(connection: MySQLConnection) -> bool:
    """Say which of the two servers this is."""
    return "MariaDB" in connection.get_server_info()


async def _options(settings: MySQLSettings, address: Address) -> dict[str, Any]:
    password = await settings.current_password() or ""
    where: dict[str, Any] = {"host": address.host, "port": address.port}
    if address.unix_socket:
        where = {"unix_socket": address.unix_socket}
    return {
        **where,
        "user": settings.user,
        # asyncmy would encode a text as latin-1.
        "password": password.encode(),
        "database": settings.database,
        "charset": settings.options.charset,
        "ssl": settings.ssl.context(),
        "client_flag": FOUND_ROWS,
        "connect_timeout": _LONGEST,
        # COM_RESET_CONNECTION would undo what asyncmy sets.
        "autocommit": None,
    }


def _failed(error: Exception, address: Address) -> ConnectionFailedError:
    where = address.unix_socket or f"{address.host}:{address.port}"
    failure = connect_failed(error, where)
    failure.__cause__ = error
    return failure


def _summary(failures: list[ConnectionFailedError]) -> ConnectionFailedError:
    last = failures[-1]
    return ConnectionFailedError(
        "; ".join(dict.fromkeys(failure.message for failure in failures)),
        transient=last.transient,
        code=last.code,
    )
