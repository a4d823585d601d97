"""What a backend declares is what its users are told, and what the documentation says."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest

from jobu_db import TransactionError
from jobu_db.capabilities import FEATURES, Capabilities, Support, emulated, table, unsupported
from jobu_db.testing.fake import FakeDatabase
from jobu_db_mysql.driver import MARIADB, MYSQL
from jobu_db_postgres.driver import PostgresDriver
from jobu_db_sqlite.driver import SQLiteDriver

TOP = Path(__file__).resolve().parents[2]
WHY = "because the moon is full"


@pytest.fixture
async def lacking() -> AsyncIterator[Callable[[str], FakeDatabase]]:
    """Make a database whose driver declares one feature unsupported."""
    db = await FakeDatabase.create("lacking", {})

    def without(feature: str) -> FakeDatabase:
        declared: dict[str, Any] = {feature: unsupported(WHY)}
        db.driver.capabilities = replace(db.driver.capabilities, **declared)
        return db

    yield without
    await db.close()


async def test_a_nested_transaction_without_savepoints_is_refused_with_the_reason(
    lacking: Callable[[str], FakeDatabase],
) -> None:
    db = lacking("savepoints")
    async with db.transaction() as ctx:
        with pytest.raises(TransactionError, match=WHY):
            async with db.transaction():
                pass
        assert await ctx.fetch_val("SELECT 1") == 1


async def test_a_read_only_transaction_that_nobody_enforces_is_refused_with_the_reason(
    lacking: Callable[[str], FakeDatabase],
) -> None:
    with pytest.raises(TransactionError, match=WHY):
        lacking("readonly").transaction(readonly=True)


async def test_iterate_without_cursors_is_refused_with_the_reason(
    lacking: Callable[[str], FakeDatabase],
) -> None:
    async with lacking("server_side_cursors").transaction() as ctx:
        with pytest.raises(TransactionError, match=WHY):
            ctx.iterate("SELECT 1")


async def test_an_independent_write_that_cannot_be_is_refused_with_the_reason(
    lacking: Callable[[str], FakeDatabase],
) -> None:
    db = lacking("independent_writes")
    async with db.transaction():
        with pytest.raises(TransactionError, match=WHY):
            async with db.transaction(independent=True):
                pass
        async with db.transaction(independent=True, readonly=True) as reading:
            assert reading.readonly


def test_unsupported_is_false_and_the_rest_is_true() -> None:
    assert not unsupported(WHY)
    assert emulated("by other means")
    assert Capabilities().savepoints


@pytest.mark.parametrize(
    "declared", [MYSQL, MARIADB, PostgresDriver.capabilities, SQLiteDriver.capabilities]
)
def test_whatever_is_not_plainly_supported_has_a_reason(declared: Capabilities) -> None:
    for name in FEATURES:
        feature = getattr(declared, name)
        assert bool(feature.because) is (feature.support is not Support.SUPPORTED), name


def test_every_feature_is_described() -> None:
    names = {each.name for each in fields(Capabilities)}
    assert set(FEATURES) == names - {"isolation_levels"}


def test_the_table_in_the_documentation_is_what_the_backends_declare() -> None:
    declared = {
        "SQLite": SQLiteDriver.capabilities,
        "PostgreSQL": PostgresDriver.capabilities,
        "MySQL": MYSQL,
        "MariaDB": MARIADB,
    }
    expected = table(declared)
    assert expected in (TOP / "docs" / "transactions.md").read_text("utf-8"), (
        f"it needs:\n{expected}"
    )
