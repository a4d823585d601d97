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


def run_pytest(folder: Path, *arguments: str, url: str = "") -> subprocess.CompletedProcess[str]:
    (folder / "conftest.py").write_text(PLUGIN_CONFTEST)
    (folder / "test_example.py").write_text(PLUGIN_TESTS)
    (folder / "pytest.ini").write_text("[pytest]\naddopts = --strict-markers\n")
    environment = {**os.environ, "JOBU_TEST_MYSQL_URL": url, "JOBU_TEST_MYSQL_CONTROL": ""}
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *arguments]
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
