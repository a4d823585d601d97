"""Stopping on the server what a cancelled or late call left running, and asking about it.

Invariant: only a session that is certainly ours is killed. It is ours if a second connection
reaches the same address as the first, and the server says that the session of that number comes
from the first connection's own port. A Unix socket has no port: there the server must have been
up since before the session began, so that the number cannot have been given again. In a forked
child none is: they are its parent's.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Awaitable, Callable
from time import monotonic
from typing import Literal

from jobu_db_mysql.session import MySQLConnection

logger = logging.getLogger("jobu_db")

OpenSide = Callable[[MySQLConnection], Awaitable[MySQLConnection]]
"""Opens a second connection to where a first one went."""

KILL_LIMIT = 2.0
"""Seconds for reaching the server by a second connection."""


async def kill(
    victim: MySQLConnection, scope: Literal["QUERY", "CONNECTION"], open_side: OpenSide
) -> bool:
    """End the statement or the session of a connection, if it is certain which one that is.

    Args:
        victim: May be closed on our side already.
        scope: QUERY leaves the session and its transaction alone.

    Returns:
        True if the server was told.
    """
    if victim.process != os.getpid():
        return False
    side = await open_side(victim)
    try:
        if side.peer != victim.peer or not await _is_ours(side, victim):
            logger.info("session %d not verified as ours: not killed", victim.thread_id())
            return False
        await side.run(f"KILL {scope} {victim.thread_id():d}")
        return True
    finally:
        side.terminate()


async def is_running(connection: MySQLConnection, open_side: OpenSide) -> bool:
    """Say whether the session of a connection still works on something; False also if it is not
    certain which session that is."""
    side = await open_side(connection)
    try:
        return side.peer == connection.peer and await _command(side, connection) not in _IDLE
    finally:
        side.terminate()


_IDLE = (None, "Sleep")


async def _is_ours(side: MySQLConnection, victim: MySQLConnection) -> bool:
    return await _command(side, victim) is not None


async def _command(side: MySQLConnection, asked: MySQLConnection) -> str | None:
    """Return what the session of a connection does, as the process list calls it; None if there
    is none that is certainly its own."""
    # It shows one's own sessions to everybody: no privilege is needed.
    sessions = (await side.run("SHOW PROCESSLIST")).rows
    found = [
        (host, command)
        # MariaDB has a column more.
        for number, _, host, _, command, *_ in sessions
        if number == asked.thread_id()
    ]
    if not found:
        return None
    ((host, command),) = found
    if isinstance(asked.peer, tuple):
        return str(command) if host.rpartition(":")[2] == str(asked.local[1]) else None
    uptime = int((await side.run("SHOW GLOBAL STATUS LIKE 'Uptime'")).rows[0][1])
    # The server counts in whole seconds: one more to be on the safe side.
    return str(command) if uptime > monotonic() - asked.opened_at + 1 else None
