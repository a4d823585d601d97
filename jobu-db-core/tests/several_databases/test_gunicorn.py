"""gunicorn's `preload_app`: the master opens a database and begins, then it forks its workers."""

from __future__ import annotations

import http.client
import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from .conftest import MYSQL, POSTGRES, SQLITE, World, type_of

LIMIT = 60.0

pytestmark = [
    pytest.mark.one_server,
    pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork"),
]


class Gunicorn:
    """The program, and the port at which it answers."""

    def __init__(self, program: subprocess.Popen[str], port: int) -> None:
        self._program = program
        self._port = port

    def ask(self, path: str) -> tuple[int, str]:
        """Say which worker answered, and what."""
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=LIMIT)
        try:
            connection.request("GET", path)
            worker, told = json.loads(connection.getresponse().read())
        finally:
            connection.close()
        return worker, told

    def end(self) -> tuple[str, str]:
        """End it as a service manager does; return what it printed."""
        self._program.terminate()
        return self._program.communicate(timeout=LIMIT)


@contextmanager
def gunicorn(kind: str, settings: dict[str, Any]) -> Iterator[Gunicorn]:
    here = Path(__file__).parent
    with socket.create_server(("127.0.0.1", 0)) as listening:
        number, port = listening.fileno(), listening.getsockname()[1]
        environment = {
            **os.environ,
            "JOBU_APP_BIND": f"fd://{number}",
            "JOBU_APP_DATABASE": json.dumps([type_of(kind), settings]),
        }
        program = subprocess.Popen(
            [sys.executable, "-m", "gunicorn", "--config", "python:gunicorn_app"],
            cwd=here,
            env=environment,
            pass_fds=[number],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
    try:
        yield Gunicorn(program, port)
    finally:
        program.kill()
        program.communicate()


@pytest.mark.parametrize("kind", [SQLITE, POSTGRES, MYSQL])
def test_workers_are_refused_what_the_master_opened(world: World, kind: str) -> None:
    with gunicorn(kind, world.direct(kind)) as server:
        for path in ("/inherited/91", "/suspended/92"):
            _, told = server.ask(path)
            assert "open it after the fork" in told
        _, told = server.ask("/own/3")
        if kind == SQLITE:
            assert "parent's locks" in told  # what is committed could be lost
        else:
            assert told == "written"
        printed, log = server.end()
    assert printed == ("[1, 2]\n" if kind == SQLITE else "[1, 2, 3]\n"), log
