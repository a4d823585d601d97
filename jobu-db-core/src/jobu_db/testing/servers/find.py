"""Find the servers that a test suite runs on.

Taken are, of each kind: every URL given in the environment, and the programs on this machine as
private servers, also those in the folders that JOBU_TEST_POSTGRES_BIN and JOBU_TEST_MYSQL_BIN name.
Where that yields nothing: a container, if a Docker engine runs; else, on Debian or Ubuntu as root,
the package is installed. JOBU_TEST_INSTALL=0 forbids that, and JOBU_TEST_INSTALL=1 asks for it even
if a URL or a named folder serves already.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from jobu_db.testing.servers import containers, debian, given, mysql, postgres
from jobu_db.testing.servers.server import TITLES, Kind, Server, ServerError

Announce = Callable[[str], None]
"""Tells people about a slow step before it is taken."""


@dataclass(frozen=True)
class Candidate(ABC):
    """A server that can be had. Finding it has started nothing.

    Attributes:
        name: Short, for test names: "postgresql-15.18".
    """

    kind: Kind
    name: str

    @property
    def controllable(self) -> bool:
        """Say whether tests may kill, pause and restart it."""
        return True

    @abstractmethod
    def start(self, announce: Announce) -> Server:
        """Start it, or connect to it. Raises ServerError."""

    @abstractmethod
    def start_another(self) -> Server:
        """Start one more, once `start` has been called. Raises ServerError."""


@dataclass(frozen=True)
class Given(Candidate):
    """One that somebody else runs."""

    url: str
    program: str | None

    @property
    def controllable(self) -> bool:
        return self.program is not None

    def start(self, announce: Announce) -> Server:
        return given.given_server(self.kind, self.url, self.program)

    def start_another(self) -> Server:
        raise ServerError(f"there is but one server at a URL: {self.name}")


@dataclass(frozen=True)
class Private(Candidate):
    """A private one, from programs on this machine."""

    program: Path

    def start(self, announce: Announce) -> Server:
        return self.start_another()

    def start_another(self) -> Server:
        return self.start_with({}, {})

    def start_with(self, settings: dict[str, str], files: dict[str, str]) -> Server:
        """Start one with settings and files of its own (see `PrivateServer`)."""
        if self.kind == "postgres":
            return postgres.PrivatePostgres(self.program, settings, files).server()
        return mysql.PrivateMySQL(self.program, settings, files).server()


@dataclass(frozen=True)
class Contained(Candidate):
    """One in a container of its own."""

    compose_file: Path

    def start(self, announce: Announce) -> Server:
        announce(f"starting {TITLES[self.kind]} in a container of its own")
        return self.start_another()

    def start_another(self) -> Server:
        return containers.Container(self.kind, self.compose_file).server()


@dataclass(frozen=True)
class Installable(Private):
    """A private one, whose programs are still to be installed."""

    def start(self, announce: Announce) -> Server:
        debian.install(self.kind, announce)
        return super().start(announce)

    def start_with(self, settings: dict[str, str], files: dict[str, str]) -> Server:
        installed = private_candidates(self.kind)
        if not installed:
            raise ServerError(f"the package for {TITLES[self.kind]} brought no server program")
        return installed[0].start_with(settings, files)


def candidates(kind: Kind, compose_file: Path | None = None) -> list[Candidate]:
    """Return the servers of a kind that can be had, without starting any.

    Args:
        compose_file: Defines the services `postgres` and `mysql` for the way by containers.

    Raises:
        ServerError: There is none; the message says what to do.
    """
    private = private_candidates(kind)
    found = [*given_candidates(kind), *private]
    installable = Installable(kind, "installed", Path())
    # A folder that is named is a further version to be tested; what JOBU_TEST_INSTALL=1 asks for is
    # that the one of the distribution is there, too.
    installed = [one for one in private if not _is_named(one)]
    if not installed and os.environ.get("JOBU_TEST_INSTALL") == "1" and debian.can_install():
        return [*found, installable]
    if found:
        return found
    if compose_file and containers.engine_runs():
        return [Contained(kind, "container", compose_file)]
    if debian.can_install():
        return [installable]
    raise ServerError(what_to_do(kind))


def given_candidates(kind: Kind) -> list[Candidate]:
    """Return the servers given by URL. The control program is the first one's."""
    program = given.control_program(kind)
    return [
        Given(kind, f"url{number}", url, program if number == 1 else None)
        for number, url in enumerate(given.given_urls(kind), 1)
    ]


def private_candidates(kind: Kind) -> list[Private]:
    """Return the private servers that programs on this machine can be."""
    if kind == "postgres":
        return [
            Private(kind, f"postgresql-{postgres.version(programs)}", programs)
            for programs in postgres.find_programs()
        ]
    return [
        Private(kind, "-".join(mysql.identify(program)), program)
        for program in mysql.find_programs()
    ]


def _is_named(candidate: Private) -> bool:
    """Say whether an environment variable names its folder."""
    folders = given.named_folders(candidate.kind)
    return any(candidate.program.is_relative_to(folder) for folder in folders)


def what_to_do(kind: Kind) -> str:
    """Tell people how to come by a server."""
    title = TITLES[kind] if kind == "postgres" else "MySQL or MariaDB"
    programs = "initdb and postgres" if kind == "postgres" else "mariadbd or mysqld"
    package = debian.PACKAGES[kind][0]
    return (
        f"There is no {title} to test on. Any one of these will do:\n"
        f"  - name one whose user may create databases: {given.variable(kind, 'URL')}=URL\n"
        f"  - install its programs ({programs}): on Debian or Ubuntu,"
        f" apt-get install {package}; as root, this is done for you\n"
        "  - start Docker, with its compose plugin"
    )
