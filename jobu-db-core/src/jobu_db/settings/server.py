"""What databases on a server have in common: where it is, who we are, how far it is trusted."""

from __future__ import annotations

import asyncio
import inspect
import logging
import os
import stat
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import (
    Field,
    GetJsonSchemaHandler,
    SecretStr,
    ValidationInfo,
    field_validator,
)
from pydantic.json_schema import JsonSchemaValue, SkipJsonSchema
from pydantic_core import CoreSchema

from jobu_db.errors import ConnectionFailedError
from jobu_db.settings.address import Address, parse_address
from jobu_db.settings.files import UnusableFileError, read_file
from jobu_db.settings.models import DatabaseSettings
from jobu_db.settings.tls import TLSSettings
from jobu_db.settings.types import FilePath, Port, Seconds, Text
from jobu_db.settings.url import (
    UrlParameter,
    hosts,
    parse_url,
    read_parameter,
    ssl_authorities,
    ssl_mode,
)
from jobu_db.settings.validation import Given
from jobu_db.settings.variables import Interpolated, Unresolved

if TYPE_CHECKING:
    from ssl import SSLContext

PasswordFunction = Callable[[], str | Awaitable[str]]
"""Returns the password to connect with; called for each new connection."""

logger = logging.getLogger("jobu_db")

_LONGEST_PASSWORD = 65_536
"""Bytes of its file."""

_warned_of: set[Path] = set()


