"""The proof finds each kind of disorder, and by the check that is there for it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import pytest
from books import check_books
from evidence import Evidence, Found
from executions import Execution

ENQUEUED = 3
LOST, FINAL, ONCE, CLAIMS, ENDS, PLAN, AGREES, STRANGERS, BALANCES = range(9)
"""The checks, in their order."""


def found(number: int, status: str, failures: int, attempt: int, *events: tuple[str, int]) -> Found:
    execution = Execution(number, "job", 100 + number, failures, attempt, max_retry=1)
    return Found(execution, status, has_end=True, events=Counter(events))


@pytest.fixture
def evidence() -> Evidence:
    """One execution that succeeded, one that did so when retried, and one that never did."""
    first = found(1, "SUCCESS", 0, 0, ("CLAIMED", 0), ("SUCCESS", 0))
    second = found(2, "SUCCESS", 1, 1, ("CLAIMED", 0), ("RETRY", 0), ("CLAIMED", 1), ("SUCCESS", 1))
    third = found(3, "FAILED", 2, 1, ("CLAIMED", 0), ("RETRY", 0), ("CLAIMED", 1), ("FAILED", 1))
    return Evidence(
        executions={1: first, 2: second, 3: third},
        entries={1: ("job", 101), 2: ("job", 102)},
        balances={"job": (2, 203)},
    )


def wrong(evidence: Evidence) -> set[int]:
    checks = check_books(evidence, ENQUEUED)
    return {number for number, check in enumerate(checks) if check.wrong}


def test_books_in_order_pass_every_check(evidence: Evidence) -> None:
    assert wrong(evidence) == set()


def test_a_claim_that_was_given_back_may_be_taken_again(evidence: Evidence) -> None:
    evidence.executions[1].events.update([("CLAIMED", 0), ("GIVEN_BACK", 0)])
    assert wrong(evidence) == set()


def _lose(evidence: Evidence) -> None:
    del evidence.executions[3]


def _stray(evidence: Evidence) -> None:
    evidence.strays = 1


def _leave_running(evidence: Evidence) -> None:
    evidence.executions[3].status = "RUNNING"


def _forget_the_end(evidence: Evidence) -> None:
    evidence.executions[3].has_end = False


def _end_twice(evidence: Evidence) -> None:
    evidence.executions[1].events["SUCCESS", 0] = 2


def _end_both_ways(evidence: Evidence) -> None:
    evidence.executions[1].events["FAILED", 0] = 1


def _claim_twice(evidence: Evidence) -> None:
    evidence.executions[1].events["CLAIMED", 0] = 2


def _skip_an_attempt(evidence: Evidence) -> None:
    events = evidence.executions[2].events
    del events["CLAIMED", 0], events["RETRY", 0]


def _fail_what_should_succeed(evidence: Evidence) -> None:
    first = evidence.executions[1]
    first.status, first.events = "FAILED", Counter([("CLAIMED", 0), ("FAILED", 0)])


def _retry_too_little(evidence: Evidence) -> None:
    evidence.executions[2] = found(2, "SUCCESS", 1, 0, ("CLAIMED", 0), ("SUCCESS", 0))


def _book_too_much(evidence: Evidence) -> None:
    evidence.entries[1] = ("job", 999)
    evidence.balances["job"] = (2, 1101)


def _book_for_another_job(evidence: Evidence) -> None:
    evidence.entries[1] = ("other", 101)
    evidence.balances = {"job": (1, 102), "other": (1, 101)}


def _book_what_failed(evidence: Evidence) -> None:
    evidence.entries[3] = ("job", 103)
    evidence.balances["job"] = (3, 306)


def _forget_a_booking(evidence: Evidence) -> None:
    del evidence.entries[1]
    evidence.balances["job"] = (1, 102)


def _book_a_stranger(evidence: Evidence) -> None:
    evidence.entries[4] = ("job", 1)
    evidence.balances["job"] = (3, 204)


def _add_twice(evidence: Evidence) -> None:
    evidence.balances["job"] = (2, 305)


def _count_twice(evidence: Evidence) -> None:
    evidence.balances["job"] = (3, 203)


@pytest.mark.parametrize(
    ("disorder", "found_by"),
    [
        (_lose, {LOST}),
        (_stray, {LOST}),
        (_leave_running, {FINAL, ONCE, PLAN}),
        (_forget_the_end, {FINAL}),
        (_end_twice, {ONCE, ENDS}),
        (_end_both_ways, {ONCE, ENDS}),
        (_claim_twice, {CLAIMS}),
        (_skip_an_attempt, {CLAIMS, ENDS}),
        (_fail_what_should_succeed, {PLAN, AGREES}),
        (_retry_too_little, {PLAN}),
        (_book_too_much, {AGREES}),
        (_book_for_another_job, {AGREES}),
        (_book_what_failed, {AGREES}),
        (_forget_a_booking, {AGREES}),
        (_book_a_stranger, {STRANGERS}),
        (_add_twice, {BALANCES}),
        (_count_twice, {BALANCES}),
    ],
)
def test_disorder_is_found_by_its_check(
    evidence: Evidence, disorder: Callable[[Evidence], None], found_by: set[int]
) -> None:
    disorder(evidence)
    assert wrong(evidence) == found_by
