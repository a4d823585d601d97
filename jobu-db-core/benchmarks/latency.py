"""A network of a given latency: a proxy in a process of its own, which delays every byte.

    python latency.py HOST PORT SECONDS     prints the port it listens on, and serves until its
                                            standard input is closed

Threads, since an event loop's timers are too coarse for half a millisecond.
"""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from queue import SimpleQueue
from urllib.parse import urlsplit, urlunsplit

_CHUNK = 1 << 18

Delayed = SimpleQueue[tuple[float, bytes]]


@contextmanager
def behind(url: str, milliseconds: float) -> Iterator[str]:
    """Yield the URL of the same database, with a round trip that takes so much longer."""
    parts = urlsplit(url)
    program = [sys.executable, str(Path(__file__)), str(parts.hostname), str(parts.port),
               str(milliseconds / 2000)]  # fmt: skip
    with subprocess.Popen(program, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as proxy:
        assert proxy.stdin is not None
        assert proxy.stdout is not None
        port = int(proxy.stdout.readline())
        login = parts.netloc.rpartition("@")[0]
        yield urlunsplit(parts._replace(netloc=f"{login}@127.0.0.1:{port}"))
        proxy.stdin.close()


def serve(host: str, port: int, delay: float) -> None:
    """Accept connections, and forward what they send."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=200)
    print(listener.getsockname()[1], flush=True)
    threading.Thread(target=_accept, args=(listener, (host, port), delay), daemon=True).start()
    sys.stdin.read()


def _accept(listener: socket.socket, target: tuple[str, int], delay: float) -> None:
    while True:
        client, _ = listener.accept()
        server = socket.create_connection(target)
        for peer in (client, server):
            peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for source, sink in ((client, server), (server, client)):
            queue: Delayed = SimpleQueue()
            for work in (_receive, _send):
                peer = source if work is _receive else sink
                threading.Thread(target=work, args=(peer, queue, delay), daemon=True).start()


def _receive(source: socket.socket, queue: Delayed, delay: float) -> None:
    data = b"more"
    while data:
        try:
            data = source.recv(_CHUNK)
        except OSError:
            data = b""
        queue.put((time.monotonic() + delay, data))


def _send(sink: socket.socket, queue: Delayed, delay: float) -> None:
    with suppress(OSError):
        while True:
            due, data = queue.get()
            if (left := due - time.monotonic()) > 0:
                time.sleep(left)
            if not data:
                break
            sink.sendall(data)
    with suppress(OSError):
        sink.shutdown(socket.SHUT_WR)


if __name__ == "__main__":
    serve(sys.argv[1], int(sys.argv[2]), float(sys.argv[3]))
