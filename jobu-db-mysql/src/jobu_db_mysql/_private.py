"""Everything that reaches into asyncmy. `test_private.py` fails when asyncmy changes there."""

# asyncmy's stubs know nothing of what is used here.
# mypy: disable-error-code="attr-defined,has-type,no-untyped-call"

from __future__ import annotations

import asyncio
import os
import socket
import sys
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from time import monotonic
from typing import Any, NamedTuple

from asyncmy.connection import Connection
from asyncmy.constants import FIELD_TYPE
from asyncmy.constants.CLIENT import MULTI_STATEMENTS, SSL
from asyncmy.constants.COMMAND import COM_INIT_DB, COM_QUERY
from asyncmy.constants.CR import CR_MALFORMED_PACKET
from asyncmy.constants.FIELD_TYPE import BLOB
from asyncmy.cursors import Cursor, DictCursorMixin, SSCursor
from asyncmy.errors import InterfaceError, OperationalError
from asyncmy.protocol import FieldDescriptorPacket, MysqlPacket

from jobu_db.errors import DataError, QueryExecutionError
from jobu_db.tcp import sever_in_children
from jobu_db_mysql.begun import MARK
from jobu_db_mysql.logging_in import FIRST_PLUGINS, NO_RULES, Login, LoginRules
from jobu_db_mysql.reading import lookalikes

_COM_SET_OPTION = 0x1B
_COM_RESET_CONNECTION = 0x1F

_SESSION_TRACK = 1 << 23
"""Asks the server to tell what a statement changed in the session. asyncmy has no name for it."""

SESSION_CHANGED = 0x4000
"""Status of an answer that tells what was changed. asyncmy has no name for it."""

_MOST_BEFORE_LOGIN = 65_536
"""Bytes of one packet: many times what a key, or what is wrong, takes."""

_LONGEST_COMMAND = 0xFFFFFF - 1
"""Bytes behind the number of a command that fit into one packet."""

_LONGEST_PACKET = 0xFFFFFF
"""Bytes; what is longer comes in several, the last of which is shorter, or empty."""

_KNOWN_TYPES = frozenset(value for name, value in vars(FIELD_TYPE).items() if name.isupper())

_read_packet = Connection.read_packet


class QuietCursor(Cursor):
    """asyncmy's cursor asks for warnings and logs them: a round trip, and values in the log."""

    async def _show_warnings(self, conn: Any) -> None:
        return None


class _DictRows(DictCursorMixin):
    """Rows as dictionaries in which no column is lost, however many have one name.

    asyncmy's own keep the last one of those that come from one table.
    """

    async def _do_get_result(self) -> None:
        await super()._do_get_result()  # type: ignore[misc]
        if self.description and len(set(self._fields)) < len(self._fields):
            self._fields = list(column_names(self._result.fields))
            if self._rows:
                self._rows = [self._conv_row(row) for row in self._result.rows]


class QuietDictCursor(_DictRows, QuietCursor):
    """The same with rows as dictionaries."""


class StreamingDictCursor(_DictRows, SSCursor):
    """An unbuffered cursor with rows as dictionaries."""


def column_names(fields: Sequence[Any]) -> tuple[str, ...]:
    """Name the columns of a result, each differently.

    As with asyncmy, the second column of a name is `table.name`. Where that is taken too, its place
    is added: `name:3` is the third column.
    """
    names: list[str] = []
    for place, field in enumerate(fields, 1):
        name = field.name
        if name in names:
            name = f"{field.table_name}.{field.name}"
        if name in names:
            name = f"{field.name}:{place}"
        while name in names:  # an alias looks just like that
            name += "'"
        names.append(name)
    return tuple(names)


class _LongPacket(MysqlPacket):
    """A packet of 16 MiB or more, which can only be a row.

    asyncmy takes what begins with 0xFE for the end of the rows. So does a row whose first value is
    that long: 0xFE comes before a length of 8 bytes.
    https://dev.mysql.com/doc/dev/mysql-server/latest/page_protocol_basic_ok_packet.html
    """

    def is_auth_switch_request(self) -> int:
        """Say that it is no other packet that begins with 0xFE."""
        return 0


def _packet(data: bytes, encoding: str) -> MysqlPacket:
    return (MysqlPacket if len(data) < _LONGEST_PACKET else _LongPacket)(data, encoding)


def _column(data: bytes, encoding: str) -> FieldDescriptorPacket:
    """Describe a column. Types that asyncmy does not know it would read as ASCII text."""
    column = FieldDescriptorPacket(data, encoding)
    if column.type_code not in _KNOWN_TYPES:
        column.type_code = BLOB
    return column


class _Answered(Exception):  # noqa: N818 nothing is wrong
    """The server wants more than the request to log in."""

    def __init__(self, packet: bytes) -> None:
        super().__init__()
        self.packet = packet


