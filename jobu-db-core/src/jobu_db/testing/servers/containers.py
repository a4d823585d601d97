"""Servers in containers of their own, where a Docker engine runs.

They come from the developer's compose file, under a project name, a port and volumes of their
own: nothing of the developer's is touched, and the volumes go with the containers.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import uuid
from pathlib import Path

from jobu_db.testing.servers import wire
from jobu_db.testing.servers.private import dismiss, free_port, keep
from jobu_db.testing.servers.server import Control, Kind, Server, ServerError

PORT_VARIABLES: dict[Kind, str] = {"postgres": "JOBU_POSTGRES_PORT", "mysql": "JOBU_MYSQL_PORT"}
# Those of the compose file who may create databases.
LOGINS: dict[Kind, str] = {
    "postgres": "postgresql://jobu:jobu_dev",
    "mysql": "mysql://root:root_dev",
}


def engine_runs() -> bool:
    """Say whether a Docker engine answers, and the client knows `docker compose`."""
    if not shutil.which("docker"):
        return False
    try:
        return all(
            subprocess.run(command, capture_output=True, timeout=10).returncode == 0
            for command in (["docker", "info"], ["docker", "compose", "version"])
        )
    except subprocess.TimeoutExpired:
        return False


class Container(Control):
    """One service of the compose file, in a project of its own."""

    def __init__(self, kind: Kind, compose_file: Path) -> None:
        self.kind, self.port = kind, free_port()
        self._compose = [
            "docker", "compose", "--project-name", f"jobu-db-test-{uuid.uuid4().hex[:8]}",
            "--file", str(compose_file),
        ]  # fmt: skip
        folder = Path(tempfile.mkdtemp(prefix="jobu-db-"))
        # Before it is started: whatever happens from here on, the keeper takes it down.
        self._keeper = keep(folder, *self._compose, "down", "--volumes", "--timeout", "5")
        try:
            self._run("up", "--detach", "--wait", kind)
        except BaseException:
            self.close()
            raise

    @property
    def pid(self) -> int:
        identity = self._run("ps", "--quiet", self.kind).strip()
        inspect = ["docker", "inspect", "--format", "{{.State.Pid}}", identity]
        told = subprocess.run(inspect, capture_output=True, text=True, check=True)
        return int(told.stdout)

    def answers(self) -> bool:
        address = ("127.0.0.1", self.port)
        if self.kind == "mysql":
            return bool(wire.mysql_version(address))
        return wire.postgres_answers(address)

    def start(self) -> None:
        self._run("up", "--detach", "--wait", self.kind)

    def stop(self) -> None:
        self._run("stop", self.kind)

    def kill(self) -> None:
        self._run("kill", self.kind)

    def pause(self) -> None:
        self._run("pause", self.kind)

    def resume(self) -> None:
        self._run("unpause", self.kind)

    def heal(self) -> None:
        state = self._run("ps", "--all", "--format", "{{.State}}", self.kind).strip()
        if state == "paused":
            self.resume()
        if state in ("paused", "running"):
            # Not by its health: of a pause the engine remembers checks that failed.
            self.wait_until_it_answers()
        else:
            self.start()

    def close(self) -> None:
        """Take the container down, with its volumes."""
        dismiss(self._keeper)

    def server(self) -> Server:
        """Describe it to the tests."""
        url = f"{LOGINS[self.kind]}@127.0.0.1:{self.port}/jobu"
        version = wire.mysql_version(("127.0.0.1", self.port)) if self.kind == "mysql" else ""
        return Server(url, self.kind, version, "container", control=self, close=self.close)

    def _run(self, *command: str) -> str:
        environment = {**os.environ, PORT_VARIABLES[self.kind]: str(self.port)}
        done = subprocess.run(
            [*self._compose, *command], capture_output=True, text=True, env=environment
        )
        if done.returncode:
            raise ServerError(f"docker compose {command[0]} fails:\n{done.stderr[-2000:]}")
        return done.stdout
