"""Where PostgreSQL servers are in the write-ahead log, and how that is asked for.

A commit is followed, in the same write, by a statement that tells its position in a message to the
client, since asyncpg keeps no rows of a text with several statements. With `synchronous_commit`
off, that is what is inserted; else what is flushed, which includes the commit, and nothing of
others for which a standby would have to wait.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from jobu_db.replication import HostState, Position, Replication
from jobu_db_postgres._private import Connection

_PLACE = re.compile(r"(\d+)/([0-9A-F]{1,8})/([0-9A-F]{1,8})/([0-9A-F]{1,8})")


class History(NamedTuple):
    """What a promotion ends, and begins anew.

    Attributes:
        system: The cluster's identifier, which its standbys share.
        timeline: Higher after each promotion.
    """

    system: int
    timeline: int


@dataclass(frozen=True)
class LogPosition(Position):
    """A place in the write-ahead log.

    Attributes:
        reached: The number of the byte, in each history that counts; a server has one.
    """

    reached: Mapping[History, int]

    def covers(self, other: LogPosition) -> bool:
        return self.may_reach(other) and all(
            self.reached[history] >= byte for history, byte in other.reached.items()
        )

    def may_reach(self, other: LogPosition) -> bool:
        # How much of the timeline before its own a server has is not known here.
        return other.reached.keys() <= self.reached.keys()

    def merged(self, other: LogPosition) -> LogPosition:
        return LogPosition(
            {
                history: max(self.reached.get(history, 0), other.reached.get(history, 0))
                for history in self.reached.keys() | other.reached.keys()
            }
        )

    def after(self, earlier: LogPosition) -> LogPosition:
        ((system, timeline),) = self.reached
        same = [history for history in earlier.reached if history.system == system]
        if any(history.timeline > timeline for history in same):
            return earlier  # which the new primary told, and this one the old
        kept = History(system, timeline)
        return self.merged(LogPosition({kept: earlier.reached.get(kept, 0)}))

    def __str__(self) -> str:
        return ",".join(
            f"{system}/{timeline:X}/{byte >> 32:X}/{byte & 0xFFFFFFFF:X}"
            for (system, timeline), byte in sorted(self.reached.items())
        )


def parse(text: str) -> LogPosition:
    """Read what `str` of a position gave.

    Raises:
        ValueError: It is none.
    """
    position = LogPosition({})
    for place in text.split(","):
        match = _PLACE.fullmatch(place)
        if match is None:
            raise ValueError("expected a position such as 7712334343101603002/1/0/16B3740")
        history = History(int(match[1]), int(match[2], 16))
        byte = (int(match[3], 16) << 32) + int(match[4], 16)
        position = position.merged(LogPosition({history: byte}))
    return position


class PostgresReplication(Replication[Connection, LogPosition]):
    """What the core asks of positions."""

    def parse(self, text: str) -> LogPosition:
        return parse(text)

    def committed(self, connection: Connection) -> LogPosition | None:
        # Taken, so that it does not count for the next commit as well.
        told, connection.position_told = connection.position_told, None
        return None if told is None else parse(told)

    async def position(self, connection: Connection) -> LogPosition:
        ((told,),) = await connection.run(_INSERTED, ())
        return parse(told)

    async def look(self, connection: Connection) -> HostState[LogPosition]:
        ((standby, told, lag),) = await connection.run(_LOOK, ())
        return HostState("standby" if standby else "primary", parse(told), lag)


_SYSTEM = "(SELECT system_identifier FROM pg_catalog.pg_control_system())"


def _place(location: str) -> str:
    """Write SQL for the position at a location on a primary, as a text."""
    timeline = f"pg_catalog.substr(pg_catalog.pg_walfile_name({location}), 1, 8)"
    return f"{_SYSTEM} || '/' || {timeline} || '/' || {location}"


_INSERTED = f"SELECT {_place('pg_catalog.pg_current_wal_insert_lsn()')}"

_REPLAYED = f"""
    {_SYSTEM} || '/' || pg_catalog.upper(pg_catalog.to_hex(greatest(
        -- Streaming tells of a promotion at once, the control file once something was written.
        (SELECT received_tli FROM pg_catalog.pg_stat_wal_receiver),
        (SELECT timeline_id FROM pg_catalog.pg_control_checkpoint()),
        (SELECT min_recovery_end_timeline FROM pg_catalog.pg_control_recovery())
    ))) || '/' || coalesce(pg_catalog.pg_last_wal_replay_lsn(), '0/0')"""

_LOOK = f"""
SELECT standby,
    CASE WHEN standby THEN {_REPLAYED}
    ELSE {_place("pg_catalog.pg_current_wal_flush_lsn()")} END,
    extract(epoch FROM pg_catalog.clock_timestamp()
        - pg_catalog.pg_last_xact_replay_timestamp())::float8
FROM (SELECT pg_catalog.pg_is_in_recovery() AS standby) AS role"""
