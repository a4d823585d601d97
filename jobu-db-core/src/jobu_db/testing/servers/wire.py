"""Ask a server whether it takes connections, by the first bytes of its protocol, driverless."""

from __future__ import annotations

import socket
import struct

Address = str | tuple[str, int]
"""The path of a Unix socket, or host and port."""


def postgres_answers(address: Address, *, timeout: float = 2.0) -> bool:
    """Say whether PostgreSQL asks for a login there; not so while it starts or recovers."""
    fields = b"user\0jobu\0database\0postgres\0\0"
    startup = struct.pack("!ii", 8 + len(fields), 196608) + fields  # protocol 3.0
    answer = _exchange(address, timeout, startup)
    # 57P03: it starts up, recovers or shuts down. Any other answer comes from a working server.
    return answer != b"" and b"57P03" not in answer


def mysql_version(address: Address, *, timeout: float = 2.0) -> str:
    """Return the version that MySQL or MariaDB greets with; empty if there is no greeting."""
    packet = _exchange(address, timeout, b"")
    if len(packet) < 6 or packet[4] != 10:  # 255 here: an error, such as too many connections
        return ""
    return packet[5 : packet.index(b"\0", 5)].decode("ascii", "replace").removeprefix("5.5.5-")


def _exchange(address: Address, timeout: float, question: bytes) -> bytes:
    """Connect, send, and return the first bytes received; none if there is no such peer."""
    try:
        with _connect(address, timeout) as peer:
            if question:  # sending nothing fails too, if the peer has spoken and closed
                peer.sendall(question)
            return peer.recv(512)
    except OSError:
        return b""


def _connect(address: Address, timeout: float) -> socket.socket:
    if not isinstance(address, str):
        return socket.create_connection(address, timeout)
    peer = socket.socket(socket.AF_UNIX)
    peer.settimeout(timeout)
    try:
        peer.connect(address)
    except OSError:
        peer.close()
        raise
    return peer
