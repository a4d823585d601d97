"""A test that asks for each event loop gets each."""

from __future__ import annotations

import asyncio

import pytest


@pytest.mark.each_loop
async def test_a_marked_test_runs_on_each_loop(request: pytest.FixtureRequest) -> None:
    loop = type(asyncio.get_running_loop()).__module__.partition(".")[0]
    assert f"[{loop}]" in request.node.name


async def test_any_other_runs_on_the_one_of_asyncio_alone(request: pytest.FixtureRequest) -> None:
    assert type(asyncio.get_running_loop()).__module__.startswith("asyncio.")
    assert "[" not in request.node.name
