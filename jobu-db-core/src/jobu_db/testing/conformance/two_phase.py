"""Atomic units: every database can decide; those that declare `two_phase` can prepare."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextvars import Context
from dataclasses import replace
from time import monotonic
from typing import Any

import pytest

from jobu_db.database import BaseDatabase
from jobu_db.decorators import transactional
from jobu_db.driver import READ_WRITE
from jobu_db.errors import TransactionError
from jobu_db.registry import get_connection
from jobu_db.testing.conformance.backend import (
    Backend,
    ids,
    insert,
    nothing_held,
    require,
    with_items,
)
from jobu_db.transaction import decisions
from jobu_db.two_phase import Branch, End, TwoPhase, new_id, participant_of, rowcount


class TwoPhaseConformance:
    # -- preparing

    async def test_a_prepared_branch_outlives_its_connection_and_is_committed_by_another(
        self, backend: Backend
    ) -> None:
        database, two_phase = await self._preparing(backend)
        branch = await self._prepared(database, 1)
        assert branch in await self._listed(database)
        assert await ids(database) == []
        end = await self._on_a_connection(
            database, lambda connection: two_phase.end(connection, branch, commit=True)
        )
        assert end is End.DONE
        assert branch not in await self._listed(database)
        assert await ids(database) == [1]

    async def test_a_prepared_branch_is_rolled_back_by_another_connection(
        self, backend: Backend
    ) -> None:
        database, two_phase = await self._preparing(backend)
        branch = await self._prepared(database, 1)
        end = await self._on_a_connection(
            database, lambda connection: two_phase.end(connection, branch, commit=False)
        )
        assert end is End.DONE
        assert branch not in await self._listed(database)
        assert await ids(database) == []

    @pytest.mark.parametrize("commit", [True, False])
    async def test_a_branch_that_is_over_is_unknown(self, backend: Backend, commit: bool) -> None:
        database, two_phase = await self._preparing(backend)
        branch = await self._branch(database)
        end = await self._on_a_connection(
            database, lambda connection: two_phase.end(connection, branch, commit=commit)
        )
        assert end is End.UNKNOWN

    async def test_what_was_begun_to_be_prepared_can_be_rolled_back_instead(
        self, backend: Backend
    ) -> None:
        database, _ = await self._preparing(backend)
        driver = database.driver
        branch = await self._branch(database)

        async def change_ones_mind(connection: Any) -> None:
            await driver.begin(connection, replace(READ_WRITE, branch=branch))
            assert driver.in_transaction(connection)
            await driver.execute(connection, _insert(1), None)
            await driver.rollback(connection)
            assert not await driver.confirm_in_transaction(connection)

        await self._on_a_connection(database, change_ones_mind)
        assert branch not in await self._listed(database)
        assert await ids(database) == []
        await nothing_held(database)

    async def test_a_branch_whose_connection_is_lost_before_it_is_prepared_is_gone(
        self, backend: Backend
    ) -> None:
        database, _ = await self._preparing(backend)
        branch = await self._branch(database)
        lease = await database.pool.acquire()
        await database.driver.begin(lease.connection, replace(READ_WRITE, branch=branch))
        await database.driver.execute(lease.connection, _insert(1), None)
        database.pool.release(lease, discard="tested")
        assert branch not in await self._listed(database)
        await insert(database, 1)  # waits for whatever of it is still there
        assert await ids(database) == [1]

    async def test_a_database_beside_which_there_are_others_is_among_them(
        self, backend: Backend
    ) -> None:
        database, two_phase = await self._preparing(backend)
        beside = await self._on_a_connection(database, two_phase.beside)
        place = await decisions.place_of(database.pool)
        assert not beside or place.fingerprint in beside

    async def test_it_is_fit_to_prepare(self, backend: Backend) -> None:
        database, two_phase = await self._preparing(backend)
        await self._on_a_connection(database, two_phase.check)

    async def test_without_it_only_the_first_place_is_open(self, backend: Backend) -> None:
        one, two = await with_items(backend, "one"), await with_items(backend, "two")
        if one.driver.capabilities.two_phase:
            return
        assert one.driver.two_phase is None
        with pytest.raises(TransactionError, match="atomic=True") as caught:
            async with transactional(one, two, atomic=True):
                pass
        assert one.driver.capabilities.two_phase.because in str(caught.value)

    # -- whole units

    async def test_an_atomic_unit_commits_all(self, backend: Backend) -> None:
        one, two = await self._two(backend)
        async with transactional(one, two, atomic=True):
            await insert(get_connection("one"), 1)
            await insert(get_connection("two"), 2)
        assert (await ids(one), await ids(two)) == ([1], [2])
        assert await self._listed(two) == []
        await nothing_held(one)
        await nothing_held(two)

    async def test_an_atomic_unit_that_fails_undoes_all(self, backend: Backend) -> None:
        one, two = await self._two(backend)
        with pytest.raises(KeyError):
            async with transactional(one, two, atomic=True):
                await insert(get_connection("one"), 1)
                await insert(get_connection("two"), 2)
                raise KeyError
        assert (await ids(one), await ids(two)) == ([], [])
        assert await self._listed(two) == []
        await nothing_held(one)
        await nothing_held(two)

    # -- deciding

    async def test_a_unit_whose_row_is_committed_is_so_for_ever(self, backend: Backend) -> None:
        database, entry, learn, _ = await self._deciding(backend)
        async with database.transaction() as ctx:
            await ctx.execute(entry)
        assert await learn() is True
        assert await learn() is True

    async def test_a_unit_that_is_asked_for_too_early_can_never_be_committed(
        self, backend: Backend
    ) -> None:
        database, entry, learn, _ = await self._deciding(backend)
        async with database.transaction() as ctx:
            await ctx.execute(entry)
            await ctx.rollback()
        assert await learn() is False
        assert await learn() is False

    async def test_a_unit_whose_transaction_is_open_is_undecided(self, backend: Backend) -> None:
        database, entry, learn, _ = await self._deciding(backend)
        async with database.transaction() as ctx:
            await ctx.execute(entry)
            assert await learn() is None
        assert await learn() is True

    async def test_the_row_of_a_unit_is_forgotten_by_its_key(self, backend: Backend) -> None:
        database, entry, learn, forget = await self._deciding(backend)
        async with database.transaction() as ctx:
            await ctx.execute(entry)
        await forget()
        assert await learn() is False  # nobody asks for what is forgotten

    async def test_entering_a_unit_counts_its_row(self, backend: Backend) -> None:
        database, entry, _, _ = await self._deciding(backend)
        driver = database.driver

        async def enter(connection: Any) -> int:
            await driver.begin(connection, READ_WRITE)
            count = await driver.deciding.enter(connection, entry)
            await driver.rollback(connection)
            return int(count)

        assert await self._on_a_connection(database, enter) == 1

    async def test_what_is_committed_is_settled(self, backend: Backend) -> None:
        database = await with_items(backend)
        require(database, "decides")
        await insert(database, 1)
        assert await decisions.settled(database.pool)

    async def test_the_identity_of_a_decider_lasts(self, backend: Backend) -> None:
        database = await with_items(backend)
        require(database, "decides")
        first = await decisions.identify(database.pool)
        database.pool.two_phase.identity = None
        assert await decisions.identify(database.pool) == first

    # -- what they have in common

    async def _deciding(
        self, backend: Backend
    ) -> tuple[Any, str, Callable[[], Awaitable[bool | None]], Callable[[], Awaitable[None]]]:
        database = await with_items(backend)
        require(database, "decides")
        pool = database.pool
        identity = await decisions.identify(pool)
        place = pool.two_phase.place
        assert place is not None
        unit = new_id()
        entry = decisions.entry(place, identity.id, unit, [new_id()])

        async def learn() -> bool | None:
            # Outside the transaction that is open here, as recovery is.
            work = decisions.decide(pool, place, identity.id, unit)
            return await asyncio.get_running_loop().create_task(work, context=Context())

        return database, entry, learn, lambda: decisions.forget(pool, place, unit)

    async def _two(self, backend: Backend) -> tuple[BaseDatabase, BaseDatabase]:
        one, two = await with_items(backend, "one"), await with_items(backend, "two")
        require(two, "two_phase")
        require(one, "decides")
        return one, two

    async def _preparing(self, backend: Backend) -> tuple[BaseDatabase, TwoPhase[Any]]:
        database = await with_items(backend)
        require(database, "two_phase")
        assert database.driver.two_phase is not None
        return database, database.driver.two_phase

    async def _branch(self, database: BaseDatabase) -> Branch:
        place = await decisions.place_of(database.pool)
        return Branch(new_id(), new_id(), participant_of(place.fingerprint))

    async def _prepared(self, database: BaseDatabase, id: int) -> Branch:
        """Prepare a branch that inserts a row, on a connection that is closed then."""
        two_phase, driver = database.driver.two_phase, database.driver
        assert two_phase is not None
        branch = await self._branch(database)
        lease = await database.pool.acquire()
        await driver.begin(lease.connection, replace(READ_WRITE, branch=branch))
        assert rowcount(await driver.execute(lease.connection, _insert(id), None)) == 1
        await two_phase.prepare(lease.connection, branch)
        await driver.close(lease.connection)
        database.pool.release(lease, discard="tested")
        await self._until_detached(database, branch)
        return branch

    async def _until_detached(self, database: BaseDatabase, branch: Branch) -> None:
        """A server may take a moment to notice that a session is gone."""
        deadline = monotonic() + 30
        while branch not in await self._listed(database):
            assert monotonic() < deadline, "the branch did not survive its connection"
            await asyncio.sleep(0.01)

    async def _listed(self, database: BaseDatabase) -> list[Branch]:
        two_phase = database.driver.two_phase
        assert two_phase is not None
        listed = await self._on_a_connection(database, two_phase.prepared)
        place = await decisions.place_of(database.pool)
        here = participant_of(place.fingerprint)
        return [one.branch for one in listed if one.branch.participant == here]

    async def _on_a_connection(
        self, database: BaseDatabase, work: Callable[[Any], Awaitable[Any]]
    ) -> Any:
        async with database.pool.connection() as lease:
            return await work(lease.connection)


def _insert(id: int) -> str:
    return f"INSERT INTO items (id, name) VALUES ({id}, 'item {id}')"
