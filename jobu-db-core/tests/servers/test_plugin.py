"""The pytest plugin: a missing server is an error, and what can't be run is told."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

Listen = Callable[[bytes], int]
Write = Callable[[Path, str], Path]


PLUGIN_CONFTEST = """
from jobu_db.testing.servers import find, containers, debian
find.private_candidates = lambda kind: []
containers.engine_runs = debian.can_install = lambda: False
pytest_plugins = ["jobu_db.testing.plugin"]
"""
PLUGIN_TESTS = """
def test_plain(mysql_server): assert mysql_server.version == "10.11.6"
def test_fault(mysql_control): raise AssertionError("must not run")
def test_settings(start_mysql): raise AssertionError("must not run")
def test_without_server(): pass
"""


COUNTED_CONFTEST = """
import os
from dataclasses import dataclass
from pathlib import Path
from jobu_db.testing.servers import Candidate, Control, Server, find

pytest_plugins = ["jobu_db.testing.plugin"]
HERE = Path(__file__).parent

class Nothing(Control):
    pid = 0
    def start(self): ...
    def answers(self): return True
    def heal(self): ...

@dataclass(frozen=True)
class Counted(Candidate):
    program = HERE / "counted"

    def start(self, announce): return self.start_another()

    def start_another(self):
        number = 0
        while True:  # two workers may start one at the same moment
            try:
                (HERE / f"started-{number}").touch(exist_ok=False)
                break
            except FileExistsError:
                number += 1
        url = f"mysql://127.0.0.1:{os.getpid()}/{number}"
        close = (HERE / f"closed-{number}").touch
        return Server(url, "mysql", "9.7.0", "counted", Nothing(), close=close)

find.private_candidates = lambda kind: [Counted(kind, "counted")]
"""
COUNTED_TESTS = """
import os, time
from pathlib import Path
import pytest

def note(kind, number, server):
    (Path(__file__).parent / f"{kind}-{number}").write_text(f"{os.getpid()} {server.url}")
    time.sleep(0.05)    # so that no worker runs them all

@pytest.mark.parametrize("number", range(20))
def test_plain(mysql_server, number):
    assert mysql_server.control is None
    note("plain", number, mysql_server)

@pytest.mark.parametrize("number", range(5))
def test_fault(mysql_server, mysql_control, number):
    note("fault", number, mysql_server)
"""
FURTHER_TESTS = """
import pytest

@pytest.mark.one_server
def test_fault(mysql_server, mysql_control, further_mysql):
    assert mysql_server.control is mysql_control
    found = [mysql_server, *further_mysql]
    assert len({one.url for one in found}) == 2
    assert all(one.control for one in found)
