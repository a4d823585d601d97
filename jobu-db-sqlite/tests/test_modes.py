"""Opening a file to read only, by URI, by URL, and where a program crashed."""

# ruff: noqa: ASYNC240 -- nothing else runs in the event loop meanwhile

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from jobu_db import (
    ConfigurationError,
    ConnectionFailedError,
    ReadOnlyTransactionError,
)
from jobu_db_sqlite import SQLiteDatabase
from jobu_db_sqlite.settings import SQLiteSettings


@pytest.fixture
def path() -> Iterator[Path]:
    """Not in pytest's own folder, which is closed to others."""
    with tempfile.TemporaryDirectory(prefix="jobu-db-") as folder:
        yield Path(folder, "jobu.db")


@pytest.fixture
def written(path: Path) -> Path:
    with closing(sqlite3.connect(path)) as outside:
        outside.execute("CREATE TABLE t (x)")
        outside.execute("INSERT INTO t VALUES (1)")
        outside.commit()
    return path


async def _read(config: dict[str, Any]) -> Any:
    db = await SQLiteDatabase.create("main", config)
    try:
        return await db.fetch_val("SELECT count(*) FROM t")
    finally:
        await db.close()


@pytest.mark.parametrize("mode", ["ro", "immutable"])
async def test_reading_only(written: Path, mode: str) -> None:
    before = written.read_bytes()
    db = await SQLiteDatabase.create("main", {"path": str(written), "mode": mode})
    assert await db.fetch_val("SELECT x FROM t") == 1
    for sql in ("INSERT INTO t VALUES (2)", "CREATE TABLE u (x)", "PRAGMA user_version = 7"):
        with pytest.raises(ReadOnlyTransactionError):
            await db.execute(sql)
        with pytest.raises(ReadOnlyTransactionError):
            await db.fetch_val(sql)
        with pytest.raises(ReadOnlyTransactionError):
            async with db.transaction() as ctx:
                assert await ctx.fetch_val("SELECT x FROM t") == 1
                await ctx.execute(sql)
    async with db.transaction(readonly=True) as ctx:
        assert await ctx.fetch_val("SELECT x FROM t") == 1
    await db.close()
    assert written.read_bytes() == before
    assert os.listdir(written.parent) == [written.name]


async def test_readers_see_what_another_program_writes(written: Path) -> None:
    with closing(sqlite3.connect(written, isolation_level=None)) as outside:
        outside.execute("PRAGMA journal_mode = WAL")
        db = await SQLiteDatabase.create("main", {"path": str(written), "mode": "ro"})
        outside.execute("INSERT INTO t VALUES (2)")
        assert await db.fetch_val("SELECT count(*) FROM t") == 2
        await db.close()


@pytest.mark.parametrize("mode", ["rw", "ro", "immutable"])
async def test_a_missing_file_is_not_created(path: Path, mode: str) -> None:
    for missing in (path, path.parent / "deep" / "jobu.db"):
        with pytest.raises(ConnectionFailedError, match=f"does not exist: .*is {mode}") as caught:
            await SQLiteDatabase.create("main", {"path": str(missing), "mode": mode})
        assert not caught.value.transient
    assert os.listdir(path.parent) == []


# -- what a program left that crashed

_CRASH = """
import os, sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("PRAGMA journal_mode = WAL")
connection.execute("CREATE TABLE t (x)")
connection.execute("INSERT INTO t VALUES (1)")
connection.execute("BEGIN")
connection.execute("INSERT INTO t VALUES (2)")
os._exit(1)
"""

_AS_NOBODY = """
import asyncio, os, sys
from jobu_db_sqlite import SQLiteDatabase
if os.geteuid() == 0:
    os.setgid(65534)
    os.setuid(65534)
async def main():
    try:
        db = await SQLiteDatabase.create("main", {"path": sys.argv[1], "mode": sys.argv[2]})
        print([row["x"] for row in await db.fetch_all("SELECT x FROM t")])
        await db.close()
    except Exception as error:
        print(type(error).__name__, error)
asyncio.run(main())
"""


@pytest.fixture
def crashed(path: Path) -> Path:
    """A database of which everything is in the log."""
    subprocess.run([sys.executable, "-c", _CRASH, str(path)], check=False, timeout=60)
    assert path.with_name("jobu.db-wal").stat().st_size > 0
    return path


def _as_nobody(path: Path, mode: str) -> str:
    """Open it as somebody who may read the files and write nothing."""
    path.parent.chmod(0o555)
    for file in path.parent.iterdir():
        file.chmod(0o444)
    command = [sys.executable, "-c", _AS_NOBODY, str(path), mode]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    path.parent.chmod(0o755)
    assert not done.stderr
    return done.stdout.strip()


async def test_a_log_that_a_crash_left(crashed: Path) -> None:
    assert await _read({"path": str(crashed), "mode": "ro"}) == 1


async def test_a_log_without_its_index(crashed: Path) -> None:
    crashed.with_name("jobu.db-shm").unlink()
    assert await _read({"path": str(crashed), "mode": "ro"}) == 1


def test_a_log_that_may_only_be_read(crashed: Path) -> None:
    assert _as_nobody(crashed, "ro") == "[1]"


