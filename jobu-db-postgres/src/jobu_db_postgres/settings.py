"""The settings of a PostgreSQL database."""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

from pydantic import Field, field_validator

from jobu_db.settings import (
    MillisecondsOrOff,
    Port,
    ReplicatedSettings,
    ServerSettings,
    Settings,
    Text,
    UrlParameter,
)
from jobu_db_postgres import url

_SETTING_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_$]*(\.[A-Za-z_][A-Za-z0-9_$]*)*")

_NOT_SETTINGS = {
    "client_encoding": "is always UTF8: asyncpg takes no other",
    "database": "is a setting of its own, beside options",
    "options": "is not supported: list the settings themselves",
    "replication": "is not supported",
    "session_authorization": "has no effect when a session begins: use role",
    "transaction_deferrable": "is that of one transaction: use default_transaction_deferrable",
    "transaction_isolation": "is that of one transaction: use default_transaction_isolation",
    "transaction_read_only": "is that of one transaction: use default_transaction_read_only",
    "user": "is a setting of its own, beside options",
}

ServerValue = Annotated[str | bool | int | float, Field(union_mode="left_to_right")]


with warnings.catch_warnings():
    # The field hides BaseModel.json, which pydantic has replaced by model_dump_json.
    warnings.filterwarnings("ignore", 'Field name "json"', UserWarning)

    class PostgresOptions(Settings):
        """What every session is set to. A reset between two holders returns to these values."""

        statement_timeout: MillisecondsOrOff = Field(
            default=None, description="Milliseconds a statement may take."
        )
        idle_in_transaction_session_timeout: MillisecondsOrOff = Field(
            default=None,
            description="Milliseconds a transaction may be idle before the server closes it.",
        )
        lock_timeout: MillisecondsOrOff = Field(
            default=None, description="Milliseconds to wait for a lock."
        )
        timezone: Text | None = Field(
            default=None, description='Time zone of the session, such as "UTC".'
        )
        application_name: Text | None = Field(
            default=None, description="Shown in the server's list of sessions."
        )
        json: bool = Field(  # type: ignore[assignment]
            default=False, description="Decode and encode JSON and JSONB with Python's json module."
        )
        statement_cache_size: int = Field(
            default=100,
            ge=0,
            description="Prepared statements kept per connection; 0 behind PgBouncer.",
        )
        server_settings: dict[str, ServerValue] = Field(
            default={}, description="Any other setting of the server, by its name."
        )

        @field_validator("server_settings")
        @classmethod
        def _are_settings(cls, given: dict[str, Any]) -> dict[str, Any]:
            for name in given:
                if name.lower() in url.OPTIONS:
                    raise ValueError(f"must not contain {name.lower()}: give it as an option")
                if name.lower() in _NOT_SETTINGS:
                    raise ValueError(
                        f"must not contain {name.lower()}: it {_NOT_SETTINGS[name.lower()]}"
                    )
                if not _SETTING_NAME.fullmatch(name):
                    raise ValueError("must have names like work_mem or my_extension.my_setting")
            return given

        @property
        def startup(self) -> dict[str, str]:
            """The settings as they travel with the request for a connection."""
            options = {name: getattr(self, name) for name in url.OPTIONS}
            # Off is a wish, too, and the server may have another default.
            wished = {name: options[name] or 0 for name in url.OPTIONS if self._was_given(name)}
            return {
                name: _text(value) for name, value in {**wished, **self.server_settings}.items()
            }

        def _was_given(self, name: str) -> bool:
            off_is_zero = name.endswith("_timeout") and name in self.model_fields_set
            return off_is_zero or getattr(self, name) is not None


def _text(value: Any) -> str:
    return str(value) if not isinstance(value, bool) else "on" if value else "off"


class PostgresSettings(ReplicatedSettings):
    """Where a PostgreSQL database is, and how it is used."""

    url_schemes = ("postgresql", "postgres")
    url_parameters: ClassVar[Mapping[str, UrlParameter]] = {
        **ServerSettings.url_parameters,
        **url.PARAMETERS,
    }
    environment: ClassVar[Mapping[str, str]] = url.ENVIRONMENT

    port: Port = Field(default=5432, description="TCP port, where hosts gives none.")
    options: PostgresOptions = PostgresOptions()
