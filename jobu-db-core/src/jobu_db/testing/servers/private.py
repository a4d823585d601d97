"""Private throw-away servers: on a free loopback port, in a folder of their own.

Invariant: when the process that started one is gone, however it went, so are the server and its
folder. A keeper process sees to that (`processes.py`); closing politely is the same path.
"""

from __future__ import annotations

import functools
import os
import pwd
import random
import socket
import subprocess
import sys
import tempfile
from abc import abstractmethod
from collections.abc import Callable, Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

from jobu_db.testing.servers import processes
from jobu_db.testing.servers.server import START_SECONDS, Control, ServerError

USER, PASSWORD = "jobu", "jobu_dev"


def free_port() -> int:
    """Return a loopback port that nothing listens on, below the range that clients are given."""
    while True:
        # At random, since several processes look for ports at the same time, and none holds the one
        # that it found until its server has started.
        port = random.randint(15000, 32000)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        return port


def keep(folder: Path, *command: str) -> subprocess.Popen[bytes]:
    """Start the keeper of a folder; it acts once its standard input is closed."""
    return subprocess.Popen(
        [sys.executable, processes.__file__, str(folder), *command],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        start_new_session=True,  # so that Ctrl-C in the terminal doesn't reach it
    )


def dismiss(keeper: subprocess.Popen[bytes]) -> None:
    """Let the keeper do its work and wait for it."""
    keeper.communicate(timeout=120)


@functools.cache
def _pristine(key: Hashable) -> Path:
    """Return a folder for what a program has created; it goes when this process does."""
    folder = Path(tempfile.mkdtemp(prefix="jobu-db-", dir="/tmp"))
    _keepers.append(keep(folder))
    return folder


_keepers: list[subprocess.Popen[bytes]] = []


class PrivateServer(Control):
    """A server program that runs for this process alone."""

    account: str
    """The user who runs it where this process is root, as which the programs refuse to run. If
    there is no such user, it is `nobody`; the data stay with the user who made them."""

    def __init__(
        self, settings: Mapping[str, str] | None = None, files: Mapping[str, str] | None = None
    ) -> None:
        """Create its data and start it.

        Args:
            settings: Server settings by name, added to the usual ones.
            files: Texts by file name, laid beside the data folder, so that a setting reaches
                them as `../NAME`; readable by the server alone, as keys must be.
        """
        self.settings = dict(settings or {})
        # Not under TMPDIR: a socket's path is limited to about 100 characters.
        self.folder = Path(tempfile.mkdtemp(prefix="jobu-db-", dir="/tmp"))
        self._keeper = keep(self.folder)
        self._process: subprocess.Popen[bytes] | None = None
        self._user = self._find_user() if os.geteuid() == 0 else None
        try:
            for name, text in (files or {}).items():
                self._lay(name, text)
            # Before anything is created inside by the server's user.
            self._own(self.folder)
            self.initialize()
            self._start_on_free_port()
        except BaseException:
            self.close()
            raise

    # -- what differs

    @abstractmethod
    def initialize(self) -> None:
        """Create the data folder, with `run`."""

    @abstractmethod
    def command(self) -> Sequence[str]:
        """Return the command that runs the server in the foreground on `port`."""

    # -- control

    @property
    def pid(self) -> int:
        if self._process is None or self._process.poll() is not None:
            raise ServerError(f"{self.command()[0]} doesn't run:\n{self.log()}")
        return self._process.pid

    def start(self) -> None:
        self._process = self._spawn(self.command(), self.folder / "data")
        self.wait_until_it_answers()

    def stop(self) -> None:
        super().stop()
        self._forget()

    def kill(self) -> None:
        super().kill()
        self._forget()

    def close(self) -> None:
        """End it and delete its folder."""
        dismiss(self._keeper)
        if self._process is not None:
            self._process.wait(timeout=10)

    def log(self) -> str:
        """Return the first and last lines of its log: some programs begin with what is wrong."""
        path = self.folder / "log"
        lines = path.read_text(errors="replace").splitlines() if path.exists() else []
        return "\n".join(lines if len(lines) <= 30 else [*lines[:15], "...", *lines[-15:]])

    # -- inside

    def create_once(self, program: Path, create: Callable[[], None]) -> None:
        """Create the data folder, or copy what the same program has created before: some need
        seconds of a processor for it."""
        # By user as well: the files belong to the one who made them.
        kept = _pristine((program, self._user and self._user.pw_uid)) / "data"
        if not kept.exists():
            create()
            part = kept.with_name("part")
            subprocess.run(["cp", "-a", str(self.folder / "data"), str(part)], check=True)
            # Under its name only once it is whole: a copy that was cut short is never taken for
            # one.
            part.rename(kept)
        else:
            subprocess.run(["cp", "-a", str(kept), str(self.folder / "data")], check=True)

    def run(self, *command: str) -> None:
        """Run a program that prepares the data folder, as the server's user."""
        self._process = self._spawn(command, self.folder)
        if self._process.wait(timeout=START_SECONDS):
            raise ServerError(f"{command[0]} fails:\n{self.log()}")
        self._forget()

    def _spawn(self, command: Sequence[str], folder: Path) -> subprocess.Popen[bytes]:
        try:
            with (self.folder / "log").open("ab") as log:
                process = subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    cwd=folder,
                    # When it starts, MariaDB deletes what others have in a temporary folder.
                    env={**os.environ, "TMPDIR": str(self.folder)},
                    start_new_session=True,
                    **self._identity(),
                )
        except PermissionError as error:
            user = self._user.pw_name if self._user else "of the tests"
            raise ServerError(f"the user {user} may not run {command[0]}") from error
        (self.folder / processes.PID_FILE).write_text(str(process.pid))
        return process

    def _start_on_free_port(self) -> None:
        for _ in range(5):
            self.port = free_port()
            try:
                self.start()
            except ServerError:
                # Somebody may have taken the port between the look and the start.
                if not self._port_was_taken():
                    raise
            else:
                return
        raise ServerError(f"no free port found:\n{self.log()}")

    def _port_was_taken(self) -> bool:
        return any(
            word in self.log().lower() for word in ("address already in use", "bind on tcp/ip")
        )

    def _lay(self, name: str, text: str) -> None:
        path = self.folder / name
        path.touch(mode=0o600)
        path.write_text(text)
        self._own(path)

    def _own(self, path: Path) -> None:
        if self._user:
            os.chown(path, self._user.pw_uid, self._user.pw_gid)

    def _identity(self) -> dict[str, Any]:
        """How a child process becomes the server's user."""
        if not self._user:
            return {}
        return {"user": self._user.pw_uid, "group": self._user.pw_gid, "extra_groups": []}

    def _find_user(self) -> pwd.struct_passwd:
        try:
            return pwd.getpwnam(self.account)
        except KeyError:
            return pwd.getpwnam("nobody")

    def _forget(self) -> None:
        """The keeper must not end a stranger who is given the same process id later."""
        (self.folder / processes.PID_FILE).unlink(missing_ok=True)
        if self._process is not None:
            self._process.wait(timeout=10)
