"""Libraries that serve all three: SQLAlchemy's async Core, databases, Tortoise."""

from __future__ import annotations

import warnings
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from contestant import Block, Changed, Contestant
from places import SYNCHRONOUS, Connection

SCHEMES = {
    "SQLAlchemy": {"postgres": "postgresql+asyncpg", "mysql": "mysql+asyncmy"},
    "databases": {"postgres": "postgresql+asyncpg", "mysql": "mysql+asyncmy"},
    "Tortoise": {"postgres": "asyncpg", "mysql": "mysql"},
}


def columns(row: tuple[Any, ...]) -> dict[str, Any]:
    return dict(zip(("id", "counter", "name"), row, strict=True))


class SQLAlchemy(Contestant):
    """SQLAlchemy's async Core with prepared text() clauses; it rolls back at release."""

    title = "SQLAlchemy"

    def __init__(self, place: Any, size: Any) -> None:
        from sqlalchemy import text

        super().__init__(place, size)
        self._text = text
        self._clauses = {sql: text(sql) for sql in (self.READ, self.WRITE, self.SET, self.MANY)}
        self._clauses |= {sql: text(sql) for sql in (self.INSERT, self.STREAM)}

    async def open(self) -> None:
        from sqlalchemy.ext.asyncio import create_async_engine

        if self.place.kind == "sqlite":
            url = f"sqlite+aiosqlite:///{self.place.url}"
            options: dict[str, Any] = {"connect_args": {"factory": Connection}}
        else:
            url, options = self.place.with_scheme(SCHEMES["SQLAlchemy"][self.place.kind]), {}
        self._engine = create_async_engine(
            url, pool_size=self.size.pool, max_overflow=0, pool_timeout=600, **options
        )
        readonly = {"postgresql_readonly": True} if self.place.kind == "postgres" else {}
        self._reading = self._engine.execution_options(**readonly)
        self._single = self._engine.execution_options(isolation_level="AUTOCOMMIT")

    async def close(self) -> None:
        await self._engine.dispose()

    def connection(self) -> Block:
        return self._engine.connect()

    async def read(self, key: int) -> Any:
        async with self._reading.begin() as connection:
            return (await connection.execute(self._clauses[self.READ], {"id": key})).one()

    async def write(self, key: int) -> None:
        async with self._engine.begin() as connection:
            await connection.execute(self._clauses[self.WRITE], {"id": key})

    async def single(self, key: int) -> Any:
        async with self._single.connect() as connection:
            return (await connection.execute(self._clauses[self.READ], {"id": key})).one()

    async def add(self, key: int) -> None:
        async with self._engine.begin() as connection:
            row = (await connection.execute(self._clauses[self.READ], {"id": key})).one()
            values = {"counter": row.counter + 1, "id": key}
            await connection.execute(self._clauses[self.SET], values)

    async def fetch_many(self) -> Any:
        async with self._single.connect() as connection:
            return (await connection.execute(self._clauses[self.MANY])).all()

    async def insert_many(self, rows: list[tuple[Any, ...]]) -> None:
        async with self._engine.begin() as connection:
            await connection.execute(self._clauses[self.INSERT], [columns(row) for row in rows])

    async def stream(self) -> int:
        count = 0
        async with (
            self._reading.begin() as connection,
            connection.stream(self._clauses[self.STREAM]) as result,
        ):
            async for _ in result:
                count += 1
        return count

    @asynccontextmanager
    async def transaction(self, readonly: bool) -> AsyncIterator[Any]:
        engine = self._reading if readonly else self._engine
        async with engine.begin() as connection:
            yield _SQLAlchemyTransaction(self, connection)

    def clause(self, sql: str) -> Any:
        """Return a text() clause, made once."""
        if sql not in self._clauses:
            self._clauses[sql] = self._text(sql)
        return self._clauses[sql]


class _SQLAlchemyTransaction:
    def __init__(self, peer: SQLAlchemy, connection: Any) -> None:
        self._peer = peer
        self._connection = connection

    async def execute(self, sql: str, values: Any) -> Changed:
        result = await self._connection.execute(self._peer.clause(sql), values)
        return Changed(result.rowcount)

    async def fetch_all(self, sql: str, values: Any) -> Any:
        result = await self._connection.execute(self._peer.clause(sql), values)
        return result.mappings().all()


