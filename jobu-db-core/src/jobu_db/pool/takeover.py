"""Noticing that one of several servers is silent, and that another has taken its place.

A server that is stopped, or whose network is cut, tells nothing, and a statement that waits for it
may take as long as its caller cares to. So nothing is concluded from silence alone. Where nothing
came over any connection to a server for `check_timeout`, and something is waited for, a new
connection is tried there; if that is silent for as long, too, and another server is what is wanted,
this one has been replaced: what waits for it would wait to no end, and is terminated.

One that answers is asked less and less often, for it works on something long. One that is silent,
with no other in its place, is asked again and again, until a standby is promoted.

It needs a system that tells when data last came over a TCP connection, which Linux does.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from math import inf
from time import monotonic
from typing import Generic, TypeVar

from jobu_db.driver import Driver
from jobu_db.logs import logger_of
from jobu_db.pool.slots import Phase, Slot
from jobu_db.pool.state import PoolState
from jobu_db.settings.models import PoolConfig
from jobu_db.tcp import silence_of

C = TypeVar("C")

LONGEST_PAUSE = 8.0
"""Seconds between two questions to a server that answers them, and is silent otherwise."""


class TakeoverWatch(Generic[C]):
    """Looks at the connections in use, by server, where there are several.

    Args:
        state: Whose connections these are.
        terminate: Closes a connection at once; never raises.
        leave: A weak reference to what is called with a server that was replaced.
    """

    def __init__(
        self,
        name: str,
        driver: Driver[C],
        config: PoolConfig,
        state: PoolState[C],
        terminate: Callable[[C], None],
        leave: Callable[[], Callable[[str], None] | None],
    ) -> None:
        self._logger = logger_of(name)
        self._name = name
        self._driver = driver
        self._limit = config.check_timeout
        self._state = state
        self._terminate = terminate
        self._leave = leave
        self._looking: dict[str, asyncio.Task[None]] = {}
        self._pauses: dict[str, float] = {}
        self._ask_again_at: dict[str, float] = {}

    @property
    def period(self) -> float:
        """Seconds from one look to the next."""
        return max(0.01, self._limit / 2)

    def look(self, now: float) -> None:
        """See which servers are silent, and begin to ask them."""
        silent, waiting = self._silences()
        for host, seconds in silent.items():
            if seconds < self._limit:
                self._pauses.pop(host, None)
                self._ask_again_at.pop(host, None)
            elif (
                waiting.get(host, 0.0) >= self._limit
                and host not in self._looking
                and now >= self._ask_again_at.get(host, -inf)
            ):
                task = asyncio.get_running_loop().create_task(self._ask(host))
                self._looking[host] = task

    def _silences(self) -> tuple[dict[str, float], dict[str, float]]:
        """Return for how long nothing came from each server, and for how long it is waited for."""
        silent: dict[str, float] = {}
        waiting: dict[str, float] = {}
        for slot in self._in_use():
            host, told = self._driver.host_of(slot.connection), self._silence(slot)
            if host is not None and told is not None:
                silent[host] = min(silent.get(host, inf), told[0])
                waiting[host] = max(waiting.get(host, 0.0), told[1])
        return silent, waiting

    def _in_use(self) -> list[Slot[C]]:
        # A check waits for its answer as well, and may be the only one that does.
        phases = (Phase.LEASED, Phase.RESETTING, Phase.CHECKING)
        return [
            slot
            for slot in tuple(self._state.slots)
            if slot.phase in phases and slot.connection is not None
        ]

    def _silence(self, slot: Slot[C]) -> tuple[float, float] | None:
        return silence_of(self._driver.socket_of(slot.connection))

    async def _ask(self, host: str) -> None:
        try:
            found = await self._driver.look_around(host, self._limit)
        except Exception as error:
            self._logger.info("%s: %s could not be asked: %r", self._name, host, error)
            # No proof that it was replaced: sound connections must not be ended for it.
            found = "answers"
        finally:
            del self._looking[host]
        if found == "replaced":
            self._give_up(host)
        elif found == "answers":
            # It answers: what it works on takes long. The first pause is one look, and doubles.
            pause = min(LONGEST_PAUSE, 2 * self._pauses.get(host, self._limit / 2))
            self._pauses[host] = pause
            self._ask_again_at[host] = monotonic() + pause

    def _give_up(self, host: str) -> None:
        waiting = [slot for slot in self._in_use() if self._waits_for(slot, host)]
        self._logger.warning(
            "%s: %s is silent and another server has taken its place: terminating %d connections",
            self._name,
            host,
            len(waiting),
        )
        for slot in waiting:
            self._terminate(slot.connection)
        leave = self._leave()
        if leave is not None:
            leave(host)

    def _waits_for(self, slot: Slot[C], host: str) -> bool:
        told = self._silence(slot)
        return (
            self._driver.host_of(slot.connection) == host
            and told is not None
            and told[0] >= self._limit
        )

    def stop(self) -> None:
        """Ask no more."""
        for task in self._looking.values():
            task.cancel()
