"""`@transactional` in all its forms."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator
from typing import Any

import pytest

from jobu_db import (
    DatabaseNotFoundError,
    DatabaseRegistry,
    ReadOnlyTransactionError,
    SerializationError,
    get_connection,
    transactional,
    transactional_readonly,
)
from jobu_db.testing.conformance.backend import Backend, ids, insert, require, with_items


class DecoratorConformance:
    @pytest.fixture
    async def default(self, backend: Backend) -> AsyncIterator[Any]:
        db = await with_items(backend)
        DatabaseRegistry.register("default", db)
        yield db
        DatabaseRegistry.clear()

    async def test_every_form_opens_a_transaction(self, default: Any) -> None:
        for number, decorate in enumerate(
            (
                transactional,
                transactional(),
                transactional("default"),
                transactional(default),
                transactional(default, retries=2),
            )
        ):

            @decorate  # type: ignore[untyped-decorator]
            async def work(id: int) -> str:
                """Documented."""
                await insert(get_connection("main"), id)
                return "done"

            assert await work(number) == "done"
            assert work.__doc__ == "Documented."
            assert list(inspect.signature(work).parameters) == ["id"]
        assert await ids(default) == [0, 1, 2, 3, 4]

    async def test_an_exception_rolls_back(self, default: Any) -> None:
        @transactional()
        async def work() -> None:
            await insert(get_connection("main"), 1)
            raise KeyError

        with pytest.raises(KeyError):
            await work()
        assert await ids(default) == []

    async def test_readonly_in_both_spellings(self, default: Any) -> None:
        require(default, "readonly")

        @transactional(readonly=True)
        async def first() -> None:
            await insert(get_connection("main"), 1)

        @transactional_readonly
        async def second() -> None:
            await insert(get_connection("main"), 1)

        @transactional_readonly("default")
        async def third() -> None:
            await insert(get_connection("main"), 1)

        for work in (first, second, third):
            with pytest.raises(ReadOnlyTransactionError):
                await work()

    async def test_names_are_looked_up_when_called(self, backend: Backend) -> None:
        @transactional("later")
        async def work() -> None:
            await insert(get_connection("main"), 1)

        with pytest.raises(DatabaseNotFoundError, match="later"):
            await work()
        db = await with_items(backend)
        DatabaseRegistry.register("later", db)
        try:
            await work()
        finally:
            DatabaseRegistry.clear()
        assert await ids(db) == [1]

    async def test_only_async_functions_are_taken(self) -> None:
        with pytest.raises(TypeError, match="async def"):

            @transactional  # type: ignore[arg-type]
            def plain() -> None: ...

        with pytest.raises(TypeError, match="async def"):

            @transactional()  # type: ignore[arg-type]
            async def generator() -> AsyncIterator[int]:
                yield 1

        with pytest.raises(TypeError, match="names"):
            transactional(7)  # type: ignore[call-overload]

    async def test_retries_run_the_whole_function_again(self, default: Any) -> None:
        runs = []

        @transactional(retries=3)
        async def work() -> None:
            runs.append(1)
            await insert(get_connection("main"), len(runs))
            if len(runs) < 3:
                raise SerializationError("again")

        await work()
        assert len(runs) == 3
        assert await ids(default) == [3]

    async def test_retries_end(self, default: Any) -> None:
        runs = []

        @transactional(retries=2)
        async def work() -> None:
            runs.append(1)
            raise SerializationError("always")

        with pytest.raises(SerializationError):
            await work()
        assert len(runs) == 3

    async def test_other_errors_are_not_retried(self, default: Any) -> None:
        runs = []

        @transactional(retries=2)
        async def work() -> None:
            runs.append(1)
            raise KeyError

        with pytest.raises(KeyError):
            await work()
        assert len(runs) == 1

    async def test_only_the_outermost_is_retried(self, default: Any) -> None:
        require(default, "savepoints")
        runs = []

        @transactional(retries=5)
        async def inner() -> None:
            runs.append(1)
            raise SerializationError("again")

        with pytest.raises(SerializationError):
            async with default.transaction():
                await inner()
        assert len(runs) == 1
