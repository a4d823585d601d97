"""What the service answers, with PostgreSQL and SQLite behind it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator

import asyncpg
import pytest

from shop.tests.running import Service, until


@pytest.fixture
async def shop(service: Service) -> AsyncIterator[Service]:
    """The service, running."""
    async with service.running() as running:
        yield running


async def test_an_order_is_placed_once_however_often_it_is_asked_for(shop: Service) -> None:
    wish = {"item": "book", "quantity": 2}
    asked = (shop.client.put("/orders/a", json=wish) for _ in range(20))
    answers = await asyncio.gather(*asked)
    assert {answer.status_code for answer in answers} == {200}
    shown = (await shop.client.get("/orders/a")).json()
    assert (shown["item"], shown["quantity"]) == ("book", 2)

    async def shipped() -> bool:
        return ("a", "shipped") in shop.audit()

    await until(shipped, "the order is shipped")
    assert await shop.orders() == shop.audit() == {("a", "placed"), ("a", "shipped")}


async def test_what_is_wrong_is_told_as_a_status(shop: Service) -> None:
    put, get = shop.client.put, shop.client.get
    assert (await get("/orders/none")).status_code == 404
    too_many = await put("/orders/b", json={"item": "book", "quantity": 100})
    assert too_many.status_code == 422
    assert too_many.json() == {
        "detail": "a value is not allowed",
        "constraint": "some_but_not_too_many",
    }
    beyond = await put("/orders/b", json={"item": "book", "quantity": 10**20})
    assert beyond.status_code == 422
    assert (await put("/orders/b", json={"item": "book"})).status_code == 200
    other = await put("/orders/b", json={"item": "pen"})
    assert other.status_code == 409
    assert other.json() == {"detail": "this key belongs to another order"}
    placed = {entry for entry in await shop.orders() if entry[1] == "placed"}
    assert placed == {("b", "placed")}


async def test_a_change_that_is_refused_changes_nothing(shop: Service) -> None:
    connection = await asyncpg.connect(shop.url)
    await connection.execute("INSERT INTO orders (key, item, quantity) VALUES ('c', 'book', 1)")
    async with connection.transaction():  # so that nobody ships it meanwhile
        await connection.execute("SELECT FROM orders FOR KEY SHARE")
        answer = await shop.client.patch("/orders/c", params={"quantity": 0})
        assert answer.status_code == 422
        assert (await shop.client.patch("/orders/no", params={"quantity": 1})).status_code == 404
    assert await connection.fetchval("SELECT quantity FROM orders WHERE key = 'c'") == 1
    await connection.close()


async def test_a_commit_that_fails_is_told_to_the_client(shop: Service) -> None:
    connection = await asyncpg.connect(shop.url)
    await connection.execute(
        "CREATE TABLE sizes (quantity integer PRIMARY KEY); INSERT INTO sizes VALUES (1);"
        "INSERT INTO orders (key, item, quantity) VALUES ('e', 'book', 1);"
        "ALTER TABLE orders ADD CONSTRAINT as_packed FOREIGN KEY (quantity) REFERENCES sizes"
        " DEFERRABLE INITIALLY DEFERRED"
    )
    async with connection.transaction():  # so that nobody ships it meanwhile
        await connection.execute("SELECT FROM orders FOR KEY SHARE")
        answer = await shop.client.patch("/orders/e", params={"quantity": 2})
    assert answer.status_code == 422
    assert answer.json() == {"detail": "a value is not allowed", "constraint": "as_packed"}
    await connection.close()


async def fill(shop: Service, count: int) -> None:
    connection = await asyncpg.connect(shop.url)
    await connection.execute(
        "INSERT INTO orders (key, item, quantity, placed_at, shipped_at)"
        " SELECT n, repeat('x', 1000), 1, now() + n * interval '1 ms', now()"
        f" FROM generate_series(1, {count}) n"
    )
    await connection.close()


async def test_all_orders_come_as_a_stream(shop: Service) -> None:
    await fill(shop, 5000)
    async with shop.client.stream("GET", "/orders") as answer:
        keys = [json.loads(line)["key"] async for line in answer.aiter_lines()]
    assert keys == [str(number) for number in range(1, 5001)]


async def test_who_hangs_up_while_reading_holds_no_connection(shop: Service) -> None:
    await fill(shop, 50_000)
    async with shop.client.stream("GET", "/orders") as answer:
        async for _ in answer.aiter_lines():
            break
        assert (await shop.figures("orders"))["in_use"] >= 1

    async def given_back() -> bool:
        return bool((await shop.figures("orders"))["in_use"] == 0)

    await until(given_back, "the connection comes back")


async def test_health_tells_which_database_does_not_answer(service: Service) -> None:
    pool = {"SHOP_ORDERS_URL": f"{service.url}?application_name=shop"}
    async with service.running(**pool) as shop:
        assert (await shop.client.get("/health/live")).status_code == 200
        assert (await shop.client.get("/health/ready")).status_code == 200
        name = service.url.rpartition("/")[2]
        admin = await asyncpg.connect(service.url.replace(name, "postgres"))
        await admin.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
        await admin.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1", name
        )

        async def noticed() -> bool:
            answer = await shop.client.get("/health/ready")
            return answer.status_code == 503 and answer.json() == {"failed": ["orders"]}

        await until(noticed, "the service notices")
        assert (await shop.client.get("/health/live")).status_code == 200
        refused = await shop.client.put("/orders/d", json={"item": "book"})
        assert refused.status_code == 503
        assert refused.headers["Retry-After"] == "1"
        await admin.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")
        await admin.close()

        async def well() -> bool:
            return (await shop.client.get("/health/ready")).status_code == 200

        await until(well, "the service is well again")
        assert (await shop.client.put("/orders/d", json={"item": "book"})).status_code == 200
