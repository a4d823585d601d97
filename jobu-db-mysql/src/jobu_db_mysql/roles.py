"""Which of several servers this one is: may it be written to, and does it belong to its cluster?"""

from __future__ import annotations

from asyncmy.errors import MySQLError

from jobu_db.hosts import UnsuitableHostError
from jobu_db.settings import HostRole
from jobu_db_mysql.errors import number
from jobu_db_mysql.session import MySQLConnection

_TABLE_ACCESS_DENIED = 1142

_READ_ONLY = "SELECT @@global.read_only, @@global.innodb_read_only"
"""MySQL sets the first with super_read_only, and group replication that one on secondaries.
Replicas whose storage is shared, as Aurora's, have the second."""

_GALERA = "SHOW STATUS WHERE variable_name IN ('wsrep_provider_name', 'wsrep_ready')"
"""MariaDB shows both without Galera, too: no provider, and not ready."""

_MEMBER_STATE = (
    "SELECT member_state FROM performance_schema.replication_group_members "
    "WHERE member_id = @@server_uuid"
)


async def check_role(connection: MySQLConnection, wanted: HostRole, *, mariadb: bool) -> str:
    """See that the server is fit for use, and in the role that is wanted; return what it is.

    One that has left its Galera cluster or replication group, or is yet to catch up, answers, but
    with rows of long ago.

    Raises:
        UnsuitableHostError: It is not.
    """
    if fault := await _outside_its_cluster(connection, mariadb=mariadb):
        raise UnsuitableHostError(f"{connection.address} {fault}")
    writable = await is_writable(connection)
    role = "primary" if writable else "read-only"
    if wanted != "any" and writable != (wanted in ("primary", "read-write")):
        state = "is not read-only" if writable else "is read-only"
        raise UnsuitableHostError(f"{connection.address} {state}, and {wanted} is wanted", role)
    return role


async def _outside_its_cluster(connection: MySQLConnection, *, mariadb: bool) -> str | None:
    # Before read_only, which may well be off on a node that has lost its cluster, and says nothing
    # of that.
    galera = dict((await connection.run(_GALERA)).rows)
    if galera.get("wsrep_provider_name") and galera.get("wsrep_ready") != "ON":
        return "is not ready in its Galera cluster (wsrep_ready)"
    if mariadb:
        return None
    try:
        rows = (await connection.run(_MEMBER_STATE)).rows
    except MySQLError as error:
        if number(error) == _TABLE_ACCESS_DENIED:  # then read_only alone must tell
            return None
        raise
    states = [state for (state,) in rows if state != "ONLINE"]
    return f"is {states[0]} in its replication group" if states else None


async def is_writable(connection: MySQLConnection) -> bool:
    """Say whether the server takes writes, of those who may not write everywhere."""
    (flags,) = (await connection.run(_READ_ONLY)).rows
    # MariaDB 12 has words for some of its modes.
    return all(str(flag).upper() in ("0", "OFF") for flag in flags)


async def is_of_galera(connection: MySQLConnection) -> bool:
    """Say whether the server is a node of a Galera cluster."""
    return bool(dict((await connection.run(_GALERA)).rows).get("wsrep_provider_name"))
