"""MySQL and MariaDB: asyncmy on one connection, and its own pool."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import asyncmy
from asyncmy.cursors import DictCursor, SSDictCursor
from contestant import Block, Changed, Contestant


class Transaction:
    """Named statements on an asyncmy connection."""

    def __init__(self, peer: Contestant, connection: Any) -> None:
        self._peer = peer
        self._connection = connection

    async def execute(self, sql: str, values: Any) -> Changed:
        async with self._connection.cursor() as cursor:
            return Changed(await cursor.execute(*self._peer.positional(sql, values)))

    async def fetch_all(self, sql: str, values: Any) -> Any:
        async with self._connection.cursor() as cursor:
            await cursor.execute(*self._peer.positional(sql, values))
            return await cursor.fetchall()


async def read(peer: Contestant, connection: Any, key: int) -> Any:
    async with connection.cursor() as cursor:
        await cursor.execute("START TRANSACTION READ ONLY")
        await cursor.execute(peer.READ, (key,))
        row = await cursor.fetchone()
    await connection.commit()
    return row


async def write(peer: Contestant, connection: Any, key: int) -> None:
    await connection.begin()
    async with connection.cursor() as cursor:
        await cursor.execute(peer.WRITE, (key,))
    await connection.commit()


async def fetch_one(peer: Contestant, connection: Any, key: int) -> Any:
    async with connection.cursor() as cursor:
        await cursor.execute(peer.READ, (key,))
        return await cursor.fetchone()


async def fetch_many(peer: Contestant, connection: Any) -> Any:
    async with connection.cursor() as cursor:
        await cursor.execute(peer.MANY)
        return await cursor.fetchall()


async def insert_many(peer: Contestant, connection: Any, rows: list[tuple[Any, ...]]) -> None:
    await connection.begin()
    async with connection.cursor() as cursor:
        await cursor.executemany(peer.INSERT, rows)
    await connection.commit()


class Bare(Contestant):
    """asyncmy, one connection, rows as dictionaries, like jobu-db's."""

    title = "asyncmy, one connection"
    style = "format"
    limit = True

    async def open(self) -> None:
        self._connection = await asyncmy.connect(
            **self.place.parts, autocommit=True, cursor_cls=DictCursor, charset="utf8mb4"
        )

    async def close(self) -> None:
        await self._connection.ensure_closed()

    async def read(self, key: int) -> Any:
        return await read(self, self._connection, key)

    async def write(self, key: int) -> None:
        await write(self, self._connection, key)

    async def single(self, key: int) -> Any:
        return await fetch_one(self, self._connection, key)

    async def fetch_many(self) -> Any:
        return await fetch_many(self, self._connection)

    async def insert_many(self, rows: list[tuple[Any, ...]]) -> None:
        await insert_many(self, self._connection, rows)

    async def stream(self) -> int:
        count = 0
        async with self._connection.cursor(SSDictCursor) as cursor:
            await cursor.execute(self.STREAM)
            while rows := await cursor.fetchmany(1000):
                for _ in rows:
                    count += 1
        return count


class Pool(Contestant):
    """asyncmy.Pool, which resets nothing."""

    title = "asyncmy.Pool"
    style = "format"

    async def open(self) -> None:
        size = self.size.pool
        self._pool = await asyncmy.create_pool(
            **self.place.parts, autocommit=True, cursor_cls=DictCursor, charset="utf8mb4",
            minsize=size, maxsize=size,
        )  # fmt: skip

    async def close(self) -> None:
        self._pool.close()
        await self._pool.wait_closed()

    def connection(self) -> Block:
        return self._pool.acquire()  # type: ignore[no-any-return]

    async def read(self, key: int) -> Any:
        async with self._pool.acquire() as connection:
            return await read(self, connection, key)

    async def write(self, key: int) -> None:
        async with self._pool.acquire() as connection:
            await write(self, connection, key)

    async def single(self, key: int) -> Any:
        async with self._pool.acquire() as connection:
            return await fetch_one(self, connection, key)

    async def fetch_many(self) -> Any:
        async with self._pool.acquire() as connection:
            return await fetch_many(self, connection)

    async def insert_many(self, rows: list[tuple[Any, ...]]) -> None:
        async with self._pool.acquire() as connection:
            await insert_many(self, connection, rows)

    @asynccontextmanager
    async def transaction(self, readonly: bool) -> AsyncIterator[Transaction]:
        async with self._pool.acquire() as connection:
            transaction = Transaction(self, connection)
            if readonly:
                await transaction.execute("START TRANSACTION READ ONLY", {})
            else:
                await connection.begin()
            try:
                yield transaction
            except BaseException:
                await connection.rollback()
                raise
            await connection.commit()


PEERS = (Bare, Pool)
