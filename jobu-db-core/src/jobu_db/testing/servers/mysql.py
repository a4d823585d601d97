"""Private MySQL and MariaDB servers, from programs on this machine."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from jobu_db.testing.servers import given, wire
from jobu_db.testing.servers.private import PASSWORD, USER, PrivateServer
from jobu_db.testing.servers.server import Server

# Servers are often outside a user's PATH.
FOLDERS = ("/usr/sbin", "/usr/local/sbin", "/usr/libexec", "/usr/local/mysql/bin")


def find_programs() -> list[Path]:
    """Return the server programs on this machine: at most one of MariaDB and one of MySQL.

    Looked for first in the folders named in JOBU_TEST_MYSQL_BIN (separated as in PATH).
    """
    usual = os.environ.get("PATH", os.defpath)
    path = os.pathsep.join([*map(str, given.named_folders("mysql")), usual, *FOLDERS])
    by_kind: dict[str, Path] = {}
    for name in ("mariadbd", "mysqld"):
        if program := shutil.which(name, path=path):
            by_kind.setdefault(identify(Path(program))[0], Path(program).resolve())
    return list(by_kind.values())


def identify(program: Path) -> tuple[Literal["mysql", "mariadb"], str]:
    """Return kind and version of a server program: MariaDB calls itself mysqld too."""
    told = subprocess.run([program, "--version"], capture_output=True, text=True, check=True).stdout
    number = re.search(r"Ver (\d+\.\d+\.\d+)", told)
    return "mariadb" if "MariaDB" in told else "mysql", number[1] if number else ""


class PrivateMySQL(PrivateServer):
    """One throw-away MySQL or MariaDB server. Its user `jobu` may do everything."""

    account = "mysql"

    def __init__(
        self,
        program: Path,
        settings: dict[str, str] | None = None,
        files: dict[str, str] | None = None,
    ) -> None:
        self.program = program
        self.kind, self.version = identify(program)
        super().__init__(settings, files)

    def initialize(self) -> None:
        # Run at every start, before connections are taken. The nameless users, which
        # MariaDB creates, would win over `jobu` on the socket.
        self._lay(
            "init.sql",
            "DROP USER IF EXISTS ''@'localhost';\n"
            f"CREATE USER IF NOT EXISTS '{USER}'@'%' IDENTIFIED BY '{PASSWORD}';\n"
            f"GRANT ALL ON *.* TO '{USER}'@'%' WITH GRANT OPTION;\n"
            "CREATE DATABASE IF NOT EXISTS jobu;\n",
        )
        self.create_once(self.program, self._install)
        # The data may be a copy, and each server needs an identity of its own to be replicated.
        (self.folder / "data" / "auto.cnf").unlink(missing_ok=True)

    def _install(self) -> None:
        data = f"--datadir={self.folder / 'data'}"
        if self.kind == "mysql":
            return self.run(str(self.program), "--no-defaults", "--initialize-insecure", data)
        installer = self.program.with_name("mariadb-install-db")
        found = installer if installer.exists() else shutil.which("mariadb-install-db")
        return self.run(
            str(found or "mariadb-install-db"), "--no-defaults", "--skip-test-db",
            "--auth-root-authentication-method=normal", data,
        )  # fmt: skip

    def command(self) -> Sequence[str]:
        # Synced at each commit: atomic units are refused otherwise.
        settings = {
            "innodb-flush-log-at-trx-commit": "1",
            "innodb-buffer-pool-size": "64M",
            "max-connections": "300",
            "secure-file-priv": "",  # Debian's default names a folder that may not exist
            **self.settings,
        }
        return [
            str(self.program), "--no-defaults", f"--datadir={self.folder / 'data'}",
            "--bind-address=127.0.0.1", f"--port={self.port}", f"--socket={self._socket}",
            f"--pid-file={self.folder / 'data' / 'server.pid'}",
            f"--init-file={self.folder / 'init.sql'}", "--skip-log-bin", "--skip-name-resolve",
            *(("--mysqlx=OFF",) if self.kind == "mysql" else ()),
            *(f"--{name}={value}" for name, value in settings.items()),
        ]  # fmt: skip

    @property
    def _socket(self) -> str:
        return str(self.folder / "socket")

    def answers(self) -> bool:
        # Through the socket in its folder: on the port, a stranger might answer.
        return bool(wire.mysql_version(self._socket))

    def server(self) -> Server:
        """Describe it to the tests."""
        return Server(
            url=f"mysql://{USER}:{PASSWORD}@127.0.0.1:{self.port}/jobu",
            kind=self.kind,
            version=self.version,
            source=f"private, {self.program}",
            control=self,
            socket=self._socket,
            close=self.close,
        )
