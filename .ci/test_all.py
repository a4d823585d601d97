"""Run the test suite on every Python from 3.11 on this machine: one pytest session each.

    .venv/bin/python .ci/test_all.py [PYTEST ARGUMENTS]

This Python runs everything, on the newest libraries and every server. What can differ with the
libraries and with Python is run once more with every library at the lower bound that the
distributions promise, and on each other Python with the newest: the core and SQLite whole, and
of each server's backend the files in ELSEWHERE; without the fault tests, on the servers that the
machine itself brings.

Most of what a test does is to wait for a server or a limit. So these other sessions run beside
the first, one after the other; each has servers of its own, and its output follows at the end.
Where the first may stop a server that is given by URL, they come after it.
Files of the tests and of their servers lie in memory where that is large enough (/dev/shm), unless
TMPDIR says where.
PYTHONS=PATHS names the other Pythons (empty: none); WORKERS=NUMBER says how many processes share
the tests of a session.
The last line is pytest's own closing line, of a failed session if there is one.
"""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

TOP = Path(__file__).resolve().parent.parent
OLDEST, NEWEST = 11, 15
USAGE_ERROR = 4  # of pytest
PROCESSORS = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 2
MANY = 2 * PROCESSORS  # processes of a session: they wait most of the time
WITHOUT_FAULTS = ("-m", "not faults and not wheels")
ELSEWHERE = (
    "jobu-db-core/tests",
    "jobu-db-sqlite/tests",
    *(
        f"jobu-db-{server}/tests/test_{what}.py"
        for server in ("postgres", "mysql")
        for what in ("conformance", "cancellation", "private")
    ),
)
MEMORY = Path("/dev/shm")
MEMORY_NEEDED = 10 * 2**30  # bytes, of which a run should leave most to others
# Named for the first session alone.
EXTRA_SERVERS = ("JOBU_TEST_POSTGRES_BIN", "JOBU_TEST_MYSQL_BIN")
# With these, the first session stops and restarts a server that the others use, too.
CONTROLS = ("JOBU_TEST_POSTGRES_CONTROL", "JOBU_TEST_MYSQL_CONTROL")


@dataclass(frozen=True)
class Session:
    """One run of pytest.

    Attributes:
        making: Variables of `make venv` for the environment that it runs in; empty if it is there.
    """

    title: str
    python: str
    arguments: tuple[str, ...]
    environment: dict[str, str]
    making: tuple[str, ...] = ()

    def command(self, processes: int) -> list[str]:
        """Return what to run; so many processes share the tests, unless WORKERS says how many."""
        workers = os.environ.get("WORKERS") or str(processes)
        return [
            *(self.python, "-m", "pytest", "-n", workers, "--dist", "loadgroup"),
            *self.arguments,
        ]


@dataclass(frozen=True)
class Outcome:
    """How a session ended: its exit status and its last line."""

    title: str
    status: int
    closing_line: str


def minor_version(python: str) -> int | None:
    """Return 12 for a working Python 3.12; None if it doesn't run or can't make environments."""
    question = "import ensurepip, sys; print(sys.version_info.minor)"
    asked = subprocess.run([python, "-c", question], capture_output=True, text=True)
    return int(asked.stdout) if asked.returncode == 0 else None


def other_pythons() -> dict[int, str]:
    """Return the Pythons that are neither too old nor this one, by minor version."""
    if "PYTHONS" in os.environ:
        places = os.environ["PYTHONS"].split()
    else:
        names = (f"python3.{minor}" for minor in range(OLDEST, NEWEST + 1))
        pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
        places = [
            *(place for name in names if (place := shutil.which(name))),
            *(str(place) for place in sorted(pyenv.glob("versions/3.*/bin/python3"))),
        ]
    found = {minor_version(place): place for place in reversed(places)}
    return {
        minor: place
        for minor, place in sorted(found.items(), key=lambda one: one[0] or 0)
        if minor is not None and minor >= OLDEST and minor != sys.version_info.minor
    }


def environment(*without: str) -> dict[str, str]:
    """Return this program's variables for a session, without some.

    Bytecode is written whatever they say: the tests start some hundred programs.
    """
    left_out = {*without, "PYTHONDONTWRITEBYTECODE"}
    return {name: value for name, value in os.environ.items() if name not in left_out}


def outcome(session: Session, status: int, output: str) -> Outcome:
    return Outcome(session.title, status, output.strip().rpartition("\n")[2])


