"""The settings of a MySQL or MariaDB database."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, ValidationInfo, field_validator

from jobu_db.settings import (
    CountOrOff,
    FilePath,
    HostRole,
    MillisecondsOrOff,
    Port,
    ReplicatedSettings,
    ServerSettings,
    Settings,
    Text,
    UrlParameter,
    ssl_mode,
)
from jobu_db_mysql.logging_in import UnsafePlugin

Charset = Literal[
    "utf8mb4", "utf8", "latin1", "latin2", "ascii", "cp1250", "cp1251", "cp1256", "cp1257",
    "euckr", "greek", "hebrew", "koi8r", "koi8u", "ujis",
]  # fmt: skip
"""Where no byte of a character can be taken for a quote or a backslash."""

# Patterns and closed lists: these values go into the text of a SET, which is sent before it is
# known how the session reads quotes.
SqlMode = Annotated[str, Field(pattern=r"^([A-Za-z][A-Za-z0-9_]*(,[A-Za-z][A-Za-z0-9_]*)*)?$")]
TimeZone = Annotated[str, Field(pattern=r"^[A-Za-z0-9_+:/-]+$")]


VariableValue = Annotated[str | bool | int | float, Field(union_mode="left_to_right")]
_VARIABLE = re.compile("[A-Za-z_][A-Za-z0-9_]*")
_VARIABLE_TEXT = re.compile(r"[ !#-&(-\[\]-_a-~]*")
"""Without quotes and backslashes: how those are read depends on what the server begins with."""

_OPTIONS = {
    "autocommit": "give it as the option autocommit",
    "character_set_client": "give it as the option charset",
    "character_set_connection": "give it as the option charset",
    "character_set_results": "give it as the option charset",
    "collation_connection": "give it as the option charset",
    "completion_type": "a COMMIT would begin another transaction, or close the connection",
    "innodb_lock_wait_timeout": "give it as the option lock_timeout",
    "lock_wait_timeout": "give it as the option lock_timeout",
    "max_execution_time": "give it as the option statement_timeout",
    "max_statement_time": "give it as the option statement_timeout",
    "session_track_gtids": "the library sets it itself",
    "session_track_system_variables": "the library sets it itself",
    "sql_mode": "give it as the option sql_mode",
    "time_zone": "give it as the option timezone",
    "transaction_read_only": "open transactions with readonly=True",
    "tx_read_only": "open transactions with readonly=True",
}
"""Variables that are set by other means."""


class MySQLOptions(Settings):
    """What every session is set to. A reset between two holders returns to these values."""

    charset: Charset = Field(default="utf8mb4", description="Character set of the connection.")
    autocommit: bool = Field(
        default=True,
        description="What a connection taken raw from the pool begins with. Statements and "
        "transactions of the library always commit explicitly.",
    )
    sql_mode: SqlMode | None = Field(
        default=None,
        description='Modes separated by commas, such as "STRICT_TRANS_TABLES,ANSI_QUOTES".',
    )
    statement_timeout: MillisecondsOrOff = Field(
        default=None, description="Milliseconds a statement may take."
    )
    result_limit: CountOrOff = Field(
        default=None,
        description="Bytes that a statement's result may have, iterate() excepted; a larger one is "
        "an error, and its connection is closed.",
    )
    lock_timeout: MillisecondsOrOff = Field(
        default=None,
        description="Milliseconds to wait for a lock; the server counts in whole seconds.",
    )
    timezone: TimeZone | None = Field(
        default=None,
        description='Time zone of the session: "UTC", "+02:00", or a name the server knows.',
    )
    pipelining: bool = Field(
        default=True,
        description="Several commands in one round trip; false for proxies that cannot take that.",
    )
    session_variables: dict[str, VariableValue] = Field(
        default={}, description="Any other session variable of the server, by its name."
    )

    @field_validator("session_variables")
    @classmethod
    def _are_free(cls, given: dict[str, Any]) -> dict[str, Any]:
        for name, value in given.items():
            if not _VARIABLE.fullmatch(name):
                raise ValueError("must have names of variables: letters, digits and underscores")
            if option := _OPTIONS.get(name.lower()):
                raise ValueError(f"must not contain {name}: {option}")
            if isinstance(value, str) and not _VARIABLE_TEXT.fullmatch(value):
                raise ValueError(f"must have plain ASCII without quotes and backslashes for {name}")
        return given


class MySQLSettings(ReplicatedSettings):
    """Where a MySQL or MariaDB database is, and how it is used."""

    url_schemes = ("mysql", "mariadb")
    url_parameters: ClassVar[Mapping[str, UrlParameter]] = {
        **ServerSettings.url_parameters,
        "unix_socket": ("host",),
        "target_session_attrs": ("target_session_attrs",),
        "charset": ("options", "charset"),
        "sql_mode": ("options", "sql_mode"),
        "autocommit": ("options", "autocommit"),
        "ssl_mode": ssl_mode,
        "ssl_ca": ("ssl", "ca"),
        "ssl_cert": ("ssl", "cert"),
        "ssl_key": ("ssl", "key"),
        "application_name": "MySQL does not have: leave it out",
        "channel_binding": "MySQL does not have: leave it out, and write ssl-mode=VERIFY_IDENTITY",
        "options": "MySQL does not have: write the settings under options",
        "init_command": "is not supported: write the settings under options",
        "read_timeout": "is not supported: write statement_timeout under options",
        "write_timeout": "is not supported: write silence_timeout under pool",
        "compress": "is not supported: leave it out",
        "local_infile": "is not supported: leave it out",
        # Of other libraries' URLs.
        "ssl": "is not supported: write ssl-mode=REQUIRED, VERIFY_IDENTITY or DISABLED",
        "useSSL": "is not supported: write ssl-mode=REQUIRED, VERIFY_IDENTITY or DISABLED",
        "serverTimezone": "is not supported: write timezone under options",
        "time_zone": "is not supported: write timezone under options",
        "characterEncoding": "is not supported: write charset",
        "connection_limit": "is not supported: write max_size under pool",
    }

    port: Port = Field(default=3306, description="TCP port, where hosts gives none.")
    database: Text = Field(description="The database's name on the server.")
    target_session_attrs: HostRole = Field(
        default="any",
        description="Which of several hosts will do: standby and read-only are one whose read_only "
        "is on. One that is out of its Galera cluster or replication group never does.",
    )
    server_public_key: FilePath | None = Field(
        default=None,
        description="PEM file of the server's public key, by which its identity is verified "
        "where the connection is not encrypted; see below.",
    )
    unsafe_logins: Annotated[tuple[UnsafePlugin, ...], Field(strict=False)] = Field(
        default=(),
        description="Plugins that may give the password to an unverified server; see below.",
    )
    options: MySQLOptions = MySQLOptions()

    @property
    def wants_writable(self) -> bool:
        """False if the hosts are wanted as ones that are read from."""
        return self.target_session_attrs in ("any", "primary", "read-write")

    @field_validator("server_public_key")
    @classmethod
    def _is_used(cls, path: Path | None, info: ValidationInfo) -> Path | None:
        ssl = info.data.get("ssl")
        if path is not None and ssl is not None and ssl.mode != "off":
            raise ValueError("has no use where ssl is on, which protects the password")
        return path
