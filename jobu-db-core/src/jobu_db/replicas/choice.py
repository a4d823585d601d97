"""The replicas of a database, and which of them answers the next read."""

from __future__ import annotations

import asyncio
import logging
import random
import weakref
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from time import monotonic
from typing import Any, TypeVar

from jobu_db.driver import Driver
from jobu_db.errors import ConnectionFailedError, ConnectionLostError
from jobu_db.events import events
from jobu_db.pool.pool import AsyncConnectionPool
from jobu_db.replicas.host_watch import HostWatch
from jobu_db.replicas.lag import Lag
from jobu_db.replicas.own_positions import Cell, OwnPositions
from jobu_db.replication import Position
from jobu_db.settings.address import Address
from jobu_db.settings.replicas import ReplicatedSettings

logger = logging.getLogger("jobu_db")

T = TypeVar("T")

PRIMARY, STANDBY = "primary", "standby"
REPLICA = "replica"


@dataclass(frozen=True)
class Replica:
    """One replica: what is known of its server, and the pool of connections to it."""

    watch: HostWatch
    lag: Lag
    pool: AsyncConnectionPool[Any]

    @property
    def position(self) -> Position:
        """What it had replayed when it was last asked; to be called only if it is well."""
        assert self.watch.state is not None
        return self.watch.state.position

    def fault(self, max_lag: float) -> str:
        """Say why it is left alone, or ""."""
        watch, behind = self.watch, self.lag.seconds(monotonic())
        if watch.lost or watch.state is None:
            return watch.lost
        if watch.state.role != STANDBY:
            return f"it is a {watch.state.role} now"
        return f"it is {behind:.1f} s behind" if behind > max_lag else ""


