"""The connection that this backend hands out: asyncmy's, made safe to share and to lend on.

Invariants, which asyncmy leaves to its users:

1. Commands take turns.
2. Once the stream may be out of step the connection is not `alive`, and never used again.
3. `get_transaction_status()` is right, or `stale` says that it may not be.
4. No command cuts off the unread rows of an unbuffered cursor silently.
"""

# asyncmy annotates little.
# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

import logging
import re
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from datetime import tzinfo
from typing import Any, TypeVar

from asyncmy.constants.SERVER_STATUS import SERVER_STATUS_IN_TRANS
from asyncmy.errors import MySQLError

from jobu_db.placeholders import Dialect
from jobu_db.settings import Address
from jobu_db_mysql import errors, literals
from jobu_db_mysql._private import (
    COMMIT,
    RESET,
    ROLLBACK,
    Command,
    OpenConnection,
    Outcome,
    QuietCursor,
)
from jobu_db_mysql.commands import Turn, command, control, statement, unless_streaming

T = TypeVar("T")
logger = logging.getLogger("jobu_db")

_TIME_ZONE = re.compile("time_zone", re.IGNORECASE)

_READING = SERVER_STATUS_IN_TRANS | 0x2000
"""In a transaction, and (asyncmy has no name for it) a read-only one."""


