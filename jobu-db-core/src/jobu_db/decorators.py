"""`@transactional`: a function whose body is one unit of work."""

from __future__ import annotations

import asyncio
import functools
import inspect
import random
from collections.abc import Callable, Coroutine
from typing import Any, ParamSpec, Protocol, TypeVar, overload

from jobu_db._aio.timeouts import check_seconds, check_whole
from jobu_db.database import BaseDatabase
from jobu_db.errors import (
    CommitOutcomeUnknownError,
    DatabaseError,
    PartialCommitError,
    TransactionError,
)
from jobu_db.registry import DatabaseRegistry
from jobu_db.transaction import ambient
from jobu_db.transaction.atomic import AtomicUnit
from jobu_db.transaction.block import ManagedTransaction
from jobu_db.transaction.unit_of_work import LimitedUnit, UnitOfWork

P = ParamSpec("P")
R = TypeVar("R")
Function = Callable[P, Coroutine[Any, Any, R]]
Block = ManagedTransaction | UnitOfWork | LimitedUnit


class Decorator(Protocol):
    """Keeps the signature of what it decorates; with `async with` it is a unit for one block."""

    def __call__(self, function: Function[P, R], /) -> Function[P, R]: ...
    async def __aenter__(self) -> Any: ...
    async def __aexit__(self, *error: Any) -> None: ...


FIRST_PAUSE, LONGEST_PAUSE = 0.01, 1.0
"""Seconds before running again: doubled each time, with jitter."""


@overload
def transactional(function: Function[P, R], /) -> Function[P, R]: ...
@overload
def transactional(
    *databases: BaseDatabase | str,
    readonly: bool = False,
    isolation: str | None = None,
    retries: int = 0,
    timeout: float | None = None,
    atomic: bool = False,
    replica: bool | str = False,
) -> Decorator: ...
def transactional(
    *databases: Any,
    readonly: bool = False,
    isolation: str | None = None,
    retries: int = 0,
    timeout: float | None = None,
    atomic: bool = False,
    replica: bool | str = False,
) -> Any:
    """Run an async function in a transaction of each database named; "default" if none is.

    `@transactional`, `@transactional()`, `@transactional(db1, db2)` and `@transactional("a", "b")`
    all work. Names are looked up when the function is called. Without a function, it is a unit for
    one block: `async with transactional("a", "b"):`, in which `get_connection` gives the contexts.

    Args:
        databases: Databases or their names, in the order in which they begin and commit.
        readonly, isolation, replica: As for `BaseDatabase.transaction`.
        retries: How often to run the whole function again if it fails with an error that is
            marked retryable and nothing was committed; only where the transaction is outermost.
        timeout: Seconds for each run of the function in its transactions, waiting for connections
            included; `QueryTimeoutError` after that, which is not retried. Commits are not cut
            short.
        atomic: Several databases commit all or nothing, whatever fails: the first one decides, all
            others must be able to prepare. What a crash leaves behind, `DatabaseRegistry.recover`
            ends.

    Raises:
        TypeError: At decoration time, if the function is not `async def`, or `timeout` or `retries`
            is no number.
        ValueError: `retries` is negative, or given for a block.
        TransactionError: A database is named twice; at call time, one cannot take part in an
            atomic unit in its place, or as it is set up.
    """
    if _is_bare(databases):
        return transactional()(databases[0])
    _check_arguments(databases, retries, timeout)

    return _Transactional(databases, readonly, isolation, retries, timeout, atomic, replica)


