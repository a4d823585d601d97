"""`jobu-db recover`: end what atomic units left prepared when a program or a server stopped."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from contextlib import AsyncExitStack

import click
from rich.text import Text

from jobu_db.cli.arguments import config_option, names_argument
from jobu_db.cli.opening import chosen_settings, for_a_command, opened
from jobu_db.cli.output import failure, messages, output, table
from jobu_db.database import BaseDatabase
from jobu_db.errors import DatabaseError
from jobu_db.recovery import Recovery
from jobu_db.recovery import recover as recover_once
from jobu_db.settings.models import DatabaseSettings
from jobu_db.transaction.decisions import confirm_identity


@click.command(short_help="End what atomic units left prepared")
@names_argument
@config_option
@click.option(
    "--confirm",
    metavar="NAME",
    help="First say that this database, which decides, is the original: it was moved or restored.",
)
@click.option(
    "--renew",
    metavar="NAME",
    help="First say that this database is a copy: it gets a new identity.",
)
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def recover(
    names: tuple[str, ...], config: str, confirm: str | None, renew: str | None, as_json: bool
) -> None:
    """Commit or roll back the prepared parts of atomic units, as their deciders say.

    All databases of the file, or those named: both the ones that prepare and those that decide for
    them. It may run at any time, also beside running programs. What is undecided or belongs to
    a decider that is not among them is shown and left alone.

    Exit codes: 0, nothing is left prepared; 1, something is, or a database cannot be asked.
    """
    settings = chosen_settings(config, names)
    for name in filter(None, (confirm, renew)):
        if name not in settings:
            known = ", ".join(settings)
            raise click.UsageError(f"{name!r} is not among the databases: {known}")
    if confirm is not None and confirm == renew:
        raise click.UsageError("--confirm and --renew contradict each other")
    told = asyncio.run(_recover(settings, confirm, renew))
    if as_json:
        click.echo(json.dumps(_plain(told), indent=2))
    else:
        _print(told)
    if not told.complete:
        raise click.exceptions.Exit(1)


async def _recover(
    settings: Mapping[str, DatabaseSettings], confirm: str | None, renew: str | None
) -> Recovery:
    databases: dict[str, BaseDatabase] = {}
    errors: dict[str, DatabaseError] = {}
    async with AsyncExitStack() as stack:
        for name, each in settings.items():
            try:
                databases[name] = await stack.enter_async_context(opened(name, for_a_command(each)))
            except DatabaseError as error:
                # A database that is away does not keep the others from being recovered: its
                # branches wait, and those that it decides are told and left alone.
                errors[name] = error
        # Before the round, which leaves units of a database alone that is not what it was.
        for name in filter(None, (confirm, renew)):
            if name in databases:
                await confirm_identity(databases[name].pool, renew=name == renew)
        with messages().status("recovering"):
            told = await recover_once(databases)
    told.errors |= errors
    return told


def _plain(told: Recovery) -> dict[str, object]:
    return {
        "complete": told.complete,
        "branches": [
            {
                "database": one.database,
                "unit": one.unit,
                "decider": one.decider,
                "fate": one.fate.value,
                "age_seconds": one.age,
                "why": one.why,
            }
            for one in told.found
        ],
        "forgotten": told.forgotten,
        "mismatches": told.mismatches,
        "errors": {name: str(error) for name, error in told.errors.items()},
    }


def _print(told: Recovery) -> None:
    if told.found:
        shown = table("Database", "Unit", "Decider", "Age", "", numbers=("Age",))
        for one in told.found:
            shown.add_row(one.database, one.unit, one.decider, f"{one.age:,.0f} s", one.fate.value)
        output().print(shown)
    for why in dict.fromkeys(f"{one.database}: {one.why}" for one in told.found if one.why):
        failure(why)
    for name, why in told.mismatches.items():
        failure(f"{name}: {why}; see --confirm and --renew")
    for error in told.errors.values():
        failure(str(error))
    if told.complete:
        rows = f"; {told.forgotten} finished units forgotten" if told.forgotten else ""
        ended = f"{len(told.found)} ended" if told.found else "nothing was left prepared"
        output().print(Text.assemble(("ok", "green"), f" {ended}{rows}"))
