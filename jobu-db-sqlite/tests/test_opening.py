"""Opening a database: what is set, and what goes wrong, told with the path and the fix."""

# ruff: noqa: ASYNC240 -- nothing else runs in the event loop meanwhile

from __future__ import annotations

import asyncio
import os
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from jobu_db import ConfigurationError, ConnectionFailedError, DatabaseError
from jobu_db.driver import READ_WRITE
from jobu_db_sqlite import SQLiteDatabase
from jobu_db_sqlite.driver import SQLiteDriver
from jobu_db_sqlite.errors import OpenError
from jobu_db_sqlite.settings import SQLiteOptions

if TYPE_CHECKING:
    from .conftest import Connect, OpenDatabase


@pytest.fixture
def path() -> Iterator[Path]:
    """Not in pytest's own folder: another run of pytest would close that to strangers."""
    with tempfile.TemporaryDirectory(prefix="jobu-db-") as folder:
        yield Path(folder, "jobu.db")


async def _option(driver: SQLiteDriver, connection: Any, name: str) -> Any:
    return await driver.fetch_val(connection, f"PRAGMA {name}", None)


async def test_the_defaults(driver: SQLiteDriver, connect: Connect) -> None:
    connection = await connect()
    assert await _option(driver, connection, "journal_mode") == "wal"
    assert await _option(driver, connection, "synchronous") == 2  # FULL: commits survive
    assert await _option(driver, connection, "foreign_keys") == 1
    assert await _option(driver, connection, "busy_timeout") == 5000
    assert connection.row_factory is sqlite3.Row
    assert connection.isolation_level is None


async def test_every_option_reaches_the_connection(driver: SQLiteDriver, connect: Connect) -> None:
    connection = await connect(
        journal_mode="truncate",
        synchronous="normal",
        foreign_keys=False,
        busy_timeout=1234,
        cache_size=-99,
    )
    assert await _option(driver, connection, "journal_mode") == "truncate"
    assert await _option(driver, connection, "synchronous") == 1
    assert await _option(driver, connection, "foreign_keys") == 0
    assert await _option(driver, connection, "busy_timeout") == 1234
    assert await _option(driver, connection, "cache_size") == -99


@pytest.mark.parametrize("mode", ["DELETE", "TRUNCATE", "PERSIST", "MEMORY", "OFF", "WAL"])
async def test_every_journal_mode(driver: SQLiteDriver, connect: Connect, mode: str) -> None:
    connection = await connect(journal_mode=mode)
    assert (await _option(driver, connection, "journal_mode")).upper() == mode
    await driver.begin(connection, READ_WRITE)
    await driver.execute(connection, "CREATE TABLE t (x)", None)
    await driver.commit(connection, reset=True)


async def test_a_journal_mode_that_others_stand_in_the_way_of(
    driver: SQLiteDriver, connect: Connect
) -> None:
    connection = await connect()
    await driver.execute(connection, "CREATE TABLE t (x)", None)
    with pytest.raises(OpenError, match="stayed locked for 20 ms"):
        await connect(journal_mode="DELETE", busy_timeout=20)
    assert await _option(driver, connection, "journal_mode") == "wal"


async def test_the_path_counts_from_where_the_program_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    db = await SQLiteDatabase.create("main", {"path": "deep/down/jobu.db"})
    monkeypatch.chdir(tmp_path / "elsewhere")
    async with db.pool.connection(), db.pool.connection() as second:
        await second.connection.execute("CREATE TABLE t (x)")
    await db.close()
    assert (tmp_path / "deep/down/jobu.db").stat().st_size > 0
    assert not (tmp_path / "elsewhere/deep").exists()


async def test_a_path_with_odd_characters(tmp_path: Path) -> None:
    path = tmp_path / "what? 100% #1 ünï'code.db"
    db = await SQLiteDatabase.create("main", {"path": str(path)})
    await db.close()
    assert path.exists()


# -- what goes wrong


async def _fails(path: Path, *, match: str, **options: Any) -> ConnectionFailedError:
    with pytest.raises(ConnectionFailedError, match=match) as caught:
        await SQLiteDatabase.create("main", {"path": str(path), "options": options})
    error = caught.value
    assert str(path) in str(error)
    assert error.database == "main"
    assert isinstance(error.__cause__, sqlite3.Error)
    return error


async def test_a_directory_in_place_of_the_file(tmp_path: Path) -> None:
    error = await _fails(tmp_path, match="is a directory: `path` must name a file in it")
    assert not error.transient
    assert error.code == "SQLITE_CANTOPEN"


