"""How blocks end, over one database or several: what is undone, what is called, what is told.

The order is the same everywhere: end every transaction first, then call the callbacks of what is
committed, then raise what there is to raise. A cancellation that came in between is raised last,
with a note for each database that says what became of it.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Iterable, Sequence
from typing import Any, Protocol, TypeVar

from jobu_db._aio.shield import Finished, finish
from jobu_db.logs import logger_of
from jobu_db.pool.pool import AsyncConnectionPool
from jobu_db.transaction.session import Callback, Level, Session

COMMITTED, ROLLED_BACK, UNKNOWN = "committed", "rolled back", "outcome unknown"
LEFT_FIRST = "the block around it was left first"


T = TypeVar("T", bound="Transaction")


class Transaction(Protocol):
    """A root transaction or a savepoint, as far as its end is concerned."""

    pool: AsyncConnectionPool[Any]
    session: Session
    level: Level

    @property
    def told(self) -> str:
        """What became of it, for a note."""

    async def commit(self, *, hurry: bool = False) -> Finished:
        """End it; `hurry` if the caller was cancelled before."""

    async def rollback(self, *, hurry: bool = False) -> Finished:
        """Undo it; a failure is logged."""

    def due(self) -> list[Callback]:
        """Hand out the callbacks that are to be called now."""


async def conclude(transactions: Sequence[Transaction], finished: Finished) -> None:
    """Call the callbacks of what is committed, then raise what there is to raise.

    Raises:
        CancelledError: One came in between. Notes tell what became of each database.
        BaseException: What failed, or what a callback raised.
    """
    error, cancelled = finished
    callbacks = [callback for one in transactions for callback in one.due()]
    if callbacks:
        limit = transactions[0].pool.config.cleanup_timeout
        called = await _call(callbacks, limit, cancelled)
        error, cancelled = error or called.error, called.cancelled
    if cancelled is not None:
        _note_outcomes(transactions, cancelled)
        # The cancellation goes first, since who cancelled waits for it; what failed is its cause.
        cancelled.__cause__ = error
        raise cancelled
    if error is not None:
        raise error


async def roll_back(
    transactions: Sequence[Transaction], error: BaseException, *, hurry: bool = False
) -> None:
    """Undo all of them because of `error`, the last one first, and note what stays in it.

    What was enlisted within one is undone before it.

    Raises:
        CancelledError: Another one than `error` came in between.
    """
    cancelled = error if isinstance(error, asyncio.CancelledError) else None
    transactions = with_enlisted(transactions)
    # The last one first: a savepoint is undone before what it is set in.
    for one in reversed(transactions):
        _note_what_stays(one, error)
        finished = await one.rollback(hurry=hurry or cancelled is not None)
        if finished.error is not None:
            logger_of(one.pool.name).warning(
                "%s: rollback failed: %s", one.pool.name, one.pool.told(finished.error)
            )
        cancelled = cancelled or finished.cancelled
    if cancelled is not None:
        _note_outcomes(transactions, cancelled)
    if cancelled is not None and cancelled is not error:
        raise cancelled


def abandon(transactions: Sequence[Transaction], error: BaseException | None) -> None:
    """Leave blocks in another process or event loop than their own: nothing is sent.

    In a forked child they are the parent's to end. In another event loop, their connections go
    back to the pool when they are garbage-collected.

    Raises:
        TransactionError: Unless the block is left by an exception, which goes on. What closes a
            generator with the block in it hears of it, too, but not in a child on its way out.
    """
    for one in with_enlisted(transactions):
        for level in one.session.levels:
            level.closed = True
    for one in transactions:
        closed = isinstance(error, GeneratorExit) and one.pool.in_its_process
        if error is None or closed:
            one.pool.check_transaction_place()


def with_enlisted(transactions: Iterable[T]) -> list[T]:
    """Return transactions and, behind them, all that is enlisted in their blocks."""
    everything = list(transactions)
    for block in dict.fromkeys(one.level.block for one in everything):
        enlisted: list[Any] = block.enlisted
        everything += enlisted
    return everything


def tell_reader(one: Transaction) -> None:
    """A generator was closed before its end: tell what its reader wrote and loses thereby."""
    level = one.level
    if level.generator is not None and level.lent_to is not None:
        logger_of(one.pool.name).error(
            "%s: %s wrote in the transaction that the generator at %s had opened and handed out; "
            "leaving the generator before its end rolls that back",
            one.pool.name,
            level.lent_to,
            level.generator.place,
        )


def _note_outcomes(transactions: Sequence[Transaction], cancelled: asyncio.CancelledError) -> None:
    for one in transactions:
        # Each block that the error passes adds its notes, and one transaction may be of several.
        note = f"{one.pool.name}: {one.told}"
        if note not in getattr(cancelled, "__notes__", ()):
            cancelled.add_note(note)


def _note_what_stays(one: Transaction, error: BaseException) -> None:
    for statement in one.session.beyond_undo:
        error.add_note(
            f"{one.pool.name}: what came before {statement!r} was committed by it implicitly "
            "and is not undone"
        )


async def _call(
    callbacks: Sequence[Callback], limit: float, cancelled: asyncio.CancelledError | None
) -> Finished:
    """Call all of them, whatever becomes of each; one that hangs is cut off if time is limited.

    Returns:
        What the first one raised, or a group of what several did. A cancellation that a callback
        raises is told like one of the caller.
    """
    errors: list[Exception] = []
    for callback in callbacks:
        # Shielded one by one: what is committed is told to all who wait for that, also if the
        # caller is cancelled, but then not without a limit.
        called = await finish(_call_one(callback), limit, hurry=cancelled is not None)
        cancelled = cancelled or called.cancelled
        if isinstance(called.error, Exception):
            called.error.add_note("raised by an on_commit callback: the transaction is committed")
            errors.append(called.error)
        elif isinstance(called.error, asyncio.CancelledError):
            cancelled = cancelled or called.error
    if len(errors) > 1:
        group = ExceptionGroup("on_commit callbacks failed; the transaction is committed", errors)
        return Finished(group, cancelled)
    return Finished(errors[0] if errors else None, cancelled)


async def _call_one(callback: Callback) -> None:
    result = callback()
    if inspect.isawaitable(result):
        await result
