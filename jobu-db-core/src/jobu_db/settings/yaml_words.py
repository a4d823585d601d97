"""Giving a value the type that a setting wants, where YAML or a variable took it for another."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal, get_args, get_origin

from jobu_db.settings.variables import BOOLEANS, Interpolated


def as_wanted(value: Any, annotation: Any) -> Any:
    """Return a value as a field of that annotation wants it.

    Text from a variable becomes a number or boolean, unless the field takes text. A boolean
    becomes the word that YAML took for one, where that word is allowed: `synchronous: OFF`.
    """
    types = types_in(annotation)
    if isinstance(value, Interpolated):
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
