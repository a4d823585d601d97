"""Which transaction the running code is in: the ambient transaction of each pool.

It lives in a context variable, so that child tasks inherit it: `asyncio.wait_for`, for one, makes
a child task on Python 3.11. What is bound is looked up by its pool, which is one and the same for
a database's whole life; names may repeat.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextvars import ContextVar
from typing import Protocol

from jobu_db.driver import WriteGate


class Named(Protocol):
    """A pool, of which nothing but the name is asked here."""

    name: str


class Enlisted(Protocol):
    """A transaction that ends with a level of another one.

    Attributes:
        pool: The pool of its connection.
        context: The face of its level.
    """

    @property
    def pool(self) -> Named: ...

    context: Bound


class BoundLevel(Protocol):
    """A level, as far as anybody here asks.

    Attributes:
        parent: The level around it.
        depth: How many there are around it.
        enlisted: What ends with it.
        of_test: A test fixture opened it; the program under test takes itself to be outside.
    """

    @property
    def parent(self) -> BoundLevel | None: ...

    @property
    def depth(self) -> int: ...

    @property
    def enlisted(self) -> Sequence[Enlisted]: ...

    @property
    def of_test(self) -> bool: ...


class Bound(Protocol):
    """What can be bound: the context of a transaction, as far as anybody here asks.

    Attributes:
        pool: The key.
        level: Which level of its transaction it is; compared by identity.
        closed: Its block has been left.
        outer: What was bound to the pool before.
    """

    @property
    def pool(self) -> Named: ...

    @property
    def level(self) -> BoundLevel: ...

    @property
    def closed(self) -> bool: ...

    outer: Bound | None

    @property
    def suspended_at(self) -> str:
        """Where the generator that opened it is suspended, as `file:line`, or "". What runs then
        is its reader's, and no part of the transaction."""

    def check_place(self) -> None:
        """Raise `TransactionError` in another process or event loop than its own."""

    @property
    def held_gate(self) -> WriteGate | None:
        """The gate in which the transaction itself has the turn to write, if there is one."""

    def holds_gate(self, gate: WriteGate) -> bool:
        """True while the transaction, or one around it, has the turn to write there."""


Bindings = Mapping[Named, Bound]
"""The innermost context of each pool."""

_ambient: ContextVar[Bindings] = ContextVar("jobu_db_ambient", default={})  # noqa: B039 never mutated


def bindings() -> Bindings:
    """Return what is bound where this is called."""
    return _ambient.get()


def bind(context: Bound) -> Bindings:
    """Make a context the current one of its pool; return what was bound before."""
    before = _ambient.get()
    context.outer = before.get(context.pool)
    _ambient.set({**before, context.pool: context})
    return before


def unbind(context: Bound, before: Bindings) -> None:
    """Make current what was so before `bind`, if the context still is.

    It is not where its block is left in another `contextvars.Context` than it was entered in, as
    happens with fixtures. Other pools are left alone: blocks need not end in reverse order.
    """
    now, pool = _ambient.get(), context.pool
    if now.get(pool) is context:
        bound = dict(now)
        del bound[pool]
        if pool in before:
            bound[pool] = before[pool]
        _ambient.set(bound)


def current(pool: Named) -> Bound | None:
    """Return the open context of a pool; None outside a transaction or once it is over.

    A context variable goes wherever its context is copied to: into threads with an event loop of
    their own, and into forked children. There it cannot be used, and must not be passed over.

    Raises:
        TransactionError: It was opened in another process or event loop.
    """
    bound = _ambient.get()
    context = _open(bound.get(pool))
    for enlisted in _enlisted(bound):
        # What is enlisted may be a savepoint inside the level that is bound; the deepest counts.
        if enlisted.pool is pool and (
            context is None or enlisted.level.depth > context.level.depth
        ):
            context = enlisted
    if context is not None:
        context.check_place()
    return context


def contexts() -> Iterator[Bound]:
    """Return all contexts that are open here: those that are bound, and what is enlisted there."""
    bound = _ambient.get()
    yield from filter(None, map(_open, bound.values()))
    yield from _enlisted(bound)


def suspended() -> Iterator[Bound]:
    """Return the open contexts whose generator is suspended: whoever runs now may be its reader."""
    for bound in _ambient.get().values():
        context: Bound | None = bound
        while context is not None and context.suspended_at:
            if not context.closed:
                yield context
            context = context.outer


def _open(context: Bound | None) -> Bound | None:
    while context is not None and context.suspended_at:
        context = context.outer
    return None if context is None or context.closed else context


def _enlisted(bound: Bindings) -> Iterator[Bound]:
    for context in filter(None, map(_open, bound.values())):
        level: BoundLevel | None = context.level
        while level is not None:
            if level.enlisted:
                yield from (one.context for one in level.enlisted if not one.context.closed)
            level = level.parent


def suspended_at(pool: Named) -> str:
    """Return where a generator is suspended whose transaction of this pool is not ambient for the
    code that runs meanwhile, as `file:line`; "" if there is none."""
    context = _ambient.get().get(pool)
    return "" if context is None else context.suspended_at
