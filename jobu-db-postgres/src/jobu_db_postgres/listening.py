"""`db.listen("channel")`: notifications, over connections that break.

A connection that listens is a session's: its loss or the end of the database wakes the reader at
once, since asyncpg tells of the end of a connection as it does of a notification.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from typing import Any, NamedTuple

from jobu_db.database import BaseDatabase
from jobu_db.errors import ConnectionFailedError, ConnectionLostError, PoolClosedError

LONGEST_NAME = 63
"""Bytes of an identifier: the server cuts off what is longer, and then nothing is heard."""


class Notification(NamedTuple):
    """What somebody sent with NOTIFY, or that listening has begun.

    Attributes:
        channel: Where; "" if listening has begun.
        payload: The text that was sent with it, often empty.
        pid: Number of the server's process that sent it; 0 if listening has begun.
    """

    channel: str
    payload: str
    pid: int

    @property
    def began(self) -> bool:
        """True if it was not sent: listening has begun, or begun again after a lost connection.
        What was sent before was not heard, so look now for what there is to do."""
        return not self.channel


_BEGAN = Notification("", "", 0)


async def notifications(
    database: BaseDatabase, channels: Sequence[str]
) -> AsyncGenerator[Notification]:
    """Listen until the database is closed; connect again as fast as the pool does.

    Raises:
        ConnectionFailedError: Waiting does not help: password, unknown database, TLS.
        DatabaseError: Whatever else is wrong, such as an exhausted pool.
    """
    while not database.pool.closed:
        # One for each connection, and bound to its listeners: what the last one tells of its end
        # must not end the next.
        arrived: asyncio.Queue[Notification | None] = asyncio.Queue()

        def hear(_: Any, pid: int, channel: str, payload: Any, into: Any = arrived) -> None:
            into.put_nowait(Notification(channel, payload, pid))

        def end(_: Any, into: Any = arrived) -> None:
            into.put_nowait(None)

        try:
            async with database.session() as session:
                connection = session.connection
                connection.add_termination_listener(end)
                with database.pool.translating("LISTEN"):
                    for channel in channels:
                        await connection.add_listener(channel, hear)
                yield _BEGAN
                while (notification := await arrived.get()) is not None:
                    yield notification
        except ConnectionFailedError as error:
            if not error.transient:
                raise
        except (ConnectionLostError, PoolClosedError):
            pass  # the one is replaced, the other ends the loop
