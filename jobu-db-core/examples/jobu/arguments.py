"""What can be asked of the demo on the command line."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Arguments:
    """See the help texts below."""

    config: Path
    database: str
    jobs: int
    executions: int
    workers: int
    kill_after: int | None
    kill_between_commits: bool
    atomic: bool


def parse(argv: Sequence[str] | None = None) -> Arguments:
    """Read the arguments; exits with code 2 and a message if they are wrong."""
    parser = argparse.ArgumentParser(
        description="Cron jobs enqueue executions, workers claim them and work in two databases. "
        "A run that was killed is resumed by the next one; a finished one is begun anew.",
    )
    add = parser.add_argument
    add(
        "--config", type=Path, default=Path("config/database.yaml"), metavar="FILE",
        help="where the databases are described (%(default)s)",
    )  # fmt: skip
    add("--database", default="default", metavar="NAME", help="which one to use (%(default)s)")
    add("--jobs", type=_count, default=50, metavar="N", help="cron jobs (%(default)s)")
    add("--executions", type=_count, default=2000, metavar="N", help="of all jobs (%(default)s)")
    add("--workers", type=_count, default=8, metavar="N", help="side by side (%(default)s)")
    kill = parser.add_mutually_exclusive_group()
    kill.add_argument(
        "--kill-after", type=_count, metavar="N",
        help="kill this process (SIGKILL) once it has finished N executions",
    )  # fmt: skip
    kill.add_argument(
        "--kill-between-commits", action="store_true",
        help="kill it mid-run, when one database has committed and the other has not",
    )  # fmt: skip
    add(
        "--atomic", action="store_true",
        help="work in atomic units, so that nothing has to be looked up after a kill; one of the "
        "two databases must be a server: if the queue is on SQLite, the ledger goes to the first "
        "one of FILE",
    )  # fmt: skip
    return Arguments(**vars(parser.parse_args(argv)))


def _count(text: str) -> int:
    try:
        number = int(text)
    except ValueError:
        number = 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number from 1 up, not {text!r}")
    return number
