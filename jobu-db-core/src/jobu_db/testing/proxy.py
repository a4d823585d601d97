"""A TCP proxy that counts round trips and breaks the network on demand, for tests.

    async with TcpProxy("127.0.0.1", 5432) as proxy:
        ...                                # connect to proxy.host, proxy.port
        with proxy.counting() as trips:
            await connection.execute("SELECT 1")
        assert trips.count == 1
        proxy.cut_at(b"COMMIT", answered=True)   # the server commits, the client never hears of it

The proxy reads the bytes as they are: on an encrypted connection `cut_at` finds nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import TracebackType

_CHUNK = 65536


@dataclass
class RoundTrips:
    """Round trips seen while `TcpProxy.counting` was active."""

    count: int = 0


@dataclass(frozen=True)
class _Trap:
    """A fault that waits for a request."""

    pattern: bytes
    answered: bool
    stall: bool


class TcpProxy:
    """Forwards TCP connections to `target_host:target_port`.

    A round trip is a burst of bytes from a client, however many packets it takes, that follows
    something the server sent (or the connection's beginning).

    Attributes:
        host: Where to connect to.
        port: The same; free for others while the proxy refuses connections.
        round_trips: All round trips since the start, over all connections.
        accepted: Connections accepted since the start.
    """

    def __init__(self, target_host: str, target_port: int, *, host: str = "127.0.0.1") -> None:
        self.host = host
        self.port = 0
        self.round_trips = 0
        self.accepted = 0
        self._target = (target_host, target_port)
        self._server: asyncio.Server | None = None
        self._links: set[_Link] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._trap: _Trap | None = None
        self._sprung = asyncio.Event()
        self._closing = False

    async def __aenter__(self) -> TcpProxy:
        await self.accept()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._closing = True
        await self.refuse()
        self.cut()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    @property
    def connections(self) -> int:
        """Connections that are open now."""
        return len(self._links)

    @contextlib.contextmanager
    def counting(self) -> Iterator[RoundTrips]:
        """Count the round trips made inside the block; `count` is final when it is left."""
        trips = RoundTrips()
        before = self.round_trips
        try:
            yield trips
        finally:
            trips.count = self.round_trips - before

    # -- faults

    def lead_to(self, host: str, port: int) -> None:
        """Forward to another server from the next connection on, as a name does in a failover."""
        self._target = (host, port)

    async def refuse(self) -> None:
        """Refuse new connections; open ones go on. `accept` undoes it."""
        server, self._server = self._server, None
        if server is not None:
            # Without wait_closed(), which from Python 3.12 on waits for the open connections as
            # well.
            server.close()

    async def accept(self) -> None:
        """Accept connections, on the same port as before."""
        if self._server is None:
            self._server = await asyncio.start_server(self._serve, self.host, self.port)
            self.port = self._server.sockets[0].getsockname()[1]

    def cut(self) -> None:
        """Close every open connection, on both sides, at once."""
        for link in list(self._links):
            link.cut()

    def stall(self) -> None:
        """Deliver nothing more, in either direction, and close nothing: a silent network.

        New connections are accepted and stay silent too. `resume` delivers what was held back.
        """
        self._flowing.clear()

    def resume(self) -> None:
        """End `stall`."""
        self._flowing.set()

    def cut_at(self, pattern: bytes, *, answered: bool) -> None:
        """Cut the connection of the next request that contains `pattern`, once.

        Args:
            pattern: Bytes of the request, as they are on the wire.
            answered: True lets the server receive and answer it, and loses the answer; with False
                the request never reaches the server.
        """
        self._set_trap(_Trap(pattern, answered, stall=False))

    def stall_at(self, pattern: bytes, *, answered: bool) -> None:
        """Like `cut_at`, but fall silent, as by `stall`, instead of closing."""
        self._set_trap(_Trap(pattern, answered, stall=True))

    def disarm(self) -> None:
        """Forget the fault set by `cut_at` or `stall_at`, unless it has happened."""
        self._trap = None
        for link in self._links:
            link.disarm()

    @property
    def has_sprung(self) -> bool:
        """True once the fault set by `cut_at` or `stall_at` has happened."""
        return self._sprung.is_set()

    async def sprung(self) -> None:
        """Wait until the fault set by `cut_at` or `stall_at` has happened."""
        await self._sprung.wait()

    # -- inside

    def _set_trap(self, trap: _Trap) -> None:
        self._trap = trap
        self._sprung.clear()

    def _spring(self, link: _Link, trap: _Trap) -> None:
        if trap.stall:
            self.stall()
        else:
            link.cut()
        self._sprung.set()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        link = _Link(self, writer)
        self._links.add(link)
        try:
            await link.run(reader, *self._target)
        except asyncio.CancelledError:
            if not self._closing:  # otherwise it is ours, and asyncio would log it
                raise
        finally:
            self._links.discard(link)
            self._tasks.discard(task)
            link.cut()


class _Link:
    """One client connection and its counterpart to the server."""

    def __init__(self, proxy: TcpProxy, client: asyncio.StreamWriter) -> None:
        self._proxy = proxy
        self._client = client
        self._server: asyncio.StreamWriter | None = None
        self._client_spoke_last = False
        self._trap: _Trap | None = None

    def cut(self) -> None:
        for writer in (self._client, self._server):
            if writer is not None:
                # Not close(), which would first deliver what is still under way.
                writer.transport.abort()

    def disarm(self) -> None:
        self._trap = None

    async def run(self, client: asyncio.StreamReader, host: str, port: int) -> None:
        await self._proxy._flowing.wait()
        try:
            server, self._server = await asyncio.open_connection(host, port)
        except OSError:
            # To the client a server that is not there looks as it would without the proxy,
            # one round trip later: the connection closes before any answer.
            return
        await asyncio.gather(
            self._pump(client, self._server, self._note_request),
            self._pump(server, self._client, self._note_answer),
        )

    async def _pump(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        note: Callable[[bytes], None],
    ) -> None:
        flowing = self._proxy._flowing
        with contextlib.suppress(OSError):  # either end may vanish at any time
            while data := await reader.read(_CHUNK):
                # Before it is forwarded, and before the wait: it may be what springs a trap, and is
                # then the first that is held back, or lost.
                note(data)
                await flowing.wait()
                writer.write(data)
                await writer.drain()
        # A silent network delivers no end of a connection, either.
        await flowing.wait()
        writer.close()

    def _note_request(self, data: bytes) -> None:
        proxy = self._proxy
        if not self._client_spoke_last:
            self._client_spoke_last = True
            proxy.round_trips += 1
        trap = proxy._trap
        # Looked for in what one read brings: a pattern that is cut in two is missed. Requests are
        # short.
        if trap is None or trap.pattern not in data:
            return
        proxy._trap = None
        if trap.answered:
            self._trap = trap
        else:
            proxy._spring(self, trap)

    def _note_answer(self, data: bytes) -> None:
        self._client_spoke_last = False
        if self._trap is not None:
            trap, self._trap = self._trap, None
            self._proxy._spring(self, trap)