class ServerSettings(DatabaseSettings):
    """Settings of a database on a server. A backend gives `port` its default.

    Class attributes:
        url_schemes: Those that `url` may begin with.
        url_parameters: Names allowed after "?" in `url`; see `UrlParameter`.
        environment: Variables that give what the configuration leaves out, each with the parameter
            of the URL that it stands for.
    """

    exclusive = (("host", "hosts"), ("password", "password_file"))
    url_schemes: ClassVar[tuple[str, ...]]
    url_parameters: ClassVar[Mapping[str, UrlParameter]] = {
        "host": hosts,
        "port": ("port",),
        "user": ("user",),
        "password": ("password",),
        "connect_timeout": ("connect_timeout",),
        "sslmode": ssl_mode,
        "sslrootcert": ssl_authorities,
        "sslcert": ("ssl", "cert"),
        "sslkey": ("ssl", "key"),
        "ssl-mode": ssl_mode,
        "ssl-ca": ("ssl", "ca"),
        "ssl-cert": ("ssl", "cert"),
        "ssl-key": ("ssl", "key"),
    }
    environment: ClassVar[Mapping[str, str]] = {}

    # Fields are checked in the order in which they stand, and a check sees those before it: hosts
    # are compared with their port, and ssl with the hosts.
    url: SecretStr | None = Field(
        default=None, description="scheme://user:password@host:port/database, instead of the parts."
    )
    host: Text = Field(default="localhost", description="Name, address, or path of a Unix socket.")
    port: Port
    hosts: Annotated[tuple[Text, ...], Field(min_length=1, strict=False)] | None = Field(
        default=None, description="Several servers as host:port, of which one is used."
    )
    host_order: Literal["listed", "random"] = Field(
        default="listed",
        description="How hosts are tried: as listed, but the last good one first; or in a random "
        "order, which spreads connections over all. One that failed is tried last for a while. "
        "With one host there is no difference.",
    )
    connect_timeout: Seconds = Field(
        default=3.0,
        description="Seconds that each host has for connecting and logging in, at most the pool's "
        "timeout.",
    )
    user: Text | None = Field(default=None, description="Who logs in.")
    password: SecretStr | SkipJsonSchema[PasswordFunction] | None = Field(
        default=None, description="In Python also a function, async or not, that returns it."
    )
    password_file: FilePath | None = Field(
        default=None, description="File with the password, read for each new connection."
    )
    database: Text | None = Field(default=None, description="The database's name on the server.")
    ssl: TLSSettings = Field(
        default=TLSSettings(mode="off"),
        description="The mode, or a mapping. Not set: encrypted if the server can, and off for "
        "Unix sockets and loopback addresses.",
    )

    @classmethod
    def read(cls, data: Mapping[Any, Any]) -> Given:
        """Sort what was given; the parts of a URL become settings like any others."""
        given = super().read(data)
        cls._read_url(given)
        if given.complete:  # else the URL may have held what the environment would give
            cls._read_environment(given)
        _give_ports_to_hosts(given)
        return given

    @classmethod
    def _read_url(cls, given: Given) -> None:
        url = given.values.get("url")
        text = url.get_secret_value() if isinstance(url, SecretStr) else url
        if not isinstance(text, str):
            return
        if isinstance(text, Unresolved):
            given.complete = False  # What refuses it does not know what it would have held.
            return
        del given.values["url"]
        try:
            parts = parse_url(text, cls.url_schemes, cls.url_parameters)
        except ValueError as error:
            given.refuse("url", str(error))
            given.complete = False
            return
        for path, value in parts.items():
            _add_part(given, "url", path, value)

    @classmethod
    def _read_environment(cls, given: Given) -> None:
        """Take what is left out. Hosts, and all of `ssl`, come from one place."""
        # A mode from here with authorities from there could trust another server than either of
        # them meant. Options stand each for itself.
        taken = {name for name, value in given.values.items() if value is not None}
        if taken & {"host", "hosts"}:
            taken |= {"host", "hosts"}
        for variable, parameter in cls.environment.items():
            text = os.environ.get(variable)
            refused = isinstance(cls.url_parameters[parameter], str)
            if not text or (refused and "host" in taken):
                continue  # one that cannot be heeded matters only where nothing else says whereto
            try:
                parts = read_parameter(parameter, Interpolated(text), cls.url_parameters)
            except ValueError as error:
                given.refuse(variable, str(error))
                continue
            for path, value in parts.items():
                if path[0] not in taken or (path[0] == "options" and _lacks(given, path)):
                    _add_part(given, variable, path, value)

    @field_validator("host")
    @classmethod
    def _is_one_host(cls, host: str) -> str:
        try:
            name, port = parse_address(host)
        except ValueError:
            raise ValueError(
                "must be one host name, an IP address, or the path of a Unix socket; several "
                "servers go under hosts"
            ) from None
        if port is not None:
            raise ValueError("must not contain a port: give it as port")
        return name

    @field_validator("hosts")
    @classmethod
    def _are_addresses(
        cls, hosts: tuple[str, ...] | None, info: ValidationInfo
    ) -> tuple[str, ...] | None:
        entries: dict[tuple[str, int | None], int] = {}
        for number, host in enumerate(are_addresses(hosts) or (), start=1):
            name, port = parse_address(host)
            first = entries.setdefault((name, port or info.data.get("port")), number)
            if first != number:
                raise ValueError(f"must not name a host twice: entries {first} and {number} agree")
        return hosts

    @field_validator("ssl")
    @classmethod
    def _not_on_a_socket(cls, ssl: TLSSettings, info: ValidationInfo) -> TLSSettings:
        hosts = info.data.get("hosts") or (info.data.get("host", ""),)
        if ssl.mode != "off" and any(host.startswith("/") for host in hosts):
            raise ValueError("must be off on a Unix socket, which is never encrypted")
        return ssl

    @property
    def addresses(self) -> tuple[Address, ...]:
        """The servers to try, in order."""
        pairs = map(parse_address, self.hosts or (self.host,))
        return tuple(Address(host, port or self.port) for host, port in pairs)

    @property
    def timeout_per_host(self) -> float:
        """Seconds for an attempt: its own, however many other hosts there are.

        A caller whose time is up leaves the attempt at the next host to those who come after.
        """
        return min(self.connect_timeout, self.pool.timeout)

    def prefers_tls(self, address: Address) -> bool:
        """Say whether to encrypt if the server can: `ssl` is not set, and it is elsewhere."""
        return "ssl" not in self.model_fields_set and not address.is_local

    @property
    def unix_socket(self) -> str | None:
        """The path of the first server's Unix socket or its directory, None for TCP."""
        return self.addresses[0].unix_socket

    @property
    def attributes(self) -> dict[str, str | int]:
        """Where the database is, in OpenTelemetry's words: `server.address`, left out if there are
        several hosts; `server.port`, unless it is the usual one; `db.namespace`."""
        attributes: dict[str, str | int] = {}
        if len(self.addresses) == 1:
            (address,) = self.addresses
            attributes["server.address"] = address.unix_socket or address.host
            usual = type(self).model_fields["port"].default
            if address.unix_socket is None and address.port != usual:
                attributes["server.port"] = address.port
        if self.database is not None:
            attributes["db.namespace"] = self.database
        return attributes

    async def current_password(self) -> str | None:
        """Return the password to connect with now: it may have changed since the last time.

        Reading it may take half of the pool's `timeout`, which leaves the rest for connecting.

        Raises:
            ConnectionFailedError: `password_file` cannot be read, the function fails, or it takes
                too long.
        """
        password = self.password
        if isinstance(password, SecretStr):
            return password.get_secret_value()
        limit = self.pool.timeout / 2
        try:
            async with asyncio.timeout(limit) as reading:
                if self.password_file is not None:
                    # Off the event loop: such files may lie on a network.
                    # A thread cannot be stopped: after the limit it goes on until the file system
                    # answers.
                    return await asyncio.to_thread(_read_password, self.password_file)
                return None if password is None else await _call(password)
        except TimeoutError as error:
            if not reading.expired():
                raise
            what = "password function" if self.password_file is None else "password_file"
            raise ConnectionFailedError(
                f"the {what} gave no password within {limit:g} s", transient=True
            ) from error

    async def tls_context(self) -> SSLContext | None:
        """Return what the drivers want, from the certificates as they are now; None when off.

        Raises:
            ConfigurationError: A file cannot be read, or is no certificate or key.
        """
        if self.ssl.mode == "off":
            return None
        # Off the event loop: such files may lie on a network, and reading takes milliseconds.
        return await asyncio.to_thread(self.ssl.context)

    @classmethod
    def __get_pydantic_json_schema__(
        cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        schema = super().__get_pydantic_json_schema__(core_schema, handler)
        # Anything else may be in the URL.
        schema["required"] = ["type"]
        return schema


def are_addresses(hosts: tuple[str, ...] | None) -> tuple[str, ...] | None:
    """Return the hosts of a setting.

    Raises:
        ValueError: One is no address; says which.
    """
    for number, host in enumerate(hosts or (), start=1):
        try:
            parse_address(host)
        except ValueError as error:
            raise ValueError(f"entry {number} {error}") from None
    return hosts


def _read_password(path: Path) -> str:
    try:
        content, mode = read_file(path, _LONGEST_PASSWORD)
        text = content.decode()
    except UnusableFileError as error:
        raise ConnectionFailedError(f"password_file: {path}: {error}") from error.__cause__
    except UnicodeDecodeError:
        # Without the cause, which holds the bytes.
        raise ConnectionFailedError(f"password_file: {path} is not UTF-8 text") from None
    _warn_if_others_may_read(path, mode)
    # The one line end that editors and echo add. Other white space may belong to the password.
    password = text.removesuffix("\n").removesuffix("\r")
    if not password:
        raise ConnectionFailedError(f"password_file: {path} is empty")
    return password


def _warn_if_others_may_read(path: Path, mode: int) -> None:
    """Once for each file: it is read for each new connection."""
    if os.name == "posix" and mode & 0o044 and path not in _warned_of:
        _warned_of.add(path)
        logger.warning(
            "password_file: %s may be read by others (mode %03o); "
            "let only its owner read it: chmod 600",
            path,
            stat.S_IMODE(mode),
        )


async def _call(function: PasswordFunction) -> str:
    try:
        password = function()
        if inspect.isawaitable(password):
            password = await password
    except Exception as error:
        # A token service that cannot be reached may come back.
        raise ConnectionFailedError(
            f"the password function failed with {type(error).__name__}",
            transient=isinstance(error, OSError),
        ) from error
    if not isinstance(password, str):
        kind = type(password).__name__
        raise ConnectionFailedError(f"the password function returned a {kind}, not a str")
    return password


def _add_part(given: Given, key: str, path: tuple[str, ...], value: Any) -> None:
    """Add one part of a URL, or of the environment; what is null may be given there."""
    name, *inner = path
    present = given.values.get(name)
    if present is None:
        given.values[name] = {inner[0]: value} if inner else value
        given.keys[name] = key
        given.inside.add(name)
    elif inner and isinstance(present, Mapping) and inner[0] not in present:
        given.values[name] = {**present, inner[0]: value}
    else:
        given.refuse(key, f"sets the same as {'.'.join(path)}: give only one of them")


def _give_ports_to_hosts(given: Given) -> None:
    """A URL and the environment may list ports apart from the hosts, as libpq reads them."""
    hosts, ports = given.values.get("hosts"), given.values.get("port")
    if isinstance(hosts, list) and isinstance(ports, Interpolated) and "," in ports:
        pairs = list(zip(hosts, ports.split(","), strict=False))
        # libpq wants one port for all, or one for each; with any other number the port stays a text
        # with commas, which is refused as such. Between two commas there may be nothing: the usual
        # port.
        if len(pairs) == len(hosts) == ports.count(",") + 1:
            given.values["hosts"] = [f"{host}:{port}" if port else host for host, port in pairs]
            del given.values["port"]


def _lacks(given: Given, path: tuple[str, ...]) -> bool:
    present = given.values[path[0]]
    return isinstance(present, Mapping) and path[1] not in present