class Replicas:
    """All of a database's.

    Args:
        name: The database's name.
        settings: With `replicas`.
        make_driver: Makes a driver for the settings of one server.
        primary: The pool of the primary.

    Attributes:
        own: The positions of the tasks.
        answers: How many reads a replica answered, and how many others did not, by reason.
    """

    def __init__(
        self,
        name: str,
        settings: ReplicatedSettings,
        make_driver: Callable[[ReplicatedSettings], Driver[Any]],
        primary: AsyncConnectionPool[Any],
    ) -> None:
        assert settings.replicas is not None
        assert primary.driver.replication is not None
        self.settings = settings.replicas
        self.own = OwnPositions(name, primary.driver.replication)
        self._name = name
        self._primary = primary
        limits = {
            # What is known of a replica is then never older than a quarter of the lag that is
            # allowed.
            "interval": min(1.0, self.settings.max_lag / 4),
            "connect_limit": settings.connect_timeout,
            "answer_limit": settings.pool.check_timeout,
        }

        def watch(address: Address) -> HostWatch:
            driver = make_driver(settings.of_host(address))
            return HostWatch(name, address, driver, **limits)

        def pool(address: Address) -> AsyncConnectionPool[Any]:
            of_replica = settings.of_replica(address)
            driver = make_driver(of_replica)
            return AsyncConnectionPool(f"{name}@{address}", driver, of_replica.pool, primary)

        where = list(dict.fromkeys(settings.replica_addresses))
        self._watches = {
            address: watch(address) for address in dict.fromkeys((*settings.addresses, *where))
        }
        self._replicas = [
            Replica(self._watches[address], Lag(), pool(address)) for address in where
        ]
        news = _News(name, primary.driver, {each.watch: each.lag for each in self._replicas})
        for each in self._watches.values():
            each.on_news(news.told)
        self._forgotten: weakref.finalize[Any, Replicas] | None = None
        self.answers: Counter[str] = Counter()

    async def open(self, *, wait: bool) -> None:
        """Open the pools, which connect at first use, and begin to watch.

        Args:
            wait: Until each server was asked once; one that is away does not matter.
        """
        watches, loop = list(self._watches.values()), asyncio.get_running_loop()
        # The watches alone: with anything that knows this object, it would never be collected.
        self._forgotten = weakref.finalize(self, _forgotten, loop, watches)
        for replica in self._replicas:
            await replica.pool.open()
        # Before the watches start: so the loop comes to these first, and the first look finds who
        # waits for it.
        first = [asyncio.ensure_future(each.next_look()) for each in watches] if wait else []
        for each in watches:
            each.start()
        if first:
            try:
                await asyncio.wait(first)
            finally:
                for look in first:
                    look.cancel()

    async def close(self, timeout: float | None = None) -> None:
        """Close the pools as `AsyncConnectionPool.close` does, and watch no more."""
        if self._forgotten is None:
            return  # it was never opened
        self._forgotten.detach()
        stopped = [task for each in self._watches.values() if (task := each.stop()) is not None]
        if stopped:
            await asyncio.wait(stopped)
        await asyncio.gather(*(replica.pool.close(timeout) for replica in self._replicas))

    # -- choosing

    async def use(
        self,
        what: bool | str,
        work: Callable[[AsyncConnectionPool[Any]], Awaitable[T]],
        gone: set[AsyncConnectionPool[Any]],
    ) -> tuple[str, T]:
        """Do some work on the pool of a replica, or of the primary where no replica can do it.

        Args:
            what: True, or a position to be reached besides the task's own writes.
            work: Raises a `ConnectionFailedError` or `ConnectionLostError` if the server cannot be
                reached; it is done elsewhere then, so it must not have taken effect.
            gone: Pools of replicas that are not to be asked; those where the work failed are added.

        Returns:
            Under what it was counted in `answers`, and the result of the work.

        Raises:
            ConnectionFailedError: No replica can, and the primary is not to be asked.
            DatabaseError: What the work raised.
        """
        cell = self.own.cell()
        wanted = self.own.read(what) if isinstance(what, str) and what else None
        own = await self.own.present(self._primary)
        if own is not None:
            wanted = own if wanted is None else own.merged(wanted)
        until = monotonic() + self.settings.wait
        while True:
            chosen = await self._choose(wanted, until, gone)
            if isinstance(chosen, str):
                reason = chosen
                break
            try:
                result = await work(chosen.pool)
            except (ConnectionFailedError, ConnectionLostError) as error:
                # For all readers, until the watch has seen it well again; and in `gone` for this
                # one in any case, so that the loop ends.
                chosen.watch.suspect(error.message)
                gone.add(chosen.pool)
            else:
                self.answers[REPLICA] += 1
                return REPLICA, result
        self.answers[reason] += 1
        if self.settings.fallback == "error":
            raise self._refusal(reason)
        # Only here, where the new primary answers instead, and only if nothing was committed since:
        # with the position that was lost kept, no replica would ever do again.
        if reason == "timeline" and cell.position is own and own is not None:
            self._forget_history(cell)
        return reason, await work(self._primary)

    async def _choose(
        self, wanted: Position | None, until: float, gone: set[AsyncConnectionPool[Any]]
    ) -> Replica | str:
        """Return the least busy replica that has what is wanted, or why there is none."""
        while True:
            left = [each for each in self._replicas if each.pool not in gone]
            well = [each for each in left if not each.fault(self.settings.max_lag)]
            if not well:
                # Not waited for: `wait` is meant for a write that is on its way, and a server that
                # is away or lags takes longer to be well.
                return "unavailable"
            having = [each for each in well if wanted is None or each.position.covers(wanted)]
            if having:
                # Among those that are equally busy by chance: else the first one listed would get
                # all reads of a quiet program.
                random.shuffle(having)
                return min(having, key=lambda each: each.pool.busy)
            assert wanted is not None
            coming = [each for each in well if each.position.may_reach(wanted)]
            if not coming:
                return "timeline"
            seconds = until - monotonic()
            if seconds <= 0:
                return "behind"
            with suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await _first_look(coming, wanted)

    def _refusal(self, reason: str) -> ConnectionFailedError:
        wait = self.settings.wait
        text = {
            "unavailable": "no replica can be used",
            "timeline": "no replica shares the history of the write that is to be read",
            "behind": f"no replica caught up with the write before within {wait:g} s",
        }[reason]
        each = "; ".join(
            f"{one.watch.address}: {one.fault(self.settings.max_lag) or 'usable'}"
            for one in self._replicas
        )
        error = ConnectionFailedError(
            f"{text} ({each}), and fallback is error", transient=True, database=self._name
        )
        error.retryable = True
        return error

    def _forget_history(self, cell: Cell) -> None:
        """After a promotion, all that can still be read is what the new primary has."""
        for each in self._watches.values():
            state = each.state
            if state is None or each.lost or state.role != PRIMARY:
                continue
            if cell.position is not None and not state.position.may_reach(cell.position):
                cell.position = state.position.after(cell.position)

    # -- figures

    def hosts(self) -> list[dict[str, Any]]:
        """Return role, lag, connections and errors of each server; see `BaseDatabase.stats`."""
        replicas = {each.watch.address: each for each in self._replicas}
        figures = []
        for address, watch in self._watches.items():
            replica = replicas.get(address)
            role = None if watch.state is None or watch.lost else watch.state.role
            lag = replica.lag.seconds(monotonic()) if replica and role == STANDBY else None
            figures.append(
                {
                    "host": str(address),
                    "role": role,
                    "lag": lag,
                    "connections": (self._primary.size if role == PRIMARY else 0)
                    + (replica.pool.size if replica else 0),
                    "errors": watch.errors,
                    "last_failover": watch.changed_at,
                    "fault": replica.fault(self.settings.max_lag) if replica else watch.lost,
                }
            )
        return figures

    def figures(self) -> dict[str, Any]:
        """Return how many reads replicas answered, and how many they did not, by reason."""
        reasons = ("unavailable", "behind", "timeline")
        return {
            "reads": self.answers[REPLICA],
            "fallbacks": {reason: self.answers[reason] for reason in reasons},
        }


