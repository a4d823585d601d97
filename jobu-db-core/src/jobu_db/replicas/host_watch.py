"""Asks one server again and again how it is, over a connection of its own.

Once a second or so; while somebody waits for a position, the server waits for it where it can, and
is asked every few milliseconds where it cannot. It knows neither the pools nor the database, so
that an abandoned database can die while its watches still run.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from time import monotonic, time
from typing import Any

from jobu_db._aio.timeouts import TimeLimits
from jobu_db.driver import Driver
from jobu_db.replication import HostState, Position
from jobu_db.settings.address import Address

logger = logging.getLogger("jobu_db")

SHORTEST_PAUSE, LONGEST_PAUSE = 0.002, 0.02
"""Seconds between two looks while somebody waits and the server cannot: doubled each time."""

LONGEST_WAIT = 0.1
"""Seconds that a server is asked to wait for a position before it is asked how it is."""

FIRST_RETRY, LONGEST_RETRY = 0.1, 2.0
"""Seconds before a server that was lost is tried again: doubled each time."""


class HostWatch:
    """Watches one server.

    Args:
        name: The database's name.
        address: Of the server.
        driver: Connects to it, whatever its role.
        interval: Seconds between two looks while nobody waits.
        connect_limit, answer_limit: Seconds that it has for a connection, and for an answer.

    Attributes:
        state: What it said last, or None if it never did.
        looked_at: When that was asked, in seconds on the monotonic clock.
        lost: Why it cannot be used, or "". It begins with "not asked yet".
        errors: How often it failed: looks here, and whatever `suspect` told.
        changed_at: Unix time at which its role last changed; None if it never did.
    """

    def __init__(
        self,
        name: str,
        address: Address,
        driver: Driver[Any],
        *,
        interval: float,
        connect_limit: float,
        answer_limit: float,
    ) -> None:
        self.address = address
        self.state: HostState[Position] | None = None
        self.looked_at = 0.0
        self.lost = "not asked yet"
        self.errors = 0
        self.changed_at: float | None = None
        self._name = name
        self._driver = driver
        assert driver.replication is not None
        self._replication = driver.replication
        self._interval = interval
        self._connect_limit = connect_limit
        self._answer_limit = answer_limit
        self._limits = TimeLimits()
        self._connection: Any = None
        self._waiting: dict[asyncio.Future[None], Position | None] = {}
        self._listeners: list[Callable[[HostWatch], None]] = []
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def on_news(self, listener: Callable[[HostWatch], None]) -> None:
        """Call a function after each look, whether it succeeded or not."""
        self._listeners.append(listener)

    def start(self) -> None:
        """Begin to look."""
        loop = asyncio.get_running_loop()
        self._task = loop.create_task(self._run(), name=f"jobu-db {self._name}: {self.address}")

    def stop(self) -> asyncio.Task[None] | None:
        """Look no more; the task that is returned has then closed the connection."""
        if self._task is not None:
            self._task.cancel()
        return self._task

    def suspect(self, reason: str) -> None:
        """Somebody could not use the server: leave it alone until it answers again."""
        self.errors += 1
        # The connection of the watch stays: the look that this calls for tells whether the server
        # is gone, or only the one connection that failed.
        self.lost = reason
        self._wake.set()

    async def next_look(self, wanted: Position | None = None) -> None:
        """Wait until it was asked once more, soon.

        Args:
            wanted: A position that a standby may be waited for a moment to reach.
        """
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting[future] = wanted
        self._wake.set()
        try:
            await future
        finally:
            self._waiting.pop(future, None)

    # -- looking

    async def _run(self) -> None:
        pause, retry = SHORTEST_PAUSE, FIRST_RETRY
        try:
            while True:
                # Before the look: who comes while it is under way may have written after the
                # answer.
                waited_for = list(self._waiting)
                well = await self._look(self._wanted_first())
                for listener in self._listeners:
                    listener(self)
                for future in waited_for:
                    if not future.done():
                        future.set_result(None)
                # Who waits for a server that is away is woken by each failed look as well, so as to
                # choose another one; only the next look comes later.
                retry = FIRST_RETRY if well else min(LONGEST_RETRY, 2 * retry)
                if not well:
                    await asyncio.sleep(retry)
                elif waited_for and not self._replication.waits:
                    await asyncio.sleep(pause)
                    pause = min(LONGEST_PAUSE, 2 * pause)
                else:
                    pause = SHORTEST_PAUSE
                    await self._rest()
        finally:
            self._drop()

    async def _rest(self) -> None:
        self._wake.clear()
        if self._waiting:
            return
        with suppress(TimeoutError):
            async with asyncio.timeout(self._interval):
                await self._wake.wait()

    def _wanted_first(self) -> Position | None:
        """Return what has been waited for longest: what was wanted later was written later."""
        return next((wanted for wanted in self._waiting.values() if wanted is not None), None)

    async def _look(self, wanted: Position | None) -> bool:
        try:
            asked_at, state = await self._ask_again(wanted)
        except Exception as error:
            self.errors += 1
            self._tell_lost(_reason(error))
            self._drop()
            return False
        if self.lost and self.state is not None:
            logger.info("%s: %s answers again, as %s", self._name, self.address, state.role)
        if self.state is not None and self.state.role != state.role:
            self.changed_at = time()
        self.lost = ""
        self.state, self.looked_at = state, asked_at
        return True

    async def _ask_again(self, wanted: Position | None) -> tuple[float, HostState[Position]]:
        """Ask, on a new connection if the old one had died while it was idle: that says nothing
        of the server, which may have been started anew. Silence does."""
        if self._connection is not None:
            try:
                return await self._ask(wanted)
            except TimeoutError:
                raise
            except Exception as error:
                logger.debug(
                    "%s: %s is asked again on a new connection: %r", self._name, self.address, error
                )
                self._drop()
        # Without the wait: the server may have been started anew, and just tell how it is.
        return await self._ask(None)

    async def _ask(self, wanted: Position | None) -> tuple[float, HostState[Position]]:
        replication = self._replication
        if self._connection is None:
            async with asyncio.timeout(self._connect_limit):
                self._connection = await self._driver.connect()
        if wanted is not None and replication.waits and self._is_standby:
            async with asyncio.timeout(self._answer_limit + LONGEST_WAIT):
                await replication.wait(self._connection, wanted, LONGEST_WAIT)
        # After connecting and waiting: what the server says is at least as new as this.
        asked_at = monotonic()
        async with asyncio.timeout(self._answer_limit):
            return asked_at, await replication.look(self._connection)

    @property
    def _is_standby(self) -> bool:
        return self.state is not None and self.state.role == "standby"

    def _tell_lost(self, reason: str) -> None:
        if not self.lost or self.state is None:
            logger.warning("%s: %s cannot be used: %s", self._name, self.address, reason)
        self.lost = reason

    def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            self._driver.terminate(connection)


def _reason(error: Exception) -> str:
    return "no answer in time" if isinstance(error, TimeoutError) else str(error) or repr(error)
