"""pytest fixtures for programs that use jobu-db. In the topmost conftest.py:

    pytest_plugins = ["jobu_db.testing.fixtures"]

    @pytest.fixture
    def jobu_config():
        return "config/test.yaml"

`databases`: opens what `jobu_config` names (a mapping or a path), registers it for the test, and
    closes it; a mapping of databases by name.
`rolled_back`: the same databases, each in a transaction that is rolled back after the test. What
    the program opens inside is a savepoint, whatever isolation level it asks for, so its
    `on_commit` callbacks are not called. A statement outside a transaction gets a savepoint:
    if it fails, only that is undone. Cancelling one on MySQL ends the test's transaction.
`count_statements`: `with count_statements() as counted:` notes what ran on all databases, or on
    the one named; `len(counted)`, `counted.statements`.
`fake_database`: a `FakeDatabase` in memory, registered as "default". Its `server` loses, delays,
    refuses and fails what it is told to: `fake_database.server.fail("commit")`; see
    `jobu_db.testing.faults`.
`open_fake_database`: `await open_fake_database("orders")` opens one under any name.

They need pytest-asyncio, in its mode "auto".
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import AsyncExitStack, contextmanager
from typing import Any

import pytest
import pytest_asyncio

from jobu_db.database import BaseDatabase
from jobu_db.events import events
from jobu_db.plugins import hookimpl
from jobu_db.registry import DatabaseRegistry
from jobu_db.testing.fake import FakeDatabase
from jobu_db.transaction import ambient
from jobu_db.transaction.group import enter_block


class Counted:
    """The statements that ran; `len` counts them.

    Attributes:
        statements: Their SQL, oldest first, without its parameters.
    """

    def __init__(self, database: str | None) -> None:
        self.statements: list[str] = []
        self._database = database

    def __len__(self) -> int:
        return len(self.statements)

    @hookimpl
    def jobu_db_statement(self, database: str, statement: str) -> None:
        """Hear of a statement."""
        if self._database in (None, database):
            self.statements.append(statement)


CountStatements = Callable[..., Any]


@pytest.fixture
def count_statements() -> CountStatements:
    """Return `count_statements(database=None)`, a context manager that gives a `Counted`."""

    @contextmanager
    def count(database: str | None = None) -> Iterator[Counted]:
        counted = Counted(database)
        events.register(counted)
        try:
            yield counted
        finally:
            events.unregister(counted)

    return count


@pytest.fixture
def jobu_config() -> Any:
    """Override: the configuration, as `DatabaseRegistry.init_from_config` takes it."""
    raise pytest.UsageError(
        "define a fixture `jobu_config` that returns the configuration: a mapping or a path"
    )


@pytest_asyncio.fixture
async def databases(jobu_config: Any) -> AsyncIterator[Mapping[str, BaseDatabase]]:
    """Open the databases of `jobu_config` for one test."""
    async with DatabaseRegistry.lifespan(jobu_config):
        yield DatabaseRegistry.get_all()


@pytest_asyncio.fixture
async def rolled_back(
    databases: Mapping[str, BaseDatabase],
) -> AsyncIterator[Mapping[str, BaseDatabase]]:
    """Open a transaction on each of the databases and roll it back after the test."""
    async with AsyncExitStack() as stack:
        contexts = [
            await stack.enter_async_context(database.transaction())
            for database in databases.values()
        ]
        levels: list[Any] = [ambient.current(database.pool) for database in databases.values()]
        for level in levels:
            # Statements outside of a block get a savepoint then, and retries run again, as in the
            # program, which knows of no transaction around it.
            level.of_test = True
        if levels:
            # As one unit: what the program's units enlist, a block around them undoes here too.
            enter_block([level.root for level in levels])
        yield databases
        # By hand: leaving the blocks then does nothing more, whatever the test has raised.
        for context in contexts:
            await context.rollback()


OpenFake = Callable[[str], Awaitable[FakeDatabase]]


@pytest_asyncio.fixture
async def open_fake_database() -> AsyncIterator[OpenFake]:
    """Return `open_fake_database(name)`: opens and registers a database in memory whose server
    fails on order. All are closed after the test."""

    async def open_one(name: str) -> FakeDatabase:
        database = await FakeDatabase.create(name, {})
        DatabaseRegistry.register(name, database)
        return database

    try:
        yield open_one
    finally:
        await DatabaseRegistry.close_all()


@pytest_asyncio.fixture
async def fake_database(open_fake_database: OpenFake) -> FakeDatabase:
    """Open a database in memory whose server fails on order, as "default"."""
    return await open_fake_database("default")
