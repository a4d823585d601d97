"""A small jobu: cron jobs enqueue executions, workers claim them and work in two databases.

Kill it in the middle, run it again, and the books still balance. To see how, read on here:

    executions.py   a queue in a table: the states of an execution, and all that changes them
    claims.py       how an execution gets to one worker, and to one only
    work.py         one unit of work in two databases; an atomic one with --atomic
    recovery.py     what to do with the work of a process that died
    books.py        the proof that nothing was lost and nothing done twice

Exit codes: 0, the books balance; 1, they do not, or the run broke off; 2, the arguments or the
configuration are wrong, or a database cannot be opened.
"""

from __future__ import annotations

import asyncio
import sys
from contextlib import AsyncExitStack
from dataclasses import replace

from arguments import Arguments, parse
from books import check_books
from databases import Databases, opened
from evidence import gather
from kill import Killer
from progress import Progress
from recovery import Recovered, end_prepared, recover
from report import print_report
from rich.console import Console
from runs import Run, begin
from workers import work_off

from jobu_db import DatabaseError

BALANCED, NOT_BALANCED, NOT_STARTED = 0, 1, 2


async def main(arguments: Arguments, console: Console) -> int:
    """Open the databases, run, close them; return the exit code."""
    async with AsyncExitStack() as stack:
        try:
            databases = await stack.enter_async_context(
                opened(arguments.config, arguments.database, atomic=arguments.atomic)
            )
        except DatabaseError as error:
            print(f"error: {error}", file=sys.stderr)
            return NOT_STARTED
        try:
            return await run(databases, arguments, console)
        except* DatabaseError as errors:
            for each in leaves(errors):
                print(f"error: {each}", file=sys.stderr)
            print("The run broke off. Run it again to resume.", file=sys.stderr)
    return NOT_BALANCED


async def run(databases: Databases, arguments: Arguments, console: Console) -> int:
    """Work off what is there, and prove it."""
    if arguments.atomic:
        await end_prepared(console)
    this = await begin(databases, arguments)
    recovered = await recover(this)
    this = replace(this, finished=this.finished + recovered.done)
    console.print(describe(this, recovered), soft_wrap=True)
    with (
        Progress(console, this.total, this.finished) as progress,
        Killer(arguments, this, progress) as killer,
    ):
        tally = await work_off(this, arguments.workers, progress, killer)
    evidence = await gather(this)
    checks = check_books(evidence, enqueued=this.total)
    print_report(console, databases, tally, evidence, checks)
    return NOT_BALANCED if any(check.wrong for check in checks) else BALANCED


def describe(this: Run, recovered: Recovered) -> str:
    """Say what this run begins with."""
    if not this.resumed:
        return f"A new batch of {this.total:,} executions is enqueued."
    return (
        f"Resuming an unfinished batch: {this.finished:,} of {this.total:,} executions are "
        f"finished. Of those that were under way, {recovered.given_back} wait again"
        + (
            ": nothing had to be looked up."
            if this.databases.atomic
            else f", and {recovered.done} had been done: the ledger has them."
        )
    )


def leaves(error: BaseException) -> list[BaseException]:
    """Return the exceptions that a group, and groups inside it, consist of."""
    if isinstance(error, BaseExceptionGroup):
        return [leaf for inner in error.exceptions for leaf in leaves(inner)]
    return [error]


if __name__ == "__main__":
    try:
        sys.exit(asyncio.run(main(parse(), Console(highlight=False))))
    except KeyboardInterrupt:
        sys.exit("Interrupted. Run it again to resume.")
