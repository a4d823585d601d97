"""Run the test suite on every Python from 3.11 on this machine: one pytest session each.

    .venv/bin/python .ci/test_all.py [PYTEST ARGUMENTS]

This Python runs everything, on the newest libraries and every server. What can differ with the
libraries and with Python is run once more with every library at the lower bound that the
distributions promise, and on each other Python with the newest: the core and SQLite whole, and
of each server's backend the files in ELSEWHERE; without the fault tests, on the servers that the
machine itself brings.
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
from dataclasses import dataclass
from pathlib import Path
from typing import cast

TOP = Path(__file__).resolve().parent.parent
OLDEST, NEWEST = 11, 15
USAGE_ERROR = 4  # of pytest
# One more than there are processors: much of what a test with a server does is to wait for it.
USUAL_WORKERS = str(len(os.sched_getaffinity(0)) + 1 if hasattr(os, "sched_getaffinity") else 3)
WORKERS = ("-n", os.environ.get("WORKERS") or USUAL_WORKERS, "--dist", "loadgroup")
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
EXTRA_SERVERS = ("JOBU_TEST_POSTGRES_BIN",)


@dataclass(frozen=True)
class Session:
    """One run of pytest."""

    title: str
    python: str
    arguments: tuple[str, ...]
    every_server: bool = False


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


def make(folder: str, *variables: str) -> str:
    """Make a virtual environment where it is missing or out of date; return its Python."""
    command = ["make", "--no-print-directory", "venv", f"VENV={folder}", *variables]
    if subprocess.run(command).returncode:
        sys.exit(f"{folder} cannot be made; make test-all PYTHONS= leaves the other Pythons out")
    return f"{folder}/bin/python"


def run(session: Session) -> Outcome:
    """Run pytest, passing its output through."""
    print(f"\n{session.title}", flush=True)
    color = "yes" if sys.stdout.isatty() else "auto"
    command = [session.python, "-m", "pytest", f"--color={color}", *WORKERS, *session.arguments]
    last = b""
    extra = () if session.every_server else EXTRA_SERVERS
    environment = {name: value for name, value in os.environ.items() if name not in extra}
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment) as pytest:
        # By pieces, not by lines, so that the dots of a running file are seen.
        while piece := cast(io.BufferedReader, pytest.stdout).read1():
            sys.stdout.buffer.write(piece)
            sys.stdout.buffer.flush()
            last = (last + piece)[-2000:]
    return Outcome(session.title, pytest.returncode, last.decode().strip().rpartition("\n")[2])


def main(arguments: list[str]) -> int:
    os.chdir(TOP)
    title = f"Python {sys.version.split()[0]}"
    everything = Session(title, sys.executable, tuple(arguments), every_server=True)
    outcomes = [run(everything)]
    if outcomes[0].status == USAGE_ERROR:  # nothing was run: a server is missing, say
        return USAGE_ERROR
    named = any(Path(argument.partition("::")[0]).exists() for argument in arguments)
    selection = (*WITHOUT_FAULTS, *arguments, *(() if named else ELSEWHERE))
    lowest = make(".venv-lowest", f"BASE_PYTHON={sys.executable}", "OPTIONS=--lowest")
    sessions = [Session("the oldest libraries promised", lowest, selection)]
    for minor, place in other_pythons().items():
        python = make(f".venv-3.{minor}", f"BASE_PYTHON={place}")
        sessions.append(Session(f"Python 3.{minor}", python, selection))
    outcomes += [run(session) for session in sessions]
    outcomes.reverse()  # this Python's closing line comes last
    for outcome in sorted(outcomes, key=lambda one: one.status != 0):
        print(f"\n{outcome.title}{' FAILED' if outcome.status else ''}:\n{outcome.closing_line}")
    return max(outcome.status for outcome in outcomes)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