class Outcome(NamedTuple):
    """One result of a statement.

    Attributes:
        columns: Their names; empty if there are no rows.
        rows: Tuples.
        affected: Rows matched, or returned.
        lastrowid: The first AUTO_INCREMENT value that was generated, or 0.
        dropped: How many results with rows came behind this one, and were dropped.
    """

    columns: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]
    affected: int
    lastrowid: int
    dropped: int = 0


Command = bytes
"""As it is sent: length, number of the packet, what to do, and with what."""


def command(code: int, data: bytes = b"") -> Command:
    """Write a command, of less than 16 MiB.

    Raises:
        OverflowError: It is longer.
    """
    if len(data) >= _LONGEST_COMMAND:
        raise OverflowError("the command does not fit into one packet")
    return (1 + len(data)).to_bytes(3, "little") + b"\0" + bytes([code]) + data


def to_query(sql: bytes) -> Command:
    """Write the command that runs SQL.

    Raises:
        OverflowError: It is too long for one packet.
    """
    return command(COM_QUERY, sql)


COMMIT = command(COM_QUERY, b"COMMIT")
ROLLBACK = command(COM_QUERY, b"ROLLBACK")
AUTOCOMMIT_OFF = command(COM_QUERY, b"SET autocommit = 0")
SET_MARK = command(COM_QUERY, f"SAVEPOINT {MARK}".encode())
RELEASE_MARK = command(COM_QUERY, f"RELEASE SAVEPOINT {MARK}".encode())
RESET = command(_COM_RESET_CONNECTION)
"""Makes the session what it was after login, the current database excepted."""
SEVERAL_ON = command(_COM_SET_OPTION, b"\0\0")
SEVERAL_OFF = command(_COM_SET_OPTION, b"\1\0")
"""Whether a text may hold several statements. A reset leaves that as it is."""


