"""Which values SQLite takes, and as what: a closed list.

sqlite3 stores NaN as NULL, and whatever has a buffer as its bytes, a number of NumPy's among it.
What is not on the list, or has no equal in SQLite, is refused here, before anything is done.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Mapping, Sequence
from datetime import date, datetime, time
from decimal import Decimal
from enum import Enum
from math import isnan
from types import NoneType
from typing import Any
from uuid import UUID

from jobu_db.placeholders import Expanded
from jobu_db_sqlite.errors import UnsupportedValueError

_SMALLEST, _LARGEST = -(2**63), 2**63 - 1

_AS_THEY_ARE = frozenset({NoneType, bool, bytes, bytearray})
_EXACT = frozenset({*_AS_THEY_ARE, int, float, str})
"""Types that sqlite3 never asks an adapter for."""


def bindable(parameters: Any) -> Any:
    """Return the values as sqlite3 is to have them; most often these very ones.

    Args:
        parameters: A sequence or mapping of values, or None for none.

    Raises:
        UnsupportedValueError: One has a type that is not on the list, or SQLite has no equal of it.
    """
    kind = type(parameters)
    if kind is tuple or kind is list:
        for value in parameters:  # the usual ones, at little cost
            kind = type(value)
            if kind is str:
                # A str knows that it is ASCII, and then it has no surrogates.
                if value.isascii():
                    continue
            elif kind is int:
                if _SMALLEST <= value <= _LARGEST:
                    continue
            elif kind in _AS_THEY_ARE:
                continue
            return [_bound(place, each) for place, each in enumerate(parameters, 1)]
        return parameters
    if parameters is None:
        return ()
    if isinstance(parameters, Mapping):
        return {name: _bound(name, value) for name, value in parameters.items()}
    if isinstance(parameters, (Sequence, sqlite3.Row)) and not isinstance(
        parameters, (str, bytes, bytearray, memoryview)
    ):
        return [_bound(place, value) for place, value in enumerate(parameters, 1)]
    raise UnsupportedValueError(
        f"values are given as a list, tuple or mapping, not as {_name(parameters)}"
    )


def _bound(place: object, value: Any) -> Any:
    try:
        return _converted(value)
    except UnsupportedValueError as error:
        raise UnsupportedValueError(f"value {place} {error}") from None


def _converted(value: Any) -> Any:
    kind = type(value)
    if kind not in _EXACT and _is_known_to_sqlite3(value):
        return value
    convert = _CONVERSIONS.get(kind)
    if convert is None:
        base = next((base for base in _BASES if isinstance(value, base)), None)
        if base is None:
            raise UnsupportedValueError(
                f"is {_name(value)}, which SQLite has no type for{_HINTS.get(kind, '')}"
            )
        convert = _CONVERSIONS[base]
    return convert(value)


def _is_known_to_sqlite3(value: Any) -> bool:
    """Say whether the program itself has taught sqlite3 what to do with it."""
    # sqlite3's own adapters, for dates, are deprecated since Python 3.12, and no teaching of the
    # program's.
    adapter = sqlite3.adapters.get((type(value), sqlite3.PrepareProtocol))
    ours = adapter is not None and adapter.__module__ != "sqlite3.dbapi2"
    return ours or hasattr(value, "__conform__")


def _name(value: object) -> str:
    kind = type(value)
    module = "" if kind.__module__ == "builtins" else f"{kind.__module__}."
    return f"a {module}{kind.__qualname__}"


def _int(value: int) -> int:
    if not _SMALLEST <= value <= _LARGEST:
        raise UnsupportedValueError("is an int that does not fit in 64 bits")
    return value


def _float(value: float) -> float:
    if isnan(value):
        raise UnsupportedValueError("is NaN, which SQLite would store as NULL")
    return value


def _str(value: str) -> str:
    try:
        value.encode()
    except UnicodeEncodeError:
        # Outside of the block the error would keep the text as its context.
        whole = False
    else:
        whole = True
    if not whole:
        raise UnsupportedValueError("holds a lone surrogate, which is not a character")
    return value


def _memoryview(value: memoryview) -> memoryview | bytes:
    # sqlite3 takes a buffer only if it is one piece.
    return value if value.c_contiguous else value.tobytes()


def _datetime(value: datetime) -> str:
    return value.isoformat(" ")


def _enum(value: Enum) -> Any:
    return _converted(value.value)


def _same(value: Any) -> Any:
    return value


_CONVERSIONS: dict[type, Callable[[Any], Any]] = {
    NoneType: _same,
    bool: _same,
    int: _int,
    float: _float,
    str: _str,
    bytes: _same,
    bytearray: _same,
    memoryview: _memoryview,
    datetime: _datetime,
    date: date.isoformat,
    time: time.isoformat,
    UUID: str,
    Enum: _enum,
}

# In this order: an IntEnum is an int as well, a bool is an int, a datetime is a date.
_BASES = (Enum, bool, int, float, str, bytes, bytearray, datetime, date, time, UUID)
"""For subclasses, which are stored as what they hold as one of these."""

_LIST = ": for `IN (:name)`, pass expand(values) by that name; to store it, pass json.dumps(value)"

_HINTS: dict[type, str] = {
    Decimal: ": pass str(value) for a column of type TEXT, or a whole number of cents; a REAL "
    "would lose digits",
    dict: ": pass json.dumps(value)",
    list: _LIST,
    tuple: _LIST,
    set: ": for `IN (:name)`, pass expand(values) by that name",
    Expanded: ": it is given by name, as in `IN (:name)`",
}
