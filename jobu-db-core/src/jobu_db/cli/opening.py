"""Opening the databases of a configuration file for the length of one command."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from jobu_db.database import BaseDatabase
from jobu_db.errors import ConfigurationError
from jobu_db.plugins import database_class
from jobu_db.settings.loader import parse_databases
from jobu_db.settings.models import DatabaseSettings


def chosen_settings(config: str, names: Sequence[str] | None) -> dict[str, DatabaseSettings]:
    """Check the settings of all databases of a file, or of those named.

    Raises:
        ConfigurationError: With all problems; or there is no such file.
        DatabaseNotFoundError: A name is not in the file.
    """
    if not Path(config).exists():
        raise ConfigurationError(
            f"{config}: there is no such file; name yours with --config or JOBU_DB_CONFIG, or let "
            "`jobu-db init` write one"
        )
    return parse_databases(config, names or None, lambda kind: database_class(kind).settings_class)


def for_a_command(settings: DatabaseSettings, **changes: Any) -> DatabaseSettings:
    """Return settings with which only what is asked for happens: nothing is kept warm, and no
    script runs at start."""
    pool = settings.pool.model_copy(
        # Not lazy: a command is to fail here, at the database that does not answer, if it is to
        # fail.
        update={"min_size": 0, "lazy": False, **changes.pop("pool", {})}
    )
    return settings.model_copy(update={"init_sql": False, **changes, "pool": pool})


@asynccontextmanager
async def opened(name: str, settings: DatabaseSettings) -> AsyncIterator[BaseDatabase]:
    """Open one database, and close it whatever happens."""
    database = await database_class(settings.type).create(name, settings)
    try:
        yield database
    finally:
        await database.close(timeout=1)
