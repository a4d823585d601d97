"""What several commands take."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from jobu_db.errors import ConfigurationError

F = TypeVar("F", bound=Callable[..., Any])

DEFAULT_CONFIG = "config/database.yaml"
_KEY = "jobu_db.config"


def config_option(function: F) -> F:
    """Add `--config FILE`. It may stand before the command's name or behind it."""
    return click.option(
        "--config",
        metavar="FILE",
        envvar="JOBU_DB_CONFIG",
        default=DEFAULT_CONFIG,
        show_default=True,
        show_envvar=True,
        callback=_nearest,
        # Before the names, which are completed from this file.
        is_eager=True,
        shell_complete=_complete_file,
        help="The configuration.",
    )(function)


def _nearest(ctx: click.Context, parameter: click.Parameter, given: str) -> str:
    """Take what stands behind the command, else what stands before it, else the default."""
    # Called for the group, and then for the command, which share `meta`. The command has a default
    # too, which must not replace what was given to the group.
    source = ctx.get_parameter_source("config")
    if source is click.core.ParameterSource.COMMANDLINE or _KEY not in ctx.meta:
        ctx.meta[_KEY] = given
    chosen: str = ctx.meta[_KEY]
    return chosen


def _complete_file(
    ctx: click.Context, parameter: click.Parameter, incomplete: str
) -> list[click.shell_completion.CompletionItem]:
    return [click.shell_completion.CompletionItem(incomplete, type="file")]


def names_argument(function: F) -> F:
    """Add `[NAME]...`."""
    return click.argument("names", metavar="[NAME]...", nargs=-1, shell_complete=complete_names)(
        function
    )


def complete_names(ctx: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
    """Offer the databases of the file, for the shell to complete."""
    try:
        # Of the file as it stands: neither backends nor variables are needed for it, and a shell
        # waits for the answer at each Tab.
        names = configured_names(ctx.meta.get(_KEY, DEFAULT_CONFIG))
    except ConfigurationError:
        return []
    return [name for name in names if name.startswith(incomplete)]


def configured_names(config: str) -> list[str]:
    """Return the names of the databases of a file.

    Raises:
        ConfigurationError: It cannot be read.
    """
    from jobu_db.settings.yaml_file import read_yaml

    data = read_yaml(Path(config))
    databases = data.get("databases") if isinstance(data, dict) else None
    return list(map(str, databases)) if isinstance(databases, dict) else []
