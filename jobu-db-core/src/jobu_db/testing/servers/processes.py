"""The processes of a private server: which they are, whether they run, how they end.

Run as a program, `processes.py FOLDER [COMMAND...]` is the keeper: it waits until the process
that holds its standard input is gone, however that went, ends the server whose id is in
FOLDER/pid, runs COMMAND and deletes FOLDER. It imports nothing but the standard library.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

PID_FILE = "pid"


def process_table() -> dict[int, tuple[int, str]]:
    """Return parent and state letter of every process, by its id."""
    if not Path("/proc/self/stat").exists():
        return _table_by_ps()
    table = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                # The name, in parentheses, may itself hold spaces and parentheses.
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except (FileNotFoundError, ProcessLookupError):
                continue
            table[int(entry.name)] = (int(fields[1]), fields[0])
    return table


def _table_by_ps() -> dict[int, tuple[int, str]]:
    listing = subprocess.run(
        ["ps", "-A", "-o", "pid=,ppid=,stat="], capture_output=True, text=True, check=True
    )
    rows = (line.split() for line in listing.stdout.splitlines())
    return {int(pid): (int(parent), state[0]) for pid, parent, state in rows}


def family(pid: int) -> list[int]:
    """Return the process and its children: PostgreSQL has one for each connection."""
    return [pid, *(child for child, (parent, _) in process_table().items() if parent == pid)]


def running(pids: Iterable[int]) -> list[int]:
    """Return those that still run; a zombie does not."""
    table = process_table()
    # A zombie has ended: its parent, which may be a stopped program, has not asked yet.
    return [pid for pid in pids if pid in table and table[pid][1] != "Z"]


def send(pids: Iterable[int], number: signal.Signals) -> None:
    """Send a signal to each; one that has ended by then is no error."""
    for pid in pids:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            continue


def wait_gone(pids: Iterable[int], seconds: float) -> bool:
    """Wait until none of them runs, and say whether that came true in time."""
    deadline = time.monotonic() + seconds
    pids = list(pids)
    while running(pids):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def wait_reaped(pid: int, seconds: float) -> bool:
    """Wait until a process has left the table, which is its parent's doing, and say if it has."""
    deadline = time.monotonic() + seconds
    while pid in process_table():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def end(pid: int) -> None:
    """End a server and its children at once, stopped ones too."""
    pids = family(pid)
    # SIGQUIT is PostgreSQL's immediate shutdown: it gives its shared memory back.
    send([pid], signal.SIGQUIT)
    # A stopped process takes no signal but SIGKILL and SIGCONT.
    send(pids, signal.SIGCONT)
    if not wait_gone(pids, 2):
        send(pids, signal.SIGKILL)
        wait_gone(pids, 10)


def main(folder: str, command: Sequence[str]) -> None:
    """Wait for the end of the standard input, then leave nothing behind."""
    sys.stdin.buffer.read()
    with contextlib.suppress(FileNotFoundError):  # the server was stopped, or never started
        end(int((Path(folder) / PID_FILE).read_text()))
    if command:
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            print(f"{' '.join(command)} fails:\n{done.stderr}", file=sys.stderr)
    shutil.rmtree(folder)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
