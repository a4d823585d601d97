"""Whether a pool is too large or too small for what it saw, from its own counters.

Too small: callers spent longer waiting while all connections were in use than they then used them
for; or one gave up. By Little's law (L = λW: J. D. C. Little, "A Proof for the Queuing Formula",
Operations Research 9(3), 1961), which holds whatever the distributions, the ratio of these two
times is that of the average number of callers who wait to that of those who are served. If using
one takes no longer, `max_size` times one plus that ratio is what would have served all of them, and
never more than were wanted at once.

That some wait is no fault: a pool saturated with waiting callers is often faster than one so large
that its server is busy switching between connections (HikariCP, "About Pool Sizing":
https://github.com/brettwooldridge/HikariCP/wiki/About-Pool-Sizing).

Too large: never more than half of the connections were in use at once.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from math import ceil

ENOUGH = 100
"""Uses: before, it is too early to say."""

ENOUGH_TO_SHRINK = 1000
"""Uses before a pool is called too large: the busy hour may be yet to come."""

MARGIN = 1.5
"""What a smaller pool still has beyond the most that were in use at once."""


class Demand:
    """How many connections were wanted at once, and what waiting for one cost.

    Attributes:
        in_use, peak: Connections lent now, and the most that ever were.
        wanted: The most that were held or waited for at once.
        queued: Seconds that callers waited while all connections were taken.
        given_up: Callers whose time ran out before that.
    """

    __slots__ = ("given_up", "in_use", "peak", "queued", "wanted")

    def __init__(self) -> None:
        self.in_use = self.peak = self.wanted = self.given_up = 0
        self.queued = 0.0


@dataclass(frozen=True)
class Advice:
    """What `stats()["advice"]` says.

    Attributes:
        verdict: "too small", "too large", "fits" or "too early".
        text: Why, in a sentence with the figures, and what to try.
        max_size: What to try; None if nothing is to be changed.
    """

    verdict: str
    text: str
    max_size: int | None = None

    def as_dict(self) -> dict[str, str | int | None]:
        """Return it for JSON."""
        return asdict(self)


def advise(demand: Demand, max_size: int, uses: int, used: float) -> Advice:
    """Judge a pool.

    Args:
        demand: What was wanted of it.
        max_size: What it may have.
        uses: How often a connection was lent.
        used: Seconds for which connections were held, all together.
    """
    if demand.given_up or (uses >= ENOUGH and demand.queued > used):
        return _too_small(demand, max_size, used)
    if uses < ENOUGH:
        return Advice("too early", f"too few uses to judge the pool by: {uses}")
    fewer = ceil(demand.peak * MARGIN)
    # Half of them unused is what a burst may still need. A pool of few connections has no smaller
    # size that leaves a margin.
    if 2 * demand.peak <= max_size and fewer < max_size:
        if uses < ENOUGH_TO_SHRINK:
            return Advice("too early", f"too few uses to call the pool too large: {uses}")
        return Advice(
            "too large",
            f"the pool is larger than it was used: of {max_size} connections at most "
            f"{demand.peak} were in use at once; max_size: {fewer} leaves half as many again",
            fewer,
        )
    return Advice(
        "fits",
        f"the pool fits: at most {demand.peak} of {max_size} connections were in use at once, and "
        f"callers waited {demand.queued:.1f} s in all for one to come free, and used them for "
        f"{used:.1f} s",
    )


def _too_small(demand: Demand, max_size: int, used: float) -> Advice:
    # Held for no measurable time: there is nothing to divide by, and twice as many are a guess.
    ratio = demand.queued / used if used else 1.0
    more = max(max_size + 1, min(demand.wanted, ceil(max_size * (1 + ratio))))
    gave_up = f", and {demand.given_up} gave up" if demand.given_up else ""
    return Advice(
        "too small",
        f"the pool is too small: callers waited {demand.queued:.1f} s in all for one of {max_size} "
        f"connections to come free{gave_up}, and used them for {used:.1f} s; try max_size: {more}, "
        "or shorter transactions; if statements take longer then, the server is the bottleneck",
        more,
    )
