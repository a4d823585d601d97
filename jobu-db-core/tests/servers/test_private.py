"""Private servers and their processes: nothing is left behind, whatever happens."""

from __future__ import annotations

import os
import pwd
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from jobu_db.testing.servers import (
    ServerError,
    private,
    processes,
    wire,
)
from jobu_db.testing.servers.given import ProgramControl

Listen = Callable[[bytes], int]
Write = Callable[[Path, str], Path]


# -- processes


def spawn(*command: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(command, start_new_session=True)


def test_a_family_is_ended_even_when_it_is_stopped() -> None:
    parent = spawn("sh", "-c", "sleep 600 & sleep 600 & wait")
    while len(pids := processes.family(parent.pid)) < 3:
        time.sleep(0.01)
    processes.send(pids, signal.SIGSTOP)
    processes.end(parent.pid)
    assert processes.running(pids) == []
    parent.wait(timeout=5)


def test_a_zombie_does_not_run() -> None:
    child = spawn("true")
    assert processes.wait_gone([child.pid], 5)
    assert child.pid in processes.process_table()
    child.wait()
    assert processes.wait_reaped(child.pid, 5)


def test_a_killed_run_leaves_neither_server_nor_folder_behind(tmp_path: Path) -> None:
    folder, marker = tmp_path / "folder", tmp_path / "command has run"
    folder.mkdir()
    run = spawn(
        sys.executable,
        "-c",
        "import subprocess, sys, time; from pathlib import Path\n"
        "from jobu_db.testing.servers.private import keep\n"
        "folder, marker = Path(sys.argv[1]), sys.argv[2]\n"
        "keeper = keep(folder, 'touch', marker)\n"
        "server = subprocess.Popen(['sleep', '600'])\n"
        "(folder / 'part').write_text(str(server.pid)); (folder / 'part').rename(folder / 'pid')\n"
        "time.sleep(600)",
        str(folder),
        str(marker),
    )
    while not (folder / "pid").exists():
        assert run.poll() is None
        time.sleep(0.01)
    server = int((folder / "pid").read_text())
    run.kill()
    run.wait()
    assert processes.wait_gone([server], 20)
    deadline = time.monotonic() + 20
    while folder.exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert marker.exists()


# -- private servers


GREETING = b"\x4a\0\0\0\x0a10.11.6\0rest"


class Toy(private.PrivateServer):
    """A private server in Python that greets as MySQL does, or complains of its port."""

    account = "nobody"
    CODE = (
        "import contextlib, socket, sys\n"
        "try: tcp = socket.create_server(('127.0.0.1', int(sys.argv[1])))\n"
        "except OSError as error: sys.exit(str(error))\n"
        "local = socket.socket(socket.AF_UNIX); local.bind(sys.argv[2]); local.listen()\n"
        "while True:\n"
        "    peer, _ = local.accept()\n"
        "    with contextlib.suppress(BrokenPipeError): peer.sendall(bytes.fromhex(sys.argv[3]))\n"
    )

    def initialize(self) -> None:
        self.run("mkdir", "data")

    def command(self) -> Sequence[str]:
        path = self.folder / "socket"
        path.unlink(missing_ok=True)
        return [
            "/usr/bin/env",
            "python3",
            "-c",
            self.CODE,
            str(self.port),
            str(path),
            GREETING.hex(),
        ]

    def answers(self) -> bool:
        return bool(wire.mysql_version(str(self.folder / "socket")))


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch) -> Iterator[Toy]:
    # As the user of the tests: the interpreter may be out of another's reach.
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    toy = Toy(files={"key": "secret"})
    yield toy
    toy.close()


def test_a_private_server_survives_kill_pause_and_restart(toy: Toy) -> None:
    first = toy.pid
    toy.kill()
    with pytest.raises(ServerError, match="doesn't run"):
        _ = toy.pid
    toy.heal()
    assert toy.answers()
    assert toy.pid != first
    toy.pause()
    assert not toy.answers()
    toy.heal()
    assert toy.answers()
    toy.restart()
    assert toy.answers()


def test_a_file_beside_the_data_is_readable_by_the_server_alone(toy: Toy) -> None:
    assert (toy.folder / "key").read_text() == "secret"
    assert (toy.folder / "key").stat().st_mode & 0o777 == 0o600


def test_closing_deletes_the_folder(toy: Toy) -> None:
    pid = toy.pid
    toy.close()
    assert not toy.folder.exists()
    assert processes.running([pid]) == []


def test_what_a_program_creates_is_copied_for_its_next_server(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    created: list[Toy] = []

    class Once(Toy):
        def initialize(self) -> None:
            self.create_once(Path("toy of this test"), self._create)

        def _create(self) -> None:
            created.append(self)
            self.run("sh", "-c", "umask 077; mkdir data; echo pristine >data/file")

    for _ in range(3):
        toy = Once()
        assert (toy.folder / "data" / "file").read_text() == "pristine\n"
        assert (toy.folder / "data").stat().st_mode & 0o777 == 0o700
        (toy.folder / "data" / "file").write_text("used")
        toy.close()
    assert len(created) == 1


def test_a_port_taken_meanwhile_is_exchanged_for_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with socket.create_server(("127.0.0.1", 0)) as stranger:
        taken = stranger.getsockname()[1]
        ports = iter([taken, private.free_port()])
        monkeypatch.setattr(private, "free_port", lambda: next(ports))
        toy = Toy()
        assert toy.port != taken
        assert toy.answers()
        toy.close()


def test_a_server_that_fails_to_start_shows_its_log(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr(Toy, "CODE", "import sys; sys.exit('no such locale')")
    with pytest.raises(ServerError, match="no such locale"):
        Toy()


class Sleeper(private.PrivateServer):
    """Says who runs it. There is no such account, but there may be one day."""

    account = "jobu-db-of-the-future"

    def initialize(self) -> None:
        self.run("mkdir", "data")

    def command(self) -> Sequence[str]:
        (self.folder / "user").unlink(missing_ok=True)
        return ["sh", "-c", "id -u >../part; mv ../part ../user; exec sleep 600"]

    def answers(self) -> bool:
        return (self.folder / "user").exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may run programs as somebody else")
def test_a_server_stays_with_its_user_when_its_account_appears(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    server = Sleeper()
    nobody = pwd.getpwnam("nobody")
    assert int((server.folder / "user").read_text()) == nobody.pw_uid
    monkeypatch.setattr(pwd, "getpwnam", lambda name: pwd.getpwuid(1))
    server.kill()
    server.heal()
    assert int((server.folder / "user").read_text()) == nobody.pw_uid
    server.close()


# -- servers controlled by a program


def test_a_server_of_a_program_is_killed_by_its_process_and_started_by_restart(
    tmp_path: Path, listen: Listen, greeting: bytes, program: Write
) -> None:
    pid_file = tmp_path / "pid"
    control = program(
        tmp_path / "control",
        f'case $1 in pid) cat "{pid_file}" ;; restart) sleep 600 & echo $! >"{pid_file}" ;;'
        " *) exit 9 ;; esac",
    )
    server = ProgramControl(str(control), "mysql", f"mysql://127.0.0.1:{listen(greeting)}/a")
    server.start()
    first = server.pid
    server.kill()
    with pytest.raises(ServerError, match="no running process"):
        _ = server.pid
    server.heal()
    assert server.pid != first
    server.stop()
