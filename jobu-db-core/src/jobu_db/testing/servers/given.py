"""Servers that somebody else runs, given by URL."""

from __future__ import annotations

import os
import subprocess
import tempfile
from pathlib import Path
from urllib.parse import urlsplit

from jobu_db.testing.servers import wire
from jobu_db.testing.servers.processes import running, wait_reaped
from jobu_db.testing.servers.server import TITLES, Control, Kind, Server, ServerError

DEFAULT_PORTS: dict[Kind, int] = {"postgres": 5432, "mysql": 3306}
# MySQL takes a dead server for a living one until its parent has asked for the exit status.
REAP_SECONDS = 10.0


def variable(kind: Kind, what: str) -> str:
    """Return the name of an environment variable, such as JOBU_TEST_MYSQL_URL."""
    return f"JOBU_TEST_{kind.upper()}_{what}"


def given_urls(kind: Kind) -> list[str]:
    """Return the URLs given for this kind of server, separated by spaces in the environment."""
    return os.environ.get(variable(kind, "URL"), "").split()


def named_folders(kind: Kind) -> list[Path]:
    """Return the folders named for the programs of such servers, separated as in PATH."""
    named = os.environ.get(variable(kind, "BIN"), "").split(os.pathsep)
    return [Path(folder) for folder in named if folder]


def control_program(kind: Kind) -> str | None:
    """Return the program that controls the first URL's server, if there is one."""
    return os.environ.get(variable(kind, "CONTROL")) or None


class ProgramControl(Control):
    """Power over a server through a program that answers `restart` (start again, with the same
    data) and `pid`. Its `start` and `stop` are not used: they may create and delete the data."""

    def __init__(self, program: str, kind: Kind, url: str) -> None:
        self._program, self._kind, self._url = program, kind, url

    @property
    def pid(self) -> int:
        told = self._run("pid").split()
        if not told or not running([int(told[-1])]):
            raise ServerError(f"{self._program} pid names no running process")
        return int(told[-1])

    def stop(self) -> None:
        pid = self.pid
        super().stop()
        wait_reaped(pid, REAP_SECONDS)

    def kill(self) -> None:
        pid = self.pid
        super().kill()
        wait_reaped(pid, REAP_SECONDS)

    def start(self) -> None:
        self._run("restart")
        self.wait_until_it_answers()

    def answers(self) -> bool:
        return greeting(self._kind, self._url) is not None

    def _run(self, command: str) -> str:
        # Into a file: a server started by the program would keep a pipe open.
        with tempfile.TemporaryFile("w+") as output:
            done = subprocess.run(
                [self._program, command],
                stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, timeout=120,
            )  # fmt: skip
            output.seek(0)
            told = output.read()
        if done.returncode:
            raise ServerError(f"{self._program} {command} fails:\n{told[-2000:]}")
        return told


def greeting(kind: Kind, url: str) -> str | None:
    """Return the version that a server tells without a login ("" if none), None if it is silent."""
    parts = urlsplit(url)
    if parts.hostname is None:
        return ""  # a socket, named in a way that is the driver's business
    address = (parts.hostname, parts.port or DEFAULT_PORTS[kind])
    if kind == "mysql":
        return wire.mysql_version(address) or None
    return "" if wire.postgres_answers(address) else None


def given_server(kind: Kind, url: str, program: str | None) -> Server:
    """Describe a server given by URL, once it has answered.

    Raises:
        ServerError: It doesn't answer.
    """
    version = greeting(kind, url)
    source = variable(kind, "URL")
    if version is None:
        address = urlsplit(url).netloc.rpartition("@")[2]
        raise ServerError(f"no {TITLES[kind]} answers at {address}, which {source} names")
    control = ProgramControl(program, kind, url) if program else None
    family = "mariadb" if "MariaDB" in version else kind
    return Server(url, family, version.partition("-")[0], source, control)
