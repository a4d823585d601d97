"""What the configuration file may say about an SQLite database."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, get_args

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    GetJsonSchemaHandler,
    ValidationInfo,
    field_validator,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from jobu_db.settings import (
    DatabaseSettings,
    FilePath,
    MillisecondsOrOff,
    PoolConfig,
    PoolSize,
    Settings,
    Text,
)
from jobu_db.settings.validation import Given
from jobu_db_sqlite.uri import parse_uri, parse_url

MEMORY = Path(":memory:")
"""The path of a database in memory."""

Mode = Literal["rwc", "rw", "ro", "immutable"]
READ_ONLY: frozenset[Mode] = frozenset(("ro", "immutable"))
"""Modes in which nothing can be written."""

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


def _expand(path: Path) -> Path:
    if str(path).startswith("file:"):
        # A Path has lost slashes: file:///data.db has become file:/data.db.
        raise ValueError("must be a URI as text, or a path")
    try:
        return path.expanduser()
    except RuntimeError:
        raise ValueError(
            "has a ~ whose home directory is unknown: write the path in full"
        ) from None


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

    no_replicas = (
        "an SQLite database is one file, which has no replicas; in WAL mode its readers do not "
        "wait for writers"
    )

    type: Literal["sqlite"] = Field(default="sqlite", description="The backend.")
    path: Annotated[FilePath, AfterValidator(_expand)] = Field(
        description="The file, relative to the working directory, or :memory:; also an SQLite URI, "
        "file:PATH?mode=ro. Missing directories are created."
    )
    url: Text | None = Field(
        default=None,
        description="sqlite:///PATH instead of the path; a fourth slash begins an absolute one.",
    )
    mode: Mode = Field(
        default="rwc",
        description="rwc creates a missing file, rw does not. ro only reads, and leaves the "
        "journal mode as it is. immutable does so without looking for locks or a log: for a file "
        "that nobody writes to.",
    )
    options: SQLiteOptions = SQLiteOptions()
    pool: SQLitePoolConfig = SQLitePoolConfig()

    @classmethod
    def read(cls, data: Mapping[Any, Any]) -> Given:
        """Sort what was given; the parts of a URI become settings like any others."""
        given = super().read(data)
        path, url = given.values.get("path"), given.values.get("url")
        if isinstance(path, str) and path.startswith("file:"):
            del given.values["path"]
            _add_parts(given, "path", parse_uri, path)
        if isinstance(url, str):
            del given.values["url"]
            _add_parts(given, "url", parse_url, url)
        return given

    @field_validator("mode")
    @classmethod
    def _can_be_written(cls, mode: Mode, info: ValidationInfo) -> Mode:
        if mode in READ_ONLY and info.data.get("init_sql"):
            raise ValueError("must be rwc or rw with init_sql, which writes")
        if mode in READ_ONLY and info.data.get("path") == MEMORY:
            raise ValueError("must be rwc in memory, where there is nothing to read yet")
        return mode

    @classmethod
    def __get_pydantic_json_schema__(
        cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        schema = super().__get_pydantic_json_schema__(core_schema, handler)
        # A `url` becomes a path only when it is read: what is written may have either.
        schema["required"].remove("path")
        either = {"anyOf": [{"required": ["path"]}, {"required": ["url"]}]}
        schema["allOf"] = [*schema.get("allOf", ()), either]
        return schema


def _add_parts(given: Given, key: str, parse: Callable[[str], dict[str, str]], text: str) -> None:
    try:
        parts = parse(text)
    except ValueError as error:
        given.refuse(key, str(error))
        given.complete = False
        return
    for name, value in parts.items():
        if given.values.get(name) is not None:
            given.refuse(key, f"sets the same as {name}: give only one of them")
        else:
            given.values[name] = value
            given.keys[name] = key
            given.inside.add(name)
