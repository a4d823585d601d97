"""Atomic units on a PostgreSQL that waits for a standby, when that wait is cut short.

What is committed or prepared is there then, but a failover would lose it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest
from waiting import eventually

from jobu_db import CommitOutcomeUnknownError, TransactionError
from jobu_db.recovery import Fate

from .atomic import HANG, agreed, prepared, recover, recovered, rows_of_units, unit
from .conftest import MYSQL, POSTGRES, SQLITE, World

pytestmark = pytest.mark.one_server


class Standby:
    """One that a server waits for, or not; it is never there.

    Args:
        local: A connection that does not wait for it.
        waiting: One that does.
    """

    def __init__(self, local: asyncpg.Connection, waiting: asyncpg.Connection) -> None:
        self._local = local
        self._waiting = waiting

    async def wanted(self, wanted: bool) -> None:
        name = "nobody" if wanted else ""
        await self._local.execute(f"ALTER SYSTEM SET synchronous_standby_names = '{name}'")
        await self._local.execute("SELECT pg_reload_conf()")
        while await self._is_wanted() != wanted:  # a process of the server's own has to hear of it
            pass

    async def _is_wanted(self) -> bool:
        commit = asyncio.create_task(
            self._waiting.execute("SELECT pg_logical_emit_message(true, '', '')")
        )
        while not commit.done():
            if await self._cancelled():
                await commit
                return True
        return False

    async def _cancelled(self) -> bool:
        return bool(
            await self._local.fetchval(
                "SELECT bool_or(pg_cancel_backend(pid)) FROM pg_stat_activity"
                " WHERE wait_event = 'SyncRep'"
            )
        )

    async def given_up(self) -> None:
        """Wait until somebody waits for it, and cancel that."""
        await eventually(self._cancelled)


@pytest.fixture
async def standby(world: World, start_postgres: Any) -> AsyncIterator[Standby]:
    server = await asyncio.to_thread(start_postgres, {})
    world.add(POSTGRES, server.url)
    local = await asyncpg.connect(server.url, server_settings={"synchronous_commit": "local"})
    waiting = await asyncpg.connect(server.url)
    yield Standby(local, waiting)
    await local.close()
    await waiting.close()


async def opened(world: World, *kinds: str) -> list[Any]:
    """Open them, and run a unit, so that everybody is known to be fit."""
    databases = await world.open_all(kinds)
    await unit(databases, 0)()
    return databases


async def test_a_decision_that_no_standby_has_is_unknown_and_waits(
    world: World, standby: Standby
) -> None:
    databases = await opened(world, POSTGRES, MYSQL)
    await standby.wanted(True)
    work = asyncio.create_task(unit(databases)())
    await standby.given_up()
    with pytest.raises(CommitOutcomeUnknownError):
        await asyncio.wait_for(work, HANG)
    (branch,) = await prepared(databases)
    told = await recover({one.name: one for one in databases})
    assert [(one.unit, one.fate) for one in told.found] == [(branch.unit, Fate.UNDECIDED)]
    assert "no standby has it" in told.found[0].why
    assert await prepared(databases) == [branch]
    await standby.wanted(False)
    await recovered(databases)
    assert await agreed(databases)
    assert await rows_of_units(databases[0]) == []


async def test_what_is_prepared_and_no_standby_has_is_not_committed(
    world: World, standby: Standby
) -> None:
    databases = await opened(world, SQLITE, POSTGRES)
    await standby.wanted(True)
    work = asyncio.create_task(unit(databases)())
    await standby.given_up()
    with pytest.raises(TransactionError, match="PREPARE TRANSACTION was cancelled"):
        await asyncio.wait_for(work, HANG)
    assert len(await prepared(databases)) == 1
    await standby.wanted(False)
    await recovered(databases)
    assert not await agreed(databases)


async def test_a_row_is_kept_while_no_standby_knows_that_the_branch_is_committed(
    world: World, standby: Standby
) -> None:
    """After a failover the branch would be there again, and nobody would know of its decision."""
    databases = await opened(world, SQLITE, POSTGRES)
    proxy = world.proxies[POSTGRES]
    proxy.stall_at(b"COMMIT PREPARED", answered=False)
    work = asyncio.create_task(unit(databases)())
    await proxy.sprung()
    await standby.wanted(True)
    proxy.resume()
    await standby.given_up()
    await asyncio.wait_for(work, HANG)
    assert await prepared(databases) == []
    assert len(await rows_of_units(databases[0])) == 1
    assert (await recover({one.name: one for one in databases})).forgotten == 0
    await standby.wanted(False)
    await recovered(databases)
    assert await agreed(databases)
    assert await rows_of_units(databases[0]) == []
