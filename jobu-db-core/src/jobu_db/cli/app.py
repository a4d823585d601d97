"""The commands by name, and how errors are told: in words, with an exit code, no traceback."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

import click

from jobu_db.cli.arguments import config_option
from jobu_db.cli.backends import backends
from jobu_db.cli.check import check
from jobu_db.cli.completion import completion
from jobu_db.cli.init import init
from jobu_db.cli.output import failure
from jobu_db.cli.ping import ping
from jobu_db.cli.recover import recover
from jobu_db.cli.schema import schema
from jobu_db.cli.sql import sql
from jobu_db.cli.stats import stats
from jobu_db.errors import (
    BackendLoadError,
    BackendNotFoundError,
    ConfigurationError,
    DatabaseError,
    DatabaseNotFoundError,
)

FAILED, WRONG, INTERRUPTED = 1, 2, 130
"""Exit codes."""

_WRONG = (ConfigurationError, DatabaseNotFoundError, BackendNotFoundError, BackendLoadError)


class _App(click.Group):
    """Tells what jobu-db raises; click tells what is wrong with the arguments."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)  # in the order in which a newcomer needs them

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return self._invoke(ctx)
        except KeyboardInterrupt:
            failure("interrupted")
            ctx.exit(INTERRUPTED)

    def _invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        # except*, since tasks that run side by side, and databases that are closed so, raise
        # groups; it takes an error outside of a group just as well.
        except* DatabaseError as errors:
            leaves = _leaves(errors)
            for error in leaves:
                failure(str(error))
            # The settings first: while they are wrong, what else failed may be a consequence.
            ctx.exit(WRONG if any(isinstance(error, _WRONG) for error in leaves) else FAILED)


def _leaves(error: BaseException) -> list[BaseException]:
    """Return the exceptions that a group, and groups inside it, consist of."""
    if isinstance(error, BaseExceptionGroup):
        return [leaf for inner in error.exceptions for leaf in _leaves(inner)]
    return [error]


@click.group(
    cls=_App,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 80},
    epilog="Exit codes: 0, all is well; 1, a database is not; 2, the arguments or the "
    "configuration are wrong.",
)
@click.version_option(version("jobu-db-core"), prog_name="jobu-db")
@config_option
def app(config: str) -> None:
    """Look after the databases of a configuration file."""


for command in (check, ping, backends, sql, recover, init, schema, stats, completion):
    app.add_command(command)
