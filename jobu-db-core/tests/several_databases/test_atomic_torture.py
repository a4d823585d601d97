"""Money moves in atomic units while programs and servers are killed, stopped and cut off.

    JOBU_TEST_SECONDS=1800 JOBU_TEST_SEED=7 pytest -s .../test_atomic_torture.py

Several programs make transfers and recover beside; each is killed (SIGKILL) again and again. One
more recovers all the time, and is not hindered. In the end, after recovery, every transfer is in
all of its databases or in none, as it was told.

There is no fault unless units commit in between. So the run tests as much on a busy machine as on
an idle one, in more time, and units that never commit again are found.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import secrets
import sys
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from waiting import eventually

from jobu_db import recovery
from jobu_db.plugins import database_class
from jobu_db.testing.servers import Control, Server

from . import atomic_program
from .atomic import prepared, recovered, rows_of_units
from .conftest import MYSQL, POSTGRES, SQLITE, World, type_of
from .mayhem import FileMayhem, Harm, Mayhem, ServerMayhem

pytestmark = pytest.mark.one_server

PROGRAMS = 3
SECONDS = float(os.environ.get("JOBU_TEST_SECONDS", "60"))
SEED = os.environ.get("JOBU_TEST_SEED") or str(secrets.randbelow(1_000_000))
A_LIFE = 1_000_000
"""Numbers of transfers that one life of a program may use."""

OPTIONS = {
    SQLITE: {"busy_timeout": 500},
    POSTGRES: {"lock_timeout": 500},
    MYSQL: {"lock_timeout": 1000},
}
STEPS = {
    POSTGRES: (b"(unit, participants)", b"PREPARE TRANSACTION", b"COMMIT PREPARED", b"COMMIT"),
    MYSQL: (b"(unit, participants)", b"XA PREPARE", b"XA COMMIT", b"COMMIT"),
}
LIVENESS = 300.0
"""Seconds by which a unit commits: there are no faults for as long as none does."""


class StepMayhem(ServerMayhem):
    """What happens to a server, and to each step of the protocol on its way there."""

    def harms(self) -> list[Harm]:
        return [*super().harms(), self._step_lost, self._step_unanswered, self._step_silent]

    def _step(self) -> bytes:
        return self._chance.choice(STEPS[type_of(self.name)])

    async def _step_lost(self) -> None:
        self._proxy.cut_at(self._step(), answered=False)

    async def _step_unanswered(self) -> None:
        self._proxy.cut_at(self._step(), answered=True)

    async def _step_silent(self) -> None:
        self._proxy.stall_at(self._step(), answered=self._chance.random() < 0.5)
        await self.a_while(0.5, 2.5)
        self._proxy.disarm()
        self._proxy.resume()


class Book:
    """What one program has written down, as far as it was read.

    Attributes:
        told: What each transfer's end told, by its number; "begun" if the program was killed.
        lines: How many lines there are.
        committed: How many transfers were told as committed, by the databases that took part.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.told: dict[int, tuple[list[str], str]] = {}
        self.lines = 0
        self.committed = Counter[str]()
        self._read = 0

    def read_on(self) -> None:
        if not self.path.exists():
            return
        with self.path.open("rb") as file:
            file.seek(self._read)
            text = file.read().rpartition(b"\n")[0]
        self._read += len(text)
        for line in text.splitlines():
            try:
                number, names, told = json.loads(line)
            except ValueError:
                continue  # empty, or the program was killed while it wrote
            self.lines += 1
            self.told[number] = names, told
            if told == "committed":
                self.committed.update(names)


