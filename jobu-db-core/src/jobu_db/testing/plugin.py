"""pytest fixtures for real servers. In the topmost conftest.py:

    pytest_plugins = ["jobu_db.testing.plugin"]

`postgres_server`, `mysql_server`: a `Server`; the test runs once on each that is found, and is
    marked `servers`.
`postgres_control`, `mysql_control`: its `Control`, which kills, pauses and restarts it. The test
    is marked `faults`, and the server is made whole again after it.
`further_mysql`: beside `mysql_control`, the other servers of that kind which the test may harm as
    well, all in one test; there may be none.
`start_postgres`, `start_mysql`: `start(settings={}, files={})` starts one more private server like
    it, with settings and files of its own (see `PrivateServer`), and returns its `Server`.

A missing server is an error before the first test. What can't be run on a server (one given by
URL can't always be controlled) is left out, and the last lines of the run say so.

With pytest-xdist (`-n 2 --dist loadgroup`), each server is started once, by the process that
hands out the tests, and shared by the workers; so a test must have a database of its own, and
change nothing else on the server. Fault tests are kept away from it: they have one more private
server, and are a group, which one worker runs. A server given by URL is there but once, so if it
can be controlled, all of its tests are one group.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, cast

import pytest

from jobu_db.testing.servers import (
    Candidate,
    Control,
    Given,
    Kind,
    Lender,
    Private,
    Server,
    ServerError,
    borrow,
    candidates,
)

KINDS: tuple[Kind, ...] = ("postgres", "mysql")
MARKERS = (
    "servers: needs a server; set by the fixtures that bring one",
    "faults: kills, stops or cuts off a server; set by the fixtures that allow it",
    "one_server: runs on the first server of each kind, a private one if there is any",
)
StartServer = Callable[..., Server]


@dataclass(frozen=True)
class Wanted:
    """What `postgres_server` and `mysql_server` are parametrized with.

    Attributes:
        apart: Said of a test that may do harm to the server: other workers must not use it.
    """

    candidate: Candidate
    apart: bool


class Servers:
    """What one process of a run of pytest knows of its servers.

    With pytest-xdist, the controller lends servers to the workers.

    Attributes:
        described: The servers that were used, by name, as people are told.
        left_out: How many tests are not run on a server, by its name and the reason.
        refusal: Why no test is run, if a server is missing.
    """

    def __init__(self, config: pytest.Config) -> None:
        self.config = config
        self.pytest: pytest.Session | None = None
        self.found: dict[Kind, list[Candidate]] = {}
        self.missing: dict[Kind, str] = {}
        self.described: dict[str, str] = {}
        self.left_out: Counter[tuple[str, str]] = Counter()
        self.refusal = ""
        self.lender: Lender | None = None
        self._started: dict[Wanted, Server] = {}
        self._starting = threading.Lock()
        self._input: dict[str, Any] | None = getattr(config, "workerinput", None)

    @property
    def is_worker(self) -> bool:
        """Say whether pytest-xdist runs several of these."""
        return self._input is not None

    def candidates(self, kind: Kind) -> list[Candidate]:
        """Return the servers of a kind that can be had."""
        if kind not in self.found:
            compose_file = self.config.rootpath / "docker" / "docker-compose.yaml"
            try:
                self.found[kind] = candidates(kind, compose_file if compose_file.exists() else None)
            except ServerError as error:
                self.found[kind] = []
                self.missing[kind] = str(error)
        return self.found[kind]

    def server(self, wanted: Wanted) -> Server:
        """Start it on first use; it lasts until the end of the run."""
        try:
            return self._server(wanted)
        except ServerError as error:
            if not self.is_worker:
                pytest.exit(str(error), returncode=1)
            assert self.pytest is not None
            self.pytest.shouldstop = str(error)  # an exit of its own would count as a crash
            pytest.fail(str(error), pytrace=False)

    def _server(self, wanted: Wanted) -> Server:
        if not self.is_worker or isinstance(wanted.candidate, Given):
            wanted = Wanted(wanted.candidate, apart=False)  # there is but one
        if wanted not in self._started:
            self._started[wanted] = self._start(wanted)
            self.described.setdefault(wanted.candidate.name, self._started[wanted].describe())
        return self._started[wanted]

    def _start(self, wanted: Wanted) -> Server:
        candidate = wanted.candidate
        if self._input is None or isinstance(candidate, Given):
            return candidate.start(self.announce)
        # First, also where one apart is wanted: it may have to be installed.
        server = borrow(candidate, self._input["jobu_db_lender"])
        return candidate.start_another() if wanted.apart else server

    def lend(self, candidate: Candidate) -> Server:
        """Start a server for the workers; they ask from threads."""
        with self._starting:
            return self._server(Wanted(candidate, apart=False))

    def announce(self, text: str) -> None:
        """Tell the user, once."""
        capture = self.config.pluginmanager.getplugin("capturemanager")
        # Through pytest's capture, which would keep it until the test is over: installing takes
        # minutes.
        with capture.global_and_fixture_disabled():
            print(f"\n{text}", flush=True)

    def close(self) -> None:
        """End the servers that were started."""
        if self.lender:
            self.lender.close()
        while self._started:
            self._started.popitem()[1].close()


SERVERS = pytest.StashKey[Servers]()


# -- hooks


def pytest_configure(config: pytest.Config) -> None:
    config.stash[SERVERS] = Servers(config)
    for marker in MARKERS:
        config.addinivalue_line("markers", marker)


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Of pytest-xdist, in the controller: tell a worker before it starts where to ask."""
    servers = node.config.stash[SERVERS]
    servers.lender = servers.lender or Lender(servers.lend)
    node.workerinput["jobu_db_lender"] = servers.lender.address


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    servers = metafunc.config.stash[SERVERS]
    for kind in KINDS:
        if f"{kind}_server" in metafunc.fixturenames:
            found = servers.candidates(kind)
            if metafunc.definition.get_closest_marker("one_server"):
                # Private ones first, since some of these tests start another server beside it.
                found = sorted(found, key=lambda one: not isinstance(one, Private))[:1]
            apart = f"{kind}_control" in metafunc.fixturenames
            metafunc.parametrize(
                f"{kind}_server",
                [Wanted(one, apart) for one in found] or [None],
                ids=[one.name for one in found] or ["missing"],
                indirect=True,
                scope="session",
            )


