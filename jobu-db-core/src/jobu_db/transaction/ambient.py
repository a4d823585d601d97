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
    """A pool, as far as anybody here asks.

    Attributes:
        name: For messages.
        replica_of: The pool of the database for which it reads from a replica, or None. Their
            transactions are the same database's, and so are bound to the same pool.
    """

    name: str

    @property
    def replica_of(self) -> Named | None: ...


class Enlisted(Protocol):
    """A transaction that ends with the block of another one.

    Attributes:
        pool: The pool of its connection.
        context: The face of its level.
    """

    @property
    def pool(self) -> Named: ...

    context: Bound


class BoundBlock(Protocol):
    """A block, as far as anybody here asks.

    Attributes:
        serial: Its place in the order in which blocks were entered.
        enlisted: What ends with it.
    """

    @property
    def serial(self) -> int: ...

    @property
    def enlisted(self) -> Sequence[Enlisted]: ...


class BoundLevel(Protocol):
    """A level, as far as anybody here asks.

    Attributes:
        parent: The level around it.
        block: With which it ends.
        of_test: A test fixture opened it; the program under test takes itself to be outside.
    """

    @property
    def parent(self) -> BoundLevel | None: ...

    @property
    def block(self) -> BoundBlock: ...

    @property
    def of_test(self) -> bool: ...


class Bound(Protocol):
    """What can be bound: the context of a transaction, as far as anybody here asks.

    Attributes:
        pool: The key.
        root: Whose level it is; compared by identity.
        level: Which level of its transaction it is; compared by identity.
        closed: Its block has been left.
        outer: What was bound to the pool before, and open.
    """

    @property
    def pool(self) -> Named: ...

    @property
    def root(self) -> object: ...

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


def bind(context: Bound) -> None:
    """Make a context the current one of its pool."""
    before, pool = _ambient.get(), _home(context.pool)
    outer = before.get(pool)
    context.outer = None if outer is None or outer.closed else outer
    _ambient.set({**before, pool: context})


def _home(pool: Named) -> Named:
    return pool.replica_of or pool


def unbind(context: Bound) -> None:
    """Make current what was so before `bind` and is still open, if the context is current.

    It is not where its block is left in another `contextvars.Context` than it was entered in, as
    happens with fixtures. Other pools are left alone: blocks need not end in reverse order.
    """
    now, pool = _ambient.get(), _home(context.pool)
    if now.get(pool) is context:
        bound = dict(now)
        del bound[pool]
        outer = context.outer
        while outer is not None and outer.closed:  # its block was left before this one
            outer = outer.outer
        if outer is not None:
            bound[pool] = outer
        _ambient.set(bound)


def current(pool: Named) -> Bound | None:
    """Return the open context of a pool; None outside a transaction or once it is over.

    A context variable goes wherever its context is copied to: into threads with an event loop of
    their own, and into forked children. There it cannot be used, and must not be passed over.

    Raises:
        TransactionError: It was opened in another process or event loop.
    """
    bound = _ambient.get()
    pool = _home(pool)
    context = own = _open(bound.get(pool))
    since = -1 if own is None else own.level.block.serial
    # What is enlisted may be a savepoint inside the level that is bound: then its block is newer.
    # The deepest counts, which is in the newest block. It may also be of the transaction around
    # one that is independent, and does not count.
    for other in filter(None, map(_open, bound.values())):
        for block in _blocks(other) if other is not own else ():
            if block.serial <= since:
                break
            for one in block.enlisted:
                if one.pool is pool and _counts(one.context, own):
                    context, since = one.context, block.serial
    if context is not None:
        context.check_place()
    return context


def _counts(enlisted: Bound, own: Bound | None) -> bool:
    return not enlisted.closed and (own is None or enlisted.root is own.root)


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
        for block in _blocks(context):
            if block.enlisted:
                yield from (one.context for one in block.enlisted if not one.context.closed)


def _blocks(context: Bound) -> Iterator[BoundBlock]:
    """Return the blocks of a level and of those around it, the newest first."""
    around: Bound | None = context
    while around is not None:
        level: BoundLevel | None = around.level
        while level is not None:
            yield level.block
            level = level.parent
        root = around.root
        while around is not None and around.root is root:  # which may be an independent one
            around = _open(around.outer)


def suspended_at(pool: Named) -> str:
    """Return where a generator is suspended whose transaction of this pool is not ambient for the
    code that runs meanwhile, as `file:line`; "" if there is none."""
    context = _ambient.get().get(_home(pool))
    return "" if context is None else context.suspended_at
