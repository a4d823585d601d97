"""Parameters as they are written into the SQL: one closed list of types.

asyncmy writes by `str()` whatever it does not know, a datetime without its offset, and NaN as the
name of a column. Here what is not on the list is refused, before anything is sent.

A subclass is written as what it holds as one of the types on the list, whatever it shows of
itself; an Enum as its value.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import suppress
from datetime import date, datetime, time, timedelta, timezone, tzinfo
from decimal import Decimal
from enum import Enum
from typing import Any, Protocol
from uuid import UUID
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from asyncmy.constants.SERVER_STATUS import SERVER_STATUS_NO_BACKSLASH_ESCAPES
from asyncmy.converters import escape_bytes_prefixed, escape_string

from jobu_db.errors import DataError
from jobu_db.placeholders import Expanded

_DIGITS = 65
"""A DECIMAL has no more; what is longer the servers cut off without an error."""

_SHORT = 10**18
_LONGEST = 10**_DIGITS


class Session(Protocol):
    """What the writing of a value depends on.

    Attributes:
        server_status: Among others, whether a backslash escapes.
        timezone: The session's time zone, or None if it is not known for certain.
    """

    server_status: int
    timezone: tzinfo | None

    @property
    def encoding(self) -> str:
        """Python's name of the character set in which SQL is sent."""


_OFFSET = re.compile(r"([+-])(\d{1,2}):(\d{2})")


def zone(name: str) -> tzinfo | None:
    """Return a time zone by the name that servers have for it; None if Python does not know it."""
    offset = _OFFSET.fullmatch(name)
    if offset:
        distance = timedelta(hours=int(offset[2]), minutes=int(offset[3]))
        return timezone(-distance if offset[1] == "-" else distance)
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):  # SYSTEM, or no tables on this machine
        return None


Writer = Callable[[Any, Session], str]


def literal(session: Session, value: Any) -> str:
    """Write a value as SQL. (A method of connections: their part comes first.)

    Raises:
        DataError: Its type is not on the list, or the server has nothing that is equal to it.
    """
    write = _WRITERS.get(type(value))
    return write(value, session) if write is not None else _of_base(value, session)


def check_encodable(text: str, session: Session, what: str) -> None:
    """Raise unless a text can be sent.

    Args:
        what: Names it, for the message.

    Raises:
        DataError: It holds a lone surrogate, or what the character set lacks.
    """
    if text.isascii():
        return
    lacking = None
    try:
        sent = text.encode(session.encoding)
    except UnicodeEncodeError as error:
        lacking = ord(text[error.start])
    else:
        # ujis writes a yen sign as a backslash, which would then escape what comes behind it.
        if session.encoding == "utf8" or sent.decode(session.encoding) == text:
            return
    # Outside of the block: the error would keep the text as its context.
    if lacking is not None and 0xD800 <= lacking <= 0xDFFF:
        raise DataError(f"{what} holds a lone surrogate, which is not a character")
    raise DataError(f"{what} holds a character that the connection's charset lacks: use utf8mb4")


def _str(value: str, session: Session) -> str:
    check_encodable(value, session, "a str that")
    if session.server_status & SERVER_STATUS_NO_BACKSLASH_ESCAPES:
        # Where a backslash is a character as any, escaping by it would end the string at a quote.
        return "'" + value.replace("'", "''") + "'"
    return "'" + escape_string(value) + "'"


def _bytes(value: bytes, session: Session) -> str:
    if session.server_status & SERVER_STATUS_NO_BACKSLASH_ESCAPES:
        # In hexadecimal digits, since bytes are escaped by backslashes.
        return f"_binary x'{value.hex()}'"
    # Bytes beyond ASCII become halves of surrogates here, and bytes again when it is sent.
    written: str = escape_bytes_prefixed(value)
    return written


def _buffer(value: bytes | bytearray | memoryview, session: Session) -> str:
    held = None
    with suppress(ValueError):
        held = memoryview(value).tobytes()
    if held is None:
        raise DataError("a memoryview that was released holds nothing any more")
    return _bytes(held, session)


def _int(value: int, session: Session) -> str:
    if -_SHORT < value < _SHORT:
        return str(value)
    if -_LONGEST < value < _LONGEST:
        return str(value)
    raise DataError(f"an int of more than {_DIGITS} digits, the most that a number has here")


def _float(value: float, session: Session) -> str:
    text = repr(value)
    if text in ("inf", "-inf", "nan"):
        raise DataError("a float that is not a number or infinite, which no column can hold")
    # Without an exponent it would be a DECIMAL to the server, which compares and rounds it
    # otherwise than the DOUBLE that a float is.
    return text if "e" in text else text + "e0"


def _decimal(value: Decimal, session: Session) -> str:
    exponent = Decimal.as_tuple(value).exponent
    if not isinstance(exponent, int):
        raise DataError("a Decimal that is not a number or infinite, which no column can hold")
    if max(Decimal.adjusted(value), 0) + 1 + max(-exponent, 0) > _DIGITS:
        raise DataError(f"a Decimal of more than {_DIGITS} digits: round it with quantize()")
    # Never with an exponent: that would make it a DOUBLE.
    return Decimal.__format__(value, "f")


