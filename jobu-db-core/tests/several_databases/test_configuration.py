"""One file for all three: opened side by side, all or none, and only those asked for."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest

from jobu_db import (
    ConnectionFailedError,
    DatabaseError,
    DatabaseNotFoundError,
    DatabaseRegistry,
    PoolClosedError,
    get_connection,
    get_db,
    load_config,
    transactional,
)
from jobu_db.testing.conformance.backend import TABLE, ids, insert

from .conftest import MYSQL, POSTGRES, SQLITE, Eventually, World

pytestmark = pytest.mark.one_server

EXAMPLE = Path(__file__).parents[3] / "config" / "database.yaml"
NAMES = {"default": SQLITE, "postgres_main": POSTGRES, "mysql_main": MYSQL}


@pytest.fixture
async def config(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The example file, but for where the servers of this test are."""
    monkeypatch.chdir(tmp_path)
    config = load_config(EXAMPLE)
    for name, kind in NAMES.items():
        if kind != SQLITE:
            parts = urlsplit((await world.settings(kind))["url"])
            config["databases"][name] |= {
                "host": parts.hostname,
                "port": parts.port,
                "database": parts.path[1:],
                "user": unquote(parts.username or ""),
                "password": unquote(parts.password or ""),
            }
    return config


async def test_the_example_works_as_written(config: dict[str, Any], tmp_path: Path) -> None:
    @transactional("default", "postgres_main", "mysql_main")
    async def work() -> None:
        for name in NAMES:
            await insert(get_connection(name), 1)

    async with DatabaseRegistry.lifespan(config):
        for name, kind in NAMES.items():
            assert get_db(name).db_type == kind
            await get_db(name).execute(TABLE)
        await work()
        assert [await ids(get_db(name)) for name in NAMES] == [[1]] * 3
        await assert_set_as_written()
    assert (tmp_path / "data" / "jobu.db").exists()
    assert DatabaseRegistry.get_all() == {}


async def assert_set_as_written() -> None:
    sqlite, postgres, mysql = (get_db(name) for name in NAMES)
    assert await sqlite.fetch_val("PRAGMA busy_timeout") == 5000
    assert await sqlite.fetch_val("PRAGMA journal_mode") == "wal"
    assert await postgres.fetch_val("SHOW statement_timeout") == "30s"
    assert await postgres.fetch_val("SHOW timezone") == "UTC"
    assert await mysql.fetch_val("SELECT @@character_set_client") == "utf8mb4"
    async with mysql.pool.connection() as lease:
        assert not lease.connection.get_autocommit()
    sizes = [(one.pool.config.min_size, one.pool.config.max_size) for one in (sqlite, postgres)]
    assert sizes == [(5, 5), (2, 10)]
    assert (mysql.pool.config.min_size, mysql.pool.config.max_size) == (2, 10)
    assert [one.pool.config.max_idle for one in (sqlite, postgres, mysql)] == [300.0] * 3
    assert sqlite.pool.config.timeout == 30.0


async def test_all_are_opened_at_the_same_time(
    config: dict[str, Any], world: World, tmp_path: Path, eventually: Eventually
) -> None:
    """Each server falls silent until the others have been asked, too: in turn, that takes for
    ever."""
    order = ["mysql_main", "postgres_main", "default"]
    for proxy in world.proxies.values():
        proxy.stall()
    opening = asyncio.create_task(DatabaseRegistry.init_from_config(config, order))
    for proxy in world.proxies.values():
        await eventually(lambda proxy=proxy: proxy.accepted > 0)
    await eventually((tmp_path / "data" / "jobu.db").exists)
    assert not opening.done()
    assert DatabaseRegistry.get_all() == {}
    for proxy in world.proxies.values():
        proxy.resume()
    await opening
    assert list(DatabaseRegistry.get_all()) == order
    await DatabaseRegistry.close_all()


async def test_only_those_asked_for_are_opened(config: dict[str, Any], world: World) -> None:
    await DatabaseRegistry.init_from_config(config, [])
    assert DatabaseRegistry.get_all() == {}
    await DatabaseRegistry.init_from_config(config, ["default"])
    assert list(DatabaseRegistry.get_all()) == ["default"]
    assert [proxy.accepted for proxy in world.proxies.values()] == [0, 0]
    with pytest.raises(DatabaseNotFoundError, match="registered: default"):
        get_db("mysql_main")
    await DatabaseRegistry.init_from_config(config, ("mysql_main",))
    assert list(DatabaseRegistry.get_all()) == ["default", "mysql_main"]
    assert world.proxies[POSTGRES].accepted == 0
    await DatabaseRegistry.close_all()


async def test_names_that_are_registered_are_skipped(config: dict[str, Any], world: World) -> None:
    await DatabaseRegistry.init_from_config(config, ["default", "postgres_main"])
    before = DatabaseRegistry.get_all()
    await world.proxies[POSTGRES].refuse()
    await DatabaseRegistry.init_from_config(config)
    after = DatabaseRegistry.get_all()
    assert list(after) == list(NAMES)
    assert {name: after[name] for name in before} == before
    await DatabaseRegistry.close_all()


