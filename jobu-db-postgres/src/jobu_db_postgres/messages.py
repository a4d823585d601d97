"""What of a message may be shown: nothing that can be a value.

The server quotes names and values alike: `role "x" does not exist` comes from `SET ROLE x`, where
the statement says so anyway, and from `$1::regrole`, where x is a parameter. So what is quoted is
shown if it stands in the statement, or if the server itself says that it is a name.
"""

from __future__ import annotations

import re

import asyncpg

_QUOTED = re.compile(
    # As in the server's translations; the first one for English.
    '"([^"]*)"|«([^»]*)»|»([^«]*)«|„([^“”]*)[“”]|“([^”]*)”|「([^」]*)」|『([^』]*)』'
)

_QUOTES = '"«»„“”「」『』'

_A_VALUE_FOLLOWS = re.compile(': (?=["«»„“「『]|0x)')

_NAMES = ("constraint_name", "table_name", "column_name", "schema_name", "data_type_name")

_AN_ARGUMENT = "invalid input for query argument"

_OF_THE_PROGRAM = "P0"
"""Texts of RAISE, which the program wrote itself."""


def server_message(error: asyncpg.PostgresError) -> str:
    """Return the message without what may be a value; detail and hint are left out for that.

    `__cause__` has it in full.
    """
    message = str(error.args[0]) if error.args else type(error).__name__
    if message.startswith(_AN_ARGUMENT):  # found by asyncpg, before sending
        return f"{message.split(': ')[0]} ({_what_was_expected(error.__cause__)})"
    if (error.sqlstate or "").startswith(_OF_THE_PROGRAM):
        return message
    if (error.sqlstate or "").startswith("22"):
        message = _A_VALUE_FOLLOWS.split(message, maxsplit=1)[0]
    return _without_values(message, error)


def _what_was_expected(cause: BaseException | None) -> str:
    if isinstance(cause, AttributeError) and str(cause) == _NO_ZONE:
        return "timetz takes a datetime.time with a tzinfo"
    # Only these texts speak of types and ranges alone.
    safe = isinstance(cause, TypeError | OverflowError) or type(cause).__name__ in _SAFE
    told = str(cause) if safe else type(cause).__name__
    return f"{told}: {_LISTS}" if _A_LIST.search(told) else told


_SAFE = ("NaiveDatetimeError",)

_NO_ZONE = "'NoneType' object has no attribute 'utcoffset'"
"""What asyncpg's encoder of `timetz` meets in a time without one."""

_A_LIST = re.compile(r"\A'(?:list|tuple|set)' object|got '?(?:list|tuple|set)\b")
_LISTS = "for `IN (:name)` pass expand(values) by that name; an array is asked by `= ANY (:name)`"


def _without_values(message: str, error: asyncpg.PostgresError) -> str:
    quoted = ["".join(part or "" for part in match) for match in _QUOTED.findall(message)]
    if not quoted:
        return message
    names = {getattr(error, name, None) for name in _NAMES}
    statement = (getattr(error, "query", None) or "").lower()
    if all(part in names or part in _WORDS or part.lower() in statement for part in quoted):
        return message
    # All between the first mark and the last: a value may hold such marks itself.
    first = min(at for at in map(message.find, _QUOTES) if at >= 0)
    last = max(map(message.rfind, _QUOTES))
    return f"{message[:first]}…{message[last + 1 :]}"


_WORDS = frozenset({"UTF8", "$user"})
"""Quoted, and never a value."""
