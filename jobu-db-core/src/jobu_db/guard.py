"""A driver's connection that dies with its transaction."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import wraps
from operator import attrgetter
from typing import Any, ClassVar

First = Callable[[Callable[[], Awaitable[Any]] | None, str], Awaitable[Any] | None]
"""Is told of a call that may be the first of a transaction. It makes one that may be repeated, on
another connection if this one had died, and gets the SQL with it; None stands for any other."""

_ASKING = ("is_", "get_")
"""How the names of methods begin that send nothing."""


class ConnectionGuard:
    """Behaves like the connection behind it, until `check` raises.

    Methods are guarded too, so that one fetched early and called late raises as well. What a
    method returns is not: a backend whose cursors outlive the transaction guards them itself.
    """

    # What the guard has hides what the connection has under the same name, hence the prefix. Set by
    # `object.__setattr__`, since the guard's own sets it on the connection.
    __slots__ = ("_guard_check", "_guard_connection", "_guard_first")

    _guard_repeatable: ClassVar[frozenset[str]] = frozenset()
    """Methods that take SQL first, and whose call may be repeated on another connection."""

    def __init__(self, connection: Any, check: Callable[[], None]) -> None:
        object.__setattr__(self, "_guard_connection", connection)
        object.__setattr__(self, "_guard_check", check)
        object.__setattr__(self, "_guard_first", None)

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
        name, connection = getattr(method, "__name__", ""), self._guard_connection

        @wraps(method)
        def call(*args: Any, **kwargs: Any) -> Any:
            self._guard_check()
            first: First | None = self._guard_first
            if first is not None and not name.startswith(_ASKING):
                if name in self._guard_repeatable and args:
                    # Looked up anew: by then it may be that of another connection.
                    again = attrgetter(name)
                    return first(lambda: again(self._guard_connection)(*args, **kwargs), args[0])
                first(None, "")
            if self._guard_connection is not connection:  # the method was fetched before that
                return getattr(self._guard_connection, name)(*args, **kwargs)
            return method(*args, **kwargs)

        return call


def tell_first(guard: Any, first: First | None) -> None:
    """Have a guard tell of the first call through it, or no longer; others need not be guards."""
    if isinstance(guard, ConnectionGuard):
        object.__setattr__(guard, "_guard_first", first)


def redirect(guard: Any, connection: Any) -> None:
    """Put another connection behind a guard."""
    object.__setattr__(guard, "_guard_connection", connection)
