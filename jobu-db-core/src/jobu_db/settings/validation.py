"""What was given for one mapping of settings, and what is wrong with it in the giver's words."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails, InitErrorDetails, PydanticCustomError

from jobu_db.settings.messages import (
    HIDDEN,
    Schema,
    describe,
    must_be,
    part_of,
    properties_of,
    unknown_key,
)
from jobu_db.settings.variables import BOOLEANS, Interpolated, Unresolved

Path = tuple[str | int, ...]


@dataclass(slots=True)
class Given:
    """Values sorted by field.

    Attributes:
        values: The value for each field.
        keys: The key that each field was written as: its own, an alias, or "url". An empty key
            means that the value stands for the whole mapping.
        inside: Fields that were found inside the text of their key.
        problems: Found while sorting, as pairs of path and message.
        complete: False if a part could not be read, so that nothing is certainly missing.
    """

    values: dict[str, Any] = field(default_factory=dict)
    keys: dict[str, str] = field(default_factory=dict)
    inside: set[str] = field(default_factory=set)
    problems: list[tuple[Path, str]] = field(default_factory=list)
    complete: bool = True

    def accepts_key(self, key: object) -> bool:
        """Refuse a key that is no text."""
        fault = _unsafe(key) if isinstance(key, str) else "a key must be text; quote it"
        if fault:
            self.refuse(str(key), fault)
        return fault is None

    def add(self, name: str, key: str, value: Any) -> None:
        """Take the value of one field; a second value for it is a problem."""
        if name in self.keys:
            self.refuse(key, f"sets the same as {self.keys[name]}: give only one of them")
        else:
            self.keys[name] = key
            self.values[name] = value

    def refuse(self, key: str, message: str) -> None:
        """Note a problem with a key."""
        self.problems.append(((key,), message))

    def exclude(self, pairs: Iterable[tuple[str, str]]) -> None:
        """Refuse pairs of fields that were both given."""
        for pair in pairs:
            # null is a way to say that a setting is not given.
            if all(self.values.get(name) is not None for name in pair):
                first, second = (self.keys[name] for name in pair)
                self.refuse(second, f"contradicts {first}: give only one of them")

    def drop_unsafe(self, is_nested: Callable[[str], bool]) -> None:
        """Refuse texts that would break a wire protocol, or whose variables cannot be replaced.

        What checks itself is left alone.
        """
        for name, value in list(self.values.items()):
            nested = isinstance(value, Mapping) and is_nested(name)
            if not nested and (faults := list(_faults_of_texts(value, (self.keys[name],)))):
                del self.values[name]
                self.problems += faults


def problems_error(title: str, problems: Iterable[tuple[Path, str]]) -> ValidationError:
    """Return the error that tells problems in these very words."""
    details = [
        # The message is a value, not a template: it may hold braces.
        InitErrorDetails(
            type=PydanticCustomError("setting", "{message}", {"message": message}),
            loc=tuple(part for part in path if part != ""),
            input=None,
        )
        # An alias that sets two fields has the same problem twice.
        for path, message in dict.fromkeys(problems)
    ]
    return ValidationError.from_exception_data(title, details, hide_input=True)


def explain(
    given: Given, error: ValidationError, root: Schema, aliases: Mapping[str, object]
) -> Iterator[tuple[Path, str]]:
    """Put pydantic's errors into words, under the keys that were written.

    Args:
        root: The JSON Schema of the class that refused the values.
        aliases: Its other names for fields.
    """
    for detail in error.errors(include_url=False):
        name = str(detail["loc"][0]) if detail["loc"] else ""
        if detail["type"] == "missing" and (name in given.keys or not given.complete):
            continue  # It was given, but could not be read.
        path, message = _explain_one(given, name, detail, root, aliases)
        if name in given.inside:
            part = ".".join(str(key) for key in (name, *path[1:]))
            path, message = path[:1], f"its {part} {message}"
        yield path, message


def _explain_one(
    given: Given, name: str, detail: ErrorDetails, root: Schema, aliases: Mapping[str, object]
) -> tuple[Path, str]:
    key = given.keys.get(name, name)
    rest = detail["loc"][1:]
    # An alias of several fields has one schema of its own, and so one message.
    properties = properties_of(root, root)
    schema = properties.get(name if name in given.inside else key) or properties.get(name, {})
    match detail["type"]:
        case "setting":
            return (key, *rest), detail["msg"]
        case "extra_forbidden":
            return (key,), unknown_key(key, root, aliases)
        case "value_error":
            return (key,), f"{detail['ctx']['error']}{_default_told(name, given, schema)}"
        case "missing":
            return (key,), f"is required: {describe(schema, root)}"
    return _explain_value((key,), rest, schema, root, given.values.get(name))


def _default_told(name: str, given: Given, schema: Schema) -> str:
    """Name the default of a setting that was left out, and contradicts one that was given.

    The problem stands under a key that nobody wrote: without the number it could not be understood.
    """
    default = schema.get("default")
    told = name not in given.keys and type(default) in (int, float)
    return f"; its default is {default:g}" if told else ""


def _explain_value(
    path: Path, rest: Path, schema: Schema, root: Schema, value: Any
) -> tuple[Path, str]:
    """Follow the location into lists and free mappings; what else it names are types."""
    for part in rest:
        inner = part_of(schema, root, "items" if isinstance(part, int) else "additionalProperties")
        if inner is None:
            break
        path, schema = (*path, part), inner
        # Nobody here knows the keys of a free mapping, so their values may be secret.
        value = value[part] if isinstance(part, int) else HIDDEN
    return path, must_be(schema, root, value)


def _faults_of_texts(value: Any, path: Path) -> Iterator[tuple[Path, str]]:
    """Say what is wrong with a text, or with the texts in a list or mapping."""
    if isinstance(value, Unresolved):
        yield from ((path, fault) for fault in value.faults)
    elif isinstance(value, str):
        if fault := _unsafe(value):
            yield path, fault
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _faults_of_texts(key, path)
            yield from _faults_of_texts(inner, (*path, str(key)))
    elif isinstance(value, list | tuple):
        for index, inner in enumerate(value):
            yield from _faults_of_texts(inner, (*path, index))


def _unsafe(text: str) -> str | None:
    if "\0" in text:
        return "contains a NUL character"
    if any("\ud800" <= character <= "\udfff" for character in text):
        return "is not valid Unicode text"
    return None


# -- giving a value the type that a setting wants, where YAML or a variable took it for another


def as_wanted(value: Any, annotation: Any) -> Any:
    """Return a value as a field of that annotation wants it.

    Text from a variable becomes a number or boolean, unless the field takes text. A boolean
    becomes the word that YAML took for one, where that word is allowed: `synchronous: OFF`.
    """
    types = types_in(annotation)
    if isinstance(value, Interpolated):
        if any(issubclass(each, BaseModel) for each in types):
            return value  # It reads it itself, and must know where it came from.
        return value.typed() if types & {bool, int, float} and str not in types else str(value)
    if isinstance(value, bool) and bool not in types:
        words = [word for word in _words_in(annotation) if BOOLEANS.get(word.lower()) is value]
        return words[0] if len(words) == 1 else value
    return value


def types_in(annotation: Any) -> set[type]:
    """Return the classes that an annotation is made of."""
    inner = set().union(*map(types_in, get_args(annotation)))
    return inner | {annotation} if isinstance(annotation, type) else inner


def _words_in(annotation: Any) -> Iterator[str]:
    for inner in get_args(annotation):
        if get_origin(annotation) is not Literal:
            yield from _words_in(inner)
        elif isinstance(inner, str):
            yield inner
