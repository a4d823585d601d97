"""What SQLite accepts and ignores, or what another connection would not see, is refused."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from jobu_db import DatabaseError, ProgrammingError
from jobu_db_sqlite import SQLiteDatabase

if TYPE_CHECKING:
    from .conftest import OpenDatabase

REBUILD = (
    "CREATE TABLE new (id INTEGER PRIMARY KEY, extra TEXT)",
    "INSERT INTO new (id) SELECT id FROM parent",
    "DROP TABLE parent",
    "ALTER TABLE new RENAME TO parent",
)


@pytest.fixture
async def family(db: SQLiteDatabase) -> SQLiteDatabase:
    """One parent, and two children that are deleted with it."""
    await db.execute("CREATE TABLE parent (id INTEGER PRIMARY KEY)")
    await db.execute("CREATE TABLE child (id INT, p INT REFERENCES parent ON DELETE CASCADE)")
    await db.execute("INSERT INTO parent VALUES (1)")
    await db.execute("INSERT INTO child VALUES (1, 1), (2, 1)")
    return db


async def _inside(db: SQLiteDatabase) -> None:
    async with db.transaction() as ctx:
        await ctx.execute("PRAGMA foreign_keys = OFF")
        for sql in REBUILD:
            await ctx.execute(sql)


async def _outside(db: SQLiteDatabase) -> None:
    await db.execute("PRAGMA foreign_keys = OFF")
    async with db.transaction() as ctx:
        for sql in REBUILD:
            await ctx.execute(sql)


async def _raw(db: SQLiteDatabase) -> None:
    async with db.transaction() as ctx:
        await ctx.connection.execute("PRAGMA foreign_keys = OFF")
        for sql in REBUILD:
            await ctx.connection.execute(sql)


async def _script(db: SQLiteDatabase) -> None:
    script = ";".join(("PRAGMA foreign_keys = OFF", *REBUILD, "PRAGMA foreign_keys = ON"))
    async with db.transaction() as ctx:
        await ctx.connection.executescript(script)


async def _own_begin(db: SQLiteDatabase) -> None:
    async with db.pool.connection() as lease:
        await lease.connection.executescript(
            ";".join(("BEGIN", "PRAGMA foreign_keys = OFF", *REBUILD, "COMMIT"))
        )


async def _deferring(db: SQLiteDatabase) -> None:
    async with db.transaction() as ctx:
        await ctx.execute("PRAGMA defer_foreign_keys = ON")
        for sql in REBUILD:
            await ctx.execute(sql)


async def _deferring_in_a_script(db: SQLiteDatabase) -> None:
    async with db.transaction() as ctx:
        script = ";".join(("PRAGMA defer_foreign_keys = ON", *REBUILD))
        await ctx.connection.executescript(script)


@pytest.mark.parametrize("how", [_deferring, _deferring_in_a_script])
async def test_deferring_does_not_hold_up_what_on_delete_does(
    family: SQLiteDatabase, how: Any
) -> None:
    with pytest.raises((ProgrammingError, sqlite3.OperationalError), match="not what ON DELETE"):
        await how(family)
    assert await family.fetch_val("SELECT count(*) FROM child") == 2
    await family.execute("DELETE FROM child")
    await how(family)  # nobody refers to it
    assert await family.fetch_val("SELECT extra FROM parent") is None
    await family.execute("DROP TABLE parent")  # without deferring, it is what was asked for


@pytest.mark.parametrize("how", [_inside, _outside, _raw, _script, _own_begin])
async def test_rebuilding_a_parent_table_loses_no_children(
    family: SQLiteDatabase, how: Any
) -> None:
    with pytest.raises((ProgrammingError, sqlite3.OperationalError), match="PRAGMA foreign_keys"):
        await how(family)
    assert await family.fetch_val("SELECT count(*) FROM child") == 2
    assert await family.fetch_val("PRAGMA foreign_keys") == 1


async def test_rebuilding_it_on_a_connection_of_the_pool(family: SQLiteDatabase) -> None:
    async with family.pool.connection() as lease:
        raw = lease.connection
        for state in ("OFF", "ON", "OFF"):  # the third is in Python's cache of statements
            await raw.execute(f"PRAGMA foreign_keys = {state}")
        for sql in ("BEGIN IMMEDIATE", *REBUILD, "PRAGMA foreign_key_check", "COMMIT"):
            await raw.execute_fetchall(sql)
    assert await family.fetch_val("SELECT count(*) FROM child") == 2
    assert await family.fetch_val("PRAGMA foreign_keys") == 1


@pytest.mark.parametrize(
    "sql",
    [
        "PRAGMA foreign_keys = OFF",
        "PRAGMA foreign_keys(0)",
        "pragma main . FOREIGN_KEYS = no",
        "PRAGMA page_size = 8192",
        "PRAGMA auto_vacuum = FULL",
        "PRAGMA encoding = 'UTF-16'",
        "PRAGMA foriegn_keys = OFF",
        "PRAGMA tabel_info(t)",
    ],
)
@pytest.mark.parametrize("readonly", [False, True])
async def test_inside_a_transaction(db: SQLiteDatabase, sql: str, readonly: bool) -> None:
    async with db.transaction(readonly=readonly) as ctx:
        for statement in (ctx.execute, ctx.fetch_all, ctx.fetch_val):
            with pytest.raises(ProgrammingError, match=r"ignores? (it|PRAGMA)"):
                await statement(sql)
        with pytest.raises(sqlite3.OperationalError, match=r"ignores? (it|PRAGMA)"):
            await ctx.connection.execute(sql)
        assert await ctx.fetch_val("SELECT 1") == 1  # it dooms nothing


@pytest.mark.parametrize(
    ("sql", "fix"),
    [
        ("PRAGMA foreign_keys = OFF", "`options.foreign_keys`"),
        ("PRAGMA synchronous = OFF", "`options.synchronous`"),
        ("PRAGMA cache_size = 7", "`options.cache_size`"),
        ("PRAGMA journal_mode = DELETE", "`options.journal_mode`"),
        ("PRAGMA busy_timeout = 7", "`options.busy_timeout`"),
        ("PRAGMA recursive_triggers = ON", r"transaction\(\), .* `on_connect`"),
        ("PRAGMA defer_foreign_keys = ON", r"transaction\(\)"),
        ("PRAGMA page_size = 8192", "VACUUM on the same connection"),
        ("ATTACH ':memory:' AS other", r"transaction\(\)"),
        ("CREATE TEMP TABLE x (y)", r"transaction\(\)"),
        ("CREATE TABLE temp.x (y)", r"transaction\(\)"),
    ],
)
async def test_outside_a_transaction(db: SQLiteDatabase, sql: str, fix: str) -> None:
    """Its connection goes back to the pool, where what was set is undone."""
    for statement in (db.execute, db.fetch_all, db.fetch_val):
        with pytest.raises(ProgrammingError, match=f"would have no effect.*{fix}"):
            await statement(sql)
    attached = sql.startswith("ATTACH")  # which is told from VACUUM only when it is done
    assert db.stats()["closed"] == ({"not clean": 3} if attached else {})


@pytest.mark.parametrize(
    "sql",
    [
        "PRAGMA user_version = 3",
        "PRAGMA wal_checkpoint(TRUNCATE)",
        "PRAGMA optimize",
        "PRAGMA integrity_check(5)",
        "PRAGMA table_info(t)",
        "PRAGMA schema_version = 77",
        "PRAGMA foreign_keys",
        "SELECT * FROM pragma_table_info('t')",
        "VACUUM",
    ],
)
async def test_what_has_an_effect_outside_a_transaction(db: SQLiteDatabase, sql: str) -> None:
    await db.execute(sql)
    await db.fetch_all(sql)


@pytest.mark.parametrize(
    "sql", ["PRAGMA cache_size = 7", "PRAGMA recursive_triggers = ON", "PRAGMA foreign_keys = ON"]
)
async def test_what_has_an_effect_inside_a_transaction(db: SQLiteDatabase, sql: str) -> None:
    async with db.transaction() as ctx:
        await ctx.execute(sql)
        await ctx.execute("INSERT INTO t VALUES (1, 'a')")


async def test_vacuum_into_another_file(db: SQLiteDatabase, tmp_path: Path) -> None:
    await db.execute("VACUUM INTO ?", [str(tmp_path / "copy.db")])
    assert (tmp_path / "copy.db").stat().st_size > 0


async def test_on_connect_may_set_what_an_extension_knows(open_db: OpenDatabase) -> None:
    async def on_connect(connection: Any) -> None:
        await connection.execute("PRAGMA of_an_extension = 1")
        await connection.execute("PRAGMA foreign_keys = OFF")

    db = await open_db(pool={"max_size": 1, "on_connect": on_connect})
    assert await db.fetch_val("PRAGMA foreign_keys") == 0
    async with db.transaction() as ctx:
        await ctx.execute("PRAGMA foreign_keys = OFF")
        with pytest.raises(DatabaseError, match="SQLite ignores PRAGMA foreign_keys"):
            await ctx.execute("PRAGMA foreign_keys = ON")