def run(session: Session) -> Outcome:
    """Run pytest, passing its output through."""
    print(f"\n{session.title}", flush=True)
    color = "--color=yes" if sys.stdout.isatty() else "--color=auto"
    last = b""
    with subprocess.Popen(
        [*session.command(MANY), color], stdout=subprocess.PIPE, env=session.environment
    ) as pytest:
        # By pieces, not by lines, so that the dots of a running file are seen.
        while piece := cast(io.BufferedReader, pytest.stdout).read1():
            sys.stdout.buffer.write(piece)
            sys.stdout.buffer.flush()
            last = (last + piece)[-2000:]
    return outcome(session, pytest.returncode, last.decode())


@dataclass
class Beside:
    """Runs sessions one after the other in a thread, each in an environment that is made for it.

    Attributes:
        first_has_ended: Whether the machine is theirs alone.
        outcomes: Of the sessions that have ended.
        outputs: What they printed.
    """

    sessions: list[Session]
    first_has_ended: bool = False
    outcomes: list[Outcome] = field(default_factory=list)
    outputs: list[str] = field(default_factory=list)
    _running: subprocess.Popen[str] | None = None
    _stopped: bool = False

    def __post_init__(self) -> None:
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def wait(self) -> None:
        self._thread.join()

    def stop(self) -> None:
        """End what runs, and begin no other."""
        self._stopped = True
        if self._running:
            self._running.terminate()
        if self._thread.is_alive():
            self.wait()

    def _run(self) -> None:
        for session in self.sessions:
            making = ["make", "--no-print-directory", "venv", *session.making]
            status, output = self._call(making, dict(os.environ))
            if status == 0:
                processes = MANY if self.first_has_ended else PROCESSORS
                status, output = self._call(session.command(processes), session.environment)
            else:
                output += "make test-all PYTHONS= leaves the other Pythons out\n"
            self.outputs.append(f"\n{session.title}\n{output}")
            self.outcomes.append(outcome(session, status, output))

    def _call(self, command: list[str], variables: dict[str, str]) -> tuple[int, str]:
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=variables
        ) as self._running:
            if self._stopped:
                self._running.terminate()
            output, _ = self._running.communicate()
        return self._running.returncode, output


def sessions_elsewhere(arguments: list[str]) -> list[Session]:
    """Return the sessions with the oldest libraries and on the other Pythons."""
    named = any(Path(argument.partition("::")[0]).exists() for argument in arguments)
    selection = (
        *("--color=no", *WITHOUT_FAULTS),
        *arguments,
        *(() if named else ELSEWHERE),
    )
    variables = environment(*EXTRA_SERVERS)

    def session(title: str, folder: str, *making: str) -> Session:
        made = (f"VENV={folder}", *making)
        return Session(title, f"{folder}/bin/python", selection, variables, made)

    lowest = (f"BASE_PYTHON={sys.executable}", "OPTIONS=--lowest")
    return [
        session("the oldest libraries promised", ".venv-lowest", *lowest),
        *(
            session(f"Python 3.{minor}", f".venv-3.{minor}", f"BASE_PYTHON={place}")
            for minor, place in other_pythons().items()
        ),
    ]


@contextmanager
def files_in_memory() -> Iterator[None]:
    """Let temporary files lie in memory: nobody needs them longer than the run, and a disk would
    have to take the write of each commit and thousands of small files."""
    if (
        "TMPDIR" in os.environ
        or not MEMORY.is_dir()
        or shutil.disk_usage(MEMORY).free < MEMORY_NEEDED
    ):
        yield
        return
    with tempfile.TemporaryDirectory(
        prefix="jobu-db-", dir=MEMORY, ignore_cleanup_errors=True
    ) as folder:
        Path(folder).chmod(0o755)  # private servers run as other users
        os.environ["TMPDIR"] = folder
        yield


def main(arguments: list[str]) -> int:
    os.chdir(TOP)
    with files_in_memory():
        return run_all(arguments)


def run_all(arguments: list[str]) -> int:
    title = f"Python {sys.version.split()[0]}"
    session = Session(title, sys.executable, tuple(arguments), environment())
    beside = Beside(sessions_elsewhere(arguments))
    together = not any(os.environ.get(control) for control in CONTROLS)
    if together:
        beside.start()
    try:
        everything = run(session)
    except BaseException:
        beside.stop()
        raise
    beside.first_has_ended = True
    if everything.status == USAGE_ERROR:  # nothing was run: a server is missing, say
        beside.stop()
        return USAGE_ERROR
    if not together:
        beside.start()
    beside.wait()
    print(*beside.outputs, sep="\n")
    outcomes = [*beside.outcomes, everything]  # this Python's closing line comes last
    for one in sorted(outcomes, key=lambda one: one.status != 0):
        print(f"\n{one.title}{' FAILED' if one.status else ''}:\n{one.closing_line}")
    return max(one.status for one in outcomes)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
