"""A pool says whether it is too large or too small for what it saw."""

from __future__ import annotations

import asyncio
import json
import logging
from typing import Any

import pytest

from jobu_db.errors import ConnectionPoolExhaustedError
from jobu_db.pool.advice import ENOUGH, ENOUGH_TO_SHRINK, Demand, advise
from jobu_db.testing.fake import FakeDatabase


def demand(**figures: Any) -> Demand:
    seen = Demand()
    for name, value in figures.items():
        setattr(seen, name, value)
    return seen


@pytest.mark.parametrize(
    ("figures", "max_size", "uses", "used", "verdict", "size"),
    [
        ({"peak": 1}, 10, ENOUGH - 1, 1.0, "too early", None),
        ({"peak": 6}, 10, ENOUGH, 1.0, "fits", None),
        # Waiting as such is no fault, as long as it costs less than the work.
        ({"peak": 10, "wanted": 50, "queued": 9.0}, 10, 10_000, 10.0, "fits", None),
        # As many wait as are served: twice as many connections would have served all of them.
        ({"peak": 10, "wanted": 50, "queued": 10.1}, 10, 10_000, 10.0, "too small", 21),
        ({"peak": 10, "wanted": 15, "queued": 90.0}, 10, 10_000, 10.0, "too small", 15),
        ({"peak": 10, "wanted": 50, "queued": 90.0}, 10, ENOUGH - 1, 10.0, "too early", None),
        ({"peak": 2, "wanted": 3, "queued": 0.5, "given_up": 1}, 2, 3, 10.0, "too small", 3),
        ({"peak": 1, "wanted": 2, "queued": 1.0, "given_up": 1}, 1, 0, 0.0, "too small", 2),
        ({"peak": 2}, 10, ENOUGH_TO_SHRINK, 1.0, "too large", 3),
        ({"peak": 2}, 10, ENOUGH_TO_SHRINK - 1, 1.0, "too early", None),
        ({"peak": 5}, 10, ENOUGH_TO_SHRINK, 1.0, "too large", 8),
        ({"peak": 6}, 10, ENOUGH_TO_SHRINK, 1.0, "fits", None),
        # There is nothing smaller that leaves a margin.
        ({"peak": 1}, 2, ENOUGH_TO_SHRINK, 1.0, "fits", None),
        ({"peak": 1}, 1, ENOUGH_TO_SHRINK, 1.0, "fits", None),
    ],
)
def test_the_rule(
    figures: dict[str, Any], max_size: int, uses: int, used: float, verdict: str, size: int | None
) -> None:
    advice = advise(demand(**figures), max_size, uses, used)
    assert (advice.verdict, advice.max_size) == (verdict, size)
    assert size is None or f"max_size: {size}" in advice.text


async def use(db: FakeDatabase, seconds: float = 0.0) -> None:
    async with db.pool.connection():
        await asyncio.sleep(seconds)


async def advice_of(db: FakeDatabase) -> dict[str, Any]:
    return json.loads(json.dumps(db.stats()["advice"]))  # type: ignore[no-any-return]


async def test_a_pool_that_is_used_one_by_one_is_too_large(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "jobu_db")
    db = await FakeDatabase.create("orders", {"pool": {"min_size": 8, "max_size": 8}})
    for _ in range(ENOUGH_TO_SHRINK):
        await use(db)
    advice = await advice_of(db)
    assert (advice["verdict"], advice["max_size"]) == ("too large", 2)
    await db.close()
    assert [record.levelno for record in caplog.records if advice["text"] in record.message] == [
        logging.INFO
    ]


async def test_a_pool_with_a_long_queue_is_too_small() -> None:
    db = await FakeDatabase.create("orders", {"pool": {"max_size": 2}})
    await asyncio.gather(*(use(db, 0.001) for _ in range(2 * ENOUGH)))
    advice = await advice_of(db)
    assert advice["verdict"] == "too small"
    assert 2 < advice["max_size"] <= 2 * ENOUGH
    await db.close()


async def test_a_pool_that_lets_callers_give_up_is_too_small() -> None:
    db = await FakeDatabase.create("orders", {"pool": {"max_size": 1, "timeout": 0.05}})
    async with db.pool.connection():
        with pytest.raises(ConnectionPoolExhaustedError):
            await asyncio.create_task(use(db))
    advice = await advice_of(db)
    assert (advice["verdict"], advice["max_size"]) == ("too small", 2)
    await db.close()


async def test_connections_that_are_dropped_count_no_longer(recwarn: Any) -> None:
    db = await FakeDatabase.create("orders", {"pool": {"max_size": 4}})
    for _ in range(10):
        lease = await db.pool.acquire()
        del lease
        await asyncio.sleep(0.01)  # the loop takes it back
    assert db.pool.stats()["in_use"] == 0
    assert db.pool._stats.demand.in_use == 0
    await db.close()


async def test_nothing_is_said_of_a_pool_that_was_hardly_used(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "jobu_db")
    db = await FakeDatabase.create("orders", {})
    await use(db)
    assert (await advice_of(db))["verdict"] == "too early"
    await db.close()
    assert not [record for record in caplog.records if "too few uses" in record.message]