class OpenConnection(Connection):
    """asyncmy's connection, with what can only be had from its insides.

    Attributes:
        local: Socket address of this end.
        peer: Socket address of the server's end; a path for a Unix socket.
        opened_at: Seconds on the monotonic clock.
        process: The id of the process that opened it.
        shared_a_write: Several commands were sent at once last.
    """

    local: Any = None
    peer: Any = None
    opened_at = 0.0
    process = 0

    def __init__(
        self, *, rules: LoginRules = NO_RULES, result_limit: int | None = None, **options: Any
    ) -> None:
        super().__init__(**options)
        self._rules = rules
        self._limit = result_limit or sys.maxsize
        self._received = 0
        self._unbuffered = False
        self.shared_a_write = False
        self._held: deque[Command] = deque()
        self._answering = False
        sever_in_children(self)
        # asyncmy always asks for several statements in one text, so that a semicolon that gets
        # into SQL may bring in any statement.
        self._client_flag = (self._client_flag & ~MULTI_STATEMENTS) | _SESSION_TRACK

    # -- logging in

    @property
    def encrypted(self) -> bool:
        """True if the connection is encrypted."""
        transport = self._transport
        return transport is not None and transport.get_extra_info("ssl_object") is not None

    async def _get_server_information(self) -> None:
        await super()._get_server_information()  # type: ignore[misc]
        if self._rules.tls_is_optional and not self.server_capabilities & SSL:
            self._ssl_context = None
            self._client_flag &= ~SSL
        if self._auth_plugin_name not in FIRST_PLUGINS:
            # asyncmy would send the password along; now the server asks for its plugin.
            self._auth_plugin_name = ""

    async def _request_authentication(self) -> None:
        # asyncmy sends the request, encrypts before if need be, and then would give the password
        # to any server that asks for it in the right way. So its part ends with the first answer.
        self.read_packet = self._read_first_answer  # type: ignore
        answer = b""
        try:
            await super()._request_authentication()  # type: ignore[misc]
            return
        except _Answered as answered:
            answer = answered.packet
        finally:
            del self.read_packet
        await Login(
            self._rules.for_peer(self._transport.get_extra_info("peername"), self.encrypted),
            self._password,
            self._auth_plugin_name,
            self.salt,
            self._exchange,
        ).answer(answer)

    async def _read_first_answer(self) -> Any:
        packet = await Connection.read_packet(self)
        if packet.is_ok_packet():
            return packet
        raise _Answered(packet.get_all_data())

    async def _exchange(self, data: bytes | None) -> bytes:
        if data is not None:
            self.write_packet(data)
        packet = await self.read_packet()
        answer: bytes = packet.get_all_data()
        return answer

    @property
    def tells_changes(self) -> bool:
        """True if the server tells what a statement changes in the session."""
        return bool(self.server_capabilities & _SESSION_TRACK)

    @property
    def tells_status_behind_rows(self) -> bool:
        """True if it is known behind rows, too, whether a transaction is open.

        Without CLIENT_DEPRECATE_EOF, which some proxies lack, asyncmy drops it there.
        """
        return bool(self._deprecate_eof)

    def read_packet(self, packet_type: Callable[..., Any] = _packet) -> Any:
        """Read one packet, whatever its length; to be awaited."""
        return _read_packet(self, _column if packet_type is FieldDescriptorPacket else packet_type)

    async def connect(self) -> Any:
        """Open the connection and log in."""
        task = asyncio.current_task()
        cancelled_before = task.cancelling() if task else 0
        self._fill_buffer = self._fill_before_login
        try:
            result = await super().connect()
        finally:
            del self._fill_buffer
        if self._limit < sys.maxsize:
            self._fill_buffer = self._fill_within_limit
            self._write_bytes = self._write_and_count_anew
        if task and task.cancelling() > cancelled_before:
            # asyncmy uses `wait_for`, which on Python 3.11 swallows what comes just as it ends.
            self.terminate()
            raise asyncio.CancelledError
        self.local = self._transport.get_extra_info("sockname")
        self.peer = self._transport.get_extra_info("peername")
        self.opened_at = monotonic()
        self.process = os.getpid()
        return result

    @property
    def socket(self) -> socket.socket | None:
        """The socket while the connection is open, or None."""
        transport = self._transport
        # uvloop's would tell the number that it had, which may be another file's by now.
        closed = transport is None or transport.is_closing()
        return None if closed else transport.get_extra_info("socket")

    @property
    def open(self) -> bool:
        """False once either side has closed. asyncmy's `connected` overlooks the server's."""
        return self._connected and not self._stream_broken

    def terminate(self) -> None:
        """Close at once. Works without a running event loop."""
        transport, self._transport = self._transport, None
        self._connected = False
        if transport is None:
            return
        try:
            transport.abort()
        except RuntimeError:  # the loop is closed, and the transport with it
            with suppress(OSError):
                transport.get_extra_info("socket").shutdown(socket.SHUT_RDWR)

    # -- what the server may send
    #
    # asyncmy waits for as many bytes as the server announces, and keeps them. These are put in the
    # place of its methods where they are needed, so that they cost nothing elsewhere.

    async def _fill_before_login(self, need: int) -> None:
        """Wait for the rest of a packet. What a server sends while it logs us in is short."""
        if need > _MOST_BEFORE_LOGIN:
            raise OperationalError(
                CR_MALFORMED_PACKET, f"it announces {need} bytes while logging in"
            )
        await Connection._fill_buffer(self, need)

    async def _fill_within_limit(self, need: int) -> None:
        """Wait for the rest of a packet; rows that are read piece by piece do not add up."""
        buffer = self._proto
        unread = buffer.length - buffer.pos
        if need <= self._limit:
            await Connection._fill_buffer(self, need)
            if not self._unbuffered:
                self._received += buffer.length - buffer.pos - unread
        if need > self._limit or self._received > self._limit:
            self.terminate()
            raise QueryExecutionError(
                f"the result has more than options.result_limit = {self._limit} bytes: the "
                "connection is closed; read it by iterate(), or raise the limit"
            )

    def _write_and_count_anew(self, data: bytes) -> None:
        self._received = 0
        Connection._write_bytes(self, data)

    # -- results

    async def _read_query_result(self, unbuffered: bool = False) -> None:
        # Rows come along with the first packets already, before `streaming` is true.
        self._unbuffered = unbuffered
        await super()._read_query_result(unbuffered)  # type: ignore[misc]

    @property
    def has_next(self) -> bool:
        """True while further results of the text sent last are unread."""
        return bool(self._result.has_next)

    async def read_on(self) -> int:
        """Read the further results of the text sent last; the last of them is the current one.

        Returns:
            How many of them had rows, which are dropped.
        """
        count = 0
        while self._result is not None and self._result.has_next:
            await self._read_query_result()
            count += self._result.rows is not None
        return count

    def columns(self) -> tuple[str, ...]:
        """Return the names of the current result's columns, none if it has no rows."""
        fields = self._result.fields or ()
        names = tuple([field.name for field in fields])
        return names if len(set(names)) == len(names) else column_names(fields)

    def outcome(self) -> Outcome:
        """Return the current result."""
        result = self._result
        if result.rows is None:
            return Outcome((), (), result.affected_rows, result.insert_id)
        return Outcome(self.columns(), result.rows, result.affected_rows, result.insert_id)

    def changed(self) -> int | None:
        """Return how many rows were changed, or None if the current result has rows."""
        result = self._result
        return result.affected_rows if result.rows is None else None

    async def dicts(self) -> list[dict[str, Any]]:
        """Return the current result's rows as dictionaries, made by asyncmy at C's speed."""
        cursor = QuietDictCursor(self)
        await cursor._do_get_result()
        return cursor._rows or []

    def refresh_status(self) -> None:
        """Take over the server's status out of the current result.

        asyncmy passes over a status of 0, which without autocommit means: no transaction.
        """
        result = self._result
        if result is None or result.unbuffered_active:
            return
        if not result.field_count or self.tells_status_behind_rows:
            self.server_status = result.server_status

    def forget_result(self) -> None:
        """Let go of the current result, behind which another answer has been read."""
        self._result = None

    # -- unbuffered cursors

    @property
    def streaming(self) -> bool:
        """True while rows of an unbuffered cursor are unread."""
        result = self._result
        return result is not None and bool(result.unbuffered_active)

    def receive(self, on: bool) -> None:
        """Read from the socket, or let the server wait: asyncmy would keep all that comes."""
        transport = self._transport
        if transport is not None and transport.is_reading() is not on:
            (transport.resume_reading if on else transport.pause_reading)()

    async def drain(self) -> None:
        """Read and drop the unread rows of an unbuffered cursor.

        Raises:
            MySQLError: One of the server's ended them.
        """
        if not self.streaming:
            return
        self.receive(True)
        await self._result._finish_unbuffered_query()

    # -- texts

    @property
    def encoding(self) -> str:
        """Python's name of the character set in which SQL is sent."""
        encoding: str = self._encoding
        return encoding

    def encoded(self, sql: str) -> bytes:
        """Write SQL as bytes; halves of surrogates stand for the bytes of binary values.

        Raises:
            DataError: The character set has no bytes for it.
        """
        try:
            if sql.isascii() or not any(map(sql.__contains__, lookalikes(self._encoding))):
                return sql.encode(self._encoding, "surrogateescape")
        except UnicodeEncodeError:
            pass
        # Outside of the block: the error would keep the SQL, with all values, as its context.
        raise DataError("the SQL holds a character that the connection's charset lacks")

    # -- several commands in one round trip

    def to_run(self, sql: str) -> Command:
        """Write the command that runs SQL."""
        return to_query(self.encoded(sql))

    def to_select(self, database: str) -> Command:
        """Write the command that selects a database."""
        return command(COM_INIT_DB, database.encode(self._encoding))

    async def send_all(self, *commands: Command) -> None:
        """Send commands at once. The server answers one after the other; see `answer`.

        Where they must not share a write, each waits for the answer to the one before.
        """
        if self._result is not None:
            await self.read_on()
            self._result = None
        if not self._connected:
            raise InterfaceError(0, self._close_reason or "Not connected")
        self.shared_a_write = len(commands) > 1 and self.pipelines
        self._held.clear()
        if self.shared_a_write:
            self._write_bytes(b"".join(commands))
        else:
            self._held.extend(commands)
            if self._held:
                self._write_bytes(self._held.popleft())
        self._answering = False

    def _expect_answer(self) -> None:
        """Get ready for the next answer; send the command that it is to, if that was held back."""
        if self._answering and self._held:
            self._write_bytes(self._held.popleft())
        self._answering = True
        # Packets are numbered anew for each command. asyncmy does so only for what it sends itself.
        self._next_seq_id = 1

    @property
    def pipelines(self) -> bool:
        """True if commands may share a write."""
        return True

    async def answer(self) -> None:
        """Read the answer to the next command that was sent, none of whose results has rows."""
        self._expect_answer()
        while True:
            answer = await self._read_ok_packet()
            if answer.server_status & SESSION_CHANGED:
                self.server_status &= ~SESSION_CHANGED
                self.take_changes(answer.message)
            if not answer.has_next:
                return

    async def answer_with_rows(self, unbuffered: bool = False) -> int:
        """Read the first result of the next command that was sent; return its affected rows."""
        self._expect_answer()
        await self._read_query_result(unbuffered)
        affected: int = self._affected_rows
        return affected

    async def answer_to_option(self) -> None:
        """Read the answer to SEVERAL_ON or SEVERAL_OFF, which is no usual one."""
        self._expect_answer()
        await self.read_packet()

    async def ask(self, sql: str) -> Any:
        """Run a query between others, whose result stays the current one; return its rows."""
        result, affected = self._result, self._affected_rows
        await Connection.query(self, sql)
        rows = self._result.rows
        self.refresh_status()
        self._result, self._affected_rows = result, affected
        return rows

    def take_changes(self, message: bytes) -> None:
        """Take note of what an answer says was changed in the session."""
        raise NotImplementedError

    @property
    def changes(self) -> bytes | None:
        """What the current result says was changed in the session.

        None if asyncmy has dropped it: it came behind rows.
        """
        result = self._result
        if result is None or not result.server_status & SESSION_CHANGED:
            return b""
        return result.message if result.rows is None else None

    async def answer_to_reset(self) -> None:
        """Read the answer to RESET, and forget what died with the session."""
        await self.answer()
        self._stmt_cache.clear()
