"""Answers arrive in one buffer for each connection."""

from __future__ import annotations

import asyncio
import tracemalloc
from typing import Any

import pytest

from jobu_db_postgres import PostgresDatabase

LARGE = 1_000_000
"""Many times the size of the buffer."""


@pytest.mark.each_loop
async def test_what_is_larger_than_the_buffer_comes_whole(db: PostgresDatabase) -> None:
    for length in (65536 - 40, 65536, 65536 + 1, LARGE):
        text = await db.fetch_val("SELECT repeat('ab', $1)", length // 2)
        assert text == "ab" * (length // 2)


@pytest.mark.each_loop
async def test_what_was_received_before_is_not_written_over(db: PostgresDatabase) -> None:
    rows = [await db.fetch_one("SELECT repeat($1, 1000) AS a", letter) for letter in "abc"]
    many = await db.fetch_all(
        "SELECT repeat(chr(97 + i % 26), 1000) AS a FROM generate_series(0, 499) i"
    )
    await db.fetch_val("SELECT repeat('-', $1)", LARGE)
    assert [row["a"] for row in rows if row is not None] == [letter * 1000 for letter in "abc"]
    assert [row["a"] for row in many] == [chr(97 + i % 26) * 1000 for i in range(500)]


async def test_a_short_answer_takes_no_large_piece_of_memory(open_db: Any) -> None:
    """asyncio by itself would take 256 KiB for each, and give nearly all of it back."""
    db = await open_db(pool={"max_size": 1})
    await db.fetch_val("SELECT 1")
    assert type(asyncio.get_running_loop()).__module__.startswith("asyncio.")
    tracemalloc.start()
    try:
        await db.fetch_val("SELECT 1")
        before, _ = tracemalloc.get_traced_memory()
        tracemalloc.reset_peak()
        await db.fetch_val("SELECT 1")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak - before < 65536
