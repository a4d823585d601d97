"""Opening a database: awaited or entered, at once or when its server has started."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Coroutine, Generator
from time import monotonic
from types import TracebackType
from typing import Any, Protocol, TypeVar

from jobu_db.errors import ConnectionFailedError
from jobu_db.pool.backoff import Backoff
from jobu_db.pool.pool import AsyncConnectionPool


class Closable(Protocol):
    """A database."""

    async def close(self, timeout: float | None = None) -> None:
        """Close it."""


D = TypeVar("D", bound=Closable)


class Opening(Coroutine[Any, Any, D]):
    """`database = await create(…)`, or `async with create(…) as database`, which closes it at the
    end. As a coroutine it can be made a task, too.

    Args:
        close_timeout: Seconds that the end of the block waits for holders; see `close`.
    """

    def __init__(self, opening: Coroutine[Any, Any, D], close_timeout: float | None) -> None:
        self._opening = opening
        self._close_timeout = close_timeout
        self._database: D | None = None

    def __await__(self) -> Generator[Any, Any, D]:
        return self._opening.__await__()

    def send(self, value: Any) -> Any:
        return self._opening.send(value)

    def throw(self, *error: Any) -> Any:
        return self._opening.throw(*error)

    def close(self) -> None:
        # The coroutine's `close`, which stops what was begun: a database is closed by its own.
        self._opening.close()

    async def __aenter__(self) -> D:
        self._database = await self._opening
        return self._database

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        assert self._database is not None
        await self._database.close(self._close_timeout)


async def open_pool(pool: AsyncConnectionPool[Any], wait: float | None) -> None:
    """Open a pool, whose server may still be starting.

    Args:
        wait: Seconds to try for, as long as waiting may help; None or 0 to try once.

    Raises:
        ConnectionFailedError: No connection could be made; the last attempt's.
    """
    if wait is None or wait <= 0:
        await pool.open()
        return
    backoff = Backoff(random.random)
    try:
        async with asyncio.timeout(wait) as limit:
            while True:
                began = monotonic()
                try:
                    await pool.open()
                    return
                except ConnectionFailedError as error:
                    if not error.transient:
                        raise
                    backoff.failed(error, began, monotonic(), transient=True)
                await asyncio.sleep(max(0.0, backoff.retry_at - monotonic()))
    except TimeoutError as error:
        if not limit.expired():
            raise
        if backoff.last_failure is not None:
            # What kept the server from letting us in tells more than that the time is over.
            raise backoff.last_failure from backoff.last_failure.__cause__
        raise ConnectionFailedError(
            f"cannot connect: no answer within {wait:g} s", transient=True, database=pool.name
        ) from error
