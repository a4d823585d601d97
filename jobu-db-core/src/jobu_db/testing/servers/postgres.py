"""Private PostgreSQL servers, from programs on this machine."""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path

from jobu_db.testing.servers import given, wire
from jobu_db.testing.servers.private import PASSWORD, USER, PrivateServer
from jobu_db.testing.servers.server import Server

# Where Debian, Red Hat and Homebrew keep what they leave out of PATH.
FOLDERS = (
    "/usr/lib/postgresql/*/bin",
    "/usr/pgsql-*/bin",
    "/opt/homebrew/opt/postgresql*/bin",
    "/usr/local/opt/postgresql*/bin",
)


def find_programs() -> list[Path]:
    """Return folders with PostgreSQL's programs: those named in JOBU_TEST_POSTGRES_BIN
    (separated as in PATH), and the newest one installed."""
    installed = [path for pattern in FOLDERS for path in Path("/").glob(pattern[1:])]
    if on_path := shutil.which("postgres"):
        installed.append(Path(on_path).resolve().parent)
    usable = [
        path for path in installed if (path / "postgres").exists() and (path / "initdb").exists()
    ]
    newest = sorted(usable, key=lambda path: version_key(version(path)))[-1:]
    return list(dict.fromkeys([*newest, *given.named_folders("postgres")]))


def version(programs: Path) -> str:
    """Return the version of the programs in a folder, such as "15.18"."""
    told = subprocess.run(
        [programs / "postgres", "--version"], capture_output=True, text=True, check=True
    )
    return told.stdout.split()[2]


def version_key(text: str) -> tuple[int, ...]:
    """Order versions: 9.6 before 15.2 before 15.10."""
    return tuple(int(number) for number in re.findall(r"\d+", text)[:2])


class PrivatePostgres(PrivateServer):
    """One throw-away PostgreSQL server. Its user `jobu` is a superuser."""

    account = "postgres"
    polite_signal = signal.SIGINT  # SIGTERM would wait for clients to leave

    def __init__(
        self,
        programs: Path,
        settings: dict[str, str] | None = None,
        files: dict[str, str] | None = None,
    ) -> None:
        self.programs = programs
        super().__init__(settings, files)

    def initialize(self) -> None:
        self.create_once(self.programs, self._initdb)

    def _initdb(self) -> None:
        self._lay("password", PASSWORD)
        self.run(
            str(self.programs / "initdb"), "--no-sync", "--no-locale", "--encoding=UTF8",
            f"--username={USER}", "--pwfile=password", "--auth=scram-sha-256",
            f"--pgdata={self.folder / 'data'}",
        )  # fmt: skip

    def command(self) -> Sequence[str]:
        # A crash of the server alone loses nothing without fsync; a crash of the machine may.
        settings = {"fsync": "off", "max_prepared_transactions": "100", **self.settings}
        return [
            str(self.programs / "postgres"), "-D", str(self.folder / "data"),
            "-h", "127.0.0.1", "-p", str(self.port), "-k", str(self.folder),
            *(part for name, value in settings.items() for part in ("-c", f"{name}={value}")),
        ]  # fmt: skip

    def answers(self) -> bool:
        # Through the socket in its folder: on the port, a stranger might answer.
        return wire.postgres_answers(str(self.folder / f".s.PGSQL.{self.port}"))

    def server(self) -> Server:
        """Describe it to the tests."""
        return Server(
            url=f"postgresql://{USER}:{PASSWORD}@127.0.0.1:{self.port}/postgres",
            kind="postgres",
            version=version(self.programs),
            source=f"private, {self.programs}",
            control=self,
            socket=str(self.folder),
            close=self.close,
        )


class PrivateStandby(PrivatePostgres):
    """Follows a private server, by streaming replication.

    Begins with a copy made while that one was down: not every installation has pg_basebackup.
    """

    def __init__(self, primary: PrivatePostgres, settings: dict[str, str] | None = None) -> None:
        self._primary = primary
        follows = {
            "primary_conninfo": primary.server().url,
            "wal_retrieve_retry_interval": "200ms",
            **(settings or {}),
        }
        super().__init__(primary.programs, follows)

    def initialize(self) -> None:
        data = self.folder / "data"
        self._primary.stop()
        shutil.copytree(self._primary.folder / "data", data)
        (data / "standby.signal").touch()
        for path in (data, *data.rglob("*")):
            self._own(path)
        self._primary.start()
