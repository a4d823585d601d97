"""Measures jobu-db beside the bare drivers, their pools and other libraries.

    make bench                                  everything; takes about twenty minutes
    make bench ARGS="--work ac --on postgres"   some of it
    make bench ARGS="--servers mariadb mysql-9" private servers of these, not only the first
    make bench ARGS="--quick"                   to see that it runs; its figures mean nothing
    make bench ARGS="--pinned"                  on one processor: for a busy machine
    make bench ARGS="--apart"                   on two, one of them for the servers alone
    make bench ARGS="--latency 1"               with a network whose round trip takes 1 ms longer
    make bench ARGS="--floor"                   also the messages of jobu-db, by the driver alone
    make bench ARGS="--publish X Y Z"           no measuring: the figures of runs with --into X, Y
                                                and Z go into the README, and so into the chart

Writes report.md, chart.svg and figures.json, and prints the report. Servers are found the same
way as for the tests: JOBU_TEST_POSTGRES_URL and JOBU_TEST_MYSQL_URL name some, programs on this
machine are started as private ones.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

from chart import svg
from compare import Order
from figures import Run, mode_of
from latency import behind
from outcome import Outcome
from places import CLASSES
from publish import README, publish
from report import machine, markdown
from runner import outcome
from servers import found
from works import WORKS


def arguments(description: str) -> argparse.ArgumentParser:
    """Return what can be asked for on the command line."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--work", type=_letters, default="".join(WORKS), metavar="LETTERS", help="(%(default)s)")
    add("--on", nargs="+", default=list(CLASSES), choices=list(CLASSES), help="which databases")
    add("--servers", nargs="+", default=[], metavar="NAME", help="such as mariadb mysql-9")
    add("--rounds", type=int, default=None, metavar="N", help="of each comparison (100)")
    add("--quick", action="store_true", help="little work, three rounds")
    add("--pinned", action="store_true", help="one processor, ahead of all other processes")
    add("--apart", action="store_true", help="the same with another processor for the servers")
    add("--latency", type=float, default=0.0, metavar="MS", help="of a network to the servers")
    add("--floor", action="store_true", help="also jobu-db's messages with the driver alone")
    add("--only", nargs="+", default=None, metavar="TITLE", help="which contestants")
    add("--into", type=Path, default=Path("data/bench"), metavar="FOLDER", help="(%(default)s)")
    return parser


def _letters(text: str) -> str:
    if unknown := set(text) - set(WORKS):
        raise argparse.ArgumentTypeError(f"there is no ({'), ('.join(sorted(unknown))})")
    return text


def orders(given: argparse.Namespace, places: list[tuple[str, str | None]]) -> Iterator[Order]:
    """Yield what to compare, one kind of work after the other."""
    rounds = given.rounds or (3 if given.quick else 100)
    for letter in given.work:
        for kind, url in places:
            if kind in WORKS[letter].kinds:
                yield Order(letter, kind, url, rounds, given.quick, given.only, given.floor)


def pin(processor: int) -> None:
    """Have one processor to ourselves, with all that is started from here, private servers too.

    Realtime priority takes a privilege; without it, other processes still get in between.
    """
    os.sched_setaffinity(0, {processor})
    with suppress(PermissionError):
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))


def measure(given: argparse.Namespace) -> Run:
    """Compare, one after the other."""
    processors = sorted(os.sched_getaffinity(0))
    if given.pinned or given.apart:
        pin(processors[-1])
    outcomes: list[Outcome] = []
    run = Run(mode_of(given), given.quick, machine(), outcomes)
    with found(given.on, given.servers) as places, ExitStack() as stack:
        if given.latency:
            places = [
                (kind, url and stack.enter_context(behind(url, given.latency)))
                for kind, url in places
            ]
        if given.apart:
            pin(processors[0])
        for order in orders(given, places):
            title = f"({order.work}) {WORKS[order.work].title} · {order.kind}"
            print(title, file=sys.stderr, flush=True)
            outcomes.append(outcome(order))
            run.save(given.into)  # each time: all of them take long, and the next may fail
    return run


def write(run: Run, folder: Path) -> str:
    """Write the files; return the report."""
    run.save(folder)
    (folder / "chart.svg").write_text(svg(run.outcomes), encoding="utf-8")
    text = markdown(run)
    (folder / "report.md").write_text(text, encoding="utf-8")
    return text


def main() -> None:
    parser = arguments(__doc__ or "")
    add = parser.add_argument
    add("--publish", nargs="+", type=Path, metavar="FOLDER", help="write what these runs found")
    add("--readme", type=Path, default=README, metavar="FILE", help="into this file (%(default)s)")
    given = parser.parse_args()
    if not given.publish:
        print(write(measure(given), given.into))
        return
    try:
        publish([Run.load(folder) for folder in given.publish], given.readme)
    except ValueError as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
