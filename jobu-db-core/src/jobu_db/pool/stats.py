"""The figures of a pool, cheap enough to be always on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from jobu_db.pool.advice import Demand

_STEPS = 4
"""Buckets per power of two: quantiles are at most 25 % off, for any magnitude."""


class Histogram:
    """Durations in seconds, counted in buckets that widen with the duration (microseconds up)."""

    __slots__ = ("_buckets", "longest", "total")

    def __init__(self) -> None:
        self._buckets = [0] * 192
        self.total = 0.0
        self.longest = 0.0

    @property
    def count(self) -> int:
        """How many durations were counted."""
        return sum(self._buckets)

    def record(self, seconds: float) -> None:
        """Count one duration."""
        if not seconds:  # most waits
            self._buckets[0] += 1
            return
        micros = int(seconds * 1e6)
        power = micros.bit_length()
        # Four to a power of two: the two bits behind the leading one tell which.
        bucket = micros if power < 3 else (power - 2) * _STEPS + ((micros >> (power - 3)) & 3)
        self._buckets[bucket if bucket < 192 else 191] += 1
        self.total += seconds
        if seconds > self.longest:
            self.longest = seconds

    def quantile(self, fraction: float) -> float:
        """Return the upper edge, in seconds, of the bucket that holds this fraction; 0 if empty."""
        rank, seen = fraction * self.count, 0
        for edge, count in self.buckets():
            seen += count
            if count and seen >= rank:
                # The edge of its bucket may lie beyond all that was counted.
                return min(edge, self.longest)
        return 0.0

    def buckets(self) -> Iterator[tuple[float, int]]:
        """Yield (upper edge in seconds, count) of every bucket, shortest first."""
        for bucket, count in enumerate(self._buckets):
            yield _upper_edge(bucket) / 1e6, count

    def as_dict(self) -> dict[str, float]:
        """Return count, mean, p50, p90, p99 and max, durations in seconds."""
        return {
            "count": self.count,
            "mean": self.total / self.count if self.count else 0.0,
            "p50": self.quantile(0.5),
            "p90": self.quantile(0.9),
            "p99": self.quantile(0.99),
            "max": self.longest,
        }


def _upper_edge(bucket: int) -> int:
    if bucket < _STEPS:
        return bucket + 1
    power, step = divmod(bucket, _STEPS)
    return (_STEPS + step + 1) << (power - 1)


class PoolStats:
    """Counters since the pool was opened.

    Attributes:
        created, errors: Connections that were opened, and attempts that failed.
        refused, timeouts: Callers who were turned away at once, and whose time ran out.
        left_open: Transactions that a holder left open and the pool rolled back.
        ends_failed: Read-only transactions whose end failed in the background.
        demand: What the advice on sizes is made from.
        closed: Connections by the reason for which they were closed.
        wait, use: How long callers waited for a connection, and had it, in seconds.
        wait_in_vain: How long those waited who got none.
    """

    __slots__ = (
        "closed",
        "created",
        "demand",
        "ends_failed",
        "errors",
        "left_open",
        "refused",
        "timeouts",
        "use",
        "wait",
        "wait_in_vain",
    )

    def __init__(self) -> None:
        self.created = 0
        self.errors = 0
        self.refused = 0
        self.timeouts = 0
        self.left_open = 0
        self.ends_failed = 0
        self.closed: Counter[str] = Counter()
        self.demand = Demand()
        self.wait = Histogram()
        self.use = Histogram()
        self.wait_in_vain = Histogram()

    @property
    def acquired(self) -> int:
        """How often a connection was lent."""
        return self.wait.count
