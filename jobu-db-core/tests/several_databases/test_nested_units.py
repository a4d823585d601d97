"""Units of work inside one another: savepoints on the databases that are in a transaction already,
and transactions of their own on the others."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from jobu_db import (
    PartialCommitError,
    TransactionError,
    UniqueViolationError,
    get_connection,
    transactional,
)
from jobu_db.testing.conformance.backend import ids, insert, nothing_held

from .conftest import Heard

pytestmark = pytest.mark.one_server


def unit(databases: list[Any], id: int, *inside: Callable[[], Awaitable[None]]) -> Any:
    """A unit of work that inserts `id` everywhere, then does what is inside."""

    @transactional(*databases)
    async def work() -> None:
        for database in databases:
            await insert(get_connection(database.name), id)
        for more in inside:
            await more()

    return work


async def fail() -> None:
    raise KeyError("on purpose")


def caught(work: Any) -> Callable[[], Awaitable[None]]:
    async def run() -> None:
        with pytest.raises(KeyError):
            await work()

    return run


async def assert_ids(databases: list[Any], *expected: int) -> None:
    for database in databases:
        assert await ids(database) == list(expected), database.name
        await nothing_held(database)


async def test_an_inner_unit_that_is_kept_commits_with_the_outer_one(
    databases: list[Any], heard: Heard
) -> None:
    await unit(databases, 1, unit(databases[::-1], 2))()
    assert heard.ended == [(database.name, "committed") for database in databases]
    await assert_ids(databases, 1, 2)


async def test_an_inner_unit_that_fails_undoes_its_own_work_on_each(databases: list[Any]) -> None:
    inner = unit(databases, 2, unit(databases, 3), fail)
    await unit(databases, 1, caught(inner))()
    await assert_ids(databases, 1)


async def test_an_outer_unit_that_fails_undoes_the_inner_one_on_each(databases: list[Any]) -> None:
    await caught(unit(databases, 1, unit(databases, 2), fail))()
    await assert_ids(databases)


async def test_a_refused_statement_in_an_inner_unit_leaves_all_of_them_usable(
    databases: list[Any],
) -> None:
    """On PostgreSQL too, which refuses everything after an error but for a savepoint."""

    async def refused() -> None:
        with pytest.raises(UniqueViolationError):
            await unit(databases, 1)()

    await unit(databases, 1, refused, unit(databases, 2))()
    await assert_ids(databases, 1, 2)


async def test_an_inner_unit_of_some_of_the_databases(triple: list[Any]) -> None:
    inner = unit(triple[1:], 2, fail)
    await unit(triple, 1, caught(inner))()
    await assert_ids(triple, 1)


async def test_an_inner_unit_with_one_more_database_ends_with_the_outer_one(
    triple: list[Any], heard: Heard
) -> None:
    await caught(unit(triple[:2], 1, unit(triple, 2), fail))()
    assert sorted(heard.ended) == sorted((one.name, "rolled back") for one in triple)
    await assert_ids(triple)
    await unit(triple[:2], 1, unit(triple, 2))()
    await assert_ids(triple[:2], 1, 2)
    await assert_ids(triple[2:], 2)


async def test_a_savepoint_that_cannot_be_kept_is_found_before_the_first_commit(
    triple: list[Any],
) -> None:

    async def leave_a_savepoint_spoiled() -> None:
        get_connection(triple[0].name)._level.refusal = "spoiled for the test"

    inner = unit(triple[::2], 2, leave_a_savepoint_spoiled)

    async def refused() -> None:
        with pytest.raises(TransactionError, match="rolled back: spoiled") as told:
            await inner()
        assert not isinstance(told.value, PartialCommitError)

    await unit(triple[:1], 1, refused)()
    await assert_ids(triple[:1], 1)
    await assert_ids(triple[1:])


async def test_a_statement_of_a_database_runs_in_the_innermost_unit(databases: list[Any]) -> None:
    @transactional(*databases)
    async def inner() -> None:
        for database in databases:
            await insert(database, 2)
        raise KeyError

    @transactional(*databases)
    async def outer() -> None:
        for database in databases:
            await insert(database, 1)
        with pytest.raises(KeyError):
            await inner()
        for database in databases:
            assert await ids(database) == [1]

    await outer()
    await assert_ids(databases, 1)
