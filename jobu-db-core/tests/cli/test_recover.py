"""`jobu-db recover`: what atomic units left prepared, on real servers."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import urlsplit

import pytest

from jobu_db import get_connection, transactional
from jobu_db.plugins import database_class
from jobu_db.testing.proxy import TcpProxy

TABLE = "CREATE TABLE t (id INTEGER PRIMARY KEY)"


@pytest.fixture
async def left(bare: Any, postgres_url: str) -> AsyncIterator[Any]:
    """Leave one branch prepared: committed by its decider, on a connection that was cut."""
    lite = {"type": "sqlite", "path": str(bare.folder / "decider.db")}
    bare.configure(
        json.dumps({"databases": {"lite": lite, "main": {"type": "postgres", "url": postgres_url}}})
    )
    parts = urlsplit(postgres_url)
    login = parts.netloc.rpartition("@")[0]
    async with TcpProxy(parts.hostname or "", parts.port or 0) as proxy:
        url = parts._replace(netloc=f"{login}@{proxy.host}:{proxy.port}").geturl()
        async with (
            database_class("sqlite").create("lite", {"path": lite["path"]}) as one,
            database_class("postgres").create("main", {"url": url}) as two,
        ):
            for database in (one, two):
                await database.execute(TABLE)
            proxy.cut_at(b"COMMIT PREPARED", answered=False)
            async with transactional(one, two, atomic=True):
                await get_connection("lite").execute("INSERT INTO t VALUES (1)")
                await get_connection("main").execute("INSERT INTO t VALUES (1)")
    yield bare
    # Nothing may stay prepared, or the database could not be dropped.
    await asyncio.to_thread(bare, "recover", "--confirm", "lite")


def count(bare: Any) -> str:
    done = bare.inside("sql", "main", "SELECT count(*) AS n FROM t", "--format", "csv")
    return str(done.stdout.split()[-1])


async def test_it_ends_what_is_left(left: Any) -> None:
    def work() -> None:
        assert count(left) == "0"
        done = left("recover")
        assert done.returncode == 0, done.stderr
        assert "lite" in done.stdout
        assert "committed" in done.stdout
        assert "ok 1 ended; 1 finished units forgotten" in done.stdout
        assert count(left) == "1"
        again = left("recover")
        assert (again.returncode, again.stdout) == (0, "ok nothing was left prepared\n")

    await asyncio.to_thread(work)


async def test_without_its_decider_a_branch_is_shown_and_left_alone(left: Any) -> None:
    def work() -> None:
        done = left("recover", "main", "--json")
        assert done.returncode == 1
        told = json.loads(done.stdout)
        assert not told["complete"]
        (branch,) = told["branches"]
        assert (branch["database"], branch["fate"]) == ("main", "orphan")
        assert branch["age_seconds"] >= 0
        shown = left("recover", "main")
        assert shown.returncode == 1
        assert "orphan" in shown.stdout
        assert "is not among the databases" in shown.stderr

    await asyncio.to_thread(work)


async def test_a_moved_decider_is_confirmed(left: Any) -> None:
    def work() -> None:
        path = left.folder / "decider.db"
        shutil.copy(path, left.folder / "copy.db")
        path.unlink()
        (left.folder / "copy.db").rename(path)
        told = left("recover")
        if told.returncode == 0:  # the file system gave the copy the same inode
            return
        assert "copied, restored or moved" in told.stderr
        assert "--confirm" in told.stderr
        done = left("recover", "--confirm", "lite")
        assert done.returncode == 0, done.stderr
        assert count(left) == "1"

    await asyncio.to_thread(work)


async def test_wrong_input_is_told(left: Any) -> None:
    def work() -> None:
        for arguments, words in (
            (("--confirm", "nobody"), "'nobody' is not among the databases"),
            (("--confirm", "lite", "--renew", "lite"), "contradict each other"),
            (("nobody",), "nobody"),
        ):
            done = left("recover", *arguments)
            assert done.returncode == 2
            assert words in done.stderr
            assert "Traceback" not in done.stderr

    await asyncio.to_thread(work)


async def test_a_database_that_cannot_be_reached_is_told(left: Any) -> None:
    def work() -> None:
        config = json.loads((left.folder / "config" / "database.yaml").read_text())
        config["databases"]["gone"] = {"type": "postgres", "url": "postgresql://x@127.0.0.1:1/x"}
        left.configure(json.dumps(config))
        done = left("recover")
        assert done.returncode == 1
        assert "gone" in done.stderr
        assert "committed" in done.stdout  # the others are recovered all the same

    await asyncio.to_thread(work)
