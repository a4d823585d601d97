"""Servers of one fixed answer, for tests of how servers are found."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

GREETING = b"\x4a\0\0\0\x0a5.5.5-10.11.6-MariaDB\0rest of the packet"


@pytest.fixture
def greeting() -> bytes:
    """How MariaDB 10.11.6 greets."""
    return GREETING


@pytest.fixture
def listen() -> Iterator[Callable[[bytes], int]]:
    """Return a function that starts a server with one fixed answer, and returns its port."""
    listeners: list[socket.socket] = []

    def start(answer: bytes) -> int:
        listener = socket.create_server(("127.0.0.1", 0))
        listeners.append(listener)
        threading.Thread(target=_answer, args=(listener, answer), daemon=True).start()
        port: int = listener.getsockname()[1]
        return port

    yield start
    for listener in listeners:
        listener.shutdown(socket.SHUT_RDWR)  # wakes the thread, which closing alone does not
        listener.close()


def _answer(listener: socket.socket, answer: bytes) -> None:
    while True:
        try:
            peer, _ = listener.accept()
        except OSError:
            return
        with peer:
            peer.sendall(answer)
            peer.recv(512)


@pytest.fixture
def program() -> Callable[[Path, str], Path]:
    """Return a function that writes a shell script."""

    def write(path: Path, text: str) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)
        return path

    return write
