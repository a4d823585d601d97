"""PostgreSQL: asyncpg on one connection, its own pool, and psycopg's pool."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
from contestant import Block, Changed, Contestant


class Transaction:
    """Named statements on an asyncpg connection."""

    def __init__(self, peer: Contestant, connection: Any) -> None:
        self._peer = peer
        self._connection = connection

    async def execute(self, sql: str, values: Any) -> Changed:
        text, arguments = self._peer.positional(sql, values)
        status = await self._connection.execute(text, *arguments)
        return Changed(int(status.rpartition(" ")[2]))

    async def fetch_all(self, sql: str, values: Any) -> Any:
        text, arguments = self._peer.positional(sql, values)
        return await self._connection.fetch(text, *arguments)


class Bare(Contestant):
    """asyncpg, one connection, its own transaction object, which resets nothing."""

    title = "asyncpg, one connection"
    style = "numeric"
    limit = True

    async def open(self) -> None:
        self._connection = await asyncpg.connect(self.place.url)

    async def close(self) -> None:
        await self._connection.close()

    async def read(self, key: int) -> Any:
        async with self._connection.transaction(readonly=True):
            return await self._connection.fetchrow(self.READ, key)

    async def write(self, key: int) -> None:
        async with self._connection.transaction():
            await self._connection.execute(self.WRITE, key)

    async def single(self, key: int) -> Any:
        return await self._connection.fetchrow(self.READ, key)

    async def fetch_many(self) -> Any:
        return await self._connection.fetch(self.MANY)

    async def insert_many(self, rows: list[tuple[Any, ...]]) -> None:
        await self._connection.executemany(self.INSERT, rows)

    async def stream(self) -> int:
        count = 0
        async with self._connection.transaction(readonly=True):
            async for _ in self._connection.cursor(self.STREAM, prefetch=1000):
                count += 1
        return count


class Pool(Contestant):
    """asyncpg.Pool, which resets at release, temporary tables and roles excepted."""

    title = "asyncpg.Pool"
    style = "numeric"
    resets = True

    async def open(self) -> None:
        size = self.size.pool
        self._pool = await asyncpg.create_pool(self.place.url, min_size=size, max_size=size)

    async def close(self) -> None:
        await self._pool.close()

    def connection(self) -> Block:
        return self._pool.acquire()  # type: ignore[no-any-return]

    async def read(self, key: int) -> Any:
        async with (
            self._pool.acquire() as connection,
            connection.transaction(readonly=True),
        ):
            return await connection.fetchrow(self.READ, key)

    async def write(self, key: int) -> None:
        async with self._pool.acquire() as connection, connection.transaction():
            await connection.execute(self.WRITE, key)

    async def single(self, key: int) -> Any:
        return await self._pool.fetchrow(self.READ, key)

    async def fetch_many(self) -> Any:
        return await self._pool.fetch(self.MANY)

    async def insert_many(self, rows: list[tuple[Any, ...]]) -> None:
        await self._pool.executemany(self.INSERT, rows)

    @asynccontextmanager
    async def transaction(self, readonly: bool) -> AsyncIterator[Transaction]:
        async with (
            self._pool.acquire() as connection,
            connection.transaction(readonly=readonly),
        ):
            yield Transaction(self, connection)


class PsycopgPool(Contestant):
    """psycopg_pool, which resets nothing."""

    title = "psycopg_pool"
    style = "format"

    async def open(self) -> None:
        from psycopg_pool import AsyncConnectionPool

        self._pool = AsyncConnectionPool(
            self.place.url,
            min_size=self.size.pool,
            max_size=self.size.pool,
            timeout=600,
            open=False,
            kwargs={"autocommit": True},
        )
        await self._pool.open(wait=True)

    async def close(self) -> None:
        await self._pool.close()

    def connection(self) -> Block:
        return self._pool.connection()

    async def read(self, key: int) -> Any:
        async with self._pool.connection() as connection, connection.transaction():
            cursor = await connection.execute(self.READ, (key,))
            return await cursor.fetchone()

    async def write(self, key: int) -> None:
        async with self._pool.connection() as connection, connection.transaction():
            await connection.execute(self.WRITE, (key,))

    async def single(self, key: int) -> Any:
        async with self._pool.connection() as connection:
            cursor = await connection.execute(self.READ, (key,))
            return await cursor.fetchone()

    async def fetch_many(self) -> Any:
        async with self._pool.connection() as connection:
            return await (await connection.execute(self.MANY)).fetchall()

    async def insert_many(self, rows: list[tuple[Any, ...]]) -> None:
        async with (
            self._pool.connection() as connection,
            connection.transaction(),
            connection.cursor() as cursor,
        ):
            await cursor.executemany(self.INSERT, rows)


PEERS = (Bare, Pool, PsycopgPool)