@pytest.hookimpl(wrapper=True)
def pytest_collection_modifyitems(
    session: pytest.Session, config: pytest.Config, items: list[pytest.Item]
) -> Iterator[None]:
    servers = config.stash[SERVERS]
    servers.pytest = session
    for item in items:
        if any(f"{kind}_server" in _fixtures(item) for kind in KINDS):
            item.add_marker(pytest.mark.servers)
        if any(f"{kind}_control" in _fixtures(item) for kind in KINDS):
            item.add_marker(pytest.mark.faults)
        if servers.is_worker and (group := _group(item, servers)):
            item.add_marker(pytest.mark.xdist_group(group))
    yield  # selection by -k and -m takes place here
    _refuse_missing(servers, items)
    left_out = [item for item in items if _leave_out(servers, item)]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]


def pytest_report_collectionfinish(config: pytest.Config) -> list[str]:
    servers = config.stash[SERVERS]
    names = [candidate.name for found in servers.found.values() for candidate in found]
    return [f"servers: {', '.join(names)}"] if names else []


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_teardown(item: pytest.Item) -> None:
    """Before the fixtures clean up, which takes a server that answers."""
    servers = item.config.stash[SERVERS]
    for wanted in _harmed(item, servers):
        control = servers.server(wanted).control
        assert control is not None
        # Whatever the test did, and whether it failed: the fixtures that clean up now, and the next
        # test, need a server that answers.
        control.heal()