async def test_a_directory_that_cannot_be_created(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    path = tmp_path / "file" / "sub" / "jobu.db"
    error = await _fails(path, match="its directory cannot be created .Not a directory")
    assert not error.transient


async def test_a_file_that_is_no_database(path: Path) -> None:
    path.write_text("This is a diary, and has been for years." * 100)
    error = await _fails(path, match="is not an SQLite database, or it is encrypted")
    assert (error.transient, error.code) == (False, "SQLITE_NOTADB")
    assert path.read_text().startswith("This is a diary")


def _damage(path: Path, offset: int) -> None:
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("CREATE TABLE t (x)")
    connection.executemany("INSERT INTO t VALUES (?)", [["x" * 1000]] * 100)
    connection.close()
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(b"\xff" * 1000)


async def test_a_file_with_a_damaged_schema(path: Path) -> None:
    _damage(path, 100)  # right behind the file's header
    error = await _fails(path, match="is damaged .*: restore a backup")
    assert (error.transient, error.code) == (False, "SQLITE_CORRUPT")


async def test_a_file_with_a_damaged_page(open_db: OpenDatabase, path: Path) -> None:
    _damage(path, 4096)
    db = await open_db()
    with pytest.raises(DatabaseError) as caught:
        await db.fetch_val("SELECT count(*) FROM t")
    assert caught.value.code == "SQLITE_CORRUPT"
    assert await db.fetch_val("SELECT 1") == 1


async def test_a_file_that_stays_locked(path: Path, outside: sqlite3.Connection) -> None:
    outside.execute("CREATE TABLE t (x)")
    outside.execute("BEGIN EXCLUSIVE")
    error = await _fails(path, match="stayed locked for 50 ms", busy_timeout=50)
    assert (error.transient, error.code) == (True, "SQLITE_BUSY")


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="nothing tells what is open")
async def test_nothing_stays_open_after_a_failure(path: Path) -> None:
    path.write_text("no database " * 100)
    await _fails(path, match="is not an SQLite database")
    assert _descriptors(path) == []
    with sqlite3.connect(path.with_name("other.db")) as connection:
        connection.execute("PRAGMA user_version").fetchone()
        assert _descriptors(path.with_name("other.db")) != []  # else nothing would have been seen
    connection.close()


def _descriptors(path: Path) -> list[str]:
    """Return what this process has open of a database: the file, its log, its index."""
    found = []
    for descriptor in Path("/proc/self/fd").iterdir():
        with suppress(FileNotFoundError):  # the one for the folder itself is closed by now
            found.append(os.readlink(descriptor))
    return [target for target in found if target.startswith(str(path))]


_AS_NOBODY = """
import asyncio, os, sys
from jobu_db_sqlite import SQLiteDatabase
if os.geteuid() == 0:
    os.setgid(65534)
    os.setuid(65534)
async def main():
    try:
        db = await SQLiteDatabase.create("main", {"path": sys.argv[1]})
        print(await db.fetch_val("SELECT count(*) FROM t"))
        await db.execute("INSERT INTO t VALUES (1)")
        print("written")
    except Exception as error:
        print(type(error).__name__, error)
asyncio.run(main())
"""


