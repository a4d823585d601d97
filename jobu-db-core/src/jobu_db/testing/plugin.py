"""pytest fixtures for real servers. In the topmost conftest.py:

    pytest_plugins = ["jobu_db.testing.plugin"]

`postgres_server`, `mysql_server`: a `Server`; the test runs once on each that is found, and is
    marked `servers`.
`postgres_control`, `mysql_control`: its `Control`, which kills, pauses and restarts it. The test
    is marked `faults`, and the server is made whole again after it.
`start_postgres`, `start_mysql`: `start(settings={}, files={})` starts one more private server like
    it, with settings and files of its own (see `PrivateServer`), and returns its `Server`.

A missing server is an error before the first test. What can't be run on a server (one given by
URL can't always be controlled) is left out, and the last lines of the run say so.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import cast

import pytest

from jobu_db.testing.servers import (
    Candidate,
    Control,
    Kind,
    Private,
    Server,
    ServerError,
    candidates,
)

KINDS: tuple[Kind, ...] = ("postgres", "mysql")
MARKERS = (
    "servers: needs a server; set by the fixtures that bring one",
    "faults: kills, stops or cuts off a server; set by the fixtures that allow it",
    "one_server: runs on the first server of each kind, a private one if there is any",
)
StartServer = Callable[..., Server]


@dataclass
class Session:
    """What one run of pytest knows of its servers."""

    config: pytest.Config
    found: dict[Kind, list[Candidate]] = field(default_factory=dict)
    missing: dict[Kind, str] = field(default_factory=dict)
    started: dict[Candidate, Server] = field(default_factory=dict)
    left_out: Counter[tuple[Candidate, str]] = field(default_factory=Counter)

    def candidates(self, kind: Kind) -> list[Candidate]:
        if kind not in self.found:
            compose_file = self.config.rootpath / "docker" / "docker-compose.yaml"
            try:
                self.found[kind] = candidates(kind, compose_file if compose_file.exists() else None)
            except ServerError as error:
                self.found[kind] = []
                self.missing[kind] = str(error)
        return self.found[kind]

    def server(self, candidate: Candidate) -> Server:
        """Start it on first use; it lasts until the end of the run."""
        if candidate not in self.started:
            try:
                self.started[candidate] = candidate.start(self.announce)
            except ServerError as error:
                pytest.exit(str(error), returncode=1)
        return self.started[candidate]

    def announce(self, text: str) -> None:
        capture = self.config.pluginmanager.getplugin("capturemanager")
        with capture.global_and_fixture_disabled():
            print(f"\n{text}", flush=True)


SESSION = pytest.StashKey[Session]()


# -- hooks


def pytest_configure(config: pytest.Config) -> None:
    config.stash[SESSION] = Session(config)
    for marker in MARKERS:
        config.addinivalue_line("markers", marker)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    session = metafunc.config.stash[SESSION]
    for kind in KINDS:
        if f"{kind}_server" in metafunc.fixturenames:
            found: list[Candidate | None] = [*session.candidates(kind)] or [None]
            if metafunc.definition.get_closest_marker("one_server"):
                found = sorted(found, key=lambda one: not isinstance(one, Private))[:1]
            metafunc.parametrize(
                f"{kind}_server",
                found,
                ids=[one.name if one else "missing" for one in found],
                indirect=True,
                scope="session",
            )


@pytest.hookimpl(wrapper=True)
def pytest_collection_modifyitems(
    config: pytest.Config, items: list[pytest.Item]
) -> Iterator[None]:
    for item in items:
        if any(f"{kind}_server" in _fixtures(item) for kind in KINDS):
            item.add_marker(pytest.mark.servers)
        if any(f"{kind}_control" in _fixtures(item) for kind in KINDS):
            item.add_marker(pytest.mark.faults)
    yield  # selection by -k and -m takes place here
    session = config.stash[SESSION]
    _refuse_missing(session, items)
    left_out = [item for item in items if _leave_out(session, item)]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]


def pytest_report_collectionfinish(config: pytest.Config) -> list[str]:
    session = config.stash[SESSION]
    names = [candidate.name for found in session.found.values() for candidate in found]
    return [f"servers: {', '.join(names)}"] if names else []


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_teardown(item: pytest.Item) -> None:
    """Before the fixtures clean up, which takes a server that answers."""
    for kind in KINDS:
        candidate = _candidate(item, kind)
        if candidate and f"{kind}_control" in _fixtures(item):
            control = item.config.stash[SESSION].server(candidate).control
            assert control is not None
            control.heal()


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    session = config.stash[SESSION]
    if session.started:
        terminalreporter.section("servers")
        for server in session.started.values():
            terminalreporter.write_line(server.describe())
    if session.left_out:
        terminalreporter.section("not run")
        for (candidate, why), count in session.left_out.items():
            name = candidate.name
            if candidate in session.started:
                name = session.started[candidate].describe()
            terminalreporter.write_line(f"{name}: {count} not run, because {why}")


def pytest_unconfigure(config: pytest.Config) -> None:
    for server in config.stash[SESSION].started.values():
        server.close()


# -- fixtures


@pytest.fixture(scope="session")
def postgres_server(request: pytest.FixtureRequest) -> Server:
    return request.config.stash[SESSION].server(request.param)


@pytest.fixture(scope="session")
def mysql_server(request: pytest.FixtureRequest) -> Server:
    return request.config.stash[SESSION].server(request.param)


@pytest.fixture
def postgres_control(postgres_server: Server) -> Control:
    assert postgres_server.control is not None
    return postgres_server.control


@pytest.fixture
def mysql_control(mysql_server: Server) -> Control:
    assert mysql_server.control is not None
    return mysql_server.control


@pytest.fixture
def start_postgres(
    request: pytest.FixtureRequest, postgres_server: Server
) -> Iterator[StartServer]:
    yield from _starter(request, "postgres")


@pytest.fixture
def start_mysql(request: pytest.FixtureRequest, mysql_server: Server) -> Iterator[StartServer]:
    yield from _starter(request, "mysql")


# -- inside


def _starter(request: pytest.FixtureRequest, kind: Kind) -> Iterator[StartServer]:
    candidate = cast(Private, _candidate(request.node, kind))
    started: list[Server] = []

    def start(
        settings: dict[str, str] | None = None, files: dict[str, str] | None = None
    ) -> Server:
        started.append(candidate.start_with(settings or {}, files or {}))
        return started[-1]

    yield start
    for server in started:
        server.close()


def _fixtures(item: pytest.Item) -> list[str]:
    return getattr(item, "fixturenames", [])


def _candidate(item: pytest.Item, kind: Kind) -> Candidate | None:
    call = getattr(item, "callspec", None)
    return call.params.get(f"{kind}_server") if call else None


def _refuse_missing(session: Session, items: list[pytest.Item]) -> None:
    needed = {name for item in items for name in _fixtures(item)}
    told = [text for kind, text in session.missing.items() if f"{kind}_server" in needed]
    if told:
        raise pytest.UsageError("\n\n".join(told))


def _leave_out(session: Session, item: pytest.Item) -> bool:
    for kind in KINDS:
        candidate = _candidate(item, kind)
        if candidate is None:
            continue
        if f"{kind}_control" in _fixtures(item) and not candidate.controllable:
            why = f"nothing can stop and start it (JOBU_TEST_{kind.upper()}_CONTROL=PROGRAM could)"
        elif f"start_{kind}" in _fixtures(item) and not isinstance(candidate, Private):
            why = "they need a private server"
        else:
            continue
        session.left_out[candidate, why] += 1
        return True
    return False
