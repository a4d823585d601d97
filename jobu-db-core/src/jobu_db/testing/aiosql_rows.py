"""Rows of an aiosql query without marker, whatever the version of aiosql."""

from __future__ import annotations

from inspect import isawaitable
from typing import Any


async def rows_of(query: Any) -> list[Any]:
    """Return the rows of a called query: aiosql 13 has it awaited, later versions iterated."""
    return list(await query) if isawaitable(query) else [row async for row in query]
