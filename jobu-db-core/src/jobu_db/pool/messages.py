"""What a pool says of itself: its errors, with the numbers in them, and its figures."""

from __future__ import annotations

import asyncio
import sys
from collections import Counter
from typing import Any

from jobu_db._aio.callsite import Callsite
from jobu_db.driver import Driver
from jobu_db.errors import (
    ConnectionFailedError,
    ConnectionPoolExhaustedError,
    DatabaseError,
    PoolClosedError,
)
from jobu_db.pool import fork
from jobu_db.pool.advice import Advice, advise
from jobu_db.pool.slots import Phase
from jobu_db.pool.state import PoolState
from jobu_db.pool.stats import PoolStats


def counts(state: PoolState[Any], waiting: int | None = None) -> str:
    """Return the numbers of a pool as text; `waiting` if it was another number before."""
    waiting = len(state.waiters) if waiting is None else waiting
    sessions = sum(slot.session is not None for slot in state.leased())
    of_sessions = f" ({sessions} by sessions)" if sessions else ""
    return (
        f"size {state.established} of {state.limits.max_size}, "
        f"in use {state.count(Phase.LEASED)}{of_sessions}, "
        f"opening {state.count(Phase.OPENING)}, waiting {waiting}"
    )


def exhausted(
    name: str, state: PoolState[Any], waited: float, now: float, waiting: int
) -> DatabaseError:
    """Make the error of a caller whose time is up. The cause is the last failed connect."""
    failure, numbers = state.backoff.last_failure, counts(state, waiting)
    # No holder is in the way where none is established: the server is, and a caller asks the error
    # for `transient`, not for a larger pool.
    if not state.established:
        why = (
            failure.message if isinstance(failure, DatabaseError) else "the server does not answer"
        )
        message = f"no connection within {waited:.2f} s: {why} ({numbers})"
        error: DatabaseError = ConnectionFailedError(message, transient=True, database=name)
    else:
        message = f"no connection within {waited:.2f} s ({numbers}){_longest(state, now)}"
        if failure is not None:
            message += f"; last connect error: {failure}"
        error = ConnectionPoolExhaustedError(message, database=name)
    error.__cause__ = failure
    return error


def _longest(state: PoolState[Any], now: float) -> str:
    leases = state.leased()
    if not leases:
        return ""
    return f"; longest holder: {Callsite(leases[0].asked)} for {now - leases[0].since:.1f} s"


def too_few(name: str, state: PoolState[Any], waited: float) -> ConnectionFailedError:
    """Make the error of a caller who waited for `min_size` connections to be open."""
    failure = state.backoff.last_failure
    message = f"min_size={state.limits.min_size} not reached within {waited:.2f} s"
    if failure is not None:
        message += f"; last connect error: {failure}"
    error = ConnectionFailedError(f"{message} ({counts(state)})", transient=True, database=name)
    error.__cause__ = failure
    return error


def queue_full(name: str, state: PoolState[Any]) -> ConnectionPoolExhaustedError:
    """Make the error of a caller for whom the queue has no room."""
    limit = state.limits.max_waiting
    return ConnectionPoolExhaustedError(
        f"max_waiting={limit} callers wait already ({counts(state)})", database=name
    )


def self_deadlock(
    name: str, state: PoolState[Any], asking: Callsite
) -> ConnectionPoolExhaustedError:
    """Make the error of a task that would wait for itself."""
    places = ", ".join(Callsite(slot.asked).place for slot in state.leased())
    return ConnectionPoolExhaustedError(
        f"{asking} asks for one more connection but holds all {state.limits.max_size} itself, "
        f"acquired at {places}: it would wait for itself; release one first, or raise "
        "max_size",
        database=name,
    )


def refused(name: str, cause: BaseException | None) -> DatabaseError:
    """Make the error of a waiter who need not wait any longer. One each: tracebacks differ."""
    if cause is None:
        return PoolClosedError("the pool is being closed", database=name)
    if isinstance(cause, ConnectionFailedError):
        error = ConnectionFailedError(
            cause.message, transient=cause.transient, database=name, code=cause.code
        )
    else:
        error = ConnectionFailedError(f"cannot connect: {cause}", database=name)
    error.__cause__ = cause.__cause__ or cause
    return error


def wrong_place(loop: asyncio.AbstractEventLoop | None, pid: int | None, what: str) -> str:
    """Say why a pool, or a transaction of it, must not be touched where this is called."""
    if loop is None:
        return "the pool has not been opened: call create() or open() first"
    if pid != fork.pid:
        return (
            f"the {what} was opened in process {pid} and cannot be used in process {fork.pid}: "
            "open it after the fork"
        )
    message = (
        f"the {what} was opened in another event loop: open and close it in the loop that uses it"
    )
    if "starlette.testclient" in sys.modules:
        message += (
            ". Starlette's and FastAPI's TestClient runs the program in a loop of its own: open "
            "the databases in the program's lifespan and use `with TestClient(app)`, or test with "
            "httpx.AsyncClient(transport=httpx.ASGITransport(app))"
        )
    return message


def hosts(state: PoolState[Any], driver: Driver[Any]) -> list[dict[str, Any]]:
    """Return the figures of each of several servers; see `Driver.host_figures`."""
    # A copy, made in one step: figures are asked for from other threads, too.
    connected = [slot.connection for slot in tuple(state.slots) if slot.connection is not None]
    leading_to = Counter(map(driver.host_of, connected))
    return [{**one, "connections": leading_to[one["host"]]} for one in driver.host_figures()]


def figures(state: PoolState[Any], stats: PoolStats, driver: Driver[Any]) -> dict[str, Any]:
    """Return the figures of a pool, durations in seconds."""
    return {
        "size": state.established,
        "min_size": state.limits.min_size,
        "max_size": state.limits.max_size,
        "idle": len(state.idle),
        "in_use": state.count(Phase.LEASED),
        "opening": state.count(Phase.OPENING),
        "waiting": len(state.waiters),
        "acquired": stats.acquired,
        "created": stats.created,
        "closed": dict(stats.closed),
        "errors": stats.errors,
        "timeouts": stats.timeouts,
        "refused": stats.refused,
        "left_open": stats.left_open,
        "ends_failed": stats.ends_failed,
        "wait": stats.wait.as_dict(),
        "wait_in_vain": stats.wait_in_vain.as_dict(),
        "use": stats.use.as_dict(),
        "hosts": hosts(state, driver),
        "advice": advice(state, stats).as_dict(),
    }


def advice(state: PoolState[Any], stats: PoolStats) -> Advice:
    """Say whether the pool is too large or too small for what it saw."""
    return advise(stats.demand, state.limits.max_size, stats.acquired, stats.use.total)
