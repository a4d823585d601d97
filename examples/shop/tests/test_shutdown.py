"""The service is ended while 200 requests are in flight, and both databases agree afterwards."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg
import httpx

from shop.tests.running import Service, until

MANY = 200
Answers = list[httpx.Response | BaseException]
InFlight = tuple[asyncpg.Connection, asyncio.Future[Answers]]


@asynccontextmanager
async def in_flight(
    shop: Service,
) -> AsyncIterator[tuple[asyncpg.Connection, asyncio.Future[Answers]]]:
    """Have 200 requests wait, each in the pool, for a lock or for its turn to write.

    Yields the connection that holds the lock, and what will be the answers.
    """
    holder = await asyncpg.connect(shop.url)
    await holder.execute("BEGIN; LOCK TABLE orders IN EXCLUSIVE MODE")
    asked = (shop.client.put(f"/orders/{n}", json={"item": "book"}) for n in range(MANY))
    answers = asyncio.gather(*asked, return_exceptions=True)

    async def all_wait() -> bool:
        figures = await shop.figures("orders")
        # One more than the requests: the shipping waits like them.
        return bool(figures["in_use"] + figures["waiting"] == MANY + 1)

    try:
        await until(all_wait, "all requests are in flight")
        yield holder, answers
    finally:
        await holder.close()
        await answers


async def test_on_sigterm_all_are_answered_and_both_databases_agree(service: Service) -> None:
    async with service.running() as shop, in_flight(shop) as (holder, answers):
        shop.process.send_signal(signal.SIGTERM)

        async def going() -> bool:
            return "Shutting down" in shop.log.read_text()

        await until(going, "the service shuts down")
        assert not answers.done()
        await holder.execute("ROLLBACK")
        statuses = [getattr(answer, "status_code", answer) for answer in await answers]
        assert statuses == [200] * MANY
        await shop.ended()
    orders = await service.orders()
    assert {key for key, event in orders if event == "placed"} == {str(n) for n in range(MANY)}
    assert service.audit() == orders
    assert "Traceback" not in service.log.read_text()


async def test_when_the_time_to_end_is_over_nothing_is_half_done(service: Service) -> None:
    async with (
        service.running("--timeout-graceful-shutdown", "1") as shop,
        in_flight(shop) as (_holder, answers),
    ):
        await shop.stop(signal.SIGTERM)  # while the lock is still held
        assert not any(
            isinstance(answer, httpx.Response) and answer.is_success for answer in await answers
        )
    assert await service.orders() == service.audit() == set()


async def test_what_a_killed_process_left_half_done_is_completed(service: Service) -> None:
    async with service.running() as shop, in_flight(shop) as (holder, answers):
        await holder.execute("ROLLBACK")

        async def some_are_placed() -> bool:
            return len(shop.audit()) > MANY // 10

        await until(some_are_placed, "some are placed")
        await shop.stop(signal.SIGKILL)
        told = [answer for answer in await answers if isinstance(answer, httpx.Response)]
    before, trail = await service.orders(), service.audit()
    assert trail <= before  # orders commit first
    assert len([entry for entry in before if entry[1] == "placed"]) >= len(told)
    # What nobody can time: the process died after the first commit and before the second.
    connection = await asyncpg.connect(service.url)
    await connection.execute("INSERT INTO orders (key, item, quantity) VALUES ('half', 'book', 1)")
    await connection.close()

    async with service.running() as shop:

        async def complete() -> bool:
            return {*before, ("half", "placed"), ("half", "shipped")} <= shop.audit()

        await until(complete, "the trail is completed")
        await shop.stop(signal.SIGTERM)
    assert await service.orders() == service.audit()
