"""A database server that tests run against, and what they may do to it."""

from __future__ import annotations

import signal
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal
from urllib.parse import urlsplit

from jobu_db.testing.servers.processes import family, send, wait_gone

Kind = Literal["postgres", "mysql"]
"""What a suite asks for; MariaDB is had by asking for "mysql"."""

TITLES = {"postgres": "PostgreSQL", "mysql": "MySQL", "mariadb": "MariaDB"}


START_SECONDS = 60.0


class ServerError(Exception):
    """There is no such server, or it doesn't start; the message says what to do."""


class Control(ABC):
    """Power over a server. Every call blocks until it has taken effect: call it in a thread
    (`asyncio.to_thread`) where an event loop must go on at the same time."""

    polite_signal = signal.SIGTERM

    @property
    @abstractmethod
    def pid(self) -> int:
        """The id of the server's process. Raises ServerError if it doesn't run."""

    @abstractmethod
    def start(self) -> None:
        """Start it again, with the data it had, and wait until it answers."""

    @abstractmethod
    def answers(self) -> bool:
        """Say whether it takes connections by now."""

    def wait_until_it_answers(self) -> None:
        """Raise ServerError if it ends instead, or takes longer than START_SECONDS."""
        deadline = time.monotonic() + START_SECONDS
        while not self.answers():
            # A server that has ended will not answer: that is told at once, with its log.
            _ = self.pid  # raises if there is none left
            if time.monotonic() > deadline:
                raise ServerError(f"no answer within {START_SECONDS:.0f} seconds")
            time.sleep(0.02)

    def stop(self) -> None:
        """End it politely and wait until it is gone. Its data stay."""
        pids = family(self.pid)
        # It may be paused: then it would not even see the signal that follows.
        send(pids, signal.SIGCONT)
        send(pids[:1], self.polite_signal)
        if not wait_gone(pids, 30):
            raise ServerError(f"process {pids[0]} doesn't stop")

    def restart(self) -> None:
        """Stop it and start it again."""
        self.stop()
        self.start()

    def kill(self) -> None:
        """End it and its children at once (SIGKILL), as a crash would."""
        pids = self._freeze()
        send(pids, signal.SIGKILL)
        if not wait_gone(pids, 10):
            raise ServerError(f"process {pids[0]} survives SIGKILL")

    def pause(self) -> None:
        """Freeze it with all its connections (SIGSTOP): it stays silent, nothing is closed."""
        self._freeze()

    def resume(self) -> None:
        """Let it go on after a pause."""
        send(family(self.pid), signal.SIGCONT)

    def _freeze(self) -> list[int]:
        # The parent first: else it could have one more child by the time the others are stopped.
        send([self.pid], signal.SIGSTOP)
        pids = family(self.pid)
        send(pids, signal.SIGSTOP)
        return pids

    def heal(self) -> None:
        """Make it answer again, whatever a test did to it."""
        try:
            self.resume()
        except ServerError:
            self.start()
        else:
            self.wait_until_it_answers()


def nothing_to_close() -> None:
    """Somebody else ends the server."""


@dataclass
class Server:
    """A running server.

    Attributes:
        url: How to reach it as a user who may create databases, password included.
        kind: "postgres", "mysql" or "mariadb".
        version: As the server tells it; empty where only a login would tell.
        source: Where it comes from, for people.
        control: What stops and starts it, or None where that can't be done.
        socket: PostgreSQL's socket folder or MySQL's socket file, where known.
    """

    url: str
    kind: Literal["postgres", "mysql", "mariadb"]
    version: str
    source: str
    control: Control | None = None
    socket: str | None = None
    close: Callable[[], None] = nothing_to_close

    def describe(self) -> str:
        """Say what it is and where, without the password."""
        address = urlsplit(self.url).netloc.rpartition("@")[2]
        title = f"{TITLES[self.kind]} {self.version}".rstrip()
        return f"{title} at {address} ({self.source})"