def _datetime(value: datetime, session: Session) -> str:
    if value.tzinfo is not None:
        value = _without_zone(value, session.timezone)
    return "'" + datetime.isoformat(value, " ") + "'"


def _without_zone(value: datetime, zone: tzinfo | None) -> datetime:
    day, hour = datetime.date(value), datetime.time(value)
    if datetime.utcoffset(value) is None:
        return datetime.combine(day, hour)
    if zone is None:
        raise DataError(
            "a datetime with a time zone, where the session's own is not known: set "
            "options.timezone, to UTC for instance, or convert it and take the tzinfo off"
        )
    local = None
    with suppress(OverflowError):
        local = datetime.combine(day, hour, value.tzinfo).astimezone(zone)
    if local is None:
        raise DataError("a datetime that the session's time zone moves out of the years 1 to 9999")
    # Written without a zone it may mean either of two moments, an hour apart.
    if local.utcoffset() != local.replace(fold=1 - local.fold).utcoffset():
        raise DataError(
            "a datetime in the hour that the session's time zone has twice: "
            "set options.timezone to a fixed offset, such as UTC"
        )
    return local.replace(tzinfo=None)


def _date(value: date, session: Session) -> str:
    return "'" + date.isoformat(value) + "'"


def _time(value: time, session: Session) -> str:
    if value.tzinfo is not None:
        raise DataError("a time with a time zone: no type of column here keeps it")
    return "'" + time.isoformat(value) + "'"


def _timedelta(value: timedelta, session: Session) -> str:
    sign, value = ("-", -value) if value.days < 0 else ("", value)
    minutes, seconds = divmod(value.seconds, 60)
    hours, minutes = divmod(minutes, 60)
    fraction = f".{value.microseconds:06d}" if value.microseconds else ""
    return f"'{sign}{value.days * 24 + hours:02d}:{minutes:02d}:{seconds:02d}{fraction}'"


def _tuple(value: tuple[Any, ...], session: Session) -> str:
    if not value:
        raise DataError(
            "an empty tuple: SQL has no empty list, but :name with expand([]) may be one"
        )
    return "(" + ",".join([literal(session, item) for item in value]) + ")"


_WRITERS: dict[type, Writer] = {
    type(None): lambda value, session: "NULL",
    bool: lambda value, session: "1" if value else "0",
    int: _int,
    float: _float,
    Decimal: _decimal,
    str: _str,
    bytes: _bytes,
    bytearray: _buffer,
    memoryview: _buffer,
    datetime: _datetime,
    date: _date,
    time: _time,
    timedelta: _timedelta,
    UUID: lambda value, session: f"'{value}'",
    tuple: _tuple,
}
"""For exactly these types."""

_BASES: tuple[tuple[type, Writer], ...] = (
    (int, lambda value, session: _int(int.__int__(value), session)),
    (float, lambda value, session: _float(float.__float__(value), session)),
    (Decimal, _decimal),
    (bytes, _buffer),
    (bytearray, _buffer),
    (datetime, _datetime),
    (date, _date),
    (tuple, lambda value, session: _tuple(tuple(tuple.__iter__(value)), session)),
)
"""For their subclasses; none of these writers calls a method that a subclass may have replaced."""


def _of_base(value: Any, session: Session) -> str:
    kind = type(value)
    # Before its base: an IntEnum is an int too, and one that is a str shows its name.
    if isinstance(value, Enum):
        held = value._value_
        if isinstance(held, Enum) or type(held) not in _WRITERS:
            raise DataError(f"an Enum, {kind.__qualname__}, whose value is of an unsupported type")
        return literal(session, held)
    if isinstance(value, str):
        return _of_str(value, session)
    for base, write in _BASES:
        if isinstance(value, base):
            return write(value, session)
    raise DataError(f"of type {kind.__qualname__}, which is not supported{_hint(value)}")


def _of_str(value: str, session: Session) -> str:
    kind = type(value)
    own = {name for each in kind.__mro__[: kind.__mro__.index(str)] for name in vars(each)}
    if own & _METHODS_OF_STR:
        raise DataError(
            f"{kind.__qualname__}, a str that replaces methods of str, so that it may show "
            "another text than it holds: convert it to a str"
        )
    return _str(str.__str__(value), session)


_METHODS_OF_STR = frozenset(dir(str)) - {
    "__class__", "__doc__", "__init__", "__init_subclass__", "__new__", "__getstate__",
    "__reduce__", "__reduce_ex__",
}  # fmt: skip


def _hint(value: Any) -> str:
    if isinstance(value, list | set | frozenset):
        return ": for `IN (:name)` give expand(values) by that name, for JSON json.dumps(...)"
    if isinstance(value, Expanded):
        return ": it is given by name, as in `IN (:name)`"
    if isinstance(value, dict):
        return ": for a JSON column give json.dumps(...)"
    return ": convert it to one of those in the README's table"
