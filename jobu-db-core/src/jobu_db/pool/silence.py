"""Noticing a peer that does not answer.

Two things can be silent, and each is told by something else:

The network. What was sent is not acknowledged, and nothing comes. TCP's keepalive never notices
that (it is for connections on which nothing is under way), and TCP_USER_TIMEOUT would also end a
healthy connection whose peer keeps the window shut for a while, as a COPY does that waits for a
lock. TCP_INFO tells the two apart: with a shut window, probes are acknowledged.

The server, stopped, or behind a proxy that acknowledges in its stead. Nothing about it can be
seen here. A statement in a transaction is waited for as long as its caller cares to. A COMMIT, or
a statement outside a transaction, is asked after over another connection, for its caller has no
other way to learn what became of it. In a session it may take as long as the server works on it:
it may build an index.

A silent connection is terminated: its holder gets the driver's own error for a
lost connection, and what follows is decided where all lost connections are dealt with.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from time import monotonic
from typing import Generic, TypeVar

from jobu_db._aio.timeouts import TimeLimits
from jobu_db.driver import Driver
from jobu_db.logs import logger_of
from jobu_db.pool.slots import Phase, Slot
from jobu_db.pool.state import PoolState
from jobu_db.settings.models import PoolConfig
from jobu_db.tcp import unacknowledged_for

C = TypeVar("C")


class SilenceWatch(Generic[C]):
    """Looks at the connections in use from time to time, and terminates those that are silent.

    Args:
        state: Whose connections these are.
        time_limits: For the question over another connection.
        terminate: Closes a connection at once; never raises.
    """

    def __init__(
        self,
        name: str,
        driver: Driver[C],
        config: PoolConfig,
        state: PoolState[C],
        time_limits: TimeLimits,
        terminate: Callable[[C], None],
    ) -> None:
        self._name = name
        self._logger = logger_of(name)
        self._driver = driver
        self._config = config
        self._state = state
        self._time_limits = time_limits
        self._terminate = terminate
        self._asking: dict[Slot[C], asyncio.Task[None]] = {}
        self._ask_again_at: dict[Slot[C], float] = {}

    @property
    def period(self) -> float:
        """Seconds from one look to the next: a quarter of the shortest limit."""
        limits = [self._config.commit_timeout, self._config.silence_timeout or 60.0]
        return max(0.01, min(limits) / 4)

    def look(self, now: float) -> None:
        """Look at all connections that are in use."""
        limit = self._config.silence_timeout
        for slot in [slot for slot in self._ask_again_at if slot.unanswered_since is None]:
            del self._ask_again_at[slot]  # it was answered
        for slot in list(self._state.slots):
            # All others have short limits (opening, a check, a close), or are proven before they
            # are lent.
            if slot.phase not in (Phase.LEASED, Phase.RESETTING) or slot.connection is None:
                continue
            silent = 0.0 if limit is None else unacknowledged_for(self._socket(slot.connection))
            if limit is not None and silent >= limit:
                self._give_up(slot, f"the network acknowledged nothing for {silent:.1f} s")
            elif slot.unanswered_since is not None:
                self._look_at_unanswered(slot, slot.unanswered_since, now)

    def _socket(self, connection: C) -> socket.socket | None:
        try:
            return self._driver.socket_of(connection)
        except Exception:
            self._logger.exception("%s: socket_of() failed", self._name)
            return None

    def _look_at_unanswered(self, slot: Slot[C], since: float, now: float) -> None:
        waited = now - since
        if waited >= self._config.commit_limit and slot.session is None:
            self._give_up(slot, f"unanswered for {waited:.1f} s, the limit")
        elif (
            waited >= self._config.commit_timeout
            and slot not in self._asking
            and now >= self._ask_again_at.get(slot, 0.0)
        ):
            task = asyncio.get_running_loop().create_task(self._ask(slot, since))
            self._asking[slot] = task
            task.add_done_callback(lambda _: self._asking.pop(slot, None))

    async def _ask(self, slot: Slot[C], since: float) -> None:
        try:
            running = await self._time_limits.within(
                self._config.check_timeout, self._driver.is_running(slot.connection)
            )
        except Exception as error:
            self._logger.info(
                "%s: it could not be found out whether a session still runs: %r", self._name, error
            )
            # Who cannot be asked either is taken for gone: else its caller would wait to the limit.
            running = False
        if running:
            self._ask_again_at[slot] = monotonic() + self._config.commit_timeout
            return
        self._ask_again_at.pop(slot, None)
        for _ in range(2):  # the answer may have arrived, and be on its way through the loop
            await asyncio.sleep(0)
        # Else it was answered: what is under way now is something else.
        if slot in self._state.slots and slot.unanswered_since == since:
            waited = monotonic() - since
            self._give_up(slot, f"unanswered for {waited:.1f} s, and not known to be running")

    def _give_up(self, slot: Slot[C], reason: str) -> None:
        self._logger.warning("%s: terminating a connection: %s", self._name, reason)
        self._terminate(slot.connection)
        self._state.suspect_idle()

    def stop(self) -> None:
        """Ask no more."""
        for task in self._asking.values():
            task.cancel()