class Program:
    """One program that is killed and started again, until the block is left.

    How long it lives is measured by what it does, so that a busy machine kills it no earlier.
    """

    def __init__(self, number: int, folder: Path, seed: str) -> None:
        self.lives = 0
        self.book = Book(folder / f"book {number}")
        self._number = number
        self._folder = folder
        self._chance = random.Random(f"{seed} program {number}")

    async def live(self, stop: asyncio.Event) -> None:
        while not stop.is_set():
            first = (self._number * 1000 + self.lives) * A_LIFE + 1
            self.lives += 1
            program = await asyncio.create_subprocess_exec(
                sys.executable, atomic_program.__file__, str(self._folder / "settings"),
                str(self.book.path), str(first), f"{SEED} {first}",
            )  # fmt: skip
            try:
                await self._work(program)
                await asyncio.sleep(self._chance.uniform(0, 0.3))  # anywhere in its work
                assert program.returncode is None, "the program ended by itself"
            finally:
                if program.returncode is None:
                    program.kill()
                await program.wait()

    async def _work(self, program: asyncio.subprocess.Process) -> None:
        """Wait until it has done enough: mostly so many transfers, at times whatever it does."""
        book, chance = self.book, self._chance
        enough = chance.randint(1, 40)
        some = chance.random() < 0.3
        before = book.lines if some else book.committed.total()

        async def has_worked() -> bool:
            book.read_on()
            done = (book.lines if some else book.committed.total()) - before
            return done >= enough or program.returncode is not None

        await eventually(has_worked, LIVENESS)


async def test_all_or_nothing_whatever_is_killed(
    world: World,
    tmp_path: Path,
    postgres_control: Control,
    mysql_control: Control,
    further_mysql: list[Server],
    further_mysql_urls: list[str],
    capsys: pytest.CaptureFixture[str],
) -> None:
    controls = {POSTGRES: postgres_control, MYSQL: mysql_control}
    for number, (server, url) in enumerate(zip(further_mysql, further_mysql_urls, strict=True), 2):
        assert server.control is not None
        controls[f"{MYSQL}{number}"] = server.control
        world.add(f"{MYSQL}{number}", url)
    kinds = (SQLITE, *controls)
    databases = [await world.open(kind) for kind in kinds]
    with capsys.disabled():
        print(f"\nmoving money for {SECONDS:g} s; JOBU_TEST_SEED={SEED} does this once more")
        for database in databases[1:]:
            print(f"{database.name}: {await database.fetch_val('SELECT version()')}")
    for database in databases:
        await open_accounts(database)
    pool = {"max_size": 10, "timeout": 3.0, "cleanup_timeout": 1.0}
    settings = {
        kind: {
            "type": type_of(kind), **await world.settings(kind),
            "pool": pool, "options": OPTIONS[type_of(kind)],
        }
        for kind in kinds
    }  # fmt: skip
    (tmp_path / "settings").write_text(json.dumps(settings))
    harm: list[Mayhem] = [
        FileMayhem(SQLITE, SEED, tmp_path / "test.db"),
        *(StepMayhem(kind, SEED, world.proxies[kind], controls[kind]) for kind in controls),
    ]
    programs = [Program(number, tmp_path, SEED) for number in range(1, PROGRAMS + 1)]
    for one in harm:
        one.whole = partial(commit_once_more, one.name, programs)
    stop = asyncio.Event()
    lives = [asyncio.create_task(program.live(stop)) for program in programs]
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(recovering_beside(world, kinds))
        for one in harm:
            await stack.enter_async_context(one.going_on())
        await asyncio.wait(lives, timeout=SECONDS, return_when=asyncio.FIRST_EXCEPTION)

        async def enough() -> bool:
            return any(one.done() for one in lives) or all(one.done.total() >= 3 for one in harm)

        await eventually(enough, LIVENESS)
    stop.set()  # each ends once it has committed some more, for all is whole again
    await asyncio.gather(*lives)
    for proxy in world.proxies.values():
        proxy.disarm()
    await recovered(databases)
    told: dict[int, tuple[list[str], str]] = {}
    for program in programs:
        program.book.read_on()
        told |= program.book.told
    figures = await audit(databases, told)
    done = sum((one.done for one in harm), start=Counter[str]())
    with capsys.disabled():
        print(f"faults: {dict(done)}, programs killed: {sum(one.lives for one in programs)}")
        print(figures)
    for one in harm:
        committed = sum(program.book.committed[one.name] for program in programs)
        assert committed > one.done.total(), f"too little was tested: {one.name}, {one.done}"


