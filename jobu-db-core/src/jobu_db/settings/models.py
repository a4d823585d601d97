"""Settings of pools and databases, checked so that every problem is told at once.

A backend subclasses `DatabaseSettings` and `PoolConfig`, adds fields and changes defaults. An
error names the key as it was written, what is allowed, and never a secret.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetJsonSchemaHandler,
    ModelWrapValidatorHandler,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic.json_schema import JsonSchemaValue, SkipJsonSchema
from pydantic_core import CoreSchema

from jobu_db.errors import ConfigurationError
from jobu_db.settings.messages import must_be, tell
from jobu_db.settings.types import CountOrOff, FilePath, PoolSize, Seconds, SecondsOrOff, Text
from jobu_db.settings.validation import Given, as_wanted, explain, problems_error, types_in
from jobu_db.settings.variables import interpolate


@functools.cache
def _schema_of(model: type[Settings]) -> dict[str, Any]:
    """Return what explains a problem. Pydantic makes it anew each time, which takes a while."""
    return model.model_json_schema()


class Settings(BaseModel):
    """A frozen mapping of settings. Unknown keys, wrong types and NaN are refused.

    Class attributes:
        aliases: Other names, each with the fields it sets.
        exclusive: Pairs of fields of which only one may be given.
        shorthand: The field that a plain text or boolean in place of the mapping stands for.

    A validator of a backend may raise `ValueError`: its text is shown, so it holds no value, which
    may have come from a variable.
    To compare fields, validate the later one and read the earlier from `info.data`: that way
    the comparison is made, and told, beside all other problems.

    Raises:
        pydantic.ValidationError: From the constructor, with all problems.
    """

    # strict: "5" is no number, and 1 no boolean. Text becomes one only where it came from a
    # variable (`as_wanted`), which cannot hold anything else. validate_default: a default may
    # contradict what was given, as max_size a min_size. hide_input_in_errors: the input may be a
    # secret.
    model_config = ConfigDict(
        allow_inf_nan=False,
        extra="forbid",
        frozen=True,
        hide_input_in_errors=True,
        strict=True,
        validate_default=True,
    )

    aliases: ClassVar[Mapping[str, tuple[str, ...]]] = {}
    exclusive: ClassVar[tuple[tuple[str, str], ...]] = ()
    shorthand: ClassVar[str | None] = None

    if not TYPE_CHECKING:  # A type checker would take it for leave to set anything.

        def __setattr__(self, name: str, value: Any) -> None:
            # Pydantic's own refusal shows the value, which may be a secret.
            raise AttributeError(f"{type(self).__name__} cannot be changed: {name}")

    @classmethod
    def read(cls, data: Mapping[Any, Any]) -> Given:
        """Sort what was given by field. Override to understand another notation as well."""
        given = Given()
        for key, value in data.items():
            if given.accepts_key(key):
                for name in cls.aliases.get(key, (key,)):
                    given.add(name, key, value)
        return given

    @model_validator(mode="wrap")
    @classmethod
    def _tell_all_problems(cls, data: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        if isinstance(data, Settings):
            # A default, or made in Python: it was checked when it was made.
            return handler(data)
        # In this order: pairs that exclude each other are looked for before unsafe values are
        # dropped, of which one would no longer be seen to be given; and what is left is checked
        # even if there are problems already, so that all are told at once.
        given = cls._read_any(data)
        given.exclude(cls.exclusive)
        given.drop_unsafe(cls._is_nested)
        values = {
            name: as_wanted(value, cls._annotation(name)) for name, value in given.values.items()
        }
        problems = given.problems
        try:
            settings = handler(values)
        except ValidationError as error:
            problems += explain(given, error, _schema_of(cls), cls.aliases)
        else:
            if not problems:
                return settings
        # Raised here, pydantic's own error, which holds the values, is not in its context.
        raise problems_error(cls.__name__, problems)

    @classmethod
    def _read_any(cls, data: Any) -> Given:
        if isinstance(data, Mapping):
            return cls.read(data)
        if cls.shorthand and isinstance(data, str | bool):
            given = Given()
            given.add(cls.shorthand, "", data)
            return given
        schema = _schema_of(cls)
        raise problems_error(cls.__name__, [((), must_be(schema, schema, data))])

    @classmethod
    def _annotation(cls, name: str) -> Any:
        return cls.model_fields[name].annotation if name in cls.model_fields else None

    @classmethod
    def _is_nested(cls, name: str) -> bool:
        return any(issubclass(each, Settings) for each in types_in(cls._annotation(name)))

    @classmethod
    def __get_pydantic_json_schema__(
        cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        schema = handler.resolve_ref_schema(handler(core_schema))
        properties = schema["properties"]
        for value in properties.values():
            value.pop("title", None)
            if "$ref" in value:
                # It would repeat the defaults of the mapping's own keys.
                value.pop("default", None)
        for alias, names in cls.aliases.items():
            properties[alias] = properties[names[-1]] | {
                "description": f"Sets {' and '.join(names)}."
            }
            # Left out, the alias sets nothing: only the setting itself has a default.
            properties[alias].pop("default", None)
        rivals = [(alias, name) for alias, names in cls.aliases.items() for name in names]
        if pairs := (*cls.exclusive, *rivals):
            schema["allOf"] = [{"not": {"required": [*pair]}} for pair in pairs]
        # The text or boolean in place of the mapping is what `_read_any` understands.
        if cls.shorthand:
            return {"anyOf": [properties[cls.shorthand], schema]}
        return schema


def _function(value: Any) -> Any:
    if value is None or callable(value):
        return value
    raise ValueError("must be an async function, which only Python code can give")


OnConnect = Callable[[Any], Awaitable[object]]
"""Is awaited with each new connection of the database driver."""


class PoolConfig(Settings):
    """How a pool keeps its connections. Times are in seconds; 0 and null switch a limit off."""

    aliases = {
        "minsize": ("min_size",),
        "maxsize": ("max_size",),
        "pool_timeout": ("timeout",),
        "max_idle_time": ("max_idle",),
        "max_inactive_connection_lifetime": ("max_idle",),
        "pool_recycle": ("max_idle",),
    }

    min_size: int = Field(
        default=0, ge=0, le=100_000, description="Connections kept open even when idle."
    )
    max_size: PoolSize = Field(default=10, description="Connections open at most.")
    timeout: Seconds = Field(
        default=30.0, description="How long acquire waits: in the queue, connecting and checking."
    )
    max_waiting: CountOrOff = Field(
        default=None, description="Callers that may wait; one more fails at once. Off: any number."
    )
    max_idle: SecondsOrOff = Field(
        default=300.0, description="Above min_size, a connection idle for so long is closed."
    )
    max_lifetime: SecondsOrOff = Field(
        default=1800.0, description="A connection this old, less up to 10 %, is replaced."
    )
    check_after: SecondsOrOff = Field(
        default=5.0, description="A connection idle for longer is pinged before it is handed out."
    )
    check_timeout: Seconds = Field(
        default=1.0, description="How long such a ping, or a question about a session, may take."
    )
    commit_timeout: Seconds = Field(
        default=30.0,
        description="A commit, or a statement outside a transaction, that is unanswered for so "
        "long is asked after over another connection.",
    )
    commit_limit: Seconds = Field(
        default=300.0,
        description="How long it is waited for while the server says that it is still running.",
    )
    silence_timeout: SecondsOrOff = Field(
        default=20.0,
        description="A connection whose peer acknowledges nothing for so long is terminated.",
    )
    leak_after: SecondsOrOff = Field(
        default=None, description="A connection held for longer is reported, with the holder."
    )
    slow_acquire: SecondsOrOff = Field(
        default=2.0, description="A longer wait for a connection is logged, at WARNING."
    )
    slow_statement: SecondsOrOff = Field(
        default=None, description="A statement that takes longer is logged, without its values."
    )
    slow_transaction: SecondsOrOff = Field(
        default=None, description="A transaction open for longer is logged once it ends."
    )
    cleanup_timeout: Seconds = Field(
        default=5.0,
        description="How long a reset, rollback, commit or close may take when cleaning up.",
    )
    reset: Literal["always", "never"] = Field(
        default="always",
        description="Whether a released connection forgets what its holder had set.",
    )
    lazy: bool = Field(default=False, description="Open no connection before the first use.")
    values_in_causes: bool = Field(
        default=True,
        description="Whether the driver's error, the `__cause__` of ours, keeps its own text, in "
        "which values of a statement may stand.",
    )
    on_connect: SkipJsonSchema[Annotated[OnConnect | None, BeforeValidator(_function)]] = None

    @field_validator("commit_limit")
    @classmethod
    def _not_below_commit_timeout(cls, commit_limit: float, info: ValidationInfo) -> float:
        # `info.data` has the fields declared before this one, without those that are wrong: these
        # are told themselves, and a comparison with them would say nothing true.
        commit_timeout = info.data.get("commit_timeout", 0)
        if commit_limit < commit_timeout:
            raise ValueError("must not be below commit_timeout")
        return commit_limit

    @field_validator("max_size")
    @classmethod
    def _not_below_min_size(cls, max_size: int, info: ValidationInfo) -> int:
        min_size = info.data.get("min_size", 0)
        if max_size < min_size:
            raise ValueError("must not be below min_size")
        return max_size


class DatabaseSettings(Settings):
    """One database. A backend adds where it is and how to get in.

    Class attributes:
        no_replicas: Why `replicas` is refused, where it is no setting.
    """

    no_replicas: ClassVar[str] = "this kind of database has no replicas to read from"

    type: Text = Field(description="The backend.")
    pool: PoolConfig = PoolConfig()
    init_sql: bool | FilePath = Field(
        default=False,
        description="Run the backend's own sql/init.sql (jobu's tables), or this file, at every "
        "start: the script must bear that.",
    )

    @classmethod
    def read(cls, data: Mapping[Any, Any]) -> Given:
        """Sort what was given; `replicas` is refused with the reason where there are none."""
        if "replicas" not in data or "replicas" in cls.model_fields:
            return super().read(data)
        # As an unknown key it would be told to be nothing, and the nearest one suggested, though
        # other backends have it.
        given = super().read({key: value for key, value in data.items() if key != "replicas"})
        given.refuse("replicas", f"is refused: {cls.no_replicas}")
        return given

    @classmethod
    def parse(cls, name: str, mapping: Mapping[str, Any], source: str | None = None) -> Self:
        """Check the settings of one database, its variables replaced from the environment.

        Args:
            name: The database's name.
            mapping: Its settings, as written under `databases: NAME:`.
            source: The file they come from, for the messages.

        Raises:
            ConfigurationError: With all problems, one a line.
        """
        try:
            return cls.model_validate(interpolate(mapping, os.environ))
        except ValidationError as error:
            # Raised below, outside of the except clause: else pydantic's error, which holds the
            # values, would be the context of ours.
            details = error.errors(include_url=False, include_input=False)
        raise ConfigurationError(
            [tell(source, ("databases", name, *each["loc"]), each["msg"]) for each in details]
        )
