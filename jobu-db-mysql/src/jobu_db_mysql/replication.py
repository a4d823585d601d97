"""Where MySQL and MariaDB servers are in what was written, by global transaction identifiers.

Every transaction that writes has one, and the answer to what committed it tells it (OWN_GTID on
MySQL, the variable `last_gtid` on MariaDB): that costs no statement. Only what came behind rows
is lost in the driver (`INSERT … RETURNING` on MariaDB), and asked for.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from jobu_db.errors import ConnectionFailedError
from jobu_db.replication import HostState, Position, Replication
from jobu_db_mysql.roles import is_of_galera, is_writable
from jobu_db_mysql.session import MySQLConnection

Interval = tuple[int, int]
"""Its first number and its last."""

_MOST_INTERVALS = 64
"""Kept for each source of what a task has committed."""

_UUID = "[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"
_ENTRY = re.compile(rf"({_UUID})((?::(?:[a-z_][a-z0-9_]{{0,31}}|\d+(?:-\d+)?))+)", re.IGNORECASE)
_DOMAIN = re.compile(r"(\d+)-(\d+)-(\d+)")


@dataclass(frozen=True)
class GtidSet(Position):
    """Transactions of MySQL.

    Attributes:
        numbers: For each source, a UUID with its tag if there is one, the intervals of numbers,
            in order and not touching.
    """

    numbers: Mapping[str, tuple[Interval, ...]]

    def covers(self, other: GtidSet) -> bool:
        # A gap counts: what is behind it may be replayed by other threads earlier.
        return all(
            any(low <= first and last <= high for low, high in self.numbers.get(source, ()))
            for source, intervals in other.numbers.items()
            for first, last in intervals
        )

    def may_reach(self, other: GtidSet) -> bool:
        # A transaction that a failover has lost is in no set any more: that shows as being behind.
        return True

    def merged(self, other: GtidSet) -> GtidSet:
        return GtidSet(
            {
                source: _joined((*self.numbers.get(source, ()), *other.numbers.get(source, ())))
                for source in self.numbers.keys() | other.numbers.keys()
            }
        )

    def after(self, earlier: GtidSet) -> GtidSet:
        """Return both; old gaps, which are the transactions of others, are taken in.

        A task that lives long would else have a set that grows with each of its transactions.
        """
        return GtidSet(
            {
                source: ((kept[0][0], kept[-_MOST_INTERVALS][1]), *kept[1 - _MOST_INTERVALS :])
                if len(kept) > _MOST_INTERVALS
                else kept
                for source, kept in self.merged(earlier).numbers.items()
            }
        )

    def __str__(self) -> str:
        return ",".join(
            ":".join([source, *(f"{low}-{high}" for low, high in intervals)])
            for source, intervals in sorted(self.numbers.items())
        )


def _joined(intervals: Iterable[Interval]) -> tuple[Interval, ...]:
    joined: list[Interval] = []
    for low, high in sorted(intervals):
        if joined and low <= joined[-1][1] + 1:
            joined[-1] = joined[-1][0], max(high, joined[-1][1])
        else:
            joined.append((low, high))
    return tuple(joined)


def parse_gtid_set(text: str) -> GtidSet:
    """Read a set as the server shows it.

    Raises:
        ValueError: It is none.
    """
    gtids = GtidSet({})
    for entry in filter(None, re.split(r"[\s,]+", text)):
        match = _ENTRY.fullmatch(entry)
        if match is None:
            raise ValueError("expected a GTID set such as 3e11fa47-71ca-11e1-9e33-c80aa9429562:1-5")
        source = uuid = match[1].lower()
        for part in match[2][1:].split(":"):
            if not part[0].isdigit():
                source = f"{uuid}:{part.lower()}"
                continue
            low, _, high = part.partition("-")
            gtids = gtids.merged(GtidSet({source: ((int(low), int(high or low)),)}))
    return gtids


@dataclass(frozen=True)
class DomainPosition(Position):
    """A place in the binary log of MariaDB.

    Attributes:
        numbers: The last one of each domain.
    """

    numbers: Mapping[int, int]

    def covers(self, other: DomainPosition) -> bool:
        return all(self.numbers.get(domain, 0) >= last for domain, last in other.numbers.items())

    def may_reach(self, other: DomainPosition) -> bool:
        return True

    def merged(self, other: DomainPosition) -> DomainPosition:
        domains = self.numbers.keys() | other.numbers.keys()
        return DomainPosition(
            {one: max(self.numbers.get(one, 0), other.numbers.get(one, 0)) for one in domains}
        )

    def __str__(self) -> str:
        # As the server writes it; who wrote the transaction does not count.
        return ",".join(f"{domain}-0-{last}" for domain, last in sorted(self.numbers.items()))


def parse_domain_position(text: str) -> DomainPosition:
    """Read a position as the server shows it.

    Raises:
        ValueError: It is none.
    """
    position = DomainPosition({})
    for entry in filter(None, re.split(r"[\s,]+", text)):
        match = _DOMAIN.fullmatch(entry)
        if match is None:
            raise ValueError("expected a GTID such as 0-1-100")
        position = position.merged(DomainPosition({int(match[1]): int(match[3])}))
    return position


Gtids = GtidSet | DomainPosition


class MySQLReplication(Replication[MySQLConnection, Any]):
    """What the core asks of positions, of either product."""

    waits = True

    def parse(self, text: str) -> Gtids:
        """Read what `str` of a position gave.

        Raises:
            ValueError: It is none.
        """
        return parse_domain_position(text) if _DOMAIN.match(text) else parse_gtid_set(text)

    def committed(self, connection: MySQLConnection) -> Gtids | None:
        """Return the transactions that were told: none, if nothing was written."""
        # Taken, so that they do not count for the next transaction on this connection as well.
        told, connection.gtids = connection.gtids, []
        return None if connection.gtids_dropped else _read(connection, ",".join(told))

    async def written(self, connection: MySQLConnection) -> Gtids:
        """Return the same; ask only if the driver has dropped what was told."""
        told = self.committed(connection)
        return await self.position(connection) if told is None else told

    async def position(self, connection: MySQLConnection) -> Gtids:
        """Ask for all that is written."""
        ((written,),) = (await connection.run(_WRITTEN[connection.is_mariadb])).rows
        return _read(connection, written)

    async def look(self, connection: MySQLConnection) -> HostState[Gtids]:
        """Ask for role and position.

        Raises:
            ConnectionFailedError: It does not number its transactions, so that nothing is known; or
                it is a node of Galera, which follows no primary.
        """
        if not connection.is_mariadb:
            ((mode,),) = (await connection.run("SELECT @@global.gtid_mode")).rows
            if mode != "ON":
                raise ConnectionFailedError(f"gtid_mode is {mode}, and must be ON", transient=True)
        if await is_writable(connection):
            if await is_of_galera(connection):
                raise ConnectionFailedError(_GALERA, transient=True)
            return HostState("primary", await self.position(connection))
        ((replayed,),) = (await connection.run(_REPLAYED[connection.is_mariadb])).rows
        return HostState("standby", _read(connection, replayed))

    async def wait(self, connection: MySQLConnection, position: Gtids, seconds: float) -> None:
        """Have a replica wait, until it has applied the transactions."""
        function = "MASTER_GTID_WAIT" if connection.is_mariadb else "WAIT_FOR_EXECUTED_GTID_SET"
        # Written into the SQL: it is made of what `parse` takes, which holds no quote. Whether the
        # time ran out is not looked at, since the server is asked next how far it is.
        await connection.run(f"SELECT {function}('{position}', {seconds})")


_GALERA = (
    "a node of a Galera cluster is no replica, since each takes writes: leave out replicas, name "
    "the nodes under hosts, and set wsrep_sync_wait to read what others have committed"
)

# MySQL numbers what it has replayed in the same set as what it has written; MariaDB keeps apart
# what it has read from a primary.
_WRITTEN = {True: "SELECT @@global.gtid_binlog_pos", False: "SELECT @@global.gtid_executed"}
_REPLAYED = {True: "SELECT @@global.gtid_slave_pos", False: "SELECT @@global.gtid_executed"}


def _read(connection: MySQLConnection, text: str) -> Gtids:
    return (parse_domain_position if connection.is_mariadb else parse_gtid_set)(text)
