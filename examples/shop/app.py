"""The service. From the folder `examples`:

uvicorn shop.app:app --timeout-graceful-shutdown 20
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Annotated, Any

from fastapi import Depends, FastAPI, HTTPException, Response
from fastapi.responses import JSONResponse, StreamingResponse

from jobu_db import DatabaseRegistry, TransactionContext, get_db
from shop import orders, problems
from shop.databases import CONFIG

log = logging.getLogger(__name__)
PAUSE = 0.5
"""Seconds before looking again for orders to ship."""


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Open the databases before the first request, and close them after the last."""
    async with DatabaseRegistry.lifespan(CONFIG, wait=30, close_timeout=5):
        shipping = asyncio.create_task(ship_orders(), name="shipping")
        yield
        shipping.cancel()  # what it is just doing is rolled back
        with suppress(asyncio.CancelledError):
            await shipping


async def ship_orders() -> None:
    """Ship orders as they come, until cancelled."""
    in_doubt = True  # the process before this one may have died between two commits
    while True:
        try:
            if in_doubt and (added := await orders.complete_audit()):
                log.warning("the audit trail lacked %d entries", added)
            in_doubt = False
            while await orders.ship_next():
                pass
        except Exception:
            log.exception("shipping failed, and will be tried again")
            in_doubt = True
        await asyncio.sleep(PAUSE)


async def reading() -> AsyncIterator[TransactionContext]:
    """A read-only transaction for one request."""
    async with get_db("orders").transaction(readonly=True) as context:
        yield context


async def writing() -> AsyncIterator[TransactionContext]:
    """A transaction for one request."""
    async with get_db("orders").transaction() as context:
        yield context


# The scope "function" ends the block before the response is sent: a COMMIT that fails becomes an
# error that the client sees. With the default, it would have been told of a success by then.
Reading = Annotated[TransactionContext, Depends(reading, scope="function")]
Writing = Annotated[TransactionContext, Depends(writing, scope="function")]

app = FastAPI(title="Orders", lifespan=lifespan)
problems.install(app)


@app.put("/orders/{key}")
async def place_order(key: str, wish: orders.Wish) -> orders.Order:
    """Place an order. With the same key, the same request can be sent again."""
    return await orders.place(key, wish)


@app.get("/orders/{key}")
async def show_order(key: str, context: Reading) -> orders.Order:
    """Show one order."""
    order = await context.fetch_one(
        "SELECT * FROM orders WHERE key = :key", {"key": key}, into=orders.Order
    )
    if order is None:
        raise HTTPException(404, "there is no such order")
    return order


@app.patch("/orders/{key}", status_code=204)
async def change_quantity(key: str, quantity: int, context: Writing) -> Response:
    """Change how many are ordered, while they are not shipped."""
    changed = await context.fetch_val(
        "UPDATE orders SET quantity = :quantity WHERE key = :key AND shipped_at IS NULL"
        " RETURNING key",
        {"key": key, "quantity": quantity},
    )
    if changed is None:
        raise HTTPException(404, "there is no such order to be shipped")
    return Response(status_code=204)


@app.get("/orders")
async def list_orders() -> StreamingResponse:
    """All orders, one JSON document a line."""

    # A transaction of the generator's own: one of a dependency would be over by now.
    async def lines() -> AsyncIterator[str]:
        async for order in orders.every_order():
            yield order.model_dump_json() + "\n"

    return StreamingResponse(lines(), media_type="application/x-ndjson")


@app.get("/health/live")
async def live() -> dict[str, str]:
    """Does the process run? Asks no database: restarting this would not help it."""
    return {"status": "ok"}


@app.get("/health/ready")
async def ready() -> JSONResponse:
    """Do the databases answer?"""
    databases = DatabaseRegistry.get_all()
    answers = await asyncio.gather(
        *(db.ping(timeout=2) for db in databases.values()), return_exceptions=True
    )
    failed = [name for name, answer in zip(databases, answers, strict=True) if answer]
    for name, answer in zip(databases, answers, strict=True):
        if answer:
            log.error("%s does not answer: %s", name, answer)
    return JSONResponse({"failed": failed}, 503 if failed else 200)


@app.get("/stats")
async def stats() -> dict[str, Any]:
    """The figures of the pools, as `jobu-db stats http://localhost:8000/stats` shows them."""
    return {name: db.stats() for name, db in DatabaseRegistry.get_all().items()}
