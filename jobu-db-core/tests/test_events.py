"""Listeners: what cannot be heard is refused when it is registered."""

from __future__ import annotations

from typing import Any

import pytest

from jobu_db.events import events
from jobu_db.plugins import hookimpl


class Unmarked:
    def jobu_db_acquire(self, database: str) -> None: ...


class Misspelt:
    @hookimpl
    def jobu_db_aquire(self, database: str) -> None: ...


class WithAStrangeArgument:
    @hookimpl
    def jobu_db_acquire(self, parameters: Any) -> None: ...


class Awaitable:
    @hookimpl
    async def jobu_db_acquire(self, database: str) -> None: ...


class Silent:
    pass


@pytest.mark.parametrize(
    ("listener", "message"),
    [
        (Unmarked, "mark jobu_db_acquire with @jobu_db.plugins.hookimpl"),
        (Misspelt, "jobu_db_aquire, which is no event; did you mean jobu_db_acquire"),
        (Awaitable, "jobu_db_acquire is called, not awaited"),
        (WithAStrangeArgument, "parameters"),
        (Silent, "listens to nothing; there are jobu_db_connect"),
    ],
)
def test_a_listener_that_could_not_hear_is_refused(listener: type[Any], message: str) -> None:
    heard = events.acquire
    with pytest.raises(TypeError, match=message):
        events.register(listener())
    assert events.acquire is heard
