"""The words for what is wrong with a setting, chosen so that no secret is ever repeated."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from jobu_db.settings.variables import Interpolated

# A URL with a password may have been put where a host belongs.
_URL_WITH_USER = re.compile(r"://.*@", re.DOTALL)
_LONGEST_VALUE = 60

HIDDEN = object()
"""In place of a value that nobody may see."""

Schema = Mapping[str, Any]
"""A JSON Schema, or a part of one with its references resolved by `resolve`."""


def tell(source: str | None, path: Iterable[object], message: str) -> str:
    """Return one line of a `ConfigurationError`: `FILE: KEY.KEY[0]: MESSAGE`."""
    place = ""
    for key in path:
        place += f"[{key}]" if isinstance(key, int) else f".{tell_key(key)}"
    return ": ".join(part for part in (source, place.lstrip("."), message) if part)


def tell_key(key: object) -> str:
    """Return as much of a key as is certainly a name.

    A forgotten space or colon makes a key of a secret: `{password:hunter2}`.
    """
    text = str(key)
    name = re.match(r"[\w.-]{0,60}", text)
    shown = name.group() if name else ""
    return shown if shown == text and text else f"{shown}…"


def tell_value(value: object) -> str | None:
    """Describe an offending value; None if it may be a secret, as what a variable held."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    # Python refuses to print a number of more than 4300 digits, with a ValueError.
    if isinstance(value, int) and value.bit_length() > 64:
        return "a huge number"
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, str):
        return _tell_text(value)
    # Not what is in it: any key or value there may be a secret.
    if isinstance(value, Mapping):
        return "a mapping"
    if isinstance(value, list | tuple):
        return "a list" if value else "an empty list"
    return None if value is HIDDEN else f"a value of type {type(value).__name__}"


def _tell_text(text: str) -> str | None:
    if _URL_WITH_USER.search(text) or isinstance(text, Interpolated):
        return None
    shown = str(text[:_LONGEST_VALUE])
    return repr(shown) if shown == text else f"{shown!r}…"


def must_be(schema: Schema, root: Schema, value: object) -> str:
    """Say what a JSON Schema allows, and the value given instead if that is no secret."""
    branches = _branches(schema, root)
    text = f"must be {describe(schema, root)}"
    secret = any(branch.get("format") == "password" for branch in branches)
    # Exactly this class: `UrlText` is one too, and comes from no variable.
    if type(value) is Interpolated:
        text += ", not what the variable holds"
    elif not secret and (told := tell_value(value)):
        text += f", not {told}"
    only_text = all(branch.get("type") in ("string", "null") for branch in branches)
    closed = any("enum" in branch for branch in branches)
    # YAML reads 0123, 1e3 and yes without quotes as numbers and a boolean.
    if only_text and not closed and isinstance(value, bool | int | float):
        text += "; put it in quotes"
    return text


def unknown_key(key: str, root: Schema, aliases: Iterable[str]) -> str:
    """Say that a key is unknown, which is nearest, and which are allowed."""
    properties = properties_of(root, root)
    allowed = [name for name in properties if name not in set(aliases)]
    # First the right name in the wrong place: `nearest` would turn `max_size` beside `pool` into
    # something else.
    meant = _elsewhere(key, root) or nearest(key, properties)
    question = f"did you mean {meant}? " if meant else ""
    return f"unknown key; {question}allowed: {', '.join(allowed)}"


def _elsewhere(key: str, root: Schema) -> str | None:
    """Find a key that belongs one level deeper, as `pool.max_size`."""
    for name, schema in properties_of(root, root).items():
        if key in properties_of(schema, root):
            return f"{name}.{key}"
    return None


def nearest(word: str, known: Iterable[str]) -> str | None:
    """Return the known name most like a word, if any is much like it."""
    from difflib import get_close_matches

    return next(iter(get_close_matches(word.lower(), list(known), n=1)), None)


def describe(schema: Schema, root: Schema) -> str:
    """Say in words which values a JSON Schema allows."""
    words = [word for branch in _branches(schema, root) for word in _describe_branch(branch)]
    # Several branches may read alike.
    *first, last = dict.fromkeys(words)
    return f"{', '.join(first)} or {last}" if first else last


def _describe_branch(schema: Schema) -> Sequence[str]:
    if "enum" in schema:
        return [value for value in schema["enum"] if isinstance(value, str)]
    if "const" in schema:
        return [str(schema["const"])]
    if schema.get("format") == "path":
        return ["a path"]
    if "pattern" in schema:
        return [f"text matching {schema['pattern']}"]
    names = {
        "array": "a non-empty list" if schema.get("minItems") else "a list",
        "boolean": "true or false",
        "integer": "a whole number",
        "null": "null",
        "number": "a number",
        "object": "a mapping",
        "string": "non-empty text" if schema.get("minLength") else "text",
    }
    return [names.get(schema.get("type", ""), "another value") + _bounds(schema)]


def _bounds(schema: Schema) -> str:
    low, high = schema.get("minimum"), schema.get("maximum")
    if low is not None and high is not None:
        return f" from {low} to {high}"
    if "exclusiveMinimum" in schema:
        return f" above {schema['exclusiveMinimum']}"
    if low is not None:
        return f" of at least {low}"
    return "" if high is None else f" of at most {high}"


def properties_of(schema: Schema, root: Schema) -> Mapping[str, Schema]:
    """Return the schemas of the keys of a mapping, none if it allows no mapping."""
    properties: dict[str, Schema] = {}
    for branch in _branches(schema, root):
        properties |= branch.get("properties", {})
    return properties


def part_of(schema: Schema, root: Schema, key: str) -> Schema | None:
    """Return the schema under "items" or "additionalProperties", in whichever branch has it."""
    for branch in _branches(schema, root):
        if isinstance(branch.get(key), Mapping):
            return branch[key]  # type: ignore[no-any-return]
    return None


def _branches(schema: Schema, root: Schema) -> list[Schema]:
    # What pydantic makes of a nested model, and of `X | None`. An allOf stands for pairs that
    # exclude each other, and says nothing of types.
    if "$ref" in schema:
        schema = root["$defs"][schema["$ref"].rpartition("/")[2]]
    if "anyOf" in schema:
        return [inner for branch in schema["anyOf"] for inner in _branches(branch, root)]
    return [schema]
