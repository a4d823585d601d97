"""Money moves between three databases while their servers are killed, stopped and cut off.

    JOBU_TEST_SECONDS=300 JOBU_TEST_SEED=7 pytest -s .../test_torture.py

The seed decides what is done to the servers and by the tasks, and roughly when.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import random
import secrets
from collections import Counter
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from jobu_db import DatabaseError, get_connection, transactional
from jobu_db.testing.servers import Control

from .books import ACCOUNTS, Books, book, open_accounts
from .conftest import MYSQL, POSTGRES, SQLITE, World
from .mayhem import FileMayhem, Mayhem, ServerMayhem

pytestmark = pytest.mark.one_server

TASKS = 200
SECONDS = float(os.environ.get("JOBU_TEST_SECONDS", "60"))
SEED = os.environ.get("JOBU_TEST_SEED") or str(secrets.randbelow(1_000_000))
HANGING = 60.0
"""Seconds after the last fault by which every task has ended."""

OPTIONS = {
    SQLITE: {"journal_mode": "DELETE", "busy_timeout": 200},  # so that COMMIT itself can fail
    POSTGRES: {"lock_timeout": 500},
    MYSQL: {"lock_timeout": 1000},
}


class OnPurposeError(Exception):
    """Raised by a transfer that thinks better of it."""


class Transfers:
    """Tasks that move amounts until told to stop; every end is written down."""

    def __init__(self, databases: list[Any]) -> None:
        self.books = Books()
        self.stopping = False
        self._databases = databases
        self._numbers = itertools.count(1)
        self._ghosts = itertools.count(-1, -1)

    async def go_on(self, seed: str) -> None:
        """Make one transfer after another."""
        chance = random.Random(seed)
        while not self.stopping:
            task = asyncio.create_task(self._transfer(next(self._numbers), chance))
            if chance.random() < 0.1:
                asyncio.get_running_loop().call_later(chance.uniform(0, 0.5), task.cancel)
            await asyncio.wait({task})
            if not task.cancelled():
                task.result()

    async def _transfer(self, number: int, chance: random.Random) -> None:
        databases = self._choose(chance)
        names = [database.name for database in databases]
        work = transactional(*databases, retries=chance.choice((0, 3)))(self._move)
        try:
            await work(number, names, chance)
        except (DatabaseError, OnPurposeError) as error:
            self.books.record(number, names, error)
        except asyncio.CancelledError as error:
            self.books.record(number, names, error)
            raise
        else:
            self.books.record(number, names, None)

    def _choose(self, chance: random.Random) -> list[Any]:
        """One to three, mostly in one order: else all would wait for each other's connections."""
        sqlite, *servers = self._databases
        some = servers if chance.random() < 0.8 else [chance.choice(servers)]
        if chance.random() < 0.3:  # its writers take turns: more would only wait
            some = [sqlite, *some]
        return chance.sample(some, len(some)) if chance.random() < 0.1 else some

    async def _move(self, number: int, names: list[str], chance: random.Random) -> None:
        """The first one pays what the others get."""
        amounts = {name: chance.randint(1, 100) for name in names[1:]}
        amounts[names[0]] = -sum(amounts.values())
        for name in chance.sample(names, len(names)):
            await book(get_connection(name), number, chance.randrange(ACCOUNTS), amounts[name])
        if chance.random() < 0.2:
            await self._change_ones_mind(names)
        if chance.random() < 0.05:
            raise OnPurposeError

    async def _change_ones_mind(self, names: list[str]) -> None:
        """A unit inside, of all of them, that is undone: its numbers must be nowhere."""
        ghost = next(self._ghosts)
        inside = [database for database in self._databases if database.name in names]

        @transactional(*inside)
        async def nested() -> None:
            for name in names:
                await book(get_connection(name), ghost, 0, 1)
            raise OnPurposeError

        with pytest.raises(OnPurposeError):
            await nested()


async def whole_again(database: Any) -> None:
    """Every place of the pool can be used, all at the same time."""
    together = asyncio.Barrier(database.pool.config.max_size)

    async def use() -> None:
        async with database.transaction(readonly=True) as ctx:
            await ctx.fetch_val("SELECT 1")
            await together.wait()

    async with asyncio.timeout(30), asyncio.TaskGroup() as group:
        for _ in range(together.parties):
            group.create_task(use())
    assert (database.stats()["in_use"], database.stats()["waiting"]) == (0, 0)


async def test_databases_disagree_only_where_they_were_told_to(
    world: World,
    tmp_path: Path,
    postgres_control: Control,
    mysql_control: Control,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with capsys.disabled():
        print(f"\nmoving money for {SECONDS:g} s; JOBU_TEST_SEED={SEED} does this once more")
    pool = {"max_size": 40, "timeout": 3.0, "cleanup_timeout": 1.0}
    databases = [await world.open(kind, pool=pool, options=OPTIONS[kind]) for kind in OPTIONS]
    for database in databases:
        await open_accounts(database)
    harm: list[Mayhem] = [
        FileMayhem(SQLITE, SEED, tmp_path / "test.db"),
        ServerMayhem(POSTGRES, SEED, world.proxies[POSTGRES], postgres_control),
        ServerMayhem(MYSQL, SEED, world.proxies[MYSQL], mysql_control),
    ]
    transfers = Transfers(databases)
    tasks = [asyncio.create_task(transfers.go_on(f"{SEED} {number}")) for number in range(TASKS)]
    async with AsyncExitStack() as stack:
        for one in harm:
            await stack.enter_async_context(one.going_on())
        await asyncio.wait(tasks, timeout=SECONDS, return_when=asyncio.FIRST_EXCEPTION)
    transfers.stopping = True
    _, hanging = await asyncio.wait(tasks, timeout=HANGING)
    assert not hanging, f"seed {SEED}: {len(hanging)} tasks hang, such as {hanging.pop()}"
    for task in tasks:
        task.result()
    for database in databases:
        await whole_again(database)
    figures = await transfers.books.audit(databases)
    done = sum((one.done for one in harm), start=Counter[str]())
    with capsys.disabled():
        print(f"faults: {dict(done)}\n{figures}")
