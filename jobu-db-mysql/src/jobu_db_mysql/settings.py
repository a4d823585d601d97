"""The settings of a MySQL or MariaDB database."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from jobu_db.settings import HostRole, MillisecondsOrOff, Port, ServerSettings, Settings, Text

Charset = Literal[
    "utf8mb4", "utf8", "latin1", "latin2", "ascii", "cp1250", "cp1251", "cp1256", "cp1257",
    "euckr", "greek", "hebrew", "koi8r", "koi8u", "ujis",
]  # fmt: skip
"""Where no byte of a character can be taken for a quote or a backslash."""

SqlMode = Annotated[str, Field(pattern=r"^([A-Za-z][A-Za-z0-9_]*(,[A-Za-z][A-Za-z0-9_]*)*)?$")]
TimeZone = Annotated[str, Field(pattern=r"^[A-Za-z0-9_+:/-]+$")]


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
    lock_timeout: MillisecondsOrOff = Field(
        default=None,
        description="Milliseconds to wait for a lock; the server counts in whole seconds.",
    )
    timezone: TimeZone | None = Field(
        default=None,
        description='Time zone of the session: "UTC", "+02:00", or a name the server knows.',
    )


class MySQLSettings(ServerSettings):
    """Where a MySQL or MariaDB database is, and how it is used."""

    url_schemes = ("mysql", "mariadb")
    url_parameters: ClassVar = {
        **ServerSettings.url_parameters,
        "charset": ("options", "charset"),
        "unix_socket": ("host",),
        "target_session_attrs": ("target_session_attrs",),
    }

    port: Port = Field(default=3306, description="TCP port, where hosts gives none.")
    database: Text = Field(description="The database's name on the server.")
    target_session_attrs: HostRole = Field(
        default="any",
        description="Which of several hosts will do: standby and read-only are one whose read_only "
        "is on. One that is out of its Galera cluster or replication group never does.",
    )
    options: MySQLOptions = MySQLOptions()
