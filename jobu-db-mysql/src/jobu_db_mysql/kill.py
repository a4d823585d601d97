"""Stopping on the server what a cancelled or late call left running.

Invariant: only a session that is certainly ours is killed. It is ours if a second connection
reaches the same address as the first, and the server says that the session of that number comes
from the first connection's own port. A Unix socket has no port: there the server must have been
up since before the session began, so that the number cannot have been given again.
"""

from __future__ import annotations

import logging
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
    side = await open_side(victim)
    try:
        if side.peer != victim.peer or not await _is_ours(side, victim):
            logger.info("session %d not verified as ours: not killed", victim.thread_id())
            return False
        await side.run(f"KILL {scope} {victim.thread_id():d}")
        return True
    finally:
        side.terminate()


async def _is_ours(side: MySQLConnection, victim: MySQLConnection) -> bool:
    sessions = (await side.run("SHOW PROCESSLIST")).rows
    hosts = [host for number, _, host, *_ in sessions if number == victim.thread_id()]
    if isinstance(victim.peer, tuple):
        return bool(hosts) and hosts[0].rpartition(":")[2] == str(victim.local[1])
    uptime = int((await side.run("SHOW GLOBAL STATUS LIKE 'Uptime'")).rows[0][1])
    # The server counts in whole seconds: one more to be on the safe side.
    return bool(hosts) and uptime > monotonic() - victim.opened_at + 1