"""
WORKERS = ("-n", "2", "--dist", "loadgroup")


def run_pytest(
    folder: Path,
    *arguments: str,
    url: str = "",
    control: str = "",
    conftest: str = PLUGIN_CONFTEST,
    tests: str = PLUGIN_TESTS,
) -> subprocess.CompletedProcess[str]:
    (folder / "conftest.py").write_text(conftest)
    (folder / "test_example.py").write_text(tests)
    (folder / "pytest.ini").write_text("[pytest]\naddopts = --strict-markers\n")
    environment = {
        **os.environ,
        "JOBU_TEST_MYSQL_URL": url,
        "JOBU_TEST_MYSQL_CONTROL": control,
    }
    without = ("-p", "no:cacheprovider", "-p", "no:hypothesispytest")  # dear to load
    command = [sys.executable, "-m", "pytest", *without, *arguments]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)


def test_a_missing_server_is_an_error_before_the_first_test(tmp_path: Path) -> None:
    done = run_pytest(tmp_path)
    assert done.returncode == pytest.ExitCode.USAGE_ERROR
    assert "There is no MySQL or MariaDB to test on" in done.stderr


def test_a_missing_server_hurts_no_run_that_needs_none(tmp_path: Path) -> None:
    done = run_pytest(tmp_path, "-m", "not servers")
    assert done.returncode == 0
    assert "1 passed, 3 deselected" in done.stdout


def test_what_a_server_does_not_allow_is_left_out_and_told(
    tmp_path: Path, listen: Listen, greeting: bytes
) -> None:
    address = f"127.0.0.1:{listen(greeting)}"
    done = run_pytest(tmp_path, url=f"mysql://jobu:hunter2@{address}/jobu")
    assert done.returncode == 0
    assert "2 passed, 2 deselected" in done.stdout
    *_, fault, settings, closing = done.stdout.strip().splitlines()
    name = f"MariaDB 10.11.6 at {address} (JOBU_TEST_MYSQL_URL)"
    assert fault.startswith(f"{name}: 1 not run, because nothing can stop and start it")
    assert settings == f"{name}: 1 not run, because they need a private server"
    assert "2 passed" in closing
    assert "hunter2" not in done.stdout


def test_with_workers_a_missing_server_is_an_error_before_the_first_test(tmp_path: Path) -> None:
    done = run_pytest(tmp_path, *WORKERS)
    assert done.returncode == pytest.ExitCode.USAGE_ERROR
    assert "There is no MySQL or MariaDB to test on" in done.stdout
    assert "no tests ran" in done.stdout


def test_with_workers_a_server_that_does_not_start_ends_the_run(tmp_path: Path) -> None:
    done = run_pytest(tmp_path, *WORKERS, url="mysql://jobu@127.0.0.1:1/jobu")
    assert done.returncode == pytest.ExitCode.INTERRUPTED
    assert "no MySQL answers at 127.0.0.1:1" in done.stdout


def test_with_workers_what_a_server_does_not_allow_is_left_out_and_told(
    tmp_path: Path, listen: Listen, greeting: bytes
) -> None:
    address = f"127.0.0.1:{listen(greeting)}"
    done = run_pytest(tmp_path, *WORKERS, url=f"mysql://jobu@{address}/jobu")
    assert done.returncode == 0
    name = f"MariaDB 10.11.6 at {address} (JOBU_TEST_MYSQL_URL)"
    assert f"{name}: 1 not run, because they need a private server" in done.stdout


def test_with_workers_that_keep_no_groups_a_server_by_url_is_not_harmed(
    tmp_path: Path, listen: Listen, greeting: bytes
) -> None:
    address = f"127.0.0.1:{listen(greeting)}"
    done = run_pytest(tmp_path, "-n", "2", control="control", url=f"mysql://jobu@{address}/jobu")
    assert done.returncode == 0, done.stdout
    assert "1 not run, because other workers use it" in done.stdout


@pytest.mark.parametrize("workers", [(), WORKERS], ids=["alone", "loadgroup"])
def test_one_test_may_harm_every_server(tmp_path: Path, workers: tuple[str, ...]) -> None:
    two = COUNTED_CONFTEST.replace('"counted")]', '"one"), Counted(kind, "two")]')
    done = run_pytest(tmp_path, *workers, conftest=two, tests=FURTHER_TESTS)
    assert done.returncode == 0, done.stdout
    assert "1 passed" in done.stdout


@pytest.mark.parametrize("workers", [WORKERS, ("-n", "2")], ids=["loadgroup", "load"])
def test_workers_share_a_server_and_harm_another(tmp_path: Path, workers: tuple[str, ...]) -> None:
    done = run_pytest(tmp_path, *workers, conftest=COUNTED_CONFTEST, tests=COUNTED_TESTS)
    assert done.returncode == 0, done.stdout
    plain = {tuple(path.read_text().split()) for path in tmp_path.glob("plain-*")}
    faults = {tuple(path.read_text().split()) for path in tmp_path.glob("fault-*")}
    assert len({url for _, url in plain}) == 1
    assert len({worker for worker, _ in plain}) == 2
    assert not {url for _, url in plain} & {url for _, url in faults}
    assert all(f":{worker}/" in url for worker, url in faults)  # started by the worker itself
    if workers == WORKERS:
        assert len(faults) == 1
    started = len(list(tmp_path.glob("started-*")))
    assert started == 1 + len(faults)
    assert len(list(tmp_path.glob("closed-*"))) == started
