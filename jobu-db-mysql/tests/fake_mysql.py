"""A server that speaks just enough of MySQL's protocol to let nobody in, or anybody."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Sequence
from contextlib import suppress
from threading import Thread
from typing import Any, Self

SALT = bytes(range(65, 85))
OK = b"\0\0\0\2\0\0\0"
SSL = 0x800
CAPABILITIES = 0x00088000 | 0x0200 | 0x0008 | 0x0001 | 0x2000
"""PLUGIN_AUTH, SECURE_CONNECTION, PROTOCOL_41, CONNECT_WITH_DB, LONG_PASSWORD, TRANSACTIONS."""


def packet(number: int, payload: bytes) -> bytes:
    return len(payload).to_bytes(3, "little") + bytes([number & 255]) + payload


def handshake(plugin: str, capabilities: int = CAPABILITIES) -> bytes:
    return b"".join(
        [
            b"\x0a9.0.0-fake\0", (7).to_bytes(4, "little"), SALT[:8], b"\0",
            (capabilities & 0xFFFF).to_bytes(2, "little"), b"\x2d\x02\0",
            (capabilities >> 16).to_bytes(2, "little"), bytes([21]), bytes(10), SALT[8:], b"\0",
            plugin.encode(), b"\0",
        ]
    )  # fmt: skip


def switch(plugin: str, data: bytes = SALT + b"\0") -> bytes:
    """A request to prove the password by another plugin."""
    return b"\xfe" + plugin.encode() + b"\0" + data


class FakeMySQL:
    """Says its lines, whatever it hears; what it heard is in `heard`.

    It reads no byte ahead, so that encryption may begin anywhere: thus threads, not streams.

    Args:
        lines: What it sends, one packet after each of the client's.
        plugin: How it begins to log in.
        tls: To be used if the client wants to.
    """

    def __init__(
        self,
        *lines: bytes,
        plugin: str = "caching_sha2_password",
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.lines: Sequence[bytes] = lines
        self.plugin = plugin
        self.tls = tls
        self.heard: list[bytes] = []

    async def __aenter__(self) -> Self:
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = self._listening.getsockname()[1]
        self._thread = Thread(target=self._listen, daemon=True)
        self._thread.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()

    @property
    def settings(self) -> dict[str, Any]:
        return {
            "type": "mysql", "host": "127.0.0.1", "port": self.port, "user": "somebody",
            "password": "the secret password", "database": "jobu",
        }  # fmt: skip

    @property
    def all_heard(self) -> bytes:
        return b"|".join(self.heard)

    def _listen(self) -> None:
        with suppress(OSError):  # it is closed
            while True:
                client, _ = self._listening.accept()
                Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        client.settimeout(30)
        with suppress(OSError, EOFError), client:  # the client has had enough
            self.talk(client)

    def talk(self, client: socket.socket) -> None:
        capabilities = CAPABILITIES | (SSL if self.tls else 0)
        client.sendall(packet(0, handshake(self.plugin, capabilities)))
        number = self._hear(client)
        if self.tls and len(self.heard[-1]) == 32:
            client = self.tls.wrap_socket(client, server_side=True)
            number = self._hear(client)
        for line in self.lines:
            client.sendall(packet(number + 1, line))
            number = self._hear(client)
        self._hear(client)

    def _hear(self, client: socket.socket) -> int:
        head = _receive(client, 4)
        self.heard.append(_receive(client, int.from_bytes(head[:3], "little")))
        return head[3]


def _receive(client: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        more = client.recv(size - len(data))
        if not more:
            raise EOFError
        data += more
    return data