@pytest.mark.parametrize("broken", [POSTGRES, MYSQL])
async def test_if_one_cannot_be_opened_none_stays_open(
    config: dict[str, Any], world: World, eventually: Eventually, broken: str
) -> None:
    await world.proxies[broken].refuse()
    with pytest.raises(ConnectionFailedError) as caught:
        await DatabaseRegistry.init_from_config(config)
    assert NAMES[caught.value.database or ""] == broken
    assert DatabaseRegistry.get_all() == {}
    for proxy in world.proxies.values():
        await eventually(lambda proxy=proxy: proxy.connections == 0)


async def test_those_that_were_open_before_stay_open(config: dict[str, Any], world: World) -> None:
    await DatabaseRegistry.init_from_config(config, ["default"])
    await world.proxies[MYSQL].refuse()
    with pytest.raises(ConnectionFailedError):
        await DatabaseRegistry.init_from_config(config)
    assert list(DatabaseRegistry.get_all()) == ["default"]
    await get_db().ping()
    await DatabaseRegistry.close_all()


async def test_an_opening_that_is_cancelled_leaves_none_open(
    config: dict[str, Any], world: World, eventually: Eventually
) -> None:
    world.proxies[MYSQL].stall()
    opening = asyncio.create_task(DatabaseRegistry.init_from_config(config))
    for proxy in world.proxies.values():
        await eventually(lambda proxy=proxy: proxy.accepted > 0)
    opening.cancel()
    with pytest.raises(asyncio.CancelledError):
        await opening
    world.proxies[MYSQL].resume()
    assert DatabaseRegistry.get_all() == {}
    for proxy in world.proxies.values():
        await eventually(lambda proxy=proxy: proxy.connections == 0)


async def test_a_name_registered_by_somebody_else_meanwhile_is_told(
    config: dict[str, Any], world: World, eventually: Eventually
) -> None:
    proxy = world.proxies[POSTGRES]
    proxy.stall()
    opening = asyncio.create_task(DatabaseRegistry.init_from_config(config, ["postgres_main"]))
    await eventually(lambda: proxy.accepted > 0)
    other = await world.open(SQLITE)
    DatabaseRegistry.register("postgres_main", other)
    proxy.resume()
    with pytest.raises(DatabaseError, match="postgres_main: registered concurrently"):
        await opening
    assert get_db("postgres_main") is other
    await eventually(lambda: proxy.connections == 0)


async def test_servers_that_are_starting_are_waited_for(
    config: dict[str, Any], world: World, eventually: Eventually
) -> None:
    for proxy in world.proxies.values():
        await proxy.refuse()
    with pytest.raises(ConnectionFailedError):
        await DatabaseRegistry.init_from_config(config)

    async def start() -> None:
        await asyncio.sleep(1)
        for proxy in world.proxies.values():
            await proxy.accept()

    starting = asyncio.create_task(start())
    async with DatabaseRegistry.lifespan(config, wait=120, close_timeout=5) as registry:
        for database in registry.get_all().values():
            await database.ping(timeout=60)
    await starting


async def test_a_server_that_does_not_come_is_not_waited_for_longer(
    config: dict[str, Any], world: World
) -> None:
    await world.proxies[MYSQL].refuse()
    with pytest.raises(ConnectionFailedError) as caught:
        await DatabaseRegistry.init_from_config(config, wait=0.5)
    assert caught.value.database == "mysql_main"
    assert DatabaseRegistry.get_all() == {}


async def test_names_given_as_one_text_are_refused(config: dict[str, Any]) -> None:
    """Its letters would be taken for names."""
    with pytest.raises(TypeError, match=r"a list of names, not a str: \['default'\]"):
        await DatabaseRegistry.init_from_config(config, "default")
    with pytest.raises(TypeError, match="not a str"):
        async with DatabaseRegistry.lifespan(config, "default"):
            pytest.fail("it was opened")


async def test_a_name_that_is_not_there_lists_those_that_are(config: dict[str, Any]) -> None:
    with pytest.raises(DatabaseNotFoundError, match="default, mysql_main, postgres_main") as caught:
        await DatabaseRegistry.init_from_config(config, ["default", "nowhere"])
    assert isinstance(caught.value, KeyError)
    assert "'nowhere'" in str(caught.value)
    assert DatabaseRegistry.get_all() == {}


async def test_a_taken_name_is_refused(world: World) -> None:
    one, two = await world.open(SQLITE), await world.open(POSTGRES)
    DatabaseRegistry.register("main", one)
    with pytest.raises(DatabaseError, match="'main' is taken"):
        DatabaseRegistry.register("main", two)
    assert get_db("main") is one


async def test_all_are_closed_whatever_happens(config: dict[str, Any]) -> None:
    opened: list[Any] = []
    with pytest.raises(KeyError):
        async with DatabaseRegistry.lifespan(config) as registry:
            opened += registry.get_all().values()
            raise KeyError
    assert DatabaseRegistry.get_all() == {}
    assert len(opened) == 3
    for database in opened:
        with pytest.raises(PoolClosedError):
            await database.ping()


async def test_closing_goes_on_when_one_server_is_silent(
    config: dict[str, Any], world: World, eventually: Eventually
) -> None:
    for settings in config["databases"].values():
        settings["pool"] |= {"cleanup_timeout": 0.5}
    await DatabaseRegistry.init_from_config(config)
    opened = DatabaseRegistry.get_all()
    for proxy in world.proxies.values():
        proxy.stall()
    async with asyncio.timeout(60):
        await DatabaseRegistry.close_all()
    for database in opened.values():
        assert database.stats()["size"] == 0
        with pytest.raises(PoolClosedError):
            await database.ping()
