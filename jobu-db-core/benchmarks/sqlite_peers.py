"""SQLite: aiosqlite on one connection, aiosqlitepool, and sqlite3 in one thread."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiosqlite
from contestant import Block, Changed, Contestant
from places import Connection


class Transaction:
    """Named statements on an aiosqlite connection."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection

    async def execute(self, sql: str, values: Any) -> Changed:
        async with self._connection.execute(sql, values) as cursor:
            return Changed(cursor.rowcount)

    async def fetch_all(self, sql: str, values: Any) -> Any:
        return await self._connection.execute_fetchall(sql, values)


async def connect(path: str) -> Any:
    """Open a connection that begins no transaction by itself."""
    connection = await aiosqlite.connect(path, isolation_level=None, factory=Connection)
    connection.row_factory = sqlite3.Row
    return connection


class Bare(Contestant):
    """aiosqlite, one connection, the usual calls: BEGIN, execute, fetch, COMMIT."""

    title = "aiosqlite, one connection"
    style = "qmark"
    limit = True

    async def open(self) -> None:
        self._connection = await connect(self.place.url)
        self._lock = asyncio.Lock()

    async def close(self) -> None:
        await self._connection.close()

    async def read(self, key: int) -> Any:
        connection = self._connection
        await connection.execute("BEGIN")
        cursor = await connection.execute(self.READ, (key,))
        row = await cursor.fetchone()
        await connection.execute("COMMIT")
        return row

    async def write(self, key: int) -> None:
        connection = self._connection
        await connection.execute("BEGIN IMMEDIATE")
        await connection.execute(self.WRITE, (key,))
        await connection.execute("COMMIT")

    async def single(self, key: int) -> Any:
        cursor = await self._connection.execute(self.READ, (key,))
        return await cursor.fetchone()

    async def add(self, key: int) -> None:
        async with self._lock:  # one connection for fifty: they must take turns
            await _add(self, self._connection, key)

    async def fetch_many(self) -> Any:
        return await self._connection.execute_fetchall(self.MANY)

    async def insert_many(self, rows: list[tuple[Any, ...]]) -> None:
        await self._connection.execute("BEGIN IMMEDIATE")
        await self._connection.executemany(self.INSERT, rows)
        await self._connection.execute("COMMIT")

    async def stream(self) -> int:
        count = 0
        # As large a piece as jobu-db's: aiosqlite's own 64 rows would make it slower.
        self._connection._iter_chunk_size = 1000
        async with self._connection.execute(self.STREAM) as cursor:
            async for _ in cursor:
                count += 1
        return count


async def _add(peer: Contestant, connection: Any, key: int, begin: str = "BEGIN IMMEDIATE") -> None:
    await connection.execute(begin)
    try:
        cursor = await connection.execute(peer.READ, (key,))
        row = await cursor.fetchone()
        await connection.execute(peer.SET, (row["counter"] + 1, key))
        await connection.execute("COMMIT")
    except BaseException:
        await connection.rollback()
        raise


class AiosqlitePool(Contestant):
    """aiosqlitepool, which rolls back at release and resets nothing else."""

    title = "aiosqlitepool"
    style = "qmark"

    async def open(self) -> None:
        from aiosqlitepool import SQLiteConnectionPool

        self._pool = SQLiteConnectionPool(
            lambda: connect(self.place.url), pool_size=self.size.pool, acquisition_timeout=600
        )

    async def close(self) -> None:
        await self._pool.close()

    def connection(self) -> Block:
        return self._pool.connection()

    async def read(self, key: int) -> Any:
        async with self._pool.connection() as connection:
            await connection.execute("BEGIN")
            cursor = await connection.execute(self.READ, (key,))
            row = await cursor.fetchone()
            await connection.execute("COMMIT")
            return row

    async def write(self, key: int) -> None:
        async with self._pool.connection() as connection:
            await connection.execute("BEGIN IMMEDIATE")
            await connection.execute(self.WRITE, (key,))
            await connection.execute("COMMIT")

    async def single(self, key: int) -> Any:
        async with self._pool.connection() as connection:
            cursor = await connection.execute(self.READ, (key,))
            return await cursor.fetchone()

    async def add(self, key: int) -> None:
        async with self._pool.connection() as connection:
            await _add(self, connection, key)

    async def fetch_many(self) -> Any:
        async with self._pool.connection() as connection:
            return await connection.execute_fetchall(self.MANY)

    async def insert_many(self, rows: list[tuple[Any, ...]]) -> None:
        async with self._pool.connection() as connection:
            await connection.execute("BEGIN IMMEDIATE")
            await connection.executemany(self.INSERT, rows)
            await connection.execute("COMMIT")

    @asynccontextmanager
    async def transaction(self, readonly: bool) -> AsyncIterator[Transaction]:
        async with self._pool.connection() as connection:
            await connection.execute("BEGIN" if readonly else "BEGIN IMMEDIATE")
            yield Transaction(connection)
            await connection.execute("COMMIT")


class OneThread(Contestant):
    """Plain sqlite3, called in the event loop's own thread: nothing is asynchronous."""

    title = "sqlite3 in one thread"
    style = "qmark"
    limit = True

    async def open(self) -> None:
        self._connection = sqlite3.connect(self.place.url, isolation_level=None, factory=Connection)
        self._connection.row_factory = sqlite3.Row

    async def close(self) -> None:
        self._connection.close()

    async def read(self, key: int) -> Any:
        execute = self._connection.execute
        execute("BEGIN")
        row = execute(self.READ, (key,)).fetchone()
        execute("COMMIT")
        return row

    async def write(self, key: int) -> None:
        execute = self._connection.execute
        execute("BEGIN IMMEDIATE")
        execute(self.WRITE, (key,))
        execute("COMMIT")

    async def single(self, key: int) -> Any:
        return self._connection.execute(self.READ, (key,)).fetchone()

    async def add(self, key: int) -> None:
        execute = self._connection.execute
        execute("BEGIN IMMEDIATE")
        row = execute(self.READ, (key,)).fetchone()
        execute(self.SET, (row["counter"] + 1, key))
        execute("COMMIT")

    async def fetch_many(self) -> Any:
        return self._connection.execute(self.MANY).fetchall()

    async def insert_many(self, rows: list[tuple[Any, ...]]) -> None:
        self._connection.execute("BEGIN IMMEDIATE")
        self._connection.executemany(self.INSERT, rows)
        self._connection.execute("COMMIT")


PEERS = (Bare, AiosqlitePool, OneThread)
