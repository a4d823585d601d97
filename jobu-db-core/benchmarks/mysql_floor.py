"""The messages that jobu-db sends to MySQL and MariaDB, sent with asyncmy and nothing else.

What jobu-db takes beyond that is its core: the pool, the transaction, the statement's way through
them. `tests/benchmarks/test_floor.py` compares with what jobu-db does send.

asyncmy has no way to send several commands at once: that is the backend's `_private.py`.
"""

from __future__ import annotations

from typing import Any

from asyncmy.constants.CLIENT import FOUND_ROWS
from contestant import Contestant

from jobu_db_mysql._private import COMMIT, RESET, Command, OpenConnection, to_query
from jobu_db_mysql.session_setup import setup_sql
from jobu_db_mysql.settings import MySQLSettings

READ_ONLY = to_query(b"SET SESSION TRANSACTION READ ONLY")


class Session(OpenConnection):
    """A connection that keeps the answers that nobody has waited for yet.

    Attributes:
        setup: What follows each reset.
        readonly: It was made read-only.
        unread: How many answers there are to read.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(client_flag=FOUND_ROWS, charset="utf8mb4", autocommit=None, **options)
        self.setup: tuple[Command, ...] = ()
        self.readonly = False
        self.unread = 0

    def take_changes(self, message: bytes) -> None:
        """Nothing is made of what the server tells of the session."""

    async def send(self, *commands: Command) -> None:
        """Send commands at once, and let whoever comes next wait for the answers."""
        await self.send_all(*commands)
        self.unread = len(commands)

    async def be_answered(self) -> None:
        """Read the answers."""
        while self.unread:
            self.unread -= 1
            await self.answer()

    async def row(self) -> dict[str, Any]:
        """Read the answer to a SELECT."""
        await self.answer_with_rows()
        (values,) = self.outcome().rows
        return dict(zip(self.columns(), values, strict=True))


class Messages(Contestant):
    """As for jobu-db's default: readers and statements take turns on the connections."""

    title = "the messages alone"
    floor = "jobu-db"
    style = "format"
    resets = True

    async def open(self) -> None:
        self._sessions = [await self._connect() for _ in range(self.size.pool)]

    async def _connect(self) -> Session:
        parts = {**self.place.parts, "password": self.place.parts["password"].encode()}
        session = Session(**parts)
        await session.connect()
        settings = MySQLSettings.parse("floor", {"type": "mysql", "url": self.place.url})
        mariadb = "MariaDB" in session.get_server_info()
        text = setup_sql(settings, mariadb=mariadb, autocommit=False, tracks=session.tells_changes)
        session.setup = session.to_run(text), session.to_select(settings.database)
        await session.send(RESET, *session.setup)
        return session

    async def settle(self) -> None:
        """Wait for all answers."""
        for _ in self._sessions:
            await self._next()

    async def close(self) -> None:
        await self.settle()
        for session in self._sessions:
            await session.ensure_closed()

    async def _next(self) -> Session:
        """Return the connection that has not been used for longest."""
        session = self._sessions.pop(0)
        self._sessions.append(session)
        await session.be_answered()
        return session

    async def read(self, key: int) -> Any:
        session = await self._next()
        ahead = () if session.readonly else (READ_ONLY,)
        session.readonly = True
        await session.send_all(*ahead, self._query(session, self.READ, key))
        for _ in ahead:
            await session.answer()
        row = await session.row()
        await self._end(session, COMMIT)
        return row

    async def write(self, key: int) -> None:
        session = await self._next()
        await session.send(self._query(session, self.WRITE, key))
        await session.be_answered()
        await self._end(session, COMMIT)
        await session.be_answered()

    async def single(self, key: int) -> Any:
        session = await self._next()
        await session.send_all(self._query(session, self.READ, key), COMMIT)
        row = await session.row()
        await session.answer()
        await self._end(session)
        return row

    def _query(self, session: Session, sql: str, key: int) -> Command:
        return session.to_run(sql % session.escape(key))

    async def _end(self, session: Session, *commands: Command) -> None:
        if self.resets:
            session.readonly = False
            commands = (*commands, RESET, *session.setup)
        await session.send(*commands)


class MessagesWithoutReset(Messages):
    """As for `reset: never`, where a session stays read-only until somebody writes."""

    title = "the messages alone, reset: never"
    floor = "jobu-db, reset: never"
    resets = False


FLOORS = (Messages, MessagesWithoutReset)