class SQLAlchemyImmediate(SQLAlchemy):
    """SQLAlchemy as its manual's recipe has it, so that reads and writes lock from the start."""

    title = "SQLAlchemy, BEGIN IMMEDIATE"

    async def open(self) -> None:
        from sqlalchemy import event

        await super().open()

        @event.listens_for(self._engine.sync_engine, "connect")
        def no_begin_of_its_own(connection: Any, _: Any) -> None:
            connection.isolation_level = None

        @event.listens_for(self._engine.sync_engine, "begin")
        def begin(connection: Any) -> None:
            connection.exec_driver_sql("BEGIN IMMEDIATE")


class Databases(Contestant):
    """encode/databases: asyncpg's pool, asyncmy's pool, or a new SQLite connection each time."""

    title = "databases"

    def __init__(self, place: Any, size: Any) -> None:
        super().__init__(place, size)
        self.resets = place.kind != "mysql"

    async def open(self) -> None:
        from databases import Database

        if self.place.kind == "sqlite":
            self._db = Database(f"sqlite+aiosqlite:///{self.place.url}", factory=Connection)
        else:
            size = self.size.pool
            url = self.place.with_scheme(SCHEMES["databases"][self.place.kind])
            self._db = Database(url, min_size=size, max_size=size)
        self._readonly = {"readonly": True} if self.place.kind == "postgres" else {}
        await self._db.connect()

    async def close(self) -> None:
        await self._db.disconnect()

    def connection(self) -> Block:
        return self._db.connection()

    async def read(self, key: int) -> Any:
        async with self._db.transaction(**self._readonly):
            return await self._db.fetch_one(self.READ, {"id": key})

    async def write(self, key: int) -> None:
        async with self._db.transaction():
            await self._db.execute(self.WRITE, {"id": key})

    async def single(self, key: int) -> Any:
        return await self._db.fetch_one(self.READ, {"id": key})

    async def add(self, key: int) -> None:
        async with self._db.transaction():
            row = await self._db.fetch_one(self.READ, {"id": key})
            await self._db.execute(self.SET, {"counter": row["counter"] + 1, "id": key})

    async def fetch_many(self) -> Any:
        return await self._db.fetch_all(self.MANY)

    async def insert_many(self, rows: list[tuple[Any, ...]]) -> None:
        async with self._db.transaction():
            await self._db.execute_many(self.INSERT, [columns(row) for row in rows])


STYLES = {"sqlite": "qmark", "postgres": "numeric", "mysql": "format"}


class Tortoise(Contestant):
    """Tortoise's connections with SQL text, which is faster than its models."""

    title = "Tortoise"
    skips = frozenset({("j", "sqlite")})  # there it has one connection for everybody

    def __init__(self, place: Any, size: Any) -> None:
        self.style = STYLES[place.kind]
        self.resets = place.kind == "postgres"
        super().__init__(place, size)

    async def open(self) -> None:
        from tortoise import Tortoise as Library
        from tortoise.transactions import in_transaction

        self._library, self._in_transaction = Library, in_transaction
        size = self.size.pool
        kind = self.place.kind
        if kind == "sqlite":
            url = f"sqlite://{self.place.url}?synchronous={SYNCHRONOUS}&busy_timeout=60000"
        else:
            url = f"{self.place.with_scheme(SCHEMES['Tortoise'][kind])}?minsize={size}"
            url += f"&maxsize={size}"
        apps = {"bench": {"models": [__name__], "default_connection": "default"}}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # it misses models, which nothing needs
            await Library.init(config={"connections": {"default": url}, "apps": apps})
        self._client = Library.get_connection("default")

    async def close(self) -> None:
        await self._library.close_connections()

    def connection(self) -> Block:
        return self._client.acquire_connection()  # type: ignore[no-any-return]

    async def read(self, key: int) -> Any:
        async with self._in_transaction("default") as connection:
            return (await connection.execute_query_dict(self.READ, [key]))[0]

    async def write(self, key: int) -> None:
        async with self._in_transaction("default") as connection:
            await connection.execute_query(self.WRITE, [key])

    async def single(self, key: int) -> Any:
        return (await self._client.execute_query_dict(self.READ, [key]))[0]

    async def add(self, key: int) -> None:
        async with self._in_transaction("default") as connection:
            row = (await connection.execute_query_dict(self.READ, [key]))[0]
            await connection.execute_query(self.SET, [row["counter"] + 1, key])

    async def fetch_many(self) -> Any:
        return await self._client.execute_query_dict(self.MANY)

    async def insert_many(self, rows: list[tuple[Any, ...]]) -> None:
        await self._client.execute_many(self.INSERT, rows)


PEERS = (SQLAlchemy, Databases, Tortoise)
