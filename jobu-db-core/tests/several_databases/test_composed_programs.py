"""Random programs of blocks, units and failures, against a model of what they must leave behind.

A program is a list of statements: an insert, or a block with a program inside, which fails at its
end or not; whoever is around it catches that. A block over one database is `transaction()`, over
several a unit of work. After each statement every database must show what the model has.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from jobu_db import transactional
from jobu_db.plugins import database_class
from jobu_db.testing.conformance.backend import TABLE, ids, insert, nothing_held

NAMES = "abcd"


@dataclass(frozen=True)
class Insert:
    database: str

    def __repr__(self) -> str:
        return f"+{self.database}"


@dataclass(frozen=True)
class Block:
    databases: str
    body: tuple[Insert | Block, ...]
    fails: bool = False

    def __repr__(self) -> str:
        inside = " ".join(map(repr, self.body))
        return f"{self.databases}({inside}{' FAILS' if self.fails else ''})"


# -- the model


@dataclass
class Tie:
    """Work that is undone as a whole: in each database, all that came after a point in time.

    Attributes:
        home: The database with whose transaction it ends.
        start: When it began.
        after: The points in time.
    """

    home: str
    start: int
    after: dict[str, int]


@dataclass
class Entered:
    """A block that is entered: when its databases joined, and what was tied inside."""

    after: dict[str, int]
    ties: list[Tie] = field(default_factory=list)


class Model:
    """What each database holds, as a log with the time of each row.

    Attributes:
        rows: By database, the rows with the time of each; 0 for what is committed.
        begun: When the open transaction of a database began.
        home: The database whose transaction that ends with; it is a home of its own, too.
    """

    def __init__(self) -> None:
        self.rows: dict[str, dict[int, int]] = {name: {} for name in NAMES}
        self.begun: dict[str, int] = {}
        self.home: dict[str, str] = {}
        self._clock = itertools.count(1)
        self._id = itertools.count(1)
        self._entered = [Entered({})]

    def insert(self, name: str) -> int:
        row = next(self._id)
        self.rows[name][row] = next(self._clock) if name in self.begun else 0
        return row

    def enter(self, names: str) -> None:
        homes = {self.home[name] for name in names if name in self.begun}
        first = min(homes, key=self.begun.__getitem__) if homes else names[0]
        block = Entered({})
        for name in names:
            block.after[name] = next(self._clock)
            if name not in self.begun:
                self.begun[name], self.home[name] = block.after[name], first
        self._entered.append(block)

    def fail(self) -> None:
        """Undo the block, and all ties inside of which that undoes a part."""
        block = self._entered.pop()
        after, left = self._torn(block)
        for name, point in after.items():
            rows = self.rows[name]
            self.rows[name] = {row: time for row, time in rows.items() if time <= point}
            if name in self.begun and self.begun[name] >= point:
                del self.begun[name], self.home[name]
        self._entered[-1].ties += left

    def _torn(self, block: Entered) -> tuple[dict[str, int], list[Tie]]:
        """Say what a failure of the block undoes, and return the ties that it leaves whole."""
        after, left = dict(block.after), block.ties
        while torn := [tie for tie in left if self._is_torn(tie, after)]:
            left = [tie for tie in left if tie not in torn]
            for tie in torn:
                for name, point in tie.after.items():
                    after[name] = min(point, after.get(name, point))
        return after, left

    def _is_torn(self, tie: Tie, undone: dict[str, int]) -> bool:
        points = {tie.home: tie.start, **tie.after}
        return any(undone[name] <= point for name, point in points.items() if name in undone)

    def succeed(self) -> None:
        """Commit what the block began as the outermost; tie together what it is a part of."""
        block = self._entered.pop()
        after, left = self._torn(block)
        around = self._entered[-1]
        around.ties += left
        for home in {self.home[name] for name in block.after}:
            if self.begun[home] == block.after.get(home):
                self._commit(home)
            elif len(block.after) > 1 or len(left) < len(block.ties):
                tied = {name: point for name, point in after.items() if self.home[name] == home}
                around.ties.append(Tie(home, min(block.after.values()), tied))

    def _commit(self, home: str) -> None:
        for name in [name for name, other in self.home.items() if other == home]:
            self.rows[name] = dict.fromkeys(self.rows[name], 0)
            del self.begun[name], self.home[name]


# -- running a program


class _FailsError(Exception):
    pass


class Run:
    """One program, on the databases and on the model side by side."""

    def __init__(self, databases: dict[str, Any]) -> None:
        self._databases = databases
        self._model = Model()

    async def program(self, statements: tuple[Insert | Block, ...]) -> None:
        for statement in statements:
            if isinstance(statement, Insert):
                row = self._model.insert(statement.database)
                await insert(self._databases[statement.database], row)
            else:
                await self._block(statement)
            await self.compare(statement)

    async def _block(self, block: Block) -> None:
        databases = [self._databases[name] for name in block.databases]

        async def body() -> None:
            self._model.enter(block.databases)
            await self.program(block.body)
            if block.fails:
                raise _FailsError

        try:
            if len(databases) == 1:
                async with databases[0].transaction():
                    await body()
            else:
                await transactional(*databases)(body)()
        except _FailsError:
            self._model.fail()
        else:
            self._model.succeed()

    async def compare(self, after: Any) -> None:
        for name, database in self._databases.items():
            assert await ids(database) == sorted(self._model.rows[name]), f"{name} after {after}"

    async def all_of(self, program: tuple[Insert | Block, ...]) -> None:
        for database in self._databases.values():
            await database.execute("DELETE FROM items")
        await self.program(program)
        assert not self._model.begun
        for database in self._databases.values():
            await nothing_held(database)


@pytest.fixture(scope="module")
def open_databases() -> Iterator[tuple[asyncio.Runner, dict[str, Any]]]:
    """Four databases in memory, and the event loop in which they are open."""

    async def create() -> dict[str, Any]:
        opened = {}
        for name in NAMES:
            settings = {"path": ":memory:", "pool": {"timeout": 20.0}}
            opened[name] = await database_class("sqlite").create(name, settings)
            await opened[name].execute(TABLE)
        return opened

    async def close(databases: dict[str, Any]) -> None:
        for database in databases.values():
            await database.close()

    with asyncio.Runner() as runner:
        databases = runner.run(create())
        yield runner, databases
        runner.run(close(databases))


def programs() -> st.SearchStrategy[tuple[Insert | Block, ...]]:
    inserts = st.builds(Insert, st.sampled_from(NAMES))
    names = st.lists(st.sampled_from(NAMES), min_size=1, max_size=3, unique=True).map("".join)

    def block(inside: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
        body = st.lists(inside, min_size=1, max_size=4).map(tuple)
        return st.builds(Block, names, body, st.booleans())

    statements = st.recursive(inserts, block, max_leaves=16)
    return st.lists(statements, min_size=1, max_size=3).map(tuple)


def unit(databases: str, *inside: Insert | Block, fails: bool = False) -> Block:
    """A block that inserts everywhere before it does what is inside."""
    return Block(databases, (*map(Insert, databases), *inside), fails)


@settings(max_examples=150, deadline=None)
@given(programs())
# In a savepoint of a database that was itself enlisted, a unit with a third one.
@example((unit("a", unit("ab"), unit("b", unit("bc"), fails=True)),))
@example((unit("a", unit("ab"), unit("b", unit("abc"), fails=True)),))
@example((unit("a", unit("ab"), unit("b", unit("bc")), unit("c")),))
# The savepoint that is left first hands on to one of another database, with its own work.
@example((unit("a", unit("ab"), unit("b", unit("a", unit("abc")), fails=True)),))
@example((unit("a", unit("ab"), unit("b", unit("a", unit("bc")), fails=True)),))
# A savepoint that is kept for another database, and a unit on top of it.
@example((unit("a", unit("abd"), unit("d", unit("bd"), unit("bc"), fails=True)),))
# Members of one unit are enlisted as well.
@example((unit("ab", unit("a", unit("ab"), fails=True)),))
@example((unit("ab", unit("a", unit("bc"), fails=True), unit("b", unit("abc"), fails=True)),))
# What is enlisted by a member that is open elsewhere ends with that.
@example((unit("a", unit("b", unit("ab", unit("bd")), fails=True)),))
def test_a_unit_is_kept_or_undone_as_a_whole(
    open_databases: tuple[asyncio.Runner, dict[str, Any]], program: tuple[Insert | Block, ...]
) -> None:
    runner, databases = open_databases
    runner.run(asyncio.wait_for(Run(databases).all_of(program), 60))
