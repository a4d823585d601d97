"""What every session is set to, after login and after each reset: one statement."""

from __future__ import annotations

from collections.abc import Iterator
from math import ceil

from jobu_db_mysql.reading import LAST_GTID, TRACKED
from jobu_db_mysql.settings import MySQLOptions, MySQLSettings

_A_YEAR = 31_536_000
"""Seconds: the longest that both servers take for a lock timeout, when it is switched off."""


def setup_sql(settings: MySQLSettings, *, mariadb: bool, autocommit: bool, tracks: bool) -> str:
    """Return the SQL that sets a session up. Its values have passed closed lists and patterns.

    Args:
        autocommit: With which the session is lent.
        tracks: The server tells what statements change in the session, if it is asked to.
    """
    positions = settings.replicas is not None
    assignments = _assignments(settings.options, mariadb, autocommit, tracks, positions)
    return f"SET {', '.join(assignments)}"


def _assignments(
    options: MySQLOptions, mariadb: bool, autocommit: bool, tracks: bool, positions: bool
) -> Iterator[str]:
    if tracks:
        # First: what is set behind it is told, even if it stays as it was.
        tracked = f"{TRACKED},{LAST_GTID}" if positions and mariadb else TRACKED
        yield f"session_track_system_variables = '{tracked}'"
        if positions and not mariadb:
            yield "session_track_gtids = OWN_GTID"
    # Also after login: that asks for a collation by number, a reset for the server's default.
    yield f"NAMES {options.charset}"
    yield f"autocommit = {autocommit:d}"
    yield "completion_type = 0"  # a COMMIT of ours is to begin no other transaction
    # The server may have another mode for new sessions now than it had before.
    yield "sql_mode = " + ("@@sql_mode" if options.sql_mode is None else f"'{options.sql_mode}'")
    yield f"time_zone = {_time_zone(options.timezone)}"
    given = options.model_fields_set
    if "statement_timeout" in given:
        yield _statement_timeout(options.statement_timeout or 0, mariadb)
    if "lock_timeout" in given:
        # MySQL's shortest limit is one second.
        seconds = ceil((options.lock_timeout or _A_YEAR * 1000) / 1000)
        yield f"innodb_lock_wait_timeout = {seconds}"
        yield f"lock_wait_timeout = {min(seconds, _A_YEAR)}"
    for name, value in options.session_variables.items():
        text = f"'{value}'" if isinstance(value, str) else f"{value!r}"
        yield f"@@session.{name} = {text}"


def _time_zone(name: str | None) -> str:
    if name is None:
        # So that the server tells which one it is. SYSTEM names none, but where the server's
        # machine keeps UTC, it is that.
        return "IF(@@time_zone = 'SYSTEM' AND @@system_time_zone = 'UTC', '+00:00', @@time_zone)"
    # By its offset UTC is known to servers without tables of time zones, too.
    return "'+00:00'" if name == "UTC" else f"'{name}'"


def _statement_timeout(milliseconds: int, mariadb: bool) -> str:
    if mariadb:
        return f"max_statement_time = {milliseconds / 1000:.3f}"
    return f"max_execution_time = {milliseconds}"
