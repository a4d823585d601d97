"""`jobu-db init`: a configuration where there is none, and the tables of each database."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path

import click
from rich.text import Text

from jobu_db.cli.arguments import config_option, names_argument
from jobu_db.cli.opening import chosen_settings, for_a_command, opened
from jobu_db.cli.output import messages, output
from jobu_db.settings.models import DatabaseSettings

STARTER = """\
# The databases of this program, by name. What else can be set:
#   jobu-db check     what is in effect now
#   jobu-db schema    a JSON Schema, with which editors complete this file
databases:
  default:
    type: sqlite
    path: "data/app.db"    # its folder is created
    # init_sql: "sql/schema.sql"    # run at every start, and by: jobu-db init
"""


@click.command(short_help="Make a configuration where there is none, and the tables")
@names_argument
@config_option
@click.option(
    "--script",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Run this SQL file, whatever init_sql says.",
)
@click.option(
    "--builtin", is_flag=True, help="Run the backend's own: tables cron_jobs, job_executions."
)
def init(names: tuple[str, ...], config: str, script: Path | None, builtin: bool) -> None:
    """Make what is missing: a configuration, the databases, their tables.

    Without a configuration, writes one with an SQLite database. Then opens each database, or
    those named, and runs the SQL file of its init_sql setting. Nothing that is there is
    overwritten; the SQL must be such that it can run again (CREATE TABLE IF NOT EXISTS).
    """
    if script and builtin:
        raise click.UsageError("--script and --builtin exclude each other")
    if not Path(config).exists():
        _write(Path(config))
    settings = chosen_settings(config, names)
    asyncio.run(_run(settings, script or builtin))


def _write(path: Path) -> None:
    try:
        # Only called where there is no such file: what somebody wrote is never replaced.
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(STARTER, encoding="utf-8")
    except OSError as error:
        raise click.ClickException(f"{path} cannot be written: {error.strerror}") from error
    output().print(f"wrote {path}, with an SQLite database", soft_wrap=True)


async def _run(settings: Mapping[str, DatabaseSettings], script: Path | bool) -> None:
    console = output()
    with messages().status("") as status:
        for number, (name, each) in enumerate(settings.items(), 1):
            status.update(Text(f"{name} ({number} of {len(settings)})"))
            wanted = script or each.init_sql
            async with opened(name, for_a_command(each, init_sql=wanted)):
                done = "ran the backend's own SQL" if wanted is True else f"ran {wanted}"
                told = done if wanted else "answers; it has no init_sql, so nothing was run"
                console.print(f"{name}: {told}", soft_wrap=True)
