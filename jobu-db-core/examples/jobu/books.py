"""The proof: what both databases hold, against each other, the journal and the plan."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from evidence import Evidence, Found

FINAL = ("SUCCESS", "FAILED")


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that must be so.

    Attributes:
        claim: What.
        checked: How many were looked at.
        wrong: Of how many it is not so.
    """

    claim: str
    checked: int
    wrong: int


def check_books(evidence: Evidence, enqueued: int) -> list[Check]:
    """Check everything that must be so once all executions that were enqueued are worked off."""
    here = len(evidence.executions)
    booked = len(evidence.entries)
    strangers = len(evidence.entries.keys() - evidence.executions.keys())

    def each(claim: str, is_so: Callable[[Found], bool]) -> Check:
        wrong = sum(not is_so(found) for found in evidence.executions.values())
        return Check(claim, here, wrong)

    return [
        Check("no execution is lost", enqueued, abs(enqueued - here) + evidence.strays),
        each("every execution is in a final state", _is_final),
        each("it was put there exactly once", _ended_once),
        each("no claim was taken twice", _claimed_once),
        each("every claim came to one end", _claims_ended),
        each("each failed and was retried as planned", _as_planned),
        each("booked in the ledger if it succeeded, else not", lambda it: _agrees(it, evidence)),
        Check("no entry in the ledger without an execution", booked, strangers),
        Check("every balance is the sum of its entries", *_balances(evidence)),
    ]


def _is_final(found: Found) -> bool:
    return found.status in FINAL and found.has_end


def _ended_once(found: Found) -> bool:
    ends = Counter(event for event, _ in found.events.elements() if event in FINAL)
    return ends == {found.status: 1}


def _attempts(found: Found) -> range:
    return range(found.execution.attempt + 1)


def _claimed_once(found: Found) -> bool:
    """A claim that was given back may be taken again, as the same attempt."""
    events = found.events
    claimed = {attempt for event, attempt in events if event == "CLAIMED"}
    return claimed == set(_attempts(found)) and all(
        events["CLAIMED", attempt] == 1 + events["GIVEN_BACK", attempt] for attempt in claimed
    )


def _claims_ended(found: Found) -> bool:
    ends = ("RETRY", *FINAL)
    return all(sum(found.events[end, attempt] for end in ends) == 1 for attempt in _attempts(found))


def _as_planned(found: Found) -> bool:
    execution = found.execution
    if execution.failures > execution.max_retry:
        return (found.status, execution.attempt) == ("FAILED", execution.max_retry)
    return (found.status, execution.attempt) == ("SUCCESS", execution.failures)


def _agrees(found: Found, evidence: Evidence) -> bool:
    entry = evidence.entries.get(found.execution.id)
    if found.status == "SUCCESS":
        return entry == (found.execution.job, found.execution.amount)
    return entry is None


def _balances(evidence: Evidence) -> tuple[int, int]:
    """Return how many balances there are and how many are wrong."""
    bookings: Counter[str] = Counter()
    totals: Counter[str] = Counter()
    for job, amount in evidence.entries.values():
        bookings[job] += 1
        totals[job] += amount
    jobs = evidence.balances.keys() | bookings.keys()
    wrong = sum(evidence.balances.get(job) != (bookings[job], totals[job]) for job in jobs)
    return len(jobs), wrong