class _Transactional:
    """What `transactional` with arguments returns: for a function, or for one block."""

    def __init__(
        self,
        databases: tuple[Any, ...],
        readonly: bool,
        isolation: str | None,
        retries: int,
        timeout: float | None,
        atomic: bool,
        replica: bool | str,
    ) -> None:
        self._databases = databases
        self._readonly = readonly
        self._isolation = isolation
        self._retries = retries
        self._timeout = timeout
        self._atomic = atomic
        self._replica = replica
        self._block: Block | None = None

    def __call__(self, function: Function[P, R], /) -> Function[P, R]:
        if not inspect.iscoroutinefunction(function):
            name = getattr(function, "__qualname__", repr(function))
            raise TypeError(f"@transactional needs an `async def` function; {name} is not one")

        @functools.wraps(function)
        async def run(*args: P.args, **kwargs: P.kwargs) -> R:
            chosen = self._chosen()
            # Inside an open transaction, what has failed may have doomed all of it: only the
            # outermost call can run again.
            again = 0 if self._retries and any(map(_is_open, chosen)) else self._retries
            for attempt in range(again + 1):
                # A new one for each attempt: a unit that has ended is not entered again.
                work = self._unit(chosen)
                try:
                    async with work:
                        return await function(*args, **kwargs)
                except Exception as error:
                    # `undone` says that nothing remains of this run, `retryable` that another one
                    # may do better: either alone would repeat work that is done, or what fails
                    # again for certain.
                    if attempt == again or not work.undone or not is_retryable(error, chosen):
                        raise
                # Outside of the block: while it pauses, it holds no connection and no lock.
                await _pause(attempt)
            raise AssertionError("the last attempt returns or raises")

        return run

    async def __aenter__(self) -> Any:
        if self._retries:
            raise ValueError("retries= is for functions: a block cannot be run again")
        if self._block is not None:
            raise TransactionError("this transactional() is in use already: call it once per block")
        block = self._block = self._unit(self._chosen())
        try:
            return await block.__aenter__()
        except BaseException:
            # So that the same object can be entered once more, as after a block that was left.
            self._block = None
            raise

    async def __aexit__(self, *error: Any) -> None:
        block, self._block = self._block, None
        assert block is not None
        await block.__aexit__(*error)

    def _chosen(self) -> list[BaseDatabase]:
        return [_find(database) for database in self._databases or ("default",)]

    def _unit(self, databases: list[BaseDatabase]) -> Block:
        how, replica = (self._readonly, self._isolation), self._replica
        if len(databases) == 1:
            return databases[0].transaction(*how, self._timeout, replica=replica)
        transactions = [each.transaction(*how, replica=replica) for each in databases]
        unit = (AtomicUnit if self._atomic else UnitOfWork)(transactions)
        return unit if self._timeout is None else LimitedUnit(unit, self._timeout)


async def _pause(attempt: int) -> None:
    pause = min(LONGEST_PAUSE, FIRST_PAUSE * 2**attempt)
    # Two that were each other's deadlock would otherwise run again at the same moment.
    await asyncio.sleep(pause * (0.5 + random.random() / 2))


@overload
def transactional_readonly(function: Function[P, R], /) -> Function[P, R]: ...
@overload
def transactional_readonly(
    *databases: BaseDatabase | str,
    isolation: str | None = None,
    retries: int = 0,
    timeout: float | None = None,
    replica: bool | str = False,
) -> Decorator: ...
def transactional_readonly(*databases: Any, **options: Any) -> Any:
    """Do as `transactional` with `readonly=True`."""
    if _is_bare(databases):
        return transactional(readonly=True)(databases[0])
    return transactional(*databases, readonly=True, **options)


def _is_bare(arguments: tuple[Any, ...]) -> bool:
    """Say whether the decorator was written without parentheses."""
    return len(arguments) == 1 and callable(arguments[0])


def is_retryable(error: BaseException, databases: list[BaseDatabase]) -> bool:
    """Say whether running again may help; a driver's raw exception is classified too."""
    # Whatever else they say: a part may be committed, and would be done twice.
    if isinstance(error, (CommitOutcomeUnknownError, PartialCommitError)):
        return False
    if isinstance(error, DatabaseError):
        return error.retryable
    # Through `ctx.connection`, the driver's own exceptions get here.
    meanings = [database.pool.explain(error) for database in databases]
    return any(meaning is not None and meaning.retryable for meaning in meanings)


def _is_open(database: BaseDatabase) -> bool:
    level = ambient.current(database.pool)
    # The transaction that a test puts around everything is not the program's: there, the block is a
    # savepoint, and is run again as it would be without the test.
    return level is not None and not level.of_test


def _find(database: BaseDatabase | str) -> BaseDatabase:
    return DatabaseRegistry.get(database) if isinstance(database, str) else database


def _check_arguments(databases: tuple[Any, ...], retries: int, timeout: float | None) -> None:
    for database in databases:
        if not isinstance(database, (BaseDatabase, str)):
            raise TypeError(f"@transactional takes databases or their names, not {database!r}")
    check_seconds("timeout", timeout)
    check_whole("retries", retries)
    if retries < 0:
        raise ValueError(f"retries={retries}: must be 0 or more")
