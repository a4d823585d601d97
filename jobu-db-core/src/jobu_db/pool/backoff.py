"""When to connect while the server accepts no connection, and how carefully afterwards."""

from __future__ import annotations

from collections.abc import Callable
from math import inf

FIRST_RETRY = 0.05
LONGEST_RETRY = 1.0


class Backoff:
    """After a failed connect one attempt at a time is made, less and less often, until one
    succeeds; after that, attempts double with each success, so that a server that is back is not
    stampeded.

    A connection that is lost at its first use (a proxy accepts it while its server is down) counts
    as a failed attempt as well: the pauses grow until one has been of use.

    Attributes:
        last_failure: What the last failed connect raised; None once one succeeded.
        for_good: Waiting will not help: the settings must change.
        retry_at: Before this time, in seconds on the monotonic clock, nothing is tried.
    """

    def __init__(self, random: Callable[[], float]) -> None:
        self._random = random
        self._failures = 0
        self._useless = 0
        self._useless_at = -inf
        self._at_once = inf
        self.last_failure: BaseException | None = None
        self.for_good = False
        self.retry_at = -inf

    def may_open(self, opening: int, now: float) -> bool:
        """Say whether one more attempt may be made beside those under way."""
        if self._failures or self._useless:
            return now >= self.retry_at and not opening
        return opening < self._at_once

    def succeeded(self, now: float) -> None:
        """A connection was opened: twice as many may be opened at once, unless the last one was
        of no use. Then this one is to be of use first."""
        self._failures, self.for_good = 0, False
        if self._useless:
            self.retry_at = now + self._pause(self._useless - 1)
            return
        self.last_failure, self.retry_at = None, -inf
        self._at_once *= 2

    def useful(self) -> None:
        """A new connection was of use."""
        if self._useless:
            self._useless, self.last_failure, self.retry_at = 0, None, -inf

    def useless(self, error: BaseException, opened: float, now: float) -> None:
        """A new connection, opened then, was lost at its first use."""
        self.last_failure = error
        self._at_once = 1.0
        if opened > self._useless_at:  # else it was there when another was lost: counted
            self._useless_at = now
            self.retry_at = now + self._pause(self._useless)
            self._useless += 1

    def failed(self, error: BaseException, began: float, now: float, *, transient: bool) -> None:
        """Take note of a failed attempt, and when it began."""
        self.last_failure = error
        self.for_good = not transient
        self._at_once = 1.0  # a float doubles up to infinity
        if began >= self.retry_at:  # else it was under way when another failed: counted
            self.retry_at = now + self._pause(self._failures)
            self._failures += 1

    def _pause(self, failures: int) -> float:
        longest: float = min(LONGEST_RETRY, FIRST_RETRY * 2 ** min(failures, 30))
        return longest * (0.5 + 0.5 * self._random())
