"""Which transaction the running code is in: the ambient transaction of each pool.

It lives in a context variable, so that child tasks inherit it: `asyncio.wait_for`, for one, makes
a child task on Python 3.11. What is bound is looked up by its pool, which is one and the same for
a database's whole life; names may repeat.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextvars import ContextVar
from typing import Any, Protocol

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
        level: What would be bound to that pool.
    """

    @property
    def pool(self) -> Named: ...

    @property
    def level(self) -> Bound: ...


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


class Bound(Protocol):
    """What can be bound: a level of a transaction, as far as anybody here asks. It is compared by
    identity.

    Attributes:
        pool: The key.
        root: Whose level it is; compared by identity.
        parent: The level around it.
        block: With which it ends.
        closed: Its block has been left.
        outer: What was bound to the pool before, and open.
        of_test: A test fixture opened it; the program under test takes itself to be outside.
    """

    @property
    def pool(self) -> Named: ...

    @property
    def root(self) -> object: ...

    @property
    def parent(self) -> Bound | None: ...

    @property
    def block(self) -> BoundBlock: ...

    @property
    def closed(self) -> bool: ...

    @property
    def of_test(self) -> bool: ...

    outer: Any

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
"""The innermost level of each pool."""

_ambient: ContextVar[Bindings] = ContextVar("jobu_db_ambient", default={})  # noqa: B039 never mutated


def bindings() -> Bindings:
    """Return what is bound where this is called."""
    return _ambient.get()


def bind(level: Bound) -> None:
    """Make a level the current one of its pool."""
    before, pool = _ambient.get(), _home(level.pool)
    outer = before.get(pool) if before else None
    level.outer = None if outer is None or outer.closed else outer
    # A new mapping each time: tasks that were started before share the old one.
    _ambient.set({**before, pool: level})


def _home(pool: Named) -> Named:
    return pool.replica_of or pool


def unbind(level: Bound) -> None:
    """Make current what was so before `bind` and is still open, if the level is current.

    It is not where its block is left in another `contextvars.Context` than it was entered in, as
    happens with fixtures. Other pools are left alone: blocks need not end in reverse order.
    """
    now, pool = _ambient.get(), _home(level.pool)
    if now.get(pool) is level:
        bound = dict(now)
        del bound[pool]
        outer = level.outer
        while outer is not None and outer.closed:  # its block was left before this one
            outer = outer.outer
        if outer is not None:
            bound[pool] = outer
        _ambient.set(bound)


def current(pool: Named) -> Bound | None:
    """Return the open level of a pool; None outside a transaction or once it is over.

    A context variable goes wherever its context is copied to: into threads with an event loop of
    their own, and into forked children. There it cannot be used, and must not be passed over.

    Raises:
        TransactionError: It was opened in another process or event loop.
    """
    bound = _ambient.get()
    if not bound:  # as a rule: outside of everything
        return None
    pool = _home(pool)
    level = own = _open(bound.get(pool))
    since = -1 if own is None else own.block.serial
    # What is enlisted may be a savepoint inside the level that is bound: then its block is newer.
    # The deepest counts, which is in the newest block. It may also be of the transaction around
    # one that is independent, and does not count.
    for other in filter(None, map(_open, bound.values())):
        for block in _blocks(other) if other is not own else ():
            if block.serial <= since:
                break
            for one in block.enlisted:
                if one.pool is pool and _counts(one.level, own):
                    level, since = one.level, block.serial
    if level is not None:
        level.check_place()
    return level


def _counts(enlisted: Bound, own: Bound | None) -> bool:
    return not enlisted.closed and (own is None or enlisted.root is own.root)


def levels() -> Iterator[Bound]:
    """Return all levels that are open here: those that are bound, and what is enlisted there."""
    bound = _ambient.get()
    yield from filter(None, map(_open, bound.values()))
    yield from _enlisted(bound)


def suspended() -> Iterator[Bound]:
    """Return the open levels whose generator is suspended: what runs now may be its reader."""
    for bound in _ambient.get().values():
        level: Bound | None = bound
        while level is not None and level.suspended_at:
            if not level.closed:
                yield level
            level = level.outer


def _open(level: Bound | None) -> Bound | None:
    # A generator that is suspended does not lend its transaction: what runs now is its reader.
    while level is not None and level.suspended_at:
        level = level.outer
    return None if level is None or level.closed else level


def _enlisted(bound: Bindings) -> Iterator[Bound]:
    for level in filter(None, map(_open, bound.values())):
        for block in _blocks(level):
            if block.enlisted:
                yield from (one.level for one in block.enlisted if not one.level.closed)


def _blocks(innermost: Bound) -> Iterator[BoundBlock]:
    """Return the blocks of a level and of those around it, the newest first."""
    around: Bound | None = innermost
    while around is not None:
        level: Bound | None = around
        while level is not None:
            yield level.block
            level = level.parent
        root = around.root
        while around is not None and around.root is root:  # which may be an independent one
            around = _open(around.outer)


def suspended_at(pool: Named) -> str:
    """Return where a generator is suspended whose transaction of this pool is not ambient for the
    code that runs then, as `file:line`; "" if there is none."""
    level = _ambient.get().get(_home(pool))
    return "" if level is None else level.suspended_at
