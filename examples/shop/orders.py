"""What the service does. Nothing here knows of the web.

Everything that writes to both databases can be done again: orders have a key of their client's,
and an entry of the audit trail is the same however often it is written. `orders` is named first and
commits first, so that the trail never tells of an order that does not exist.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import datetime
from typing import Any

from pydantic import BaseModel

from jobu_db import get_connection, get_db, transactional

EVENTS = """
    SELECT key, 'placed' AS event FROM orders
    UNION ALL SELECT key, 'shipped' FROM orders WHERE shipped_at IS NOT NULL
"""


class Wish(BaseModel):
    """What a client orders."""

    item: str
    quantity: int = 1


class Order(Wish):
    """An order as it stands."""

    key: str
    placed_at: datetime
    shipped_at: datetime | None


class KeyTakenError(Exception):
    """Another order has this key."""


@transactional("orders", "audit", retries=3)
async def place(key: str, wish: Wish) -> Order:
    """Place an order and tell the audit trail, or find both done already.

    Raises:
        KeyTakenError: The key belongs to an order for something else.
    """
    orders = get_connection("orders")
    values = {"key": key, **wish.model_dump()}
    await orders.execute(
        "INSERT INTO orders (key, item, quantity) VALUES (:key, :item, :quantity)"
        " ON CONFLICT (key) DO NOTHING",
        values,
    )
    order = await orders.fetch_one(
        "SELECT * FROM orders WHERE key = :key", {"key": key}, into=Order
    )
    assert order is not None  # nobody deletes orders
    if (order.item, order.quantity) != (wish.item, wish.quantity):
        raise KeyTakenError(key)
    await _tell(key, "placed")
    return order


@transactional("orders", "audit", retries=3)
async def ship_next() -> str | None:
    """Ship the oldest order that nobody else is just shipping; return its key, if there is one."""
    orders = get_connection("orders")
    key: str | None = await orders.fetch_val(
        "UPDATE orders SET shipped_at = now() WHERE key ="
        " (SELECT key FROM orders WHERE shipped_at IS NULL ORDER BY placed_at LIMIT 1"
        " FOR UPDATE SKIP LOCKED) RETURNING key"
    )
    if key is not None:
        await _tell(key, "shipped")
    return key


async def complete_audit() -> int:
    """Write the entries that are missing; return how many were.

    A process that dies between the two commits of a unit leaves an order without its entry. Nothing
    else tells of it, so the process that starts next looks.
    """
    added: int = 0
    async with get_db("orders").transaction(readonly=True) as orders:
        async for row in orders.iterate(EVENTS):
            result = await _tell(row["key"], row["event"])
            added += result.rowcount
    return added


async def every_order() -> AsyncIterator[Order]:
    """Yield all orders, oldest first, in one snapshot and without holding them in memory."""
    async with get_db("orders").transaction(readonly=True) as orders:
        every = "SELECT * FROM orders ORDER BY placed_at, key"
        async for order in orders.iterate(every, into=Order):
            yield order


async def _tell(key: str, event: str) -> Any:
    return await get_db("audit").execute(
        "INSERT INTO entries VALUES (:key, :event) ON CONFLICT DO NOTHING",
        {"key": key, "event": event},
    )
