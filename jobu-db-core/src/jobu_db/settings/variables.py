"""`${NAME}`, `${NAME:-default}` and `$${` in the texts of a configuration file."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

_VARIABLE = re.compile(
    r"(?P<literal>\$\$\{)"
    r"|\$\{(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?::-(?P<default>(?:(?!\$\{)[^}])*))?\}"
    r"|(?P<malformed>\$\{)"
)
_NUMBER = re.compile(r"[+-]?(?:\d+(?P<fraction>\.\d*)?|(?P<leading>\.\d+))(?P<power>[eE][+-]?\d+)?")
BOOLEANS = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}
"""The words that YAML takes for booleans, in small letters."""


class Interpolated(str):
    """Text that came out of a variable.

    Only the setting knows whether it wants text (a password of digits, "0123") or a number, so
    the choice is left to it.

    Class attributes:
        shown: Whether errors may repeat it.
    """

    shown: ClassVar[bool] = True

    def typed(self) -> int | float | bool | str:
        """Return the number or boolean that this text would be in YAML, else the text."""
        if self.lower() in BOOLEANS:
            return BOOLEANS[self.lower()]
        match = _NUMBER.fullmatch(self)
        # Python refuses to convert thousands of digits; no setting needs more than a few.
        if match is None or len(self) > 40:
            return str(self)
        return float(self) if any(match.group("fraction", "leading", "power")) else int(self)


def interpolate(
    value: Any, variables: Mapping[str, str], path: tuple[str | int, ...] = ()
) -> tuple[Any, list[tuple[tuple[str | int, ...], str]]]:
    """Replace the variables in all texts of JSON-like data.

    Args:
        value: Mappings, lists and scalars, a tree without cycles. Keys are left alone.
        variables: Names and texts, as in `os.environ`.

    Returns:
        New data, and the problems as pairs of path and message.
    """
    problems: list[tuple[tuple[str | int, ...], str]] = []

    def visit(item: Any, at: tuple[str | int, ...]) -> Any:
        if isinstance(item, str):
            text, found = _replace(item, variables)
            problems.extend((at, message) for message in found)
            return text
        if isinstance(item, dict):
            return {key: visit(inner, (*at, key)) for key, inner in item.items()}
        if isinstance(item, list):
            return [visit(inner, (*at, index)) for index, inner in enumerate(item)]
        return item

    return visit(value, path), problems


def _replace(text: str, variables: Mapping[str, str]) -> tuple[str, list[str]]:
    problems = list(_problems(text, variables))
    matches = list(_VARIABLE.finditer(text))
    if problems or not matches:
        return text, problems
    # An empty variable counts as unset for a default, as in a shell.
    replaced = _VARIABLE.sub(
        lambda match: (
            "${" if match["literal"] else variables.get(match["name"]) or match["default"] or ""
        ),
        text,
    )
    only_literals = all(match["literal"] for match in matches)
    return replaced if only_literals else Interpolated(replaced), []


def _problems(text: str, variables: Mapping[str, str]) -> Iterator[str]:
    for match in _VARIABLE.finditer(text):
        if match["malformed"]:
            # The text may be a secret: say what is wrong without quoting it.
            yield "a ${ that starts no ${NAME} or ${NAME:-default}; write $${ for a literal ${"
        elif match["name"] and match["default"] is None and match["name"] not in variables:
            name = match["name"]
            yield (
                f"the environment variable {name} is not set; set it, or write ${{{name}:-default}}"
            )
