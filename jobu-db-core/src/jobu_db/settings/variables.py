"""`${NAME}`, `${NAME:-default}` and `$${` in the texts of a configuration."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

_VARIABLE = re.compile(
    # First, so that the ${ of a $${ is no variable; last, what is left of any ${: a typing error
    # would otherwise be taken as text, and fail at the server, if at all.
    r"(?P<literal>\$\$\{)"
    r"|\$\{(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?::-(?P<default>(?:(?!\$\{)[^}])*))?\}"
    r"|(?P<malformed>\$\{)"
)
_NUMBER = re.compile(r"[+-]?(?:\d+(?P<fraction>\.\d*)?|(?P<leading>\.\d+))(?P<power>[eE][+-]?\d+)?")
BOOLEANS = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}
"""The words that YAML takes for booleans, in small letters."""

Path = tuple[str | int, ...]


class Interpolated(str):
    """Text in which variables were replaced. It may hold a secret, so that no error shows it.

    Only the setting knows whether it wants text (a password of digits, "0123") or a number, so
    the choice is left to it.
    """

    def typed(self) -> int | float | bool | str:
        """Return the number or boolean that this text would be in YAML, else the text."""
        if self.lower() in BOOLEANS:
            return BOOLEANS[self.lower()]
        match = _NUMBER.fullmatch(self)
        # Python refuses to convert thousands of digits; no setting needs more than a few.
        if match is None or len(self) > 40:
            return str(self)
        return float(self) if any(match.group("fraction", "leading", "power")) else int(self)


class Unresolved(str):
    """Text whose variables cannot be replaced.

    Attributes:
        faults: Why not, in words that hold nothing of it.
    """

    faults: tuple[str, ...] = ()


def interpolate(value: Any, variables: Mapping[str, str]) -> Any:
    """Replace the variables in all texts of JSON-like data.

    Doing so again changes nothing: what a variable held is not searched for variables.

    Args:
        value: Mappings, lists and scalars, a tree without cycles. Keys are left alone.
        variables: Names and texts, as in `os.environ`.

    Returns:
        New data, with `Interpolated` and `Unresolved` texts.
    """
    if isinstance(value, Mapping):
        return {key: interpolate(inner, variables) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [interpolate(inner, variables) for inner in value]
    if isinstance(value, str) and not isinstance(value, Interpolated | Unresolved):
        return _replace(value, variables)
    return value


def unresolved(value: Any, path: Path = ()) -> Iterator[tuple[Path, str]]:
    """Yield what could not be replaced in interpolated data, as pairs of path and message."""
    if isinstance(value, Unresolved):
        yield from ((path, fault) for fault in value.faults)
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            yield from unresolved(inner, (*path, str(key)))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from unresolved(inner, (*path, index))


def _replace(text: str, variables: Mapping[str, str]) -> str:
    if "${" not in text:
        return text
    if faults := tuple(_faults(text, variables)):
        as_written = Unresolved(text)
        as_written.faults = faults
        return as_written
    # An empty variable counts as unset for a default, as in a shell.
    return Interpolated(
        _VARIABLE.sub(
            lambda match: (
                "${" if match["literal"] else variables.get(match["name"]) or match["default"] or ""
            ),
            text,
        )
    )


def _faults(text: str, variables: Mapping[str, str]) -> Iterator[str]:
    for match in _VARIABLE.finditer(text):
        if match["malformed"]:
            # The text may be a secret: say what is wrong without quoting it.
            yield "a ${ that starts no ${NAME} or ${NAME:-default}; write $${ for a literal ${"
        elif match["name"] and match["default"] is None and match["name"] not in variables:
            name = match["name"]
            yield (
                f"the environment variable {name} is not set; set it, or write ${{{name}:-default}}"
            )
