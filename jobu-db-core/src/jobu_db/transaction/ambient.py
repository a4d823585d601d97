"""Which transaction the running code is in: the ambient transaction of each database.

It lives in a context variable, so that child tasks inherit it: `asyncio.wait_for`, for one, makes
a child task on Python 3.11.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextvars import ContextVar
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jobu_db.transaction.context import TransactionContext

Bindings = Mapping[object, "TransactionContext"]
"""The innermost context of each database, by the database itself: names may repeat."""

_ambient: ContextVar[Bindings] = ContextVar("jobu_db_ambient", default={})  # noqa: B039 never mutated


def bindings() -> Bindings:
    """Return what is bound where this is called."""
    return _ambient.get()


def bind(context: TransactionContext) -> Bindings:
    """Make a context the current one of its database; return what was bound before."""
    before = _ambient.get()
    _ambient.set({**before, context.database: context})
    return before


def unbind(context: TransactionContext, before: Bindings) -> None:
    """Make current what was so before `bind`, if the context still is.

    It is not where its block is left in another `contextvars.Context` than it was entered in, as
    happens with fixtures. Other databases are left alone: blocks need not end in reverse order.
    """
    now, database = _ambient.get(), context.database
    if now.get(database) is context:
        bound = dict(now)
        del bound[database]
        if database in before:
            bound[database] = before[database]
        _ambient.set(bound)


def current(database: object) -> TransactionContext | None:
    """Return the open context of a database; None outside a transaction or once it is over."""
    context = _ambient.get().get(database)
    return None if context is None or context.closed else context
