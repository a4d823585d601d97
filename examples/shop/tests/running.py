"""The service as a process of its own."""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import pytest

EXAMPLES = Path(__file__).resolve().parents[2]
LIMIT = 300.0
"""Seconds after which something that hangs is given up: more than a busy machine takes."""


async def until(condition: Callable[[], Awaitable[Any]], what: str) -> Any:
    """Ask until the answer is true, and return it."""
    try:
        async with asyncio.timeout(LIMIT):
            while True:
                if answer := await condition():
                    return answer
                await asyncio.sleep(0.02)
    except TimeoutError:
        pytest.fail(f"{what}: not within {LIMIT:g} s")


class Service:
    """One run of the service; its databases outlive it."""

    def __init__(self, url: str, folder: Path) -> None:
        self.url = url
        self.trail = folder / "audit.db"
        self.log = folder / "service.log"
        self.process: asyncio.subprocess.Process
        self.client: httpx.AsyncClient

    @asynccontextmanager
    async def running(self, *options: str, **environment: str) -> AsyncIterator[Service]:
        """Start it, and kill it at the end if it still runs."""
        with self.log.open("w") as log:
            self.process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "uvicorn", "shop.app:app", "--port", "0", *options),
                cwd=EXAMPLES,
                env={
                    **os.environ,
                    "SHOP_ORDERS_URL": self.url,
                    "SHOP_AUDIT_PATH": str(self.trail),
                    "SHOP_PATIENCE": f"{LIMIT:g}",
                    **environment,
                },
                stdout=log,
                stderr=log,
            )
        try:
            port = await until(self._port, "the service starts")
            limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
            base = f"http://127.0.0.1:{port}"
            async with httpx.AsyncClient(base_url=base, timeout=LIMIT, limits=limits) as client:
                self.client = client
                yield self
        finally:
            if self.process.returncode is None:
                self.process.kill()
            await self.process.wait()

    async def _port(self) -> int | None:
        assert self.process.returncode is None, self.log.read_text()
        _, found, rest = self.log.read_text().partition("Uvicorn running on http://127.0.0.1:")
        return int(rest.split()[0]) if found else None

    async def stop(self, number: signal.Signals) -> None:
        """Send a signal, and wait for the end."""
        self.process.send_signal(number)
        await self.ended()

    async def ended(self) -> None:
        """Wait for the end."""
        await asyncio.wait_for(self.process.wait(), LIMIT)

    async def figures(self, name: str) -> dict[str, Any]:
        """The figures of one of its pools."""
        answer = await self.client.get("/stats")
        found: dict[str, Any] = answer.json()[name]
        return found

    async def orders(self) -> set[tuple[str, str]]:
        """What the orders say has happened, as PostgreSQL has it."""
        connection = await asyncpg.connect(self.url)
        rows = await connection.fetch("SELECT key, shipped_at FROM orders")
        await connection.close()
        placed = {(row["key"], "placed") for row in rows}
        return placed | {(row["key"], "shipped") for row in rows if row["shipped_at"]}

    def audit(self) -> set[tuple[str, str]]:
        """What the audit trail says has happened, as SQLite has it."""
        connection = sqlite3.connect(self.trail)
        rows = connection.execute("SELECT order_key, event FROM entries").fetchall()
        connection.close()
        return set(rows)
