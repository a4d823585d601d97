"""Reading `scheme://user:password@host:port/database?name=value`, without ever repeating it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import unquote

from jobu_db.settings.address import parse_address
from jobu_db.settings.messages import nearest
from jobu_db.settings.variables import Interpolated

Path = tuple[str, ...]
Parts = Iterator[tuple[Path, Any]]

UrlParameter = Path | str | Callable[[str], Mapping[Path, Any]]
"""A name allowed after "?": the path of its setting; or a function that reads the text, and raises
`ValueError` in words that hold nothing of it; or why it is refused, and what to write instead."""

_URL = re.compile(
    # A raw @ / ? or # of a password would make parts of it a host, a database or a parameter.
    r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*)://"
    r"(?:(?P<login>[^/?#@]*)@)?(?P<hosts>[^/?#@]*)"
    r"(?:/(?P<database>[^?#@]*))?(?:\?(?P<query>[^#]*))?"
)
_SPECIAL = (
    "special characters in the user and password are written as % and two hexadecimal digits: "
    "@ as %40, / as %2F, # as %23"
)
_BAD_PERCENT = re.compile("%(?![0-9A-Fa-f]{2})")

# What libpq and MySQL's programs call the modes.
_SSL_MODES = {
    "disable": "off",
    "disabled": "off",
    "required": "require",
    "verify_ca": "verify-ca",
    "verify_identity": "verify-full",
}
# `allow` would try without encryption first: taken as `prefer`, it is used wherever the server can.
_AS_IF_UNSET = ("allow", "prefer", "preferred")
"""Encrypted if the server can."""


class UrlText(Interpolated):
    """Text out of a URL: like that of a variable, of the type that the setting wants."""


def parse_url(
    url: str, schemes: Sequence[str], parameters: Mapping[str, UrlParameter]
) -> dict[Path, Any]:
    """Read a URL. White space at its ends is no part of it.

    Args:
        schemes: Those allowed. What follows a "+" in the URL's scheme is ignored.
        parameters: Names allowed after "?".

    Returns:
        Values by path of the setting, such as `("ssl", "mode")`.

    Raises:
        ValueError: Says what is wrong in words that hold nothing of the URL.
    """
    # A raw ? in a password puts the rest of it, and the @ behind it, into what looks like the
    # query.
    match = _URL.fullmatch(url.strip())
    if match is None or ("@" in (match["query"] or "") and match["login"] is None):
        raise ValueError(f"must be {schemes[0]}://user:password@host:port/database; {_SPECIAL}")
    # SQLAlchemy names the driver there: postgresql+asyncpg://
    if match["scheme"].partition("+")[0].lower() not in schemes:
        raise ValueError(f"must begin with {' or '.join(f'{scheme}://' for scheme in schemes)}")
    parts: dict[Path, Any] = {}
    found = [
        *_login(match["login"] or ""),
        *_hosts(match["hosts"]),
        (("database",), _decode(match["database"] or "")),
        *_query(match["query"] or "", parameters),
    ]
    for path, value in found:
        if path in parts:
            raise ValueError(f"gives its {'.'.join(path)} twice")
        if value:
            parts[path] = value
    return parts


def read_parameter(
    name: str, text: str, parameters: Mapping[str, UrlParameter]
) -> Mapping[Path, Any]:
    """Read a parameter that is known.

    Raises:
        ValueError: It is refused; says what to write instead.
    """
    parameter = parameters[name]
    if isinstance(parameter, str):
        raise ValueError(f"has the parameter {name}, which {parameter}")
    return {parameter: text} if isinstance(parameter, tuple) else parameter(text)


def hosts(text: str) -> Mapping[Path, Any]:
    """Read `host`, which may be several, separated by commas."""
    return {("hosts",): text.split(",")} if "," in text else {("host",): text}


def ssl_mode(text: str) -> Mapping[Path, Any]:
    """Read `sslmode` of libpq, or `ssl-mode` of MySQL's programs."""
    mode = text.lower()
    if mode in _AS_IF_UNSET:
        return {}
    # An unknown one goes on as it is, for the setting to refuse it with those allowed.
    return {("ssl", "mode"): UrlText(_SSL_MODES.get(mode, mode))}


def ssl_authorities(text: str) -> Mapping[Path, Any]:
    """Read `sslrootcert`."""
    if text == "system":
        raise ValueError(
            "asks for the authorities of the system: leave sslrootcert out, and write "
            "sslmode=verify-full"
        )
    return {("ssl", "ca"): text}


def _login(login: str) -> Parts:
    user, _, password = login.partition(":")
    yield ("user",), _decode(user)
    yield ("password",), _decode(password)


def _hosts(text: str) -> Parts:
    if "," in text:
        yield ("hosts",), [_decode(host) for host in text.split(",")]
    elif text:
        try:
            host, port = parse_address(text)
        except ValueError:
            raise ValueError(f"has no valid host and port; {_SPECIAL}") from None
        # Decoded only now: the path of a socket is written with %2F, so that it does not end the
        # host.
        yield ("host",), _decode(host)
        yield ("port",), port


def _query(query: str, parameters: Mapping[str, UrlParameter]) -> Parts:
    for pair in filter(None, query.split("&")):
        name, _, text = pair.partition("=")
        if name not in parameters:
            allowed = [key for key, each in parameters.items() if not isinstance(each, str)]
            meant = nearest(name, allowed)
            question = f"did you mean {meant}? " if meant else ""
            raise ValueError(f"has an unknown parameter; {question}allowed: {', '.join(allowed)}")
        yield from read_parameter(name, _decode(text), parameters).items()


def _decode(text: str) -> UrlText:
    if _BAD_PERCENT.search(text):
        raise ValueError("has a % without two hexadecimal digits; % itself is written %25")
    try:
        return UrlText(unquote(text, errors="strict"))
    except UnicodeDecodeError:
        raise ValueError("has % sequences that are not UTF-8") from None
