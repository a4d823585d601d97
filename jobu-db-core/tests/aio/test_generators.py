"""Which async generator encloses the running code, on every event loop."""

from __future__ import annotations

import gc
from collections.abc import AsyncGenerator, AsyncIterator

import pytest

from jobu_db._aio.generators import EnclosingGenerator, enclosing_generator


async def asking() -> AsyncGenerator[EnclosingGenerator | None, None]:
    while True:
        yield enclosing_generator()


async def test_the_generator_around_is_found_and_runs_while_it_is_read() -> None:
    async def inside() -> AsyncIterator[bool]:
        found = enclosing_generator()
        assert found is not None
        yield found.is_running()
        kept.append(found)

    kept: list[EnclosingGenerator] = []
    reading = inside()
    assert await anext(reading)
    with pytest.raises(StopAsyncIteration):
        await anext(reading)
    assert not kept[0].is_running()
    assert enclosing_generator() is None


async def test_all_objects_are_looked_through_once_for_each_generator_at_most(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    reading = asking()
    first = await anext(reading)
    assert first is not None

    def refuse(generation: int | None = None) -> list[object]:
        raise AssertionError("once more")

    monkeypatch.setattr(gc, "get_objects", refuse)
    again = await anext(reading)
    assert again is not None
    assert again.place == first.place
    await reading.aclose()
