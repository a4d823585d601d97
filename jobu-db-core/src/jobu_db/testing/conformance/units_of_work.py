"""Several databases in one unit of work."""

from __future__ import annotations

import contextlib
import itertools
from typing import Any

import pytest

from jobu_db import (
    PartialCommitError,
    SerializationError,
    TransactionError,
    get_connection,
    transactional,
)
from jobu_db.testing.cancellation import cancel_at_every_await
from jobu_db.testing.conformance.backend import (
    Backend,
    ids,
    insert,
    nothing_held,
    require,
    with_items,
)


class UnitOfWorkConformance:
    async def test_all_commit(self, backend: Backend) -> None:
        one, two = await self._two(backend)

        @transactional(one, two)
        async def work() -> None:
            await insert(get_connection("one"), 1)
            await insert(get_connection("two"), 2)

        await work()
        assert (await ids(one), await ids(two)) == ([1], [2])
        await nothing_held(one)
        await nothing_held(two)

    async def test_a_failure_before_the_first_commit_rolls_all_back(self, backend: Backend) -> None:
        one, two = await self._two(backend)

        @transactional(one, two)
        async def work() -> None:
            await insert(get_connection("one"), 1)
            await insert(get_connection("two"), 2)
            raise KeyError

        with pytest.raises(KeyError):
            await work()
        assert (await ids(one), await ids(two)) == ([], [])
        await nothing_held(one)
        await nothing_held(two)

    async def test_a_participant_that_cannot_commit_stops_all(self, backend: Backend) -> None:
        one, two = await self._two(backend)

        @transactional(one, two)
        async def work() -> None:
            await insert(get_connection("one"), 1)
            with contextlib.suppress(TransactionError):
                await get_connection("two").execute("ROLLBACK")

        with pytest.raises(TransactionError) as caught:
            await work()
        assert not isinstance(caught.value, PartialCommitError)
        assert await ids(one) == []
        await nothing_held(one)
        await nothing_held(two)

    async def test_a_commit_that_fails_after_another_succeeded_is_told(
        self, backend: Backend, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        one, two = await self._two(backend)

        async def commit(connection: Any, *, reset: bool) -> bool:
            raise OSError("no more room")

        monkeypatch.setattr(two.driver, "commit", commit)

        @transactional(one, two)
        async def work() -> None:
            await insert(get_connection("one"), 1)
            await insert(get_connection("two"), 2)

        with pytest.raises(PartialCommitError) as caught:
            await work()
        error = caught.value
        assert (error.committed, error.failed) == (("one",), ("two",))
        assert (error.rolled_back, error.unknown) == ((), ())
        assert isinstance(error.__cause__, OSError)
        assert (await ids(one), await ids(two)) == ([1], [])

    async def test_after_a_partial_commit_nothing_is_run_again(
        self, backend: Backend, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        one, two = await self._two(backend)
        runs: list[int] = []

        async def commit(connection: Any, *, reset: bool) -> bool:
            raise SerializationError("retryable by itself")

        monkeypatch.setattr(two.driver, "commit", commit)

        @transactional(one, two, retries=3)
        async def work() -> None:
            runs.append(1)
            await insert(get_connection("one"), 1)
            await insert(get_connection("two"), 1)

        with pytest.raises(PartialCommitError):
            await work()
        assert len(runs) == 1
        assert await ids(one) == [1]

    async def test_cancelled_at_every_await_both_agree(self, backend: Backend) -> None:
        one, two = await self._two(backend)
        numbers = itertools.count()

        @transactional(one, two)
        async def work() -> None:
            number = next(numbers)
            await insert(get_connection("one"), number)
            await insert(get_connection("two"), number)

        async def check() -> None:
            assert await ids(one) == await ids(two)
            await nothing_held(one)
            await nothing_held(two)

        await cancel_at_every_await(work, check)

    async def test_one_database_named_twice_is_refused(self, backend: Backend) -> None:
        one, _ = await self._two(backend)

        @transactional(one, one)
        async def work() -> None: ...

        with pytest.raises(TransactionError, match="twice"):
            await work()

    async def test_nested_units_are_savepoints_on_each(self, backend: Backend) -> None:
        one, two = await self._two(backend)
        require(one, "savepoints")

        @transactional(one, two)
        async def inner() -> None:
            await insert(get_connection("one"), 2)
            await insert(get_connection("two"), 2)
            raise KeyError

        @transactional(one, two)
        async def outer() -> None:
            await insert(get_connection("one"), 1)
            await insert(get_connection("two"), 1)
            with pytest.raises(KeyError):
                await inner()

        await outer()
        assert (await ids(one), await ids(two)) == ([1], [1])

    async def test_a_begin_that_fails_gives_the_others_back(
        self, backend: Backend, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        one, two = await self._two(backend)

        async def begin(connection: Any, mode: Any) -> None:
            raise OSError("cannot begin")

        monkeypatch.setattr(two.driver, "begin_later", lambda connection, mode: False)
        monkeypatch.setattr(two.driver, "begin", begin)

        @transactional(one, two)
        async def work() -> None: ...

        with pytest.raises(OSError, match="cannot begin"):
            await work()
        await nothing_held(one)
        await nothing_held(two)

    async def _two(self, backend: Backend) -> tuple[Any, Any]:
        return await with_items(backend, "one"), await with_items(backend, "two")
