"""The network is cut and falls silent under load; see `Load` for what is counted."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest

from jobu_db.testing.proxy import TcpProxy

pytestmark = pytest.mark.faults

POOL = {"max_size": 5, "timeout": 3.0, "cleanup_timeout": 1.0}


async def test_the_network_is_cut_again_and_again(
    open_db: Any, numbers_url: str, proxy: TcpProxy, proxied_url: str, make_load: Any
) -> None:
    db = await open_db(url=proxied_url, pool=POOL)
    chance = random.Random(7)
    load = make_load(db)
    async with load.running():
        for _ in range(40):
            match chance.randrange(4):
                case 0:
                    proxy.cut()
                case 1:
                    proxy.cut_at(b"COMMIT", answered=chance.random() < 0.5)
                case 2:
                    proxy.cut_at(b"INSERT", answered=chance.random() < 0.5)
                case 3:
                    proxy.stall()
                    await asyncio.sleep(0.1)
                    proxy.cut()
                    proxy.resume()
            await load.progress(20)
    assert load.unknown, "no fault fell into a COMMIT"
    await load.check(numbers_url)
    await load.whole_again()


async def test_the_network_falls_silent_in_commit(
    open_db: Any, numbers_url: str, proxy: TcpProxy, proxied_url: str, make_load: Any
) -> None:
    """The driver alone would wait for ever; what its callers get is their own timeout."""
    db = await open_db(url=proxied_url, pool=POOL | {"timeout": 1.0})
    load = make_load(db)
    async with load.running():
        for answered in (True, False):
            proxy.stall_at(b"COMMIT", answered=answered)
            await asyncio.wait_for(proxy.sprung(), 10)
            await asyncio.sleep(0.3)
            proxy.resume()
            await load.progress()
    await load.check(numbers_url)
    await load.whole_again()
