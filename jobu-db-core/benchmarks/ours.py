"""jobu-db, with the reset between two holders and without."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from contestant import Block, Contestant
from places import database_class

STYLES = {"sqlite": "qmark", "postgres": "numeric", "mysql": "format"}


class Ours(Contestant):
    """jobu-db as it comes."""

    title = "jobu-db"
    reset = "always"
    resets = True
    more: Mapping[str, Any] = {}

    def __init__(self, place: Any, size: Any) -> None:
        self.style = STYLES[place.kind]
        super().__init__(place, size)
        self._variadic = place.kind == "postgres"

    async def open(self) -> None:
        pool = {"max_size": self.size.pool, "min_size": self.size.pool, "reset": self.reset}
        pool |= self.more
        config = self.place.config(**pool, timeout=600.0)
        self.db = await database_class(self.place.kind).create(self.title, config)

    async def close(self) -> None:
        await self.db.close()

    def _given(self, *values: Any) -> tuple[Any, ...]:
        return values if self._variadic else (values,)

    def connection(self) -> Block:
        return self.db.pool.connection()  # type: ignore[no-any-return]

    async def read(self, key: int) -> Any:
        async with self.db.transaction(readonly=True) as ctx:
            return await ctx.fetch_one(self.READ, *self._given(key))

    async def write(self, key: int) -> None:
        async with self.db.transaction() as ctx:
            await ctx.execute(self.WRITE, *self._given(key))

    async def single(self, key: int) -> Any:
        return await self.db.fetch_one(self.READ, *self._given(key))

    async def add(self, key: int) -> None:
        async with self.db.transaction() as ctx:
            row = await ctx.fetch_one(self.READ, *self._given(key))
            await ctx.execute(self.SET, *self._given(row["counter"] + 1, key))

    async def fetch_many(self) -> Any:
        return await self.db.fetch_all(self.MANY)

    async def insert_many(self, rows: list[tuple[Any, ...]]) -> None:
        await self.db.executemany(self.INSERT, rows)

    async def stream(self) -> int:
        count = 0
        async with self.db.transaction(readonly=True) as ctx:
            async for _ in ctx.iterate(self.STREAM):
                count += 1
        return count

    @asynccontextmanager
    async def transaction(self, readonly: bool) -> AsyncIterator[Any]:
        async with self.db.transaction(readonly=readonly) as ctx:
            yield ctx


class OursWithoutReset(Ours):
    """jobu-db with `reset: never`."""

    title = "jobu-db, reset: never"
    reset = "never"
    resets = False
