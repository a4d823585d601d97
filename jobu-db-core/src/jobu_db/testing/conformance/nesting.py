"""Transactions inside transactions: savepoints."""

from __future__ import annotations

import pytest

from jobu_db.errors import TransactionError, UniqueViolationError
from jobu_db.registry import get_connection
from jobu_db.testing.conformance.backend import (
    Backend,
    ids,
    insert,
    nothing_held,
    require,
    with_items,
)


class NestingConformance:
    @pytest.fixture(autouse=True)
    async def _nests(self, backend: Backend) -> None:
        require(await backend.open(), "savepoints")

    async def test_a_nested_transaction_takes_no_second_connection(self, backend: Backend) -> None:
        db = await with_items(backend, max_size=1)
        async with db.transaction(), db.transaction() as inner:
            await insert(inner, 1)
            assert db.stats()["in_use"] == 1
        assert await ids(db) == [1]

    async def test_a_nested_failure_undoes_only_its_own_work(self, backend: Backend) -> None:
        db = await with_items(backend)
        async with db.transaction() as outer:
            await insert(outer, 1)
            with pytest.raises(KeyError):
                async with db.transaction() as inner:
                    await insert(inner, 2)
                    raise KeyError
            async with db.transaction() as inner:
                await insert(inner, 3)
            await insert(outer, 4)
        assert await ids(db) == [1, 3, 4]
        await nothing_held(db)

    async def test_catching_around_a_nested_transaction_lets_the_outer_one_go_on(
        self, backend: Backend
    ) -> None:
        db = await with_items(backend)
        async with db.transaction() as outer:
            await insert(outer, 1)
            with pytest.raises(UniqueViolationError):
                async with db.transaction() as inner:
                    await insert(inner, 1)
            await insert(outer, 2)
        assert await ids(db) == [1, 2]

    async def test_an_outer_failure_undoes_nested_work(self, backend: Backend) -> None:
        db = await with_items(backend)
        with pytest.raises(KeyError):
            async with db.transaction():
                async with db.transaction() as inner:
                    await insert(inner, 1)
                raise KeyError
        assert await ids(db) == []

    async def test_leaving_a_nested_block_restores_the_outer_context(
        self, backend: Backend
    ) -> None:
        db = await with_items(backend)
        async with db.transaction() as outer:
            async with db.transaction() as middle:
                async with db.transaction() as inner:
                    assert get_connection("main") is inner
                assert get_connection("main") is middle
            assert get_connection("main") is outer
            with pytest.raises(TransactionError, match="over"):
                await insert(inner, 1)
            await insert(outer, 2)
        assert await ids(db) == [2]

    async def test_savepoints_nest_deeply(self, backend: Backend) -> None:
        db = await with_items(backend)

        async def descend(depth: int) -> None:
            async with db.transaction() as ctx:
                await insert(ctx, depth)
                if depth == 5:
                    raise KeyError
                try:
                    await descend(depth + 1)
                except KeyError:
                    if depth == 4:
                        raise

        await descend(1)
        assert await ids(db) == [1, 2, 3]

    async def test_manual_control_is_refused_inside(self, backend: Backend) -> None:
        db = await with_items(backend)
        async with db.transaction() as outer:
            async with db.transaction() as inner:
                for control in (inner.begin, inner.commit, inner.rollback):
                    with pytest.raises(TransactionError, match="nested"):
                        await control()
                await insert(inner, 1)
            await insert(outer, 2)
        assert await ids(db) == [1, 2]

    async def test_another_isolation_level_inside_is_refused(self, backend: Backend) -> None:
        db = await with_items(backend)
        async with db.transaction():
            with pytest.raises(TransactionError, match="isolation"):
                async with db.transaction(isolation="serializable"):
                    pass

    async def test_on_commit_of_a_rolled_back_level_is_dropped(self, backend: Backend) -> None:
        db = await with_items(backend)
        seen: list[str] = []
        async with db.transaction():
            with pytest.raises(KeyError):
                async with db.transaction() as lost:
                    lost.on_commit(lambda: seen.append("lost"))
                    raise KeyError
            async with db.transaction() as kept:
                kept.on_commit(lambda: seen.append("kept"))
            assert seen == []
        assert seen == ["kept"]

    async def test_statements_of_the_database_run_in_the_current_transaction(
        self, backend: Backend
    ) -> None:
        db = await with_items(backend)
        with pytest.raises(KeyError):
            async with db.transaction():
                await insert(db, 1)
                assert await ids(db) == [1]
                raise KeyError
        assert await ids(db) == []

    async def test_the_outer_context_works_while_its_own_task_is_inside(
        self, backend: Backend
    ) -> None:
        db = await with_items(backend)
        async with db.transaction() as outer:
            with pytest.raises(KeyError):
                async with db.transaction():
                    await insert(outer, 1)
                    raise KeyError
        assert await ids(db) == []
