"""The transport between asyncpg and the socket: it puts BEGIN in front of what is written first,
and ahead of that the end of the transaction before, where that is owed.

Not before the call that writes: arguments that do not encode would leave a transaction open
unnoticed. asyncpg passes over the answers to messages in front of its own, as long as no
Sync stands between them.

Answers arrive in a buffer that the connection keeps.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from jobu_db.tcp import sever_in_children
from jobu_db_postgres import owed
from jobu_db_postgres.owed import SYNC, Answers, End, message

_LARGE = 65536
"""Bytes from which on a copy costs more than another write."""

_BUFFER = 65536
"""Bytes of the buffer for answers."""

_UNDOING = b"P\0ROLLBACK\0"
"""How asyncpg begins to end an `executemany` outside a transaction that failed."""


class Begin(NamedTuple):
    """A BEGIN, in both forms that it takes in front of something else.

    Attributes:
        messages: Of the extended protocol, without a Sync.
        text: To stand in front of the text of a simple query.
    """

    messages: bytes
    text: bytes


def begin_of(*statements: str) -> Begin:
    """Make one of statements that return no rows."""
    messages = b"".join(_steps(statement.encode()) for statement in statements)
    return Begin(messages, "".join(f"{statement};" for statement in statements).encode())


def _steps(statement: bytes) -> bytes:
    # Parse, Bind and Execute, without parameters or a limit of rows.
    # Without names, so that nothing is left behind, wherever PgBouncer sends what follows.
    return (
        message(b"P", b"\0" + statement + b"\0\0\0")
        + message(b"B", b"\0\0\0\0\0\0\0\0")
        + message(b"E", b"\0\0\0\0\0")
    )


class Transport:
    """A transport of the event loop with another `write` and `writelines`.

    Attributes:
        real: The transport behind it.
        begin: What goes in front of the next bytes, or None.
        end: What goes in front of that, or None.
        end_error: Why the end failed that was sent last, or ""; the connection is terminated then.
        touched: Something was written since `watch`.
    """

    __slots__ = ("__weakref__", "_first", "_first_lines", "_held", "_known", "_lines", "_receiver",
                 "_write", "begin", "end", "end_error", "real", "touched", "write",
                 "writelines")  # fmt: skip

    def __init__(self, real: Any) -> None:
        self.real = real
        sever_in_children(self)
        self.begin: Begin | None = None
        self.end: End | None = None
        self.end_error = ""
        self.touched = True
        self._known: End | None = None  # its statements are prepared
        self._held: list[bytes] | None = None  # until the end that was sent alone is answered
        # Swapped, instead of a question at every write: nearly all have no BEGIN to carry. Bound
        # once, since that is done for every transaction.
        self._write: Callable[[Any], None] = self._write_all
        self._lines: Callable[[Iterable[Any]], None] = self._write_all_lines
        self._first: Callable[[Any], None] = self._write_first
        self._first_lines: Callable[[Iterable[Any]], None] = self._write_first_lines
        # asyncpg calls these.
        self.write: Callable[[Any], None] = self._write
        self.writelines: Callable[[Iterable[Any]], None] = self._lines

    def __getattr__(self, name: str) -> Any:
        return getattr(self.real, name)

    @property
    def socket(self) -> socket.socket | None:
        """The socket while it is open, or None."""
        if self.real.is_closing():  # uvloop's would tell a number that may be another file's by now
            return None
        peer: socket.socket | None = self.real.get_extra_info("socket")
        return peer

    def set_protocol(self, protocol: Any) -> None:
        """Have a protocol receive what arrives."""
        self._receiver = _Receiver(protocol)
        self.real.set_protocol(self._receiver)

    def send_first(self, begin: Begin) -> None:
        """Put a BEGIN in front of the next bytes."""
        self.begin = begin
        if self._held is None:
            self.write, self.writelines = self._first, self._first_lines

    def send_first_behind(self, end: End, begin: Begin) -> None:
        """Put the end of a transaction and a BEGIN in front of the next bytes."""
        self.end = end
        self.send_first(begin)

    def watch(self) -> None:
        """Note from here on whether anything is written."""
        self.touched = False
        self.write, self.writelines = self._first, self._first_lines

    def forget_statements(self) -> None:
        """The server forgot them."""
        self._known = None

    def drop_begin(self) -> bool:
        """Forget the BEGIN if it is unsent; say whether it was."""
        unsent, self.begin = self.begin is not None, None
        return unsent

    def _take(self) -> Begin | None:
        # Before it is written: whatever becomes of that, it must not be sent twice.
        begin, self.begin = self.begin, None
        self.touched = True
        self.write, self.writelines = self._write, self._lines
        return begin

    # -- an end that is owed

    def send_end(self) -> None:
        """Send an end that is owed alone, and hold back all else until it is answered."""
        if self.end is None:
            return
        if self.real.is_closing():
            self.end = None  # nothing more reaches the server
            return
        ending = self._take_end(self.end, alone=True)
        self.touched = True
        self._held = []
        self.write, self.writelines = self._hold, self._hold_lines
        self._write(ending + SYNC)

    def _take_end(self, end: End, *, alone: bool) -> bytes:
        self.end = None
        messages, answers = end.messages, end.answers
        if self._known is not end:
            self._known = end
            messages, answers = end.preparing + messages, end.prepared + answers
        done = self._end_is_answered if alone else self._receiver.pass_all
        self._receiver.answers = Answers(answers, alone=alone, done=done, failed=self._end_failed)
        return messages

    def _end_is_answered(self) -> None:
        self._receiver.pass_all()
        try:
            held, self._held = self._held, None
            if self.begin is None:
                self.write, self.writelines = self._write, self._lines
            else:
                self.write, self.writelines = self._first, self._first_lines
            for data in held or ():
                self._write(data)
        except BaseException as error:
            self._cut_short(error)  # who waits for what is held would wait for ever
            raise

    def _end_failed(self, answer: bytes) -> None:
        # Nothing that follows is for asyncpg, which is told that the connection is lost.
        self.end_error = owed.told(answer)
        self.real.abort()

    @property
    def holds(self) -> bool:
        """True while nothing is sent behind an end, for that is not answered."""
        return self._held is not None

    def _hold(self, data: Any) -> None:
        if bytes(data[:1]) == b"X":
            self._write(data)  # Terminate
        elif self._held is not None:
            _refuse_portals(self.begin, data)
            begin, self.begin = self.begin, None
            self._held.append(bytes(data) if begin is None else _joined(begin, data))

    def _hold_lines(self, lines: Iterable[Any]) -> None:
        self._hold(b"".join(lines))

    # -- what asyncpg writes

    def _write_all(self, data: Any) -> None:
        try:
            self.real.write(data)
        except BaseException as error:
            self._cut_short(error)
            raise

    def _write_all_lines(self, lines: Iterable[Any]) -> None:
        try:
            self.real.writelines(lines)
        except BaseException as error:
            self._cut_short(error)
            raise

    def _cut_short(self, error: BaseException) -> None:
        """Abort a connection on which Ctrl-C struck while it was written to.

        asyncpg would go on to wait for the answer to what may be half sent. It has not noted yet
        what was asked for, and would crash over the first row.
        """
        if not isinstance(error, Exception):
            self.real.abort()

    def _write_first(self, data: Any) -> None:
        try:
            self._write_begin_and(data)
        except BaseException as error:
            self._cut_short(error)
            raise

    def _write_begin_and(self, data: Any) -> None:
        kind = bytes(data[:1])
        if kind == b"X" or kind + bytes(data[5:15]) == _UNDOING:
            self._write(data)  # Terminate; or nothing was sent, and asyncpg undoes it
            return
        _refuse_portals(self.begin, data)
        ahead = b""
        if self.end is not None:
            if kind != b"B" or bytes(data[-5:]) != SYNC or self.begin is None:
                # A text is run as a whole or not at all; asyncpg waits for more than one answer.
                self.send_end()
                self.write(data)
                return
            ahead = self._take_end(self.end, alone=False)
        begin = self._take()
        if begin is None:
            self._write(data)
        elif len(data) > _LARGE:
            self._write(ahead + begin.messages)
            self._write(data)
        else:
            self._write(ahead + _joined(begin, data))

    def _write_first_lines(self, lines: Iterable[Any]) -> None:
        try:
            if self.end is not None:
                self.send_end()
                self.writelines(lines)
                return
            begin = self._take()
            self._lines(lines if begin is None else [begin.messages, *lines])
        except BaseException as error:
            self._cut_short(error)
            raise


def _refuse_portals(begin: Begin | None, data: Any) -> None:
    kind = bytes(data[:1])
    if begin is not None and (kind == b"E" or (kind == b"B" and data[5])):
        # data[5] begins the name of the portal.
        # asyncpg would take the answer to BEGIN for the end of the rows of this portal.
        raise RuntimeError("a portal with a name cannot be the first of a transaction")


def _joined(begin: Begin, data: Any) -> bytes:
    if bytes(data[:1]) == b"Q":
        return message(b"Q", begin.text + bytes(data[5:]))
    return begin.messages + bytes(data)


class _Receiver(asyncio.BufferedProtocol):
    """Receives into one buffer.

    asyncio would make one of 256 KiB for each answer, and give all but a few bytes of it back to
    the system: that costs more than anything else that the client does for a short answer.
    """

    def __init__(self, protocol: Any) -> None:
        self._protocol = protocol
        self._buffer = memoryview(bytearray(_BUFFER))
        self.answers: Answers | None = None

    def pass_all(self) -> None:
        """From here on all is for asyncpg."""
        self.answers = None

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        # A copy: asyncpg keeps what it is given, and the buffer is used again.
        data = bytes(self._buffer[:nbytes])
        if self.answers is not None:
            data = self.answers.taken_from(data)
            if not data:
                return
        self._protocol.data_received(data)

    def eof_received(self) -> bool | None:
        keep_open: bool | None = self._protocol.eof_received()
        return keep_open

    def connection_lost(self, error: Exception | None) -> None:
        self._protocol.connection_lost(error)

    def pause_writing(self) -> None:
        self._protocol.pause_writing()

    def resume_writing(self) -> None:
        self._protocol.resume_writing()


class _Greeting(asyncio.Protocol):
    """Hands asyncpg's protocol our transport instead of the real one."""

    def __init__(self, make: Callable[[], Any]) -> None:
        self._make = make
        self.protocol: Any = None
        self.transport: Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.protocol = self._make()
        self.transport = Transport(transport)
        self.transport.set_protocol(self.protocol)
        self.protocol.connection_made(self.transport)


class ConnectingLoop:
    """Stands for an event loop while asyncpg connects, whose transports it replaces by ours.

    Those of uvloop take no other `write`.

    Attributes:
        loop: The event loop.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop

    def __getattr__(self, name: str) -> Any:
        return getattr(self.loop, name)

    async def create_connection(
        self, make: Callable[[], Any], *args: Any, **options: Any
    ) -> tuple[Transport, Any]:
        """Connect as the loop does."""
        _, greeting = await self.loop.create_connection(lambda: _Greeting(make), *args, **options)
        return greeting.transport, greeting.protocol

    async def create_unix_connection(
        self, make: Callable[[], Any], *args: Any, **options: Any
    ) -> tuple[Transport, Any]:
        """Connect as the loop does."""
        _, greeting = await self.loop.create_unix_connection(
            lambda: _Greeting(make), *args, **options
        )
        return greeting.transport, greeting.protocol

    async def start_tls(self, transport: Transport, *args: Any, **options: Any) -> Transport | None:
        """Encrypt as the loop does."""
        encrypted = await self.loop.start_tls(transport.real, *args, **options)
        return None if encrypted is None else Transport(encrypted)
