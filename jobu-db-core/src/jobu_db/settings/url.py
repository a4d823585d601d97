"""Reading `scheme://user:password@host:port/database?name=value`, without ever repeating it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import unquote

from jobu_db.settings.address import parse_address
from jobu_db.settings.messages import nearest
from jobu_db.settings.variables import Interpolated

_URL = re.compile(
    r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*)://"
    r"(?:(?P<login>[^/?#]*)@)?(?P<hosts>[^/?#@]*)"
    r"(?:/(?P<database>[^?#]*))?(?:\?(?P<query>[^#]*))?"
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


class UrlText(Interpolated):
    """Text out of a URL: like that of a variable, of the type that the setting wants."""


def parse_url(
    url: str, schemes: Sequence[str], parameters: Mapping[str, tuple[str, ...]]
) -> dict[tuple[str, ...], Any]:
    """Read a URL.

    Args:
        schemes: Those allowed. What follows a "+" in the URL's scheme is ignored.
        parameters: Names allowed after "?", each with the path of the setting it gives.

    Returns:
        Values by path of the setting, such as `("ssl", "mode")`.

    Raises:
        ValueError: Says what is wrong in words that hold nothing of the URL.
    """
    match = _URL.fullmatch(url)
    if match is None:
        raise ValueError(
            f"must be {schemes[0]}://user:password@host:port/database, with special characters "
            "written as % and two hexadecimal digits"
        )
    if match["scheme"].partition("+")[0].lower() not in schemes:
        raise ValueError(f"must begin with {' or '.join(f'{scheme}://' for scheme in schemes)}")
    parts: dict[tuple[str, ...], Any] = {}
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


def _login(login: str) -> Iterator[tuple[tuple[str, ...], Any]]:
    user, _, password = login.partition(":")
    yield ("user",), _decode(user)
    yield ("password",), _decode(password)


def _hosts(hosts: str) -> Iterator[tuple[tuple[str, ...], Any]]:
    if "," in hosts:
        yield ("hosts",), [_decode(host) for host in hosts.split(",")]
    elif hosts:
        try:
            host, port = parse_address(hosts)
        except ValueError:
            raise ValueError(
                "has no valid host and port; special characters in the user and password are "
                "written as % and two hexadecimal digits"
            ) from None
        yield ("host",), _decode(host)
        yield ("port",), port


def _query(
    query: str, parameters: Mapping[str, tuple[str, ...]]
) -> Iterator[tuple[tuple[str, ...], Any]]:
    for pair in filter(None, query.split("&")):
        name, _, text = pair.partition("=")
        if name not in parameters:
            meant = nearest(name, parameters)
            question = f"did you mean {meant}? " if meant else ""
            raise ValueError(
                f"has an unknown parameter; {question}allowed: {', '.join(parameters)}"
            )
        value = _decode(text)
        if parameters[name] == ("ssl", "mode"):
            value = UrlText(_SSL_MODES.get(value.lower(), value.lower()))
        yield parameters[name], value


def _decode(text: str) -> UrlText:
    if _BAD_PERCENT.search(text):
        raise ValueError("has a % without two hexadecimal digits; % itself is written %25")
    try:
        return UrlText(unquote(text, errors="strict"))
    except UnicodeDecodeError:
        raise ValueError("has % sequences that are not UTF-8") from None
