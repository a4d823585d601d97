"""Ends what atomic units left prepared when a program, a server or the network stopped.

Any process may do so at any time, also while units run: nothing here looks at a clock. For every
prepared branch, the database that decides is asked (`transaction.decisions.decide`), which at the
same time makes sure that a unit that is not decided never will be. Branches of deciders that are
not among the databases, or are not what they were, are told and left alone.

Rows of units that are committed are deleted once no participant holds a branch of them, asked
after the row was read.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from contextvars import Context
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from jobu_db.database import BaseDatabase
from jobu_db.errors import DatabaseError, LockTimeoutError
from jobu_db.logs import logger_of
from jobu_db.pool.two_phase_notes import Identity
from jobu_db.transaction import decisions
from jobu_db.transaction.decisions import Pool, ask
from jobu_db.two_phase import Branch, End, Place, Prepared, TwoPhase, participant_of

logger = logging.getLogger("jobu_db")

_LOOKS = 5
_PAUSE = 0.1
"""Looks, and seconds between two of them, at a branch that another session seems to be ending.

Half a second is long for that: it is one write to disk, or to a standby. A branch that is still
there is attached to a session, which may keep it for hours, and the next round looks again. Longer
waits would add up, since branches are ended one after the other.
"""


class Fate(Enum):
    """What became of a prepared branch in one round.

    Attributes:
        COMMITTED, ROLLED_BACK: It has ended so.
        UNDECIDED: Its decider's transaction is still open, or not safe yet, or could not be asked.
        HELD: It is decided, but attached to a session that is alive, or could not be ended.
        ORPHAN: Its decider is not among the databases, or is not what it was.
    """

    COMMITTED = "committed"
    ROLLED_BACK = "rolled back"
    UNDECIDED = "undecided"
    HELD = "held"
    ORPHAN = "orphan"


ELSEWHERE = "it was prepared by another database, or before this one was copied or failed over"
"""Why a branch is left alone that MySQL, where all databases of a server share one list, shows."""


@dataclass(frozen=True, slots=True)
class Found:
    """One prepared branch.

    Attributes:
        database: Where it is.
        unit: Of which atomic unit.
        decider: Name of the database that decides, else its identity.
        fate: What became of it.
        age: Seconds since it was prepared, or seen first by this process.
        why: What stands in the way, or "".
    """

    database: str
    unit: str
    decider: str
    fate: Fate
    age: float
    why: str = ""


@dataclass(slots=True)
class Recovery:
    """What one round found.

    Attributes:
        found: The branches.
        forgotten: How many rows of finished units were deleted.
        mismatches: Why a database that decides is not what it was, by name.
        errors: What kept a database from being asked, by name.
    """

    found: list[Found] = field(default_factory=list)
    forgotten: int = 0
    mismatches: dict[str, str] = field(default_factory=dict)
    errors: dict[str, DatabaseError] = field(default_factory=dict)

    @property
    def complete(self) -> bool:
        """True if nothing is left that is prepared, as far as could be seen."""
        ended = (Fate.COMMITTED, Fate.ROLLED_BACK)
        left = any(one.fate not in ended for one in self.found)
        return not (left or self.mismatches or self.errors)


async def recover(databases: Mapping[str, BaseDatabase]) -> Recovery:
    """End the prepared branches in some databases, once.

    Args:
        databases: By name: those that prepare, and those that decide for them. Servers that take
            no writes are left out.
    """
    work = _Round({name: database.pool for name, database in databases.items()}).run()
    # In a context of its own: recovery must not join a transaction that is open here.
    return await asyncio.get_running_loop().create_task(work, context=Context())


async def recover_periodically(databases: Mapping[str, BaseDatabase], seconds: float) -> None:
    """Recover again and again, until cancelled."""
    while True:
        try:
            await recover(databases)
        except Exception:
            logger.exception("recovery failed; it is tried again in %g s", seconds)
        await asyncio.sleep(seconds)


@dataclass(frozen=True, slots=True)
class _Decider:
    pool: Pool
    place: Place
    identity: Identity


class _Round:
    """One look at everything."""

    def __init__(self, pools: Mapping[str, Pool]) -> None:
        self._pools = pools
        self._deciders: dict[str, _Decider] = {}
        self._preparing: dict[str, tuple[Pool, TwoPhase[Any]]] = {}
        self.told = Recovery()

    async def run(self) -> Recovery:
        await self._each(self._pools, self._get_to_know)
        # Only once all databases were asked: before that, the decider of a branch may seem to be
        # missing, and the branch would be told to be an orphan.
        for participant, (pool, two_phase) in self._preparing.items():
            await self._guarded(pool, self._end_branches(participant, pool, two_phase))
        # Last, for the rows of the units whose branches were just ended.
        for decider in self._deciders.values():
            await self._guarded(decider.pool, self._forget(decider))
        return self.told

    async def _each(self, pools: Mapping[str, Pool], work: Any) -> None:
        await asyncio.gather(*(self._guarded(pool, work(pool)) for pool in pools.values()))

    async def _guarded(self, pool: Pool, work: Any) -> None:
        try:
            await work
        # One database that cannot be asked does not keep the others from being recovered.
        except DatabaseError as error:
            self.told.errors[pool.name] = error
            logger_of(pool.name).warning("%s: recovery could not go on: %s", pool.name, error)

    # -- who is who

    async def _get_to_know(self, pool: Pool) -> None:
        place = await decisions.place_of(pool)
        if not place.writable:
            return
        two_phase = pool.driver.two_phase
        if two_phase is not None:
            # Several databases may lead to the same place; one of them is enough.
            self._preparing.setdefault(participant_of(place.fingerprint), (pool, two_phase))
        identity = await decisions.read_identity(pool, place)
        if identity is None:
            return
        if identity.fingerprint != place.fingerprint:
            told = decisions.mismatch(identity, place)
            self.told.mismatches[pool.name] = told
            logger_of(pool.name).warning("%s: %s; its units are left alone", pool.name, told)
            return
        if identity.id in self._deciders:
            other = self._deciders[identity.id].pool.name
            logger_of(pool.name).debug("%s: the same decider as %s", pool.name, other)
        self._deciders.setdefault(identity.id, _Decider(pool, place, identity))

    # -- branches

    async def _end_branches(self, participant: str, pool: Pool, two_phase: TwoPhase[Any]) -> None:
        listed = await ask(pool, "SELECT", two_phase.prepared)
        there = {one.branch.name for one in listed}
        # Ended by others in the meantime: `stats()` is not to show them any longer.
        for name in set(pool.two_phase.waiting) - there:
            pool.two_phase.forget(pool.two_phase.waiting[name].branch)
        others = {one.branch.participant for one in listed} - {participant}
        if others:  # databases on the same server, which are left to their own recovery
            beside = map(participant_of, await ask(pool, "SELECT", two_phase.beside))
            others = others.intersection(beside) | self._preparing.keys()
        for one in listed:
            if one.branch.participant == participant or one.branch.participant not in others:
                await self._end_branch(participant, pool, two_phase, one)

    async def _end_branch(
        self, participant: str, pool: Pool, two_phase: TwoPhase[Any], one: Prepared
    ) -> None:
        branch = one.branch
        # Before anything is tried, so that its age counts from the first time that it was seen.
        waiting = pool.two_phase.note(branch, "seen by recovery", one.age)
        decider = self._deciders.get(branch.decider)
        fate, why = await self._fate(participant, pool, two_phase, branch, decider)
        name = branch.decider if decider is None else decider.pool.name
        if fate is None:
            pool.two_phase.forget(branch)
            logger_of(pool.name).debug("%s: unit %s: ended concurrently", pool.name, branch.unit)
            return
        self.told.found.append(Found(pool.name, branch.unit, name, fate, waiting.age, why))
        if fate in (Fate.COMMITTED, Fate.ROLLED_BACK):
            pool.two_phase.forget(branch)
            logger_of(pool.name).info("%s: unit %s: %s", pool.name, branch.unit, fate.value)
            return
        pool.two_phase.note(branch, why, one.age)
        logger_of(pool.name).warning(
            "%s: unit %s has been prepared for %.0f s and is %s: %s",
            pool.name, branch.unit, waiting.age, fate.value, why,
        )  # fmt: skip

    async def _fate(
        self,
        participant: str,
        pool: Pool,
        two_phase: TwoPhase[Any],
        branch: Branch,
        decider: _Decider | None,
    ) -> tuple[Fate | None, str]:
        """End a branch; return what became of it, None if others ended it, and how is unknown."""
        if branch.participant != participant:
            return Fate.ORPHAN, ELSEWHERE
        if decider is None:
            return Fate.ORPHAN, f"its decider {branch.decider} is not among the databases"
        try:
            committed = await decisions.decide(
                decider.pool, decider.place, branch.decider, branch.unit
            )
        except DatabaseError as error:
            return Fate.UNDECIDED, f"{decider.pool.name} could not be asked: {error}"
        if committed is None:
            return Fate.UNDECIDED, (
                f"its transaction in {decider.pool.name} is still open, or no standby has it"
            )
        try:
            end = await _end(pool, two_phase, branch, commit=committed)
        except DatabaseError as error:
            return Fate.HELD, str(error)
        if end is End.BUSY:
            return Fate.HELD, (
                "it is attached to a session that is still alive, or another recovery is ending it"
            )
        if committed:
            return Fate.COMMITTED, ""
        # A row that is not there may also have been deleted since the branch was listed.
        return (None if end is End.UNKNOWN else Fate.ROLLED_BACK), ""

    # -- rows

    async def _forget(self, decider: _Decider) -> None:
        rows = await decisions.decided(decider.pool, decider.place)
        if not rows:
            return
        # Only now: what is listed from here on is all that there will ever be of these units.
        wanted = {participant for names in rows.values() for participant in names}
        held: set[tuple[str, str]] = set()
        for participant in wanted & self._preparing.keys():
            pool, two_phase = self._preparing[participant]
            for one in await ask(pool, "SELECT", two_phase.prepared):
                held.add((one.branch.unit, one.branch.participant))
            if not await decisions.settled(pool):
                return  # a branch that is gone here may be there again after a failover
        for unit, names in rows.items():
            known = self._preparing.keys() >= set(names)
            if known and not any((unit, name) in held for name in names):
                try:
                    await decisions.forget(decider.pool, decider.place, unit)
                except LockTimeoutError:
                    continue  # in the next round
                self.told.forgotten += 1


async def _end(pool: Pool, two_phase: TwoPhase[Any], branch: Branch, *, commit: bool) -> End:
    """Commit or roll back a branch; return UNKNOWN if it is gone, BUSY if it could not be ended.

    That it is over is proven by the list, not by an error: who is told that there is no such
    branch may only have looked while another session was at it.
    """
    for look in range(_LOOKS):
        if look:
            await asyncio.sleep(_PAUSE)
        end = await ask(
            pool,
            "COMMIT PREPARED",
            lambda connection: two_phase.end(connection, branch, commit=commit),
        )
        if end is End.EMPTY and commit:
            logger_of(pool.name).warning(
                "%s: unit %s is committed, and its branch here was empty", pool.name, branch.unit
            )
        if end in (End.DONE, End.EMPTY):
            return end
        listed = await ask(pool, "SELECT", two_phase.prepared)
        if all(one.branch != branch for one in listed):
            return End.UNKNOWN
    return End.BUSY
