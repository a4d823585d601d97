"""The messages that jobu-db sends to PostgreSQL, sent with asyncpg and nothing else.

What jobu-db takes beyond that is its core: the pool, the transaction, the statement's way through
them. `tests/benchmarks/test_floor.py` compares with what jobu-db does send.

asyncpg has no public way to send messages together: this file, as the backend's `_private.py`, uses
what is private in it. The transport that puts BEGIN in front of a statement is the backend's.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Coroutine, Generator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
from contestant import Contestant

from jobu_db_postgres.owed import End
from jobu_db_postgres.reset import COMMIT_AND_RESET, OWED_COMMIT, OWED_COMMIT_AND_RESET, RESET
from jobu_db_postgres.transport import Begin, ConnectingLoop, begin_of


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
    """A connection, its two statements prepared, and what is left of the work before.

    Attributes:
        end: What was sent to end it, and not waited for.
        owes: Its end is to be sent with the next BEGIN.
    """

    def __init__(self, connection: Any, reading: Any, writing: Any) -> None:
        self.connection, self.reading, self.writing = connection, reading, writing
        self.protocol, self.transport = connection._protocol, connection._transport
        self.end: Sent | None = None
        self.owes = False

    def begin(self, owed: End, begin: Begin) -> None:
        """Have BEGIN travel with what is sent next, and the end that is owed with it."""
        if self.owes:
            self.transport.send_first_behind(owed, begin)
            self.owes = False
        else:
            self.transport.send_first(begin)


class Messages(Contestant):
    """As for jobu-db's default: the end of a reader travels with the next BEGIN, and a statement's
    reset is in the background, with the other connections for who comes next."""

    title = "the messages alone"
    floor = "jobu-db"
    style = "numeric"
    resets = True
    skips = frozenset({("e", "postgres"), ("j", "postgres")})
    end, owed, reset = COMMIT_AND_RESET, OWED_COMMIT_AND_RESET, RESET
    begin_reading = begin_of("BEGIN READ ONLY", "CLOSE ALL")
    begin_writing = begin_of("BEGIN")

    async def open(self) -> None:
        self._free = [await self._connect() for _ in range(self.size.pool)]
        self._waiting: deque[asyncio.Future[Session]] = deque()

    async def _connect(self) -> Session:
        loop = ConnectingLoop(asyncio.get_running_loop())
        connection: Any = await asyncpg.connect(self.place.url, loop=loop)  # type: ignore[arg-type]
        prepared = [await connection._get_statement(sql, None) for sql in (self.READ, self.WRITE)]
        return Session(connection, *prepared)

    async def settle(self) -> None:
        """Wait for all answers, and send what is owed."""
        for session in self._free:
            if session.owes:
                session.owes = False
                await session.protocol.query(self.end, None)
            if session.end is not None:
                await session.end
                session.end = None

    async def close(self) -> None:
        await self.settle()
        for session in self._free:
            await session.connection.close()

    async def _take(self) -> Session:
        if not self._free:
            future = asyncio.get_running_loop().create_future()
            self._waiting.append(future)
            return await future
        session = self._free.pop(0)
        if session.end is not None:
            await session.end
            session.end = None
        return session

    def _give(self, session: Session) -> None:
        if self._waiting:
            self._waiting.popleft().set_result(session)
        else:
            # Who comes next takes what is owed, else what has been free for longest.
            self._free.insert(0 if session.owes else len(self._free), session)

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Any]:
        session = await self._take()
        try:
            yield session.connection
        finally:
            self._give(session)

    async def read(self, key: int) -> Any:
        session = await self._take()
        session.begin(self.owed, self.begin_reading)
        rows = await session.protocol.bind_execute(session.reading, (key,), "", 1, False, None)
        session.owes = True
        self._give(session)
        return rows[0]

    async def write(self, key: int) -> None:
        session = await self._take()
        session.begin(self.owed, self.begin_writing)
        await session.protocol.bind_execute(session.writing, (key,), "", 0, True, None)
        await session.protocol.query(self.end, None)
        self._give(session)

    async def single(self, key: int) -> Any:
        session = await self._take()
        rows = await session.protocol.bind_execute(session.reading, (key,), "", 1, False, None)
        if self.reset:
            session.end = Sent(session.protocol.query(self.reset, None))
        self._give(session)
        return rows[0]


class MessagesWithoutReset(Messages):
    """As for `reset: never`."""

    title = "the messages alone, reset: never"
    floor = "jobu-db, reset: never"
    resets = False
    end, owed, reset = "COMMIT", OWED_COMMIT, ""
    begin_reading = begin_of("BEGIN READ ONLY", "SELECT WHERE false")


FLOORS = (Messages, MessagesWithoutReset)
