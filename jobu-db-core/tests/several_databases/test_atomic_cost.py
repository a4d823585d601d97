"""What an atomic unit costs beside a plain one, in round trips, those of resets included."""

from __future__ import annotations

from typing import Any

import pytest

from jobu_db import get_connection, transactional
from jobu_db.testing.conformance.backend import insert

from .conftest import MYSQL, POSTGRES, SQLITE, Eventually, World


@pytest.mark.parametrize(
    "order", [(POSTGRES, MYSQL), (MYSQL, POSTGRES), (SQLITE, POSTGRES)], ids="-".join
)
async def test_round_trips_more_for_each_but_the_first_and_one_in_the_end(
    world: World, order: tuple[str, ...], eventually: Eventually
) -> None:
    databases = await world.open_all(order, pool={"max_size": 1})
    numbers = iter(range(100))

    async def measure(atomic: bool) -> dict[str, int]:
        before = {kind: proxy.round_trips for kind, proxy in world.proxies.items()}
        number = next(numbers)
        async with transactional(*databases, atomic=atomic):
            for database in databases:
                await insert(get_connection(database.name), number)
        await eventually(lambda: all(at_rest(one) for one in databases))
        return {kind: proxy.round_trips - before[kind] for kind, proxy in world.proxies.items()}

    for atomic in (False, True):
        await measure(atomic)  # the first one learns who is who, and prepares statements
    plain, atomic_unit = await measure(atomic=False), await measure(atomic=True)
    more = {kind: atomic_unit[kind] - plain[kind] for kind in plain}
    for kind in order[1:]:
        assert more[kind] == 1, (plain, atomic_unit)
    if order[0] != SQLITE:  # the DELETE, and the reset behind it
        assert more[order[0]] <= 2, (plain, atomic_unit)


def at_rest(database: Any) -> bool:
    """Say whether every connection is idle: nothing is reset any more."""
    stats = database.stats()
    return bool(stats["idle"] == stats["size"] == 1)
