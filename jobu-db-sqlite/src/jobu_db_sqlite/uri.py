"""Reading `file:PATH?mode=ro`, as SQLite writes it, and `sqlite:///PATH`, as others do."""

from __future__ import annotations

import re
from collections.abc import Iterator
from urllib.parse import unquote

from jobu_db.settings.messages import nearest

_URI = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*):(//(?P<host>[^/?#]*))?(?P<path>[^?#]*)"
                  r"(\?(?P<query>[^#]*))?(#.*)?", re.DOTALL)  # fmt: skip
_BAD_PERCENT = re.compile("%(?![0-9A-Fa-f]{2})")
_PARAMETERS = ("mode", "immutable")
_MODES = ("ro", "rw", "rwc", "memory")
_MEMORY = ":memory:"


def parse_uri(text: str) -> dict[str, str]:
    """Read an SQLite URI (https://www.sqlite.org/uri.html).

    Returns:
        `path` and, where it is given, `mode`.

    Raises:
        ValueError: Says what is wrong.
    """
    match = _URI.fullmatch(text)
    if match is None or match["host"] not in (None, "", "localhost"):
        raise ValueError("must be file:PATH or file:///PATH, on this machine")
    return _parts(match["path"], match["query"])


def parse_url(text: str) -> dict[str, str]:
    """Read `sqlite:///PATH`; a fourth slash begins an absolute path, no path means in memory.

    Returns:
        `path` and, where it is given, `mode`.

    Raises:
        ValueError: Says what is wrong.
    """
    match = _URI.fullmatch(text)
    # SQLAlchemy's URLs name the driver, too: sqlite+aiosqlite:///data.db.
    scheme = match["scheme"].partition("+")[0].lower() if match else ""
    if match is not None and scheme == "file":
        return parse_uri(text)
    if match is None or scheme != "sqlite":
        raise ValueError("must begin with sqlite:// or file:")
    # In sqlite://data.db, the file's name stands where the host of a URL does.
    if match["host"] != "":
        raise ValueError(
            "must have three slashes before a relative path and four before an absolute one: "
            "sqlite:///data.db, sqlite:////var/lib/data.db"
        )
    return _parts(match["path"].removeprefix("/") or _MEMORY, match["query"])


def _parts(path: str, query: str | None) -> dict[str, str]:
    parts = {"path": _decode(path)}
    for name, value in _parameters(query or ""):
        if "mode" in parts and parts["mode"] != value:
            raise ValueError("gives its mode twice")
        if name == "mode" and value == "memory":
            parts["path"] = _MEMORY
        elif value:
            parts["mode"] = value
    if not parts["path"]:
        raise ValueError("must name a file, or :memory:")
    return parts


def _parameters(query: str) -> Iterator[tuple[str, str]]:
    for pair in filter(None, query.split("&")):
        name, _, text = pair.partition("=")
        value = _decode(text)
        if name == "mode" and value in _MODES:
            yield name, value
        elif name == "mode":
            raise ValueError("must have a mode of ro, rw, rwc or memory")
        elif name == "immutable":
            yield name, "immutable" if value in ("1", "on", "yes", "true") else ""
        elif name == "cache" and value == "private":
            continue  # as it is
        elif name == "cache":
            raise ValueError("asks for a shared cache, in which readers and writers lock each "
                             "other out at once: leave it out")  # fmt: skip
        else:
            meant = nearest(name, _PARAMETERS)
            question = f"did you mean {meant}? " if meant else ""
            raise ValueError(
                f"has an unknown parameter; {question}allowed: {', '.join(_PARAMETERS)}"
            )


def _decode(text: str) -> str:
    if _BAD_PERCENT.search(text):
        raise ValueError("has a % without two hexadecimal digits; % itself is written %25")
    try:
        return unquote(text, errors="strict")
    except UnicodeDecodeError:
        raise ValueError("has % sequences that are not UTF-8") from None
