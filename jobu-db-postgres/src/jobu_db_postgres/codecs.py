"""How values travel where asyncpg's own way is not the one that users need.

In binary form, for only so do they work inside composites, records, arrays of rows and COPY, too.
"""

from __future__ import annotations

import datetime
import json
import struct
import weakref
import zoneinfo
from collections.abc import Callable
from typing import Any

from jobu_db_postgres._private import Connection

_JSONB_VERSION = b"\x01"


async def set_codecs(connection: Connection, *, json: bool) -> None:
    """Install them for one connection: JSON only if asked for. Costs no round trip."""
    await connection.set_type_codec(
        "timestamptz",
        schema="pg_catalog",
        format="binary",
        # Weakly, for the connection holds its codecs.
        encoder=_timestamptz_encoder(weakref.ref(connection)),
        decoder=_decode_timestamptz,
    )
    if json:
        for name, encode, decode in (
            ("json", _encode_json, _decode_json),
            ("jsonb", _encode_jsonb, _decode_jsonb),
        ):
            await connection.set_type_codec(
                name, schema="pg_catalog", format="binary", encoder=encode, decoder=decode
            )


# -- json


def _encode_json(value: Any) -> bytes:
    # The server refuses NaN and Infinity, which are no JSON: then the transaction would be doomed.
    return json.dumps(value, allow_nan=False).encode()


def _decode_json(data: bytes) -> Any:
    return json.loads(data.decode())


def _encode_jsonb(value: Any) -> bytes:
    return _JSONB_VERSION + _encode_json(value)


def _decode_jsonb(data: bytes) -> Any:
    return json.loads(data[1:].decode())


# -- timestamptz: microseconds since 2000, as PostgreSQL's documentation of its formats says


class NaiveDatetimeError(ValueError):
    """Which moment is meant cannot be said. The text holds no value."""


_EPOCH = datetime.datetime(2000, 1, 1, tzinfo=datetime.UTC)
_MICROSECOND = datetime.timedelta(microseconds=1)
_INT8 = struct.Struct("!q")
_INFINITY, _MINUS_INFINITY = 2**63 - 1, -(2**63)
_INFINITE = {
    # What asyncpg takes and gives for these.
    _INFINITY: datetime.datetime.max,
    _MINUS_INFINITY: datetime.datetime.min,
}


def _decode_timestamptz(data: bytes) -> datetime.datetime:
    (microseconds,) = _INT8.unpack(data)
    if microseconds in _INFINITE:
        return _INFINITE[microseconds]
    return _EPOCH + datetime.timedelta(0, 0, microseconds)


def _timestamptz_encoder(
    connection: weakref.ref[Connection],
) -> Callable[[datetime.date], bytes]:
    """Return an encoder that takes naive values as in the session's time zone.

    asyncpg takes them as in the zone of the machine, which the server knows nothing of.
    """

    def encode(value: datetime.date) -> bytes:
        if not isinstance(value, datetime.datetime):
            if not isinstance(value, datetime.date):
                kind = type(value).__name__
                raise TypeError(f"expected a datetime.date or datetime.datetime, got {kind}")
            value = datetime.datetime(value.year, value.month, value.day)
        if value.utcoffset() is None:
            if value == datetime.datetime.max:
                return _INT8.pack(_INFINITY)
            if value == datetime.datetime.min:
                return _INT8.pack(_MINUS_INFINITY)
            value = value.replace(tzinfo=_zone(connection()))
        return _INT8.pack((value - _EPOCH) // _MICROSECOND)

    return encode


def _zone(connection: Connection | None) -> datetime.tzinfo:
    """The session's zone, which the server reports whenever it changes."""
    name = getattr(connection and connection.get_settings(), "TimeZone", "")
    if name == "UTC":
        return datetime.UTC
    try:
        return zoneinfo.ZoneInfo(name)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        raise NaiveDatetimeError(
            "a datetime without a time zone means the session's, and Python does not know "
            f"{name!r} (is tzdata installed?): give the datetime a tzinfo"
        ) from None
