"""One process starts servers, and others that work for it use them too.

The others ask over a connection on the loopback interface, which takes a secret to open. What
they are given has no `control`, and they cannot close it: the servers end with the process that
started them.
"""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable
from dataclasses import replace
from multiprocessing import AuthenticationError
from multiprocessing.connection import Client, Connection, Listener

from jobu_db.testing.servers.find import Candidate
from jobu_db.testing.servers.server import Server, ServerError, nothing_to_close

Address = tuple[str, int, bytes]
"""Host, port and secret."""


class Lender:
    """Answers other processes that ask for a server.

    Attributes:
        address: What `borrow` needs to reach it.
    """

    def __init__(self, start: Callable[[Candidate], Server]) -> None:
        """Begin to listen.

        Args:
            start: Returns the server of a candidate, and starts it if it doesn't run yet. Called
                in a thread, in several at once if several processes ask. Raises ServerError.
        """
        self._start = start
        self._closed = False
        secret = secrets.token_bytes(32)
        self._listener = Listener(("127.0.0.1", 0), authkey=secret)
        host, port = self._listener.address
        self.address: Address = (host, port, secret)
        threading.Thread(target=self._listen, name="lender", daemon=True).start()

    def close(self) -> None:
        """Answer no more. The servers are closed by the process that started them."""
        self._closed = True
        self._listener.close()

    def _listen(self) -> None:
        while not self._closed:
            try:
                connection = self._listener.accept()
            except (OSError, EOFError, AuthenticationError):
                continue  # closed, or asked by somebody who doesn't know the secret or went away
            threading.Thread(target=self._answer, args=(connection,), daemon=True).start()

    def _answer(self, connection: Connection) -> None:
        with connection:
            answer: Server | ServerError
            try:
                # Without what cannot be pickled, and is not the borrower's: to stop or close a
                # server that other workers use.
                answer = replace(
                    self._start(connection.recv()), control=None, close=nothing_to_close
                )
            except ServerError as error:
                answer = error
            connection.send(answer)


def borrow(candidate: Candidate, address: Address) -> Server:
    """Return the server of a candidate, which another process has started, or starts now.

    Raises:
        ServerError: It cannot be started.
        EOFError: The other process has ended.
    """
    host, port, secret = address
    with Client((host, port), authkey=secret) as connection:
        connection.send(candidate)
        answer = connection.recv()
    if isinstance(answer, ServerError):
        raise answer
    assert isinstance(answer, Server)
    return answer