@pytest.hookimpl(tryfirst=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """In a worker: tell the controller, which prints the summary, and end what only it used.

    Later, the controller may not wait for it any more.
    """
    told = session.config.stash[SERVERS]
    output = getattr(session.config, "workeroutput", None)
    if output is None and told.refusal:
        session.exitstatus = pytest.ExitCode.USAGE_ERROR
    elif output is not None:
        output["jobu_db_servers"] = told.described
        output["jobu_db_refusal"] = told.refusal
        output["jobu_db_left_out"] = [[*key, count] for key, count in told.left_out.items()]
        told.close()


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Of pytest-xdist, in the controller: a worker has ended."""
    servers = node.config.stash[SERVERS]
    output = getattr(node, "workeroutput", {})  # a worker that crashed has left none
    servers.refusal = servers.refusal or output.get("jobu_db_refusal", "")
    servers.described.update(output.get("jobu_db_servers", {}))
    for name, why, count in output.get("jobu_db_left_out", ()):
        servers.left_out[name, why] = count  # every worker collects the same tests


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    servers = config.stash[SERVERS]
    if servers.refusal:
        terminalreporter.section("servers")
        terminalreporter.write_line(servers.refusal)
    if servers.described:
        terminalreporter.section("servers")
        for text in servers.described.values():
            terminalreporter.write_line(text)
    if servers.left_out:
        terminalreporter.section("not run")
        for (name, why), count in sorted(servers.left_out.items()):
            told = servers.described.get(name, name)
            terminalreporter.write_line(f"{told}: {count} not run, because {why}")


def pytest_unconfigure(config: pytest.Config) -> None:
    config.stash[SERVERS].close()


# -- fixtures


@pytest.fixture(scope="session")
def postgres_server(request: pytest.FixtureRequest) -> Server:
    """The PostgreSQL server of this test."""
    return request.config.stash[SERVERS].server(request.param)


@pytest.fixture(scope="session")
def mysql_server(request: pytest.FixtureRequest) -> Server:
    """The MySQL or MariaDB server of this test."""
    return request.config.stash[SERVERS].server(request.param)


@pytest.fixture
def postgres_control(postgres_server: Server) -> Control:
    """Kills, pauses and restarts the test's PostgreSQL server, which nobody else uses."""
    assert postgres_server.control is not None
    return postgres_server.control


@pytest.fixture
def mysql_control(mysql_server: Server) -> Control:
    """Kills, pauses and restarts the test's MySQL server, which nobody else uses."""
    assert mysql_server.control is not None
    return mysql_server.control


@pytest.fixture
def further_mysql(request: pytest.FixtureRequest, mysql_control: Control) -> list[Server]:
    """The other MySQL and MariaDB servers that the test may harm; nobody else uses them."""
    servers = request.config.stash[SERVERS]
    return [servers.server(wanted) for wanted in _further_to_harm(request.node, servers)]


@pytest.fixture
def start_postgres(
    request: pytest.FixtureRequest, postgres_server: Server
) -> Iterator[StartServer]:
    """Starts a PostgreSQL server with settings of its own."""
    yield from _starter(request, "postgres")


@pytest.fixture
def start_mysql(request: pytest.FixtureRequest, mysql_server: Server) -> Iterator[StartServer]:
    """Starts a MySQL or MariaDB server with settings of its own."""
    yield from _starter(request, "mysql")


# -- inside


def _starter(request: pytest.FixtureRequest, kind: Kind) -> Iterator[StartServer]:
    wanted = cast(Wanted, _wanted(request.node, kind))
    candidate = cast(Private, wanted.candidate)
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


def _wanted(item: pytest.Item, kind: Kind) -> Wanted | None:
    call = getattr(item, "callspec", None)
    return call.params.get(f"{kind}_server") if call else None


def _further(item: pytest.Item, servers: Servers) -> list[Wanted]:
    """Return what `further_mysql` brings."""
    if "further_mysql" not in _fixtures(item):
        return []
    first = _wanted(item, "mysql")
    assert first is not None, "the fixture asks for mysql_control"
    return [
        Wanted(candidate, apart=True)
        for candidate in servers.candidates("mysql")
        if candidate is not first.candidate and candidate.controllable
    ]


def _further_to_harm(item: pytest.Item, servers: Servers) -> list[Wanted]:
    """Return those of them that nobody else uses."""
    alone = _kept_together(item, servers)
    further = _further(item, servers)
    return [one for one in further if alone or not isinstance(one.candidate, Given)]


def _harmed(item: pytest.Item, servers: Servers) -> list[Wanted]:
    """Return the servers that a test may kill, pause and restart."""
    wanted = [one for kind in KINDS if (one := _wanted(item, kind)) and one.apart]
    return [*wanted, *_further_to_harm(item, servers)]


def _group(item: pytest.Item, servers: Servers) -> str | None:
    """Return the group of tests that one worker must run, one after the other, if it is in one."""
    wanted = [one for kind in KINDS if (one := _wanted(item, kind))]
    wanted += _further(item, servers)
    if any(isinstance(one.candidate, Given) and one.candidate.controllable for one in wanted):
        return "servers given by URL"
    if any(one.apart for one in wanted):
        return f"faults of {', '.join(one.candidate.name for one in wanted)}"
    return None


def _kept_together(item: pytest.Item, servers: Servers) -> bool:
    """Say whether its group is run by one worker: pytest-xdist then adds the name to the id."""
    return not servers.is_worker or "@" in item.nodeid.rpartition("]")[2]


def _refuse_missing(servers: Servers, items: list[pytest.Item]) -> None:
    needed = {name for item in items for name in _fixtures(item)}
    told = [text for kind, text in servers.missing.items() if f"{kind}_server" in needed]
    if told and servers.is_worker:
        servers.refusal = "\n\n".join(told)  # the controller raises it
        items.clear()
    elif told:
        raise pytest.UsageError("\n\n".join(told))


def _leave_out(servers: Servers, item: pytest.Item) -> bool:
    for kind in KINDS:
        wanted = _wanted(item, kind)
        if wanted is None:
            continue
        candidate = wanted.candidate
        if wanted.apart and not candidate.controllable:
            why = f"nothing can stop and start it (JOBU_TEST_{kind.upper()}_CONTROL=PROGRAM could)"
        elif wanted.apart and isinstance(candidate, Given) and not _kept_together(item, servers):
            why = "other workers use it: with -n, its tests need --dist loadgroup"
        elif f"start_{kind}" in _fixtures(item) and not isinstance(candidate, Private):
            why = "they need a private server"
        else:
            continue
        servers.left_out[candidate.name, why] += 1
        return True
    return False