def _as_nobody(path: Path) -> str:
    """Use the database as somebody whom permissions apply to."""
    for folder in path.parents:
        if folder.stat().st_uid == os.geteuid():
            folder.chmod(folder.stat().st_mode | 0o055)
    command = [sys.executable, "-c", _AS_NOBODY, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert not done.stderr
    return done.stdout


@pytest.fixture
def written(outside: sqlite3.Connection) -> None:
    outside.execute("CREATE TABLE t (x)")
    outside.close()


@pytest.mark.usefixtures("written")
def test_a_file_that_cannot_be_read(path: Path) -> None:
    path.chmod(0)
    assert "is not readable: change its permissions" in _as_nobody(path)


@pytest.mark.usefixtures("written")
def test_a_file_that_cannot_be_written_to_switch_its_mode(path: Path) -> None:
    path.chmod(0o444)
    assert "is read-only, and journal mode WAL has to write" in _as_nobody(path)


def test_a_file_that_cannot_be_written_can_be_read(path: Path, outside: sqlite3.Connection) -> None:
    outside.execute("PRAGMA journal_mode = WAL")
    outside.execute("CREATE TABLE t (x)")  # and stay: the log is in use
    for file in path.parent.iterdir():
        file.chmod(0o444 if file == path else 0o666)
    told = _as_nobody(path).splitlines()
    assert told[0] == "0"
    assert told[1].startswith("QueryExecutionError main: the database file is read-only")


def test_a_directory_that_cannot_be_written(path: Path) -> None:
    folder = path.parent / "locked"
    folder.mkdir(mode=0o555)
    assert "its directory is not writable" in _as_nobody(folder / "jobu.db")


# -- full disks and the like, while running


async def test_a_full_disk_undoes_everything_and_says_so(open_db: OpenDatabase) -> None:
    db = await open_db(pool={"max_size": 1})
    await db.execute("CREATE TABLE t (x)")

    async def fill() -> None:
        async with db.transaction() as ctx:
            await ctx.execute("PRAGMA max_page_count = 20")
            await ctx.executemany("INSERT INTO t VALUES (?)", [["x" * 4000]] * 100)

    with pytest.raises(DatabaseError) as caught:
        await fill()
    assert caught.value.code == "SQLITE_FULL"
    assert await db.fetch_val("SELECT count(*) FROM t") == 0
    await db.execute("INSERT INTO t VALUES (1)")


async def test_a_file_that_was_replaced_is_noticed_by_a_ping(
    open_db: OpenDatabase, path: Path
) -> None:
    db = await open_db(pool={"max_size": 1, "check_after": 0.01})
    await db.execute("CREATE TABLE old (x)")
    await db.ping()
    for file in path.parent.iterdir():
        file.unlink()
    with pytest.raises(DatabaseError, match="was deleted or replaced"):
        await db.ping()
    await asyncio.sleep(0.05)
    await db.execute("CREATE TABLE new (x)")  # on a new connection: to the file at the path
    assert await db.fetch_val("SELECT name FROM sqlite_schema") == "new"
    assert path.exists()


# -- settings


@pytest.mark.parametrize(
    ("config", "problem"),
    [
        ({}, "databases.main.path: is required"),
        ({"path": ""}, "databases.main.path: must be a path"),
        ({"path": "x", "options": {"journal_mode": "fast"}}, "must be WAL, DELETE"),
        ({"path": "x", "options": {"synchronous": 3}}, "must be OFF, NORMAL, FULL or EXTRA"),
        ({"path": "x", "options": {"busy_timout": 1}}, "did you mean busy_timeout?"),
        ({"path": "x", "options": {"statement_timeout": -1}}, "from 0 to"),
        ({"path": "x", "options": {"cache_size": "1; DROP TABLE t"}}, "must be a whole number"),
        ({"path": "x", "pool": {"pool_size": 3, "max_size": 4}}, "sets the same as"),
        ({"path": "x", "pool": {"pool_size": 0}}, "pool_size"),
        ({"path": "x", "host": "localhost"}, "databases.main.host: unknown key"),
    ],
)
async def test_wrong_settings(config: dict[str, Any], problem: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        await SQLiteDatabase.create("main", config)
    assert problem in str(caught.value)


async def test_the_settings_of_the_contract() -> None:
    settings = SQLiteDatabase.settings_class.parse(
        "default",
        {
            "type": "sqlite",
            "path": "data/jobu.db",
            "pool": {"pool_size": 5, "pool_timeout": 30.0, "max_idle_time": 300.0},
            "options": {"busy_timeout": 5000, "journal_mode": "WAL"},
        },
    )
    assert (settings.pool.min_size, settings.pool.max_size) == (5, 5)
    assert (settings.pool.timeout, settings.pool.max_idle) == (30.0, 300.0)
    assert settings.options == SQLiteOptions()
    default = SQLiteDatabase.settings_class.parse("x", {"type": "sqlite", "path": "x"})
    assert (default.pool.min_size, default.pool.max_size) == (0, 5)


async def test_closing_while_connections_are_being_opened_leaves_no_log_behind(
    tmp_path: Path,
) -> None:
    for number in range(50):
        path = tmp_path / f"{number}.db"
        db = await SQLiteDatabase.create("main", {"path": path, "pool": {"pool_size": 3}})
        await db.execute("CREATE TABLE t (x)")
        await db.close()
        assert not path.with_name(f"{number}.db-wal").exists()


async def test_a_database_in_memory_is_not_drained(open_db: Any) -> None:
    """It is gone with its connection."""
    db = await open_db(path=":memory:")
    await db.execute("CREATE TABLE t (a)")
    db.pool.drain()
    assert await db.fetch_all("SELECT * FROM t") == []
