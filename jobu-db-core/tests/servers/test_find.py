"""Which servers are found, and in which order.

Starting real ones is exercised by the backends' suites.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from jobu_db.testing.servers import (
    Private,
    Server,
    ServerError,
    candidates,
    containers,
    find,
    mysql,
    postgres,
    private,
    wire,
)

Listen = Callable[[bytes], int]
Write = Callable[[Path, str], Path]


@pytest.fixture
def bare_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with no server, no Docker engine and no root."""
    for name in ("URL", "CONTROL", "BIN"):
        monkeypatch.delenv(f"JOBU_TEST_POSTGRES_{name}", raising=False)
        monkeypatch.delenv(f"JOBU_TEST_MYSQL_{name}", raising=False)
    monkeypatch.delenv("JOBU_TEST_INSTALL", raising=False)
    monkeypatch.setattr(find, "private_candidates", lambda kind: [])
    monkeypatch.setattr(containers, "engine_runs", lambda: False)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)


@pytest.fixture
def root_on_debian(bare_machine: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr("shutil.which", lambda name: f"/usr/bin/{name}")


# -- which servers are taken


@pytest.mark.usefixtures("bare_machine")
class TestTheOrder:
    def test_nothing_at_hand_says_what_to_do(self) -> None:
        with pytest.raises(ServerError, match="JOBU_TEST_POSTGRES_URL=URL") as told:
            candidates("postgres")
        assert "apt-get install postgresql" in str(told.value)
        assert "Docker" in str(told.value)

    def test_every_url_is_taken_and_the_program_controls_the_first(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("JOBU_TEST_MYSQL_URL", "mysql://one/a  mysql://two/b")
        monkeypatch.setenv("JOBU_TEST_MYSQL_CONTROL", "control")
        found = candidates("mysql")
        assert [one.name for one in found] == ["url1", "url2"]
        assert [one.controllable for one in found] == [True, False]

    def test_a_private_server_is_taken_beside_a_url(self, monkeypatch: pytest.MonkeyPatch) -> None:
        own = Private("mysql", "mariadb-10.11.6", Path("mariadbd"))
        monkeypatch.setenv("JOBU_TEST_MYSQL_URL", "mysql://one/a")
        monkeypatch.setattr(find, "private_candidates", lambda kind: [own])
        assert [one.name for one in candidates("mysql")] == ["url1", "mariadb-10.11.6"]

    def test_a_container_is_taken_only_where_nothing_else_is(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(containers, "engine_runs", lambda: True)
        assert [one.name for one in candidates("mysql", Path("compose.yaml"))] == ["container"]
        monkeypatch.setenv("JOBU_TEST_MYSQL_URL", "mysql://one/a")
        assert [one.name for one in candidates("mysql", Path("compose.yaml"))] == ["url1"]


@pytest.mark.usefixtures("root_on_debian")
class TestInstalling:
    def test_is_the_last_way(self, monkeypatch: pytest.MonkeyPatch) -> None:
        assert [one.name for one in candidates("mysql")] == ["installed"]
        monkeypatch.setenv("JOBU_TEST_MYSQL_URL", "mysql://one/a")
        assert [one.name for one in candidates("mysql")] == ["url1"]

    def test_can_be_forbidden(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("JOBU_TEST_INSTALL", "0")
        with pytest.raises(ServerError, match="There is no MySQL or MariaDB"):
            candidates("mysql")

    def test_can_be_asked_for_beside_a_named_folder(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        named = Private("mysql", "mysql-9.7.4", tmp_path / "mysqld")
        monkeypatch.setattr(find, "private_candidates", lambda kind: [named])
        monkeypatch.setenv("JOBU_TEST_MYSQL_BIN", str(tmp_path))
        assert candidates("mysql") == [named]
        monkeypatch.setenv("JOBU_TEST_INSTALL", "1")
        assert [one.name for one in candidates("mysql")] == ["mysql-9.7.4", "installed"]

    def test_can_be_asked_for_beside_a_url(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("JOBU_TEST_INSTALL", "1")
        monkeypatch.setenv("JOBU_TEST_MYSQL_URL", "mysql://one/a")
        assert [one.name for one in candidates("mysql")] == ["url1", "installed"]


def test_a_description_keeps_the_password_to_itself() -> None:
    server = Server("mysql://jobu:hunter2@127.0.0.1:3306/jobu", "mariadb", "10.11.6", "private")
    assert server.describe() == "MariaDB 10.11.6 at 127.0.0.1:3306 (private)"


# -- programs on the machine


def test_the_newest_postgresql_is_found_and_the_named_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, program: Write
) -> None:
    for version in ("9.6", "15.10", "15.2", "18.4"):
        program(tmp_path / version / "bin" / "postgres", f"echo 'postgres (PostgreSQL) {version}'")
        program(tmp_path / version / "bin" / "initdb", "")
    (tmp_path / "18.4").rename(tmp_path / "elsewhere")
    monkeypatch.setattr(postgres, "FOLDERS", (f"{tmp_path}/[0-9]*/bin",))
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("JOBU_TEST_POSTGRES_BIN", f"{tmp_path}/elsewhere/bin")
    assert postgres.find_programs() == [tmp_path / "15.10/bin", tmp_path / "elsewhere/bin"]


def test_one_mariadb_and_one_mysql_are_found_whatever_they_are_called(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, program: Write
) -> None:
    mariadb = program(tmp_path / "a" / "mariadbd", "echo 'mariadbd  Ver 11.8.2-MariaDB for Linux'")
    (tmp_path / "a" / "mysqld").symlink_to(mariadb)
    monkeypatch.setattr(mysql, "FOLDERS", ())
    monkeypatch.delenv("JOBU_TEST_MYSQL_BIN", raising=False)
    monkeypatch.setenv("PATH", f"{tmp_path}/a")
    assert mysql.find_programs() == [mariadb]
    oracle = program(tmp_path / "b" / "mysqld", "echo '/usr/sbin/mysqld  Ver 9.7.4-2 for Linux'")
    monkeypatch.setenv("PATH", f"{tmp_path}/b:{tmp_path}/a")
    assert mysql.find_programs() == [mariadb, oracle]
    assert mysql.identify(oracle) == ("mysql", "9.7.4")
    monkeypatch.setenv("PATH", f"{tmp_path}/a")
    monkeypatch.setenv("JOBU_TEST_MYSQL_BIN", f"{tmp_path}/b")
    assert mysql.find_programs() == [mariadb, oracle]


# -- the first bytes


def test_a_mysql_greeting_tells_the_version(listen: Listen, greeting: bytes) -> None:
    assert wire.mysql_version(("127.0.0.1", listen(greeting))) == "10.11.6-MariaDB"


def test_a_mysql_error_is_no_greeting(listen: Listen) -> None:
    assert wire.mysql_version(("127.0.0.1", listen(b"\x17\0\0\0\xff\x10\x04Too many"))) == ""


def test_postgresql_that_starts_up_does_not_answer_yet(listen: Listen) -> None:
    starting = b"E\0\0\0\x50SFATAL\0C57P03\0Mthe database system is starting up\0\0"
    assert not wire.postgres_answers(("127.0.0.1", listen(starting)))
    assert wire.postgres_answers(("127.0.0.1", listen(b"R\0\0\0\x08\0\0\0\0")))


def test_nobody_there_is_no_answer(tmp_path: Path) -> None:
    assert not wire.postgres_answers(("127.0.0.1", private.free_port()))
    assert wire.mysql_version(str(tmp_path / "socket")) == ""


def test_a_url_that_nothing_answers_is_named_without_its_password(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    port = private.free_port()
    monkeypatch.setenv("JOBU_TEST_MYSQL_URL", f"mysql://jobu:hunter2@127.0.0.1:{port}/jobu")
    given = find.given_candidates("mysql")[0]
    with pytest.raises(ServerError, match=f"127.0.0.1:{port}, which JOBU_TEST_MYSQL_URL") as told:
        given.start(print)
    assert "hunter2" not in str(told.value)


# -- containers


def test_a_container_has_a_project_of_its_own_and_takes_its_volumes_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, listen: Listen, greeting: bytes, program: Write
) -> None:
    calls = tmp_path / "calls"
    program(tmp_path / "bin" / "docker", f'echo "$JOBU_MYSQL_PORT $*" >>"{calls}"')
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:{os.environ['PATH']}")
    port = listen(greeting)
    monkeypatch.setattr(containers, "free_port", lambda: port)
    server = containers.Container("mysql", Path("compose.yaml")).server()
    assert server.describe() == f"MySQL 10.11.6-MariaDB at 127.0.0.1:{port} (container)"
    server.close()
    up, down = calls.read_text().splitlines()
    project = up.split()[3]
    assert project.startswith("jobu-db-test-")
    assert up == (
        f"{port} compose --project-name {project} --file compose.yaml up --detach --wait mysql"
    )
    assert down.strip() == (
        f"compose --project-name {project} --file compose.yaml down --volumes --timeout 5"
    )


def test_a_container_that_was_paused_is_healed_by_its_answer_and_not_by_its_health(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, listen: Listen, greeting: bytes, program: Write
) -> None:
    calls = tmp_path / "calls"
    program(
        tmp_path / "bin" / "docker",
        f'echo "$*" >>"{calls}"\n'
        f'case "$*" in *State.Pid*) echo {os.getpid()} ;; *" ps "*) echo paused ;; esac',
    )
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:{os.environ['PATH']}")
    port = listen(greeting)
    monkeypatch.setattr(containers, "free_port", lambda: port)
    container = containers.Container("mysql", Path("compose.yaml"))
    calls.unlink()
    container.heal()
    called = calls.read_text()
    assert "unpause mysql" in called
    assert "up --detach" not in called  # which fails once the engine has called it unhealthy
    container.close()
