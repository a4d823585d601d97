"""What the configuration file may say about an SQLite database."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, get_args

from pydantic import AfterValidator, BeforeValidator, Field

from jobu_db.settings import (
    DatabaseSettings,
    FilePath,
    MillisecondsOrOff,
    PoolConfig,
    PoolSize,
    Settings,
)

MEMORY = Path(":memory:")
"""The path of a database in memory."""

JournalMode = Literal["WAL", "DELETE", "TRUNCATE", "PERSIST", "MEMORY", "OFF"]
Synchronous = Literal["OFF", "NORMAL", "FULL", "EXTRA"]

JOURNAL_MODES: dict[str, str] = {
    mode: f"PRAGMA journal_mode = {mode}" for mode in get_args(JournalMode)
}
SYNCHRONOUS: dict[str, str] = {
    mode: f"PRAGMA synchronous = {mode}" for mode in get_args(Synchronous)
}


def _upper(value: Any) -> Any:
    return value.upper() if isinstance(value, str) else value


def _no_uri(path: Path) -> Path:
    if str(path).startswith("file:"):
        raise ValueError("must be a path or :memory:, not a URI")
    return path


class SQLiteOptions(Settings):
    """What is set on each connection."""

    busy_timeout: MillisecondsOrOff = Field(
        default=5000,
        description="Milliseconds to wait for a lock of another process. Off: not at all.",
    )
    statement_timeout: MillisecondsOrOff = Field(
        default=None,
        description="Milliseconds that a statement may take, the wait for a lock included.",
    )
    journal_mode: Annotated[JournalMode, BeforeValidator(_upper)] = Field(
        default="WAL", description="WAL lets readers and the writer work side by side."
    )
    synchronous: Annotated[Synchronous, BeforeValidator(_upper)] = Field(
        default="FULL",
        description="FULL: what was committed survives a power cut. NORMAL is faster, and in WAL "
        "mode safe against all but the loss of the last commits in a power cut.",
    )
    cache_size: int | None = Field(
        default=None,
        ge=-(2**31),
        lt=2**31,
        description="Pages to cache for each connection; if negative, KiB. Null: SQLite's default.",
    )
    foreign_keys: bool = Field(default=True, description="Whether foreign keys are enforced.")


class SQLitePoolConfig(PoolConfig):
    """The pool. In WAL mode readers work side by side; writers take turns."""

    aliases: ClassVar[dict[str, tuple[str, ...]]] = {
        **PoolConfig.aliases,
        "pool_size": ("min_size", "max_size"),
    }

    max_size: PoolSize = Field(default=5, description="Connections open at most.")


class SQLiteSettings(DatabaseSettings):
    """A database in a file or in memory. `:memory:` is one connection, whatever the pool says."""

    type: Literal["sqlite"] = Field(default="sqlite", description="The backend.")
    path: Annotated[FilePath, AfterValidator(_no_uri)] = Field(
        description="The file, relative to the working directory, or :memory:. "
        "Missing directories are created."
    )
    options: SQLiteOptions = SQLiteOptions()
    pool: SQLitePoolConfig = SQLitePoolConfig()