class MySQLConnection(OpenConnection):
    """One session.

    Attributes:
        address: Where it was to go.
        turn: Held while a command runs.
        broken: It is unknown where in the stream we are.
        stale: An error came last, and errors do not tell whether the transaction is still open.
        touched: A command was sent since the last reset.
        readonly: The session's access mode, as far as this library has set it.
        pending: SQL to send ahead of the next statement, in the same round trip; statements end
            with semicolons.
        setup: Sets the session up after RESET.
        dialect: How this server reads SQL.
        setup_timezone: The session's time zone after RESET and setup; None if it is not known.
        timezone: The same now.
        limit: Called for each statement; what it returns limits its time. None for no limit.
    """

    def __init__(self, address: Address, **options: Any) -> None:
        super().__init__(cursor_cls=QuietCursor, **options)
        self.address = address
        self.turn = Turn()
        self.broken = False
        self.stale = False
        self.touched = False
        self.readonly = False
        self.pending = ""
        self.setup: Command = b""
        self.dialect: Dialect | None = None
        self.setup_timezone: tzinfo | None = None
        self.timezone: tzinfo | None = None
        self.limit: Callable[[], AbstractAsyncContextManager[Any]] | None = None

    @property
    def alive(self) -> bool:
        """False if the connection is known to be dead or of no use."""
        return self.open and not self.broken

    @property
    def only_reads(self) -> bool:
        """True if the server has just said that a transaction is open which cannot write."""
        sound = self.alive and not self.stale and not self.streaming
        return sound and self.server_status & _READING == _READING

    def note_failure(self, error: BaseException) -> None:
        """Note what the error of a command means for the connection."""
        if errors.from_server(error) and not errors.is_lost(error):
            self.stale = True
        else:
            self.broken = True

    def note_success(self) -> None:
        """Note what the server said of the session at the end of a command."""
        self.stale = False
        self.refresh_status()

    # -- the commands of asyncmy

    async def query(self, sql: str | bytes, unbuffered: bool = False) -> Any:
        """Send one text and read its first result.

        Raises:
            DataError: It cannot be written in the connection's character set.
        """
        if isinstance(sql, str):
            text, sql = sql, self.encoded(sql)
            self._note_time_zone(text)
        return await self._query(sql, unbuffered)

    @unless_streaming
    async def _query(self, sql: bytes, unbuffered: bool) -> Any:
        return await self.limited(super().query(sql, unbuffered))

    @command
    async def next_result(self, unbuffered: bool = False) -> Any:
        """Read the next result of the text sent last."""
        return await self.limited(super().next_result(unbuffered))

    async def limited(self, work: Awaitable[T]) -> T:
        """Await the work, within the time that a statement may take."""
        if self.limit is None:
            return await work
        async with self.limit():
            return await work

    @control
    async def commit(self) -> None:
        """Send COMMIT. Unread rows of an unbuffered cursor are read and dropped."""
        await self._end(COMMIT)
        await self.answer()

    @control
    async def rollback(self) -> None:
        """Send ROLLBACK. Unread rows of an unbuffered cursor are read and dropped."""
        await self._end(ROLLBACK)
        await self.answer()

    async def _end(self, *commands: Command) -> None:
        if self.streaming:
            await self.drain()
        await self.send_all(*commands)

    async def ping(self, reconnect: bool = False) -> None:
        """Ask for a sign of life. Never reconnects: that would be another session."""
        touched = self.touched
        await self._ping()
        self.touched = touched

    @unless_streaming
    async def _ping(self) -> None:
        await super().ping(False)

    begin = unless_streaming(OpenConnection.begin)
    autocommit = unless_streaming(OpenConnection.autocommit)
    select_db = unless_streaming(OpenConnection.select_db)
    set_charset = unless_streaming(OpenConnection.set_charset)
    show_warnings = unless_streaming(OpenConnection.show_warnings)
    kill = unless_streaming(OpenConnection.kill)
    prepare = unless_streaming(OpenConnection.prepare)

    # -- the commands of this library: one turn and one note for a whole text
    #
    # asyncmy alone would leave further results unread, and raise an error in one of them from the
    # next command.

    @statement
    async def run(self, sql: str) -> Outcome:
        """Run one text, all of it, and return its first result."""
        await self._start(sql)
        outcome = self.outcome()
        if self.has_next:
            await self.read_on()
        return outcome

    @statement
    async def run_dicts(self, sql: str) -> list[dict[str, Any]]:
        """Run one text, all of it, and return the rows of its first result as dictionaries."""
        await self._start(sql)
        rows = await self.dicts()
        if self.has_next:
            await self.read_on()
        return rows

    @statement
    async def run_all(self, sql: str) -> int:
        """Run one text, all of it, and return the affected rows of all its statements."""
        count: int = await super().query(self.encoded(sql))
        while self.has_next:
            count += await super().next_result()
        return count

    @statement
    async def order(self, sql: str) -> None:
        """Run one text, all of it, none of whose results has rows."""
        await self.send_all(self.to_run(sql))
        await self.answer()

    async def _start(self, sql: str) -> None:
        ahead, self.pending = self.pending, ""
        await super().query(self.encoded(ahead + sql))
        for _ in range(ahead.count(";")):
            await super().next_result()

    # -- resetting

    @control
    async def reset(self) -> None:
        """Make the session what it was after login, and set it up; also roll back."""
        await self._end(RESET, self.setup)
        try:
            await self._answers_to_reset()
        except BaseException:
            self.broken = True
            raise

    @control
    async def commit_and_reset(self) -> bool:
        """Commit, and reset in the same round trip; say whether the session is reset as well.

        If not, the connection is `broken`.
        """
        await self._end(COMMIT, RESET, self.setup)
        try:
            await self.answer()
        except MySQLError as error:
            if errors.from_server(error):
                await self._is_reset()
            raise
        return await self._is_reset()

    async def _is_reset(self) -> bool:
        try:
            await self._answers_to_reset()
        except Exception as error:
            logger.info("a connection could not be reset: %r", error)
            self.broken = True
            return False
        return True

    async def _answers_to_reset(self) -> None:
        await self.answer_to_reset()
        await self.answer()
        self.pending = ""
        self.readonly = self.touched = False
        self.timezone = self.setup_timezone

    # -- values

    literal = literals.literal

    def escape(self, obj: Any, mapping: Any = None) -> str:
        """Write a value as SQL: for asyncmy's own calls, which know no other list of types."""
        return self.literal(obj)

    def note_text(self, sql: str) -> None:
        """Note what a text may change in the session that the server does not tell of.

        Raises:
            DataError: It cannot be written in the connection's character set.
        """
        literals.check_encodable(sql, self, "the SQL")
        self._note_time_zone(sql)

    def _note_time_zone(self, sql: str) -> None:
        if self.timezone is not None and _TIME_ZONE.search(sql):
            self.timezone = None
