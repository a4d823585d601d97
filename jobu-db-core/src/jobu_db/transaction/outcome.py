"""How blocks end, over one database or several: what is undone, what is called, what is told."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Protocol

from jobu_db._aio.shield import Finished, finish

if TYPE_CHECKING:
    from jobu_db.database import BaseDatabase
    from jobu_db.transaction.context import TransactionContext

logger = logging.getLogger("jobu_db")

COMMITTED, ROLLED_BACK, UNKNOWN = "committed", "rolled back", "outcome unknown"
LEFT_FIRST = "the block around it was left first"

Callback = Callable[[], Awaitable[None] | None]


class Level(Protocol):
    """An outermost transaction or a savepoint."""

    database: BaseDatabase
    context: TransactionContext

    @property
    def told(self) -> str:
        """What became of it, for a note."""

    async def commit(self, *, hurry: bool = False) -> Finished:
        """End it; `hurry` if the caller was cancelled before."""

    async def rollback(self, *, hurry: bool = False) -> Finished:
        """Undo it; a failure is logged."""

    def due(self) -> list[Callback]:
        """Hand out the callbacks that are to be called now."""


async def conclude(levels: Sequence[Level], finished: Finished) -> None:
    """Call the callbacks of what is committed, then raise what there is to raise.

    Raises:
        CancelledError: One came meanwhile. Notes tell what became of each database.
        BaseException: What failed, or what a callback raised.
    """
    error, cancelled = finished
    callbacks = [callback for level in levels for callback in level.due()]
    if callbacks:
        limit = levels[0].database.pool.config.cleanup_timeout
        called = await _call(callbacks, limit, cancelled)
        error, cancelled = error or called.error, called.cancelled
    if cancelled is not None:
        _note_outcomes(levels, cancelled)
        cancelled.__cause__ = error
        raise cancelled
    if error is not None:
        raise error


async def roll_back(levels: Sequence[Level], error: BaseException, *, hurry: bool = False) -> None:
    """Undo all levels because of `error`, the last one first, and note what stays in it.

    Raises:
        CancelledError: Another one than `error` came meanwhile.
    """
    cancelled = error if isinstance(error, asyncio.CancelledError) else None
    for level in reversed(levels):
        _note_what_stays(level, error)
        finished = await level.rollback(hurry=hurry or cancelled is not None)
        if finished.error is not None:
            logger.warning("%s: rollback failed: %r", level.database.name, finished.error)
        cancelled = cancelled or finished.cancelled
    if cancelled is not None:
        _note_outcomes(levels, cancelled)
    if cancelled is not None and cancelled is not error:
        raise cancelled


def _note_outcomes(levels: Sequence[Level], cancelled: asyncio.CancelledError) -> None:
    for level in levels:
        note = f"{level.database.name}: {level.told}"
        if note not in getattr(cancelled, "__notes__", ()):
            cancelled.add_note(note)


def _note_what_stays(level: Level, error: BaseException) -> None:
    for statement in level.context.beyond_undo:
        error.add_note(
            f"{level.database.name}: what came before {statement!r} was committed by it implicitly "
            "and is not undone"
        )


async def _call(
    callbacks: Sequence[Callback], limit: float, cancelled: asyncio.CancelledError | None
) -> Finished:
    """Call all of them, whatever becomes of each; one that hangs is given up if time is limited.

    Returns:
        What the first one raised, or a group of what several did. A cancellation that a callback
        raises is told like one of the caller.
    """
    errors: list[Exception] = []
    for callback in callbacks:
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
