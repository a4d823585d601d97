"""`ctx.connection`: asyncpg's connection, for as long as the transaction lasts.

Cursors, prepared statements and transaction objects made from it raise after the block, too: the
driver ends them together with the transaction.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

from jobu_db.guard import ConnectionGuard

_BEYOND_RESET = frozenset(
    {
        "add_query_logger",
        "add_termination_listener",
        "query_logger",
        "reset_type_codec",
        "set_builtin_type_codec",
        "set_type_codec",
    }
)


class PostgresGuard(ConnectionGuard):
    """Notes what no reset can undo, so that the connection is closed instead of lent on."""

    __slots__ = ()

    _guard_repeatable = frozenset({"execute", "fetch", "fetchrow", "fetchval", "prepare"})

    def _guarded(self, method: Callable[..., Any]) -> Callable[..., Any]:
        call = super()._guarded(method)
        if method.__name__ not in _BEYOND_RESET:
            return call

        @wraps(call)
        def noted(*args: Any, **kwargs: Any) -> Any:
            value = call(*args, **kwargs)  # raises once the block is left
            self._guard_connection.beyond_reset = True
            return value

        return noted