class _News:
    """Passes on what a server said, to events and lags. It knows no pools; see `host_watch`."""

    def __init__(self, name: str, driver: Driver[Any], lags: Mapping[HostWatch, Lag]) -> None:
        self._name = name
        self._driver = driver
        self._lags = lags
        self._roles: dict[HostWatch, str | None] = {}

    def told(self, watch: HostWatch) -> None:
        role = None if watch.lost or watch.state is None else watch.state.role
        before, self._roles[watch] = self._roles.get(watch), role
        if role != before and events.host_changed:
            events.tell(
                "host_changed",
                database=self._name,
                driver=self._driver,
                host=str(watch.address),
                role=role,
                before=before,
            )
        # From the primary's own word on there are marks to count by; without it, the lags stand
        # still.
        if watch.state is not None and role == PRIMARY:
            for lag in self._lags.values():
                lag.primary_is(watch.state.position, watch.looked_at)
        elif before == PRIMARY:
            for lag in self._lags.values():
                lag.primary_is_gone()
        if watch.state is not None and role == STANDBY and watch in self._lags:
            self._lags[watch].replica_is(watch.state)


async def _first_look(replicas: Sequence[Replica], wanted: Position) -> None:
    looks = [asyncio.ensure_future(replica.watch.next_look(wanted)) for replica in replicas]
    try:
        await asyncio.wait(looks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for look in looks:
            look.cancel()


def _forgotten(loop: asyncio.AbstractEventLoop, watches: Sequence[HostWatch]) -> None:
    # By the thread that happens to collect, so that nothing here may touch a task itself.
    with suppress(RuntimeError):  # the loop is closed, and has ended the tasks
        loop.call_soon_threadsafe(_stop, watches)


def _stop(watches: Sequence[HostWatch]) -> None:
    for watch in watches:
        watch.stop()