def test_a_log_without_its_index_where_nothing_may_be_created(crashed: Path) -> None:
    crashed.with_name("jobu.db-shm").unlink()
    told = _as_nobody(crashed, "ro")
    assert "its log jobu.db-wal holds what a program committed that crashed" in told
    assert "make the directory writable" in told


def test_a_log_is_never_ignored(crashed: Path) -> None:
    told = _as_nobody(crashed, "immutable")
    assert "`mode: immutable` would ignore it: open it with `mode: ro`" in told


def test_a_file_on_a_disk_that_may_only_be_read(crashed: Path) -> None:
    with closing(sqlite3.connect(crashed)) as outside:
        outside.execute("SELECT * FROM t").fetchall()  # takes the log away
    assert os.listdir(crashed.parent) == [crashed.name]
    told = _as_nobody(crashed, "ro")
    assert "its journal mode is WAL, and its directory is not writable" in told
    assert _as_nobody(crashed, "immutable") == "[1]"


# -- paths, URIs and URLs


async def test_a_home_directory(written: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(written.parent))
    for config in (
        {"path": "~/jobu.db"},
        {"path": Path("~/jobu.db")},
        {"path": "file:~/jobu.db?mode=ro"},
        {"url": "sqlite:///~/jobu.db"},
    ):
        assert await _read(config) == 1
    assert os.listdir(written.parent) == [written.name]


async def test_a_uri_of_a_path_with_odd_characters(path: Path) -> None:
    odd = path.with_name("what? 100% #1 ünï'code.db")
    with closing(sqlite3.connect(odd)) as outside:
        outside.execute("CREATE TABLE t (x)")
    assert await _read({"path": str(odd), "mode": "ro"}) == 0
    assert await _read({"path": odd.as_uri() + "?mode=ro"}) == 0


@pytest.mark.parametrize(
    ("config", "path", "mode"),
    [
        ({"path": "file:x.db"}, "x.db", "rwc"),
        ({"path": "file:x.db?mode=ro"}, "x.db", "ro"),
        ({"path": "file:x.db?mode=rw&cache=private"}, "x.db", "rw"),
        ({"path": "file:/a/b%20c.db?immutable=1"}, "/a/b c.db", "immutable"),
        ({"path": "file:///a/x.db?mode=rwc#part"}, "/a/x.db", "rwc"),
        ({"path": "file://localhost/a/x.db"}, "/a/x.db", "rwc"),
        ({"path": "file::memory:"}, ":memory:", "rwc"),
        ({"path": "file:x?mode=memory"}, ":memory:", "rwc"),
        ({"url": "sqlite:///x.db"}, "x.db", "rwc"),
        ({"url": "sqlite:////a/x.db?mode=ro"}, "/a/x.db", "ro"),
        ({"url": "sqlite+aiosqlite:///a/x%3f.db"}, "a/x?.db", "rwc"),
        ({"url": "sqlite://"}, ":memory:", "rwc"),
        ({"url": "sqlite:///:memory:"}, ":memory:", "rwc"),
        ({"url": "file:///a/x.db?mode=ro"}, "/a/x.db", "ro"),
        ({"path": "x.db", "mode": "ro"}, "x.db", "ro"),
    ],
)
def test_where_it_is(config: dict[str, Any], path: str, mode: str) -> None:
    settings = SQLiteSettings.parse("main", config)
    assert (str(settings.path), settings.mode) == (path, mode)


@pytest.mark.parametrize(
    ("config", "problem"),
    [
        ({}, "main.path: is required"),
        ({"url": "sqlite:///x.db", "path": "y.db"}, "main.url: sets the same as path"),
        ({"path": "file:x.db?mode=ro", "mode": "rw"}, "main.path: sets the same as mode"),
        ({"url": "sqlite://x.db"}, "main.url: must have three slashes"),
        ({"url": "sqlite:x.db"}, "main.url: must have three slashes"),
        ({"url": "postgres:///x.db"}, "main.url: must begin with sqlite:// or file:"),
        ({"url": "x.db"}, "main.url: must begin with sqlite:// or file:"),
        ({"path": "file://server/x.db"}, "main.path: must be file:PATH or file:///PATH"),
        ({"path": "file:x.db?mode=read"}, "main.path: must have a mode of ro, rw, rwc or memory"),
        ({"path": "file:x.db?cache=shared"}, "main.path: asks for a shared cache"),
        ({"path": "file:x.db?nolock=1"}, "main.path: has an unknown parameter; allowed: mode"),
        ({"path": "file:x.db?mod=ro"}, "main.path: has an unknown parameter; did you mean mode?"),
        ({"path": "file:x.db?mode=ro&mode=rw"}, "main.path: gives its mode twice"),
        ({"path": "file:?mode=ro"}, "main.path: must name a file"),
        ({"path": "file:100%.db"}, "main.path: has a % without two hexadecimal digits"),
        ({"path": "x.db", "mode": "readonly"}, "main.mode: must be rwc, rw, ro or immutable"),
        ({"path": "x.db", "mode": "ro", "init_sql": True}, "main.mode: must be rwc or rw"),
        ({"path": ":memory:", "mode": "ro"}, "main.mode: must be rwc in memory"),
        ({"path": "~nobody-of-that-name/x.db"}, "main.path: has a ~ whose home directory"),
    ],
)
def test_wrong_ones(config: dict[str, Any], problem: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        SQLiteSettings.parse("main", config)
    assert problem in str(caught.value)
    assert len(caught.value.problems) == 1
