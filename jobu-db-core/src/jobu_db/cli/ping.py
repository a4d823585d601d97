"""`jobu-db ping`: does each database answer, who is it, and how fast?"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from statistics import median
from time import monotonic
from typing import Any

import click
from rich.text import Text

from jobu_db.cli.arguments import config_option, names_argument
from jobu_db.cli.opening import chosen_settings, for_a_command, opened
from jobu_db.cli.output import failure, messages, milliseconds, output, printable, table
from jobu_db.database import BaseDatabase
from jobu_db.driver import ServerInfo
from jobu_db.errors import ConnectionFailedError, DatabaseError
from jobu_db.settings.models import DatabaseSettings

ROUND_TRIPS = 5
PAUSE = 0.5
"""Seconds between two attempts while a server starts."""


@dataclass
class Answer:
    """What became of one database. Times are in seconds."""

    server: ServerInfo | None = None
    connect: float = 0.0
    round_trips: list[float] = field(default_factory=list)
    stats: Mapping[str, Any] = field(default_factory=dict)
    error: DatabaseError | None = None


@click.command(short_help="See whether each database answers, who it is, and how fast")
@names_argument
@config_option
@click.option(
    "--wait",
    type=click.FloatRange(min=0),
    default=0.0,
    metavar="SECONDS",
    help="Try again for so long while a server is still starting.",
)
@click.option(
    "--timeout",
    type=click.FloatRange(min=0, min_open=True),
    default=5.0,
    show_default=True,
    metavar="SECONDS",
    help="How long each attempt may take.",
)
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def ping(names: tuple[str, ...], config: str, wait: float, timeout: float, as_json: bool) -> None:
    """Connect to all databases, or to those named, and ask who answers.

    For container probes: exit code 0, all answer; 1, one does not; 2, the arguments or the
    configuration are wrong.
    """
    settings = chosen_settings(config, names)
    answers = asyncio.run(_ask(settings, wait, timeout))
    if as_json:
        click.echo(json.dumps({name: _plain(each) for name, each in answers.items()}, indent=2))
    else:
        _print(answers)
    if any(answer.error for answer in answers.values()):
        raise click.exceptions.Exit(1)


async def _ask(
    settings: Mapping[str, DatabaseSettings], wait: float, timeout: float
) -> dict[str, Answer]:
    """Ask all of them side by side, and show who is still waited for."""
    began = monotonic()
    with messages().status("") as status:
        async with asyncio.TaskGroup() as group:
            asked = {
                name: group.create_task(
                    _patiently(name, for_a_command(each, pool={"timeout": timeout}), wait)
                )
                for name, each in settings.items()
            }
            while waiting := [name for name, task in asked.items() if not task.done()]:
                status.update(Text(f"{', '.join(waiting)}: {monotonic() - began:.0f} s"))
                await asyncio.wait(asked.values(), timeout=0.2)
    return {name: task.result() for name, task in asked.items()}


async def _patiently(name: str, settings: DatabaseSettings, wait: float) -> Answer:
    deadline = monotonic() + wait
    while True:
        answer = await _once(name, settings)
        # Only for what waiting may mend: a wrong password is told at once, however long the wait.
        starting = isinstance(answer.error, ConnectionFailedError) and answer.error.transient
        if not starting or monotonic() >= deadline:
            return answer
        await asyncio.sleep(min(PAUSE, max(0.0, deadline - monotonic())))


async def _once(name: str, settings: DatabaseSettings) -> Answer:
    answer = Answer()
    began = monotonic()
    try:
        # The pool's timeout is for acquire alone. A server that lets us in and is silent afterwards
        # is what a probe has to find, so one limit covers all of it.
        async with asyncio.timeout(settings.pool.timeout), opened(name, settings) as database:
            answer.connect = monotonic() - began
            await _examine(database, answer)
    except DatabaseError as error:
        answer.error = error
    except TimeoutError:
        limit = settings.pool.timeout
        answer.error = ConnectionFailedError(
            f"no answer within {limit:g} s", transient=True, database=name
        )
    return answer


async def _examine(database: BaseDatabase, answer: Answer) -> None:
    driver, pool = database.driver, database.pool
    async with pool.connection() as lease:
        with pool.translating(None):
            # First, on the same connection: the round trips measured after it have nothing left to
            # set up.
            answer.server = await driver.describe(lease.connection)
            for _ in range(ROUND_TRIPS):
                began = monotonic()
                await driver.ping(lease.connection)
                answer.round_trips.append(monotonic() - began)
    answer.stats = database.stats()


def _plain(answer: Answer) -> dict[str, Any]:
    if answer.error is not None:
        return {
            "ok": False,
            "error": type(answer.error).__name__,
            "message": answer.error.message,
            "code": answer.error.code,
        }
    assert answer.server is not None
    return {
        "ok": True,
        "server": answer.server.product,
        "version": answer.server.version,
        "role": answer.server.role,
        "tls": answer.server.tls,
        "connect_seconds": answer.connect,
        "round_trip_seconds": {
            "min": min(answer.round_trips),
            "median": median(answer.round_trips),
            "max": max(answer.round_trips),
        },
        "advice": answer.stats.get("advice"),
    }


def _print(answers: Mapping[str, Answer]) -> None:
    shown = table(
        "Database", "", "Server", "Role", "Encrypted", "Connect", "Round trip",
        numbers=("Connect", "Round trip"),
    )  # fmt: skip
    for name, answer in answers.items():
        if answer.error is not None or answer.server is None:
            shown.add_row(name, Text("FAILED", "red"))
            continue
        server = answer.server
        shown.add_row(
            name,
            Text("ok", "green"),
            printable(f"{server.product} {server.version}"),
            server.role or "-",
            (server.tls or "no").partition(" ")[0],
            milliseconds(answer.connect),
            milliseconds(median(answer.round_trips)),
        )
    output().print(shown)
    for answer in answers.values():
        if answer.error is not None:
            failure(str(answer.error))
