"""Several servers for one database: which to try first, and what became of the last attempts."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Sequence
from functools import lru_cache
from math import inf
from time import monotonic
from typing import Literal, TypeVar

from jobu_db.errors import ConnectionFailedError
from jobu_db.settings.address import Address

C = TypeVar("C")
R = TypeVar("R")
logger = logging.getLogger("jobu_db")

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


class UnsuitableHostError(ConnectionFailedError):
    """The host answers, but is not in the role that is wanted. It may come to be."""

    def __init__(self, message: str) -> None:
        super().__init__(message, transient=True)


class HostOrder:
    """The order in which to try the hosts of one database. Time comes in, in monotonic seconds.

    Invariants:

    - Every host is in the order, once.
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

    def to_try(self, now: float) -> list[Address]:
        """Return all hosts, the most promising first."""
        hosts = list(self._hosts)
        if self._random:
            self._shuffle(hosts)
        else:
            hosts.sort(key=lambda host: host != self._last_good)
        return sorted(hosts, key=lambda host: self._penalty(host, now))

    def _penalty(self, host: Address, now: float) -> float:
        until = self._last_until.get(host, -inf)
        return until if until > now else -inf

    def succeeded(self, host: Address) -> None:
        """Take note that a host let us in."""
        self._last_good = host
        for noted in (self._failures, self._last_until, self._failed_at):
            noted.pop(host, None)

    def failed(self, host: Address, began: float, now: float) -> None:
        """Take note that an attempt that began then has failed."""
        if began < self._failed_at.get(host, -inf):
            return  # it was under way when another failed: no news
        failures = self._failures.get(host, 0)
        penalty = min(LONGEST_PENALTY, FIRST_PENALTY * 2 ** min(failures, 10))
        self._failures[host] = failures + 1
        self._last_until[host] = now + penalty
        self._failed_at[host] = now


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
                    raise _summary(failures) from error.__cause__
                if isinstance(error, UnsuitableHostError):
                    unsuitable.append(host)
                hosts.failed(host, began, monotonic())
            else:
                hosts.succeeded(host)
                return connection
        candidates = unsuitable
    raise _summary(failures) from failures[-1].__cause__ or failures[-1]


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
