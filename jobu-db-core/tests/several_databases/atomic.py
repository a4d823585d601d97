"""What the tests of atomic units share: recovering, and comparing what was told with what is."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from time import monotonic
from typing import Any

from jobu_db import get_connection, recovery, transactional
from jobu_db.recovery import Recovery
from jobu_db.testing.conformance.backend import ids, insert
from jobu_db.transaction import decisions
from jobu_db.two_phase import UNITS, participant_of

HANG = 60.0
"""Seconds after which whatever is waited for does not come any more."""


def unit(databases: Sequence[Any], number: int = 1, **options: Any) -> Any:
    """Return an atomic unit that inserts a number everywhere."""

    @transactional(*databases, atomic=True, **options)
    async def work() -> None:
        for database in databases:
            await insert(get_connection(database.name), number)

    return work


async def recover(databases: Mapping[str, Any]) -> Recovery:
    """Recover, and leave out of what is told what other tests have on the same MySQL server."""
    told = await recovery.recover(databases)
    told.found = [one for one in told.found if one.why != recovery.ELSEWHERE]
    return told


async def recovered(databases: Sequence[Any]) -> Recovery:
    """Recover until nothing is left to do: servers take a while to notice lost connections."""
    deadline = monotonic() + HANG
    while True:
        told = await recover({database.name: database for database in databases})
        if told.complete and not await prepared(databases):
            return told
        assert monotonic() < deadline, told
        await asyncio.sleep(0.05)


async def prepared(databases: Sequence[Any]) -> list[Any]:
    """Return the branches that are prepared in these databases."""
    found = []
    for database in databases:
        two_phase = database.driver.two_phase
        if two_phase is not None:
            place = await decisions.place_of(database.pool)
            listed = await decisions.ask(database.pool, "SELECT", two_phase.prepared)
            here = participant_of(place.fingerprint)
            found += [one.branch for one in listed if one.branch.participant == here]
    return found


async def rows_of_units(database: Any) -> list[Any]:
    """Return what a database keeps of the units that it decided."""
    place = await decisions.place_of(database.pool)
    if await decisions.read_identity(database.pool, place) is None:
        return []
    return list(await database.fetch_all(f"SELECT unit, participants FROM {UNITS}"))


async def agreed(databases: Sequence[Any], number: int = 1) -> bool:
    """Say whether all have a number or none; fail if they disagree."""
    has = {database.name: number in await ids(database) for database in databases}
    assert len(set(has.values())) == 1, f"they disagree on {number}: {has}"
    return all(has.values())
