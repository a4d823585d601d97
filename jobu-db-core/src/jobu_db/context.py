"""Which transaction the running code is in: the ambient transaction of each database.

It lives in a context variable, so that child tasks inherit it: `asyncio.wait_for`, for one, makes
a child task on Python 3.11.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from jobu_db.errors import NoTransactionError

if TYPE_CHECKING:
    from jobu_db.transaction_context import TransactionContext

Bindings = Mapping[object, "TransactionContext"]
"""The innermost context of each database, by the database itself: names may repeat."""

_ambient: ContextVar[Bindings] = ContextVar("jobu_db_ambient", default={})  # noqa: B039 never mutated


def bindings() -> Bindings:
    """Return what is bound where this is called."""
    return _ambient.get()


def bind(database: object, context: TransactionContext) -> Bindings:
    """Make a context the current one of its database; return what `restore` needs."""
    before = _ambient.get()
    _ambient.set({**before, database: context})
    return before


def restore(before: Bindings) -> None:
    """Make current what was so before `bind`. Works in another `contextvars.Context` as well."""
    _ambient.set(before)


def current(database: object) -> TransactionContext | None:
    """Return the open context of a database; None outside a transaction or once it is over."""
    context = _ambient.get().get(database)
    return None if context is None or context.closed else context


def get_connection(name: str = "default") -> Any:
    """Return the context of the current transaction of a database, wherever in the call tree.

    Raises:
        NoTransactionError: No transaction of that database is open here.
    """
    for context in _ambient.get().values():
        if context.database.name == name and not context.closed:
            return context
    raise NoTransactionError(
        f"no transaction of {name!r} is open here: call this inside "
        f"`async with get_db({name!r}).transaction()` or a function under "
        f"`@transactional({name!r})`",
        database=name,
    )
