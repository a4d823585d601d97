"""Several servers for one database: which to try first, and what became of the last attempts."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from math import inf
from time import monotonic, time
from typing import Any, Literal, TypeVar

from jobu_db.driver import HostState
from jobu_db.errors import ConnectionFailedError
from jobu_db.settings.address import Address

C = TypeVar("C")
R = TypeVar("R")
logger = logging.getLogger("jobu_db")

BARRED = 1.0
"""Seconds for which a host is not tried at all once it has said that it takes no writes, or has
left its cluster: it may say otherwise to new connections for a moment."""

FIRST_PENALTY = 1.0
LONGEST_PENALTY = 30.0
"""Seconds for which a host that failed is tried last: doubling with each failure in a row."""


@lru_cache(maxsize=1024)
def tell_unencrypted(server: str) -> None:
    """Warn, once in this process for each server, that what is sent there can be read."""
    logger.warning(
        "%s: connections are not encrypted, since ssl is not set and the server has no TLS: set "
        "ssl to verify-full or require, or to off if that is meant",
        server,
    )


HostListener = Callable[[str, str | None, str | None], None]
"""Is told the host, and its role before and now."""


class UnsuitableHostError(ConnectionFailedError):
    """The host answers, but is not in the role that is wanted. It may come to be.

    Attributes:
        role: What it is instead; None for one that does not belong to its cluster.
    """

    def __init__(self, message: str, role: str | None = None) -> None:
        super().__init__(message, transient=True)
        self.role = role


@dataclass(slots=True)
class HostRecord:
    """What is known of one host.

    Attributes:
        role: "primary", "standby" or "read-only" when it was last asked; None where it does not
            answer, or was not asked yet.
        errors: Attempts to connect that failed, and times that it was lost.
        lost_at: The Unix time at which it was last lost after it had been good, or None.
    """

    role: str | None = None
    errors: int = 0
    lost_at: float | None = None


class HostOrder:
    """The order in which to try the hosts of one database. Time comes in, in monotonic seconds.

    Invariants:

    - Every host is in the order, once, except those that are barred, while others are not.
    - A host that failed comes after all that did not, for 1 s, and for twice as long each time
      that it fails again, up to 30 s. Among such hosts, the one whose time is over first is first.
    - The others come as listed, but the last good one first; or in a random order.
    """

    def __init__(
        self,
        hosts: Sequence[Address],
        order: Literal["listed", "random"] = "listed",
        shuffle: Callable[[list[Address]], None] = random.shuffle,
    ) -> None:
        self._hosts = list(dict.fromkeys(hosts))
        self._random = order == "random"
        self._shuffle = shuffle
        self._last_good: Address | None = None
        self._failures: dict[Address, int] = {}
        self._last_until: dict[Address, float] = {}
        self._failed_at: dict[Address, float] = {}
        self._barred_until: dict[Address, float] = {}
        self.records = {host: HostRecord() for host in self._hosts}
        self.listener: HostListener | None = None

    @property
    def several(self) -> bool:
        """True if there is another host than the one in use."""
        return len(self._hosts) > 1

    def named(self, text: str) -> Address:
        """Return the host of this address, as a text."""
        return next(host for host in self._hosts if str(host) == text)

    def to_try(self, now: float) -> list[Address]:
        """Return the hosts, the most promising first."""
        barred = {host for host, until in self._barred_until.items() if until > now}
        # If all are barred, one of them has to be asked all the same: nothing else will bring them
        # back.
        hosts = [host for host in self._hosts if host not in barred] or list(self._hosts)
        if self._random:
            self._shuffle(hosts)
        else:
            hosts.sort(key=lambda host: host != self._last_good)
        # `sorted` is stable: hosts without a penalty keep the order made above.
        return sorted(hosts, key=lambda host: self._penalty(host, now))

    def _penalty(self, host: Address, now: float) -> float:
        until = self._last_until.get(host, -inf)
        return until if until > now else -inf

    def succeeded(self, host: Address) -> None:
        """Take note that a host let us in, and is what is wanted."""
        self._last_good = host
        for noted in (self._failures, self._last_until, self._failed_at):
            noted.pop(host, None)

    def failed(self, host: Address, began: float, now: float) -> None:
        """Take note that an attempt that began then has failed."""
        if began < self._failed_at.get(host, -inf):
            return  # it was under way when another failed: counted
        failures = self._failures.get(host, 0)
        penalty = min(LONGEST_PENALTY, FIRST_PENALTY * 2 ** min(failures, 10))
        self._failures[host] = failures + 1
        self._last_until[host] = now + penalty
        self._failed_at[host] = now

    # -- what is known of them

    def in_role(self, host: Address, role: str | None) -> None:
        """Take note of what a host is, None if it does not answer."""
        record = self.records[host]
        before, record.role = record.role, role
        if before != role and self.listener is not None:
            self.listener(str(host), before, role)

    def demoted(self, host: Address, now: float, role: str | None = None) -> None:
        """Take note that a host has said that it takes no writes, or left its cluster."""
        # Before `lost`, which does nothing where the loss is known already.
        self._barred_until[host] = now + BARRED
        self.lost(host, now, role)

    def lost(self, host: Address, now: float, role: str | None = None) -> None:
        """Take note that a host that was good no longer is: another one is to be tried first."""
        if self._last_until.get(host, -inf) > now:
            return  # that is known already
        record = self.records[host]
        record.errors += 1
        record.lost_at = time()
        if self._last_good == host:
            self._last_good = None
        self.failed(host, now, now)
        self.in_role(host, role)

    def figures(self) -> list[dict[str, Any]]:
        """Return what is known of each host; see `Driver.host_figures`."""
        return [
            {
                "host": str(host),
                "role": record.role,
                "errors": record.errors,
                "last_failover": record.lost_at,
            }
            for host, record in self.records.items()
        ]


async def connect_to_one(
    hosts: HostOrder,
    attempt: Callable[[Address, R], Awaitable[C]],
    *,
    roles: Sequence[R],
    timeout: float,
) -> C:
    """Connect to the first host that will do.

    Args:
        attempt: Connects to a host, and sees that it is in that role. When it is cancelled, it
            leaves nothing open.
        roles: What is wanted, best first: a host that was unsuitable is asked for the next one.
        timeout: Seconds for each attempt.

    Raises:
        ConnectionFailedError: No host will do, each with its reason; or one refuses us for a
            reason that waiting does not mend, which ends the search.
    """
    failures: list[ConnectionFailedError] = []
    candidates = hosts.to_try(monotonic())
    for role in roles:
        unsuitable = []
        for host in candidates:
            began = monotonic()
            try:
                connection = await _within(timeout, attempt(host, role), host)
            except ConnectionFailedError as error:
                failures.append(error)
                if not error.transient:
                    # The hosts share one database with its accounts: a wrong password is wrong on
                    # the next one, too, and each attempt may count towards locking the account.
                    raise _summary(failures) from error.__cause__
                # It has answered: that is no error in the figures, but it is tried last for a while
                # as well.
                if isinstance(error, UnsuitableHostError):
                    unsuitable.append(host)
                    hosts.in_role(host, error.role)
                else:
                    hosts.records[host].errors += 1
                    hosts.in_role(host, None)
                hosts.failed(host, began, monotonic())
            else:
                hosts.succeeded(host)
                return connection
        # Only these: a host that failed in another way would fail again, whatever it is wanted as.
        candidates = unsuitable
    raise _summary(failures) from failures[-1].__cause__ or failures[-1]


async def look_around(
    hosts: HostOrder,
    attempt: Callable[[Address, R], Awaitable[C]],
    *,
    host: Address,
    roles: Sequence[R],
    anything: R,
    timeout: float,
    terminate: Callable[[C], None],
) -> HostState:
    """See whether a host that is silent on its connections answers to a new one, and if it does
    not, whether another one is what is wanted.

    Args:
        attempt: As for `connect_to_one`; it notes the role.
        roles: What is wanted, best first.
        anything: The role that every host has.
        timeout: Seconds for each attempt.
        terminate: Closes a connection.
    """

    async def lets_in(place: Address, role: R) -> bool:
        """Raise `TimeoutError` if it does not answer."""
        try:
            async with asyncio.timeout(timeout):
                connection = await attempt(place, role)
        except ConnectionFailedError:
            return False
        terminate(connection)
        return True

    began = monotonic()
    try:
        await lets_in(host, anything)
    except TimeoutError:
        if monotonic() - began > 1.5 * timeout:
            return "answers"  # for all we know: the event loop was held up, and saw no answer
        # Before the others are looked at, so that the silent one is tried after them.
        hosts.lost(host, monotonic())
    else:
        return "answers"  # or refuses at once, which its connections will hear of, too
    for other in hosts.to_try(monotonic()):
        for role in roles:
            with suppress(TimeoutError):
                if other != host and await lets_in(other, role):
                    return "replaced"
    return "silent"


async def _within(timeout: float, connecting: Awaitable[C], host: Address) -> C:
    try:
        async with asyncio.timeout(timeout) as limit:
            return await connecting
    except TimeoutError as error:
        if not limit.expired():
            raise
        raise ConnectionFailedError(
            f"cannot connect to {host}: no answer within {timeout:g} s", transient=True
        ) from error


def _summary(failures: Sequence[ConnectionFailedError]) -> ConnectionFailedError:
    last = failures[-1]
    return ConnectionFailedError(
        "; ".join(dict.fromkeys(failure.message for failure in failures)),
        transient=last.transient,
        code=last.code,
    )
