"""pytest fixtures for programs that use jobu-db. In the topmost conftest.py:

    pytest_plugins = ["jobu_db.testing.fixtures"]

    @pytest.fixture
    def jobu_config():
        return "config/test.yaml"

`databases`: opens what `jobu_config` names (a mapping or a path), registers it for the test, and
    closes it; a mapping of databases by name.
`rolled_back`: the same databases, each in a transaction that is rolled back after the test. What
    the program opens inside is a savepoint, so its `on_commit` callbacks are not called.
`count_statements`: `with count_statements() as counted:` notes what ran on all databases, or on
    the one named; `len(counted)`, `counted.statements`.
`fake_database`: a `FakeDatabase` in memory, registered as "default". Its `server` loses, delays,
    refuses and fails what it is told to: `fake_database.server.fail("commit")`; see
    `jobu_db.testing.faults`.

They need pytest-asyncio, in its mode "auto".
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AsyncExitStack, contextmanager
from typing import Any

import pytest
import pytest_asyncio

from jobu_db.database import BaseDatabase
from jobu_db.events import events
from jobu_db.plugins import hookimpl
from jobu_db.registry import DatabaseRegistry
from jobu_db.testing.fake import FakeDatabase


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
        yield databases
        for context in contexts:
            await context.rollback()


@pytest_asyncio.fixture
async def fake_database() -> AsyncIterator[FakeDatabase]:
    """Open a database in memory whose server fails on order, as "default"."""
    database = await FakeDatabase.create("default", {})
    DatabaseRegistry.register("default", database)
    try:
        yield database
    finally:
        await DatabaseRegistry.close_all()
