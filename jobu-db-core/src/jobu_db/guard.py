"""A driver's connection that dies with its transaction."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any


class ConnectionGuard:
    """Behaves like the connection behind it, until `check` raises.

    Methods are guarded too, so that one fetched early and called late raises as well. What a
    method returns is not: a backend whose cursors outlive the transaction guards them itself.
    """

    __slots__ = ("_guard_check", "_guard_connection")

    def __init__(self, connection: Any, check: Callable[[], None]) -> None:
        object.__setattr__(self, "_guard_connection", connection)
        object.__setattr__(self, "_guard_check", check)

    def __getattr__(self, name: str) -> Any:
        self._guard_check()
        value = getattr(self._guard_connection, name)
        return self._guarded(value) if callable(value) else value

    def __setattr__(self, name: str, value: Any) -> None:
        self._guard_check()
        setattr(self._guard_connection, name, value)

    def __dir__(self) -> list[str]:
        return dir(self._guard_connection)

    def __repr__(self) -> str:
        return f"<guarded {self._guard_connection!r}>"

    def _guarded(self, method: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(method)
        def call(*args: Any, **kwargs: Any) -> Any:
            self._guard_check()
            return method(*args, **kwargs)

        return call
