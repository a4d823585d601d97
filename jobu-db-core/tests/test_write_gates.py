"""Writers who take several turns in opposite orders are told at once, and name one another."""

from __future__ import annotations

import asyncio

import pytest

from jobu_db import DeadlockError
from jobu_db.write_gate import WriteGate

FOR_EVER = 3600.0


async def in_line(gate: WriteGate, holder: str, *holding: WriteGate) -> asyncio.Task[None]:
    """Return a task that waits at a gate."""
    task = asyncio.create_task(gate.enter(holder, FOR_EVER, holding))
    await asyncio.sleep(0)
    assert not task.done()
    return task


async def test_two_writers_in_opposite_order() -> None:
    orders, ledger = WriteGate(), WriteGate()
    await orders.enter("one", FOR_EVER)
    await ledger.enter("two", FOR_EVER)
    waits = await in_line(ledger, "one", orders)
    with pytest.raises(DeadlockError, match="two waits for one, while one waits for") as caught:
        await orders.enter("two", FOR_EVER, [ledger])
    assert caught.value.retryable
    ledger.leave()
    await waits


async def test_a_circle_of_three() -> None:
    first, second, third = WriteGate(), WriteGate(), WriteGate()
    for gate, holder in ((first, "one"), (second, "two"), (third, "three")):
        await gate.enter(holder, FOR_EVER)
    waiting = [await in_line(second, "one", first), await in_line(third, "two", second)]
    with pytest.raises(DeadlockError, match="three waits for one, while two waits for"):
        await first.enter("three", FOR_EVER, [third])
    third.leave()
    second.leave()
    await asyncio.gather(*waiting)


async def test_the_same_order_is_no_circle() -> None:
    first, second = WriteGate(), WriteGate()
    await first.enter("one", FOR_EVER)
    await second.enter("one", FOR_EVER, [first])
    behind = await in_line(first, "two")
    other = await in_line(second, "three")
    first.leave()
    await behind
    last = await in_line(second, "two", first)
    second.leave()
    await other
    second.leave()
    await last
