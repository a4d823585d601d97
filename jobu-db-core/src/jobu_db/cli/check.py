"""`jobu-db check`: is the configuration right, and what does it come to?"""

from __future__ import annotations

import sys
from typing import Any

import click
import yaml

from jobu_db.cli.arguments import config_option
from jobu_db.cli.output import failure, messages
from jobu_db.plugins import database_class
from jobu_db.settings.loader import check_databases
from jobu_db.settings.models import DatabaseSettings


@click.command(short_help="Find all problems of the configuration; show what is in effect")
@click.argument("file", required=False, type=click.Path(dir_okay=False))
@config_option
def check(file: str | None, config: str) -> None:
    """Check FILE (default: the configuration) and show what is in effect.

    All problems are told at once. The settings in effect, defaults included, go to the standard
    output as YAML, secrets masked. Connects to nothing. Exit code 1: there are problems.
    """
    source = file or config
    settings, problems = check_databases(source, lambda kind: database_class(kind).settings_class)
    if problems:
        number = f"{len(problems)} problems" if len(problems) > 1 else "a problem"
        failure("\n".join([f"{source} has {number}", *problems]))
        sys.exit(1)
    click.echo(in_effect(settings), nl=False)
    number = "1 database" if len(settings) == 1 else f"{len(settings)} databases"
    messages().print(f"{source}: {number}, no problem", style="green", soft_wrap=True)


def in_effect(settings: dict[str, DatabaseSettings]) -> str:
    """Return the settings as YAML, secrets masked."""
    databases = {name: _plain(each) for name, each in settings.items()}
    return yaml.safe_dump({"databases": databases}, sort_keys=False, allow_unicode=True)


def _plain(settings: DatabaseSettings) -> dict[str, Any]:
    # A URL is told in its parts; functions can be given in Python only.
    return settings.model_dump(mode="json", exclude={"url": True, "pool": {"on_connect"}})
