"""Hostile texts and values, and answers that were changed on the way; `jobu_db.testing.fuzzing`."""

from __future__ import annotations

import asyncio
import random
import re
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, get_args
from urllib.parse import urlsplit

import pytest
from asyncmy.errors import MySQLError
from server_urls import parts_of

from jobu_db import DatabaseError, DataError
from jobu_db.testing.fuzzing import NAME, Text, found_by_us, scaled, seeds, texts, values
from jobu_db_mysql import MySQLDatabase
from jobu_db_mysql.session import MySQLConnection
from jobu_db_mysql.settings import Charset

from .conftest import OpenDatabase

TEXTS = 20_000
AT_ONCE = 40
COM_STMT_PREPARE, COM_STMT_CLOSE = 0x16, 0x19


def command(code: int, data: bytes) -> bytes:
    return (1 + len(data)).to_bytes(3, "little") + b"\0" + bytes([code]) + data


async def read_by_server(connection: MySQLConnection, batch: Sequence[Text]) -> list[int | None]:
    """Have the server count the names in code, as question marks; None where it is no SQL."""
    connection._write_bytes(
        b"".join(command(COM_STMT_PREPARE, NAME.sub("?", each.sql).encode()) for each in batch)
    )
    counts: list[int | None] = []
    to_close = []
    for _ in batch:
        connection._next_seq_id = 1
        try:
            answer = (await connection.read_packet()).get_all_data()
        except MySQLError:
            counts.append(None)
            continue
        to_close.append(answer[1:5])
        columns, names = (int.from_bytes(answer[at : at + 2], "little") for at in (5, 7))
        for _ in range(columns + names):
            await connection.read_packet()
        counts.append(names)
    connection._write_bytes(b"".join(command(COM_STMT_CLOSE, each) for each in to_close))
    return counts


def prepared(text: Text) -> Text:
    """Take out what the server would count as well: question marks, and ORACLE's own names."""
    return text._replace(sql=re.sub(r"\?|:(?!b[0-9]+_)", "", text.sql))


async def test_names_are_where_the_server_sees_them(
    connection: MySQLConnection, mariadb: bool
) -> None:
    modes = ["", "ANSI_QUOTES", "NO_BACKSLASH_ESCAPES", "ANSI_QUOTES,NO_BACKSLASH_ESCAPES"]
    if mariadb:
        modes += ["ORACLE", "MSSQL"]
    seen: Counter[str] = Counter()
    for seed in seeds():
        for mode in modes:
            await connection.run(f"SET sql_mode = '{mode}'")
            dialect = connection.dialect
            count = scaled(TEXTS) // 2 // len(modes)
            given = list(map(prepared, texts(seed, count, brackets=mode == "MSSQL")))
            for start in range(0, len(given), AT_ONCE):
                batch = given[start : start + AT_ONCE]
                counts = await read_by_server(connection, batch)
                for text, count in zip(batch, counts, strict=True):
                    ours = found_by_us(text, dialect)
                    if count is None or ours is None:
                        seen["no SQL" if count is None else "refused"] += 1
                        continue
                    seen["the same"] += 1
                    assert len(ours[1]) == count, (seed, mode, text.sql)
    print(seen)
    assert seen["the same"] > seen.total() / 5, seen


def fits(connection: MySQLConnection, value: str) -> bool:
    """Say whether the character set of the connection has it."""
    try:
        connection.encoded(value)
    except DataError:
        return False
    return True


@pytest.mark.parametrize("mode", ["", "NO_BACKSLASH_ESCAPES,ANSI_QUOTES"])
async def test_values_come_back_as_they_went(open_db: OpenDatabase, mode: str) -> None:
    alphabet = [*"'\"`\\%_\0\n\r\x1a;-#/*é縷яß¥אก😀", "\\'", "''", "-- "]
    seen: Counter[str] = Counter()
    charsets = get_args(Charset)
    count = scaled(10_000) // 2 // len(charsets)
    for seed in seeds():
        for charset in charsets:
            options = {"charset": charset, "sql_mode": mode}
            db = await open_db(f"{charset}{seed}", options=options, pool={"max_size": 1})
            async with db.pool.connection() as lease:
                fit = [each for each in alphabet if fits(lease.connection, each)]
            given = {f"v{n}": value for n, value in enumerate(values(seed, count, fit))}
            for start in range(0, len(given), 50):
                part = dict(list(given.items())[start : start + 50])
                row = await db.fetch_one(f"SELECT {','.join(f':{n} AS {n}' for n in part)}", part)
                assert row == part, (seed, charset, mode)
                seen["the same"] += len(part)
            await db.close()
    print(seen)


ANSWERS = 200


class Mangling:
    """A proxy that changes one of the server's answers, and closes a little later."""

    def __init__(self, url: str, chance: random.Random) -> None:
        parts = urlsplit(url)
        self._there = parts.hostname or "", parts.port or 3306
        self._chance = chance
        self._which = chance.randrange(12)
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> int:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection(*self._there)
        for work in (self._pass_on(reader, back), self._mangle(there, writer)):
            self._tasks.append(asyncio.create_task(work))

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await reader.read(65536):
                writer.write(data)
        writer.close()

    async def _mangle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await reader.read(65536):
                self._which -= 1
                if self._which == 0:
                    writer.write(self._mangled(data))
                    await asyncio.sleep(0.1)
                    break
                writer.write(data)
        writer.close()

    def _mangled(self, data: bytes) -> bytes:
        chance = self._chance
        at = chance.randrange(len(data))
        kind = chance.randrange(4)
        if kind == 0:
            return data[:at] + bytes([chance.randrange(256)]) + data[at + 1 :]
        if kind == 1:
            return data[:at] + chance.randbytes(chance.randrange(1, 9)) + data[at:]
        if kind == 2:
            return data[:at] + data[at + chance.randrange(1, 9) :]
        return data[:at]


async def test_mangled_answers_are_errors_of_ours_and_end(mysql_url: str) -> None:
    seen: Counter[str] = Counter()
    for seed in seeds():
        chance = random.Random(seed)
        for start in range(0, scaled(ANSWERS) // 2, 20):
            pieces = [random.Random(chance.random()) for _ in range(20)]
            ended = await asyncio.gather(*(mangled(mysql_url, each) for each in pieces))
            for number, error in enumerate(ended, start):
                kind = type(error).__name__ if error is not None else "no error"
                assert error is None or isinstance(error, DatabaseError), (seed, number, error)
                seen[kind] += 1
    print(seen)


async def mangled(url: str, chance: random.Random) -> Exception | None:
    """Use a database whose answers are mangled; return how that ended."""
    async with Mangling(url, chance) as port:
        pool = {"max_size": 1, "timeout": 20.0, "cleanup_timeout": 5.0}
        settings = parts_of(url) | {"host": "127.0.0.1", "port": port, "pool": pool}
        del settings["url"]
        try:
            async with asyncio.timeout(60):
                await use(settings)
        except Exception as error:
            return error
    return None


async def use(settings: dict[str, Any]) -> None:
    db = await MySQLDatabase.create("main", settings)
    try:
        async with db.transaction() as ctx:
            await ctx.fetch_all(
                "SELECT 1 AS a, 'text' AS b, 1.5 AS c, NULL AS d UNION SELECT 2,3,4,5"
            )
            await ctx.execute("SET @a = 1, NAMES latin1")
            _ = [row async for row in ctx.iterate("SELECT :a AS a UNION SELECT 2", {"a": 1})]
            await ctx.execute("DO 1")
        await db.fetch_val("SELECT NOW()")
    finally:
        await db.close(2.0)
