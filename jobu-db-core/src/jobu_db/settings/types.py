"""Types of settings that several backends share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, BeforeValidator, Field

N = TypeVar("N", int, float)


def _off(value: N | None) -> N | None:
    return value or None


def _path(value: Any) -> Any:
    # Path("") would be the working directory; an empty text stays one, and is refused.
    return Path(value) if isinstance(value, str) and value else value


Seconds = Annotated[float, Field(gt=0)]
"""A duration that is always there."""

SecondsOrOff = Annotated[Annotated[float, Field(ge=0)] | None, AfterValidator(_off)]
"""A duration in seconds; 0 and null mean off, which is stored as None."""

MillisecondsOrOff = Annotated[
    # The servers keep such settings in signed 32 bits.
    Annotated[int, Field(ge=0, le=2_147_483_647)] | None,
    AfterValidator(_off),
]
"""A duration in whole milliseconds; 0 and null mean off, which is stored as None."""

PoolSize = Annotated[int, Field(ge=1, le=100_000)]
"""A number of connections."""

CountOrOff = Annotated[Annotated[int, Field(ge=0, le=2_147_483_647)] | None, AfterValidator(_off)]
"""A number of things; 0 and null mean no limit, which is stored as None."""

Port = Annotated[int, Field(ge=1, le=65535)]

HostRole = Literal["any", "primary", "standby", "read-write", "read-only", "prefer-standby"]
"""Which of several servers will do, in libpq's words (`target_session_attrs`)."""

Text = Annotated[str, Field(min_length=1)]
"""Text that is not empty."""

FilePath = Annotated[Path, BeforeValidator(_path), Field(json_schema_extra={"minLength": 1})]
"""A path, which may be written as text."""
