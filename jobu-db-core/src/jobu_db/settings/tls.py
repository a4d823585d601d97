"""Encryption of the connection to a server, and whom to trust."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import Field, ValidationInfo, field_validator

from jobu_db.errors import ConfigurationError
from jobu_db.settings.files import UnusableFileError, read_file
from jobu_db.settings.models import Settings
from jobu_db.settings.types import FilePath

if TYPE_CHECKING:
    import ssl

Mode = Literal["off", "require", "verify-ca", "verify-full"]


class TLSSettings(Settings):
    """Encryption: just the mode, or a mapping with the certificates as well.

    `off` sends everything in the clear. `require` encrypts and trusts any server. `verify-ca`
    also wants a certificate from a trusted authority, `verify-full` one for this host.
    """

    shorthand = "mode"

    mode: Mode = Field(default="verify-full", description="How far the server is trusted.")
    ca: FilePath | None = Field(
        default=None, description="PEM file of trusted authorities, instead of the system's."
    )
    cert: FilePath | None = Field(default=None, description="PEM file of the client's certificate.")
    key: FilePath | None = Field(
        default=None, description="PEM file of the client's key, unless it is in the certificate's."
    )

    @field_validator("ca", "cert", "key")
    @classmethod
    def _is_used(cls, path: Path | None, info: ValidationInfo) -> Path | None:
        mode = info.data.get("mode")
        if path is None or mode is None:
            return path
        if mode == "off":
            raise ValueError("has no use when the mode is off")
        if mode == "require" and info.field_name == "ca":
            raise ValueError("is used by verify-ca and verify-full only, and the mode is require")
        if info.field_name == "key" and not info.data.get("cert"):
            raise ValueError("is of no use without cert")
        return path

    def context(self) -> ssl.SSLContext | None:
        """Return what the drivers want, from the files as they are now; None when off.

        Raises:
            ConfigurationError: A file cannot be read, or is no certificate or key.
        """
        if self.mode == "off":
            return None
        return _context(self, tuple(map(_stamp, (self.ca, self.cert, self.key))))


def _stamp(path: Path | None) -> tuple[int, ...] | None:
    """Return what changes when a file is replaced."""
    try:
        status = path.stat() if path else None
    except OSError:
        return None  # Reading it will say what is wrong.
    return status and (status.st_ino, status.st_size, status.st_mtime_ns)


# Reading the system's authorities takes some 20 ms, during which the event loop stands still.
@lru_cache(maxsize=16)
def _context(settings: TLSSettings, stamps: tuple[object, ...]) -> ssl.SSLContext:
    import ssl

    # Not create_default_context: since Python 3.13 that refuses authorities that libpq and
    # MySQL accept.
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = settings.mode == "verify-full"
    context.verify_mode = ssl.CERT_NONE if settings.mode == "require" else ssl.CERT_REQUIRED
    if ca := settings.ca:
        _read("ca", ca, lambda: context.load_verify_locations(cafile=ca))
    elif settings.mode != "require":
        context.load_default_certs()
    if key := settings.key:
        _read("key", key, lambda: None)
    if cert := settings.cert:
        _read("cert", cert, lambda: context.load_cert_chain(cert, settings.key, _no_passphrase))
    return context


def _read(key: str, path: Path, load: Callable[[], None]) -> None:
    try:
        read_file(path)  # OpenSSL would wait for a pipe, and read a device without end
        load()
    except (OSError, UnusableFileError, ValueError) as error:  # An SSLError is an OSError.
        raise ConfigurationError(f"ssl.{key}: {path} cannot be used: {error}") from error


def _no_passphrase() -> str:
    # Without this, OpenSSL would stop and ask on the terminal.
    raise ValueError("the key is encrypted; give one that is not")
