"""The messages that jobu-db sends to PostgreSQL, sent with asyncpg and nothing else.

What jobu-db takes beyond that is its core: the pool, the transaction, the statement's way through
them. `tests/benchmarks/test_floor.py` compares with what jobu-db does send.

asyncpg has no public way to send messages together: this file, as the backend's `_private.py`, uses
what is private in it. The transport that puts BEGIN in front of a statement is the backend's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Generator
from typing import Any

import asyncpg
from contestant import Contestant

from jobu_db_postgres.reset import COMMIT_AND_RESET, RESET
from jobu_db_postgres.transport import ConnectingLoop, begin_of


class Sent:
    """A query that has been sent; whoever awaits it reads the answer."""

    def __init__(self, query: Coroutine[Any, Any, Any]) -> None:
        self._query = query
        self._answer = query.send(None)

    def __await__(self) -> Generator[Any, Any, None]:
        if not self._answer.done():
            yield self._answer
        try:
            self._query.send(None)
        except StopIteration:
            return
        raise AssertionError("the query waits for more than one answer")


class Session:
    """A connection, its two statements prepared, and the end that nobody has waited for yet."""

    def __init__(self, connection: Any, reading: Any, writing: Any) -> None:
        self.connection, self.reading, self.writing = connection, reading, writing
        self.protocol = connection._protocol
        self.begin_with = connection._transport.send_first
        self.end: Sent | None = None

    def end_later(self, text: str) -> None:
        """Send what ends the work, and let whoever comes next wait for the answer."""
        self.end = Sent(self.protocol.query(text, None))


class Messages(Contestant):
    """As for jobu-db's default: readers and statements take turns on the connections."""

    title = "the messages alone"
    floor = "jobu-db"
    style = "numeric"
    resets = True
    read_end, write_end, single_end = COMMIT_AND_RESET, COMMIT_AND_RESET, RESET
    begin_reading = begin_of("BEGIN READ ONLY", "CLOSE ALL")
    begin_writing = begin_of("BEGIN")

    async def open(self) -> None:
        self._sessions = [await self._connect() for _ in range(self.size.pool)]

    async def _connect(self) -> Session:
        loop = ConnectingLoop(asyncio.get_running_loop())
        connection: Any = await asyncpg.connect(self.place.url, loop=loop)  # type: ignore[arg-type]
        prepared = [await connection._get_statement(sql, None) for sql in (self.READ, self.WRITE)]
        return Session(connection, *prepared)

    async def settle(self) -> None:
        """Wait for all answers."""
        for _ in self._sessions:
            await self._next()

    async def close(self) -> None:
        await self.settle()
        for session in self._sessions:
            await session.connection.close()

    async def _next(self) -> Session:
        """Return the connection that has not been used for longest."""
        session = self._sessions.pop(0)
        self._sessions.append(session)
        if session.end is not None:
            await session.end
            session.end = None
        return session

    async def read(self, key: int) -> Any:
        session = await self._next()
        session.begin_with(self.begin_reading)
        rows = await session.protocol.bind_execute(session.reading, (key,), "", 1, False, None)
        session.end_later(self.read_end)
        return rows[0]

    async def write(self, key: int) -> None:
        session = await self._next()
        session.begin_with(self.begin_writing)
        await session.protocol.bind_execute(session.writing, (key,), "", 0, True, None)
        await session.protocol.query(self.write_end, None)

    async def single(self, key: int) -> Any:
        session = await self._next()
        rows = await session.protocol.bind_execute(session.reading, (key,), "", 1, False, None)
        if self.single_end:
            session.end_later(self.single_end)
        return rows[0]


class MessagesWithoutReset(Messages):
    """As for `reset: never`."""

    title = "the messages alone, reset: never"
    floor = "jobu-db, reset: never"
    resets = False
    read_end, write_end, single_end = "COMMIT", "COMMIT", ""
    begin_reading = begin_of("BEGIN READ ONLY", "SELECT WHERE false")


FLOORS = (Messages, MessagesWithoutReset)