@asynccontextmanager
async def recovering_beside(world: World, kinds: tuple[str, ...]) -> AsyncIterator[None]:
    """Recover all the time, past the proxies: also while the programs hear nothing."""
    stop = asyncio.Event()
    pool = {"max_size": 2, "timeout": 3.0}
    async with AsyncExitStack() as stack:
        databases = {
            kind: await stack.enter_async_context(
                database_class(type_of(kind)).create(kind, {**world.direct(kind), "pool": pool})
            )
            for kind in kinds
        }

        async def recover() -> None:
            while not stop.is_set():
                await recovery.recover(databases)
                await asyncio.sleep(0.02)

        task = asyncio.create_task(recover())
        yield
        stop.set()
        await task


async def commit_once_more(name: str, programs: list[Program]) -> None:
    """Wait until a database takes part in a unit that commits, which it must, unharmed."""

    def committed() -> int:
        for program in programs:
            program.book.read_on()
        return sum(program.book.committed[name] for program in programs)

    before = committed()

    async def more() -> bool:
        return committed() > before

    await eventually(more, LIVENESS)


async def open_accounts(database: Any) -> None:
    await database.execute(
        "CREATE TABLE accounts (id INTEGER PRIMARY KEY, balance INTEGER NOT NULL)"
    )
    await database.execute(
        "CREATE TABLE transfers (id BIGINT PRIMARY KEY, account INTEGER NOT NULL, "
        "amount INTEGER NOT NULL)"
    )
    async with database.transaction() as ctx:
        for number in range(atomic_program.ACCOUNTS):
            await ctx.execute("INSERT INTO accounts VALUES (:id, 0)", {"id": number})


async def audit(databases: list[Any], told: dict[int, tuple[list[str], str]]) -> str:
    """Compare what was told with what is there; fail with every fault."""
    there = {database.name: await transfers_in(database) for database in databases}
    faults = []
    outcomes = Counter[str]()
    for number in sorted(told.keys() | set().union(*there.values())):
        names, outcome = told.get(number, ([], "never begun"))
        has = [name for name in there if number in there[name]]
        fate = "committed" if has else "rolled back"
        if has and sorted(has) != sorted(names):
            faults.append(f"{number} of {names} is only in {has}, told: {outcome}")
        if outcome in ("committed", "rolled back") and outcome != fate:
            faults.append(f"{number} of {names} is {fate}, but was told: {outcome}")
        if outcome in ("partial", "never begun"):
            faults.append(f"{number} of {names}: {outcome}")
        outcomes[outcome if outcome == fate else f"{outcome}, {fate}"] += 1
    assert not faults, "\n".join([f"seed {SEED}: {len(faults)} faults", *faults[:50]])
    assert await prepared(databases) == []
    for database in databases:
        assert await rows_of_units(database) == [], f"{database.name} keeps finished units"
    assert outcomes["committed"], f"nothing was committed, so nothing was tested: {outcomes}"
    listed = ", ".join(f"{count} {what}" for what, count in outcomes.most_common())
    return f"{len(told)} transfers: {listed}; 0 disagreements, nothing is left prepared"


async def transfers_in(database: Any) -> set[int]:
    """The numbers of the transfers that are there, once the balances add up."""
    rows = await database.fetch_all("SELECT id, account, amount FROM transfers")
    sums = Counter[int]()
    for row in rows:
        sums[row["account"]] += row["amount"]
    for row in await database.fetch_all("SELECT id, balance FROM accounts"):
        assert row["balance"] == sums[row["id"]], f"{database.name}: account {row['id']}"
    return {row["id"] for row in rows}
