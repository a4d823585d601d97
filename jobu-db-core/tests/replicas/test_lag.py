"""How far a replica is behind: between what its marks prove, and what it says itself."""

from __future__ import annotations

from dataclasses import dataclass

from jobu_db.replicas.lag import Lag
from jobu_db.replication import HostState, Position


@dataclass(frozen=True)
class Step(Position):
    """The number of a write, in one history."""

    number: int
    history: int = 1

    def covers(self, other: Step) -> bool:
        return self.may_reach(other) and self.number >= other.number

    def may_reach(self, other: Step) -> bool:
        return self.history == other.history

    def merged(self, other: Step) -> Step:
        return max(self, other, key=lambda each: each.number)


def standby(number: int, lag: float | None = None) -> HostState[Position]:
    return HostState("standby", Step(number), lag)


def test_nothing_is_known_before_both_have_spoken() -> None:
    lag = Lag()
    assert lag.seconds(0.0) == 0.0
    lag.primary_is(Step(7), 10.0)
    assert lag.seconds(20.0) == 0.0
    lag.replica_is(standby(7))
    assert lag.seconds(30.0) == 0.0


def test_it_grows_from_the_first_mark_that_is_not_reached() -> None:
    lag = Lag()
    lag.replica_is(standby(1))
    lag.primary_is(Step(1), 10.0)
    for when, number in ((11.0, 2), (12.0, 3), (13.0, 3)):
        lag.primary_is(Step(number), when)
    assert lag.seconds(13.5) == 2.5
    lag.replica_is(standby(2))
    assert lag.seconds(13.5) == 1.5
    lag.replica_is(standby(3))
    assert lag.seconds(99.0) == 0.0


def test_its_own_word_counts_between_what_the_marks_prove() -> None:
    lag = Lag()
    lag.replica_is(standby(1))
    lag.primary_is(Step(1), 10.0)
    lag.primary_is(Step(1), 12.0)
    lag.primary_is(Step(2), 13.0)
    for told, expected in ((0.1, 1.0), (1.7, 1.7), (3600.0, 2.0)):
        lag.replica_is(standby(1, lag=told))
        assert lag.seconds(14.0) == expected, "after an idle hour, it is no hour behind"


def test_before_it_was_ever_seen_to_keep_up_its_own_word_is_all_there_is() -> None:
    lag = Lag()
    lag.primary_is(Step(1000), 10.0)
    lag.replica_is(standby(1, lag=3600.0))
    assert lag.seconds(10.1) == 3600.0


def test_it_does_not_grow_while_the_primary_is_gone() -> None:
    lag = Lag()
    lag.replica_is(standby(1))
    lag.primary_is(Step(1), 10.0)
    lag.primary_is(Step(2), 11.0)
    lag.primary_is(Step(2), 11.5)
    lag.primary_is_gone()
    assert lag.seconds(99.0) == 0.5
    lag.primary_is(Step(2), 99.0)
    assert lag.seconds(99.0) == 88.0


def test_marks_of_a_history_that_ended_are_forgotten() -> None:
    lag = Lag()
    lag.replica_is(standby(1))
    lag.primary_is(Step(5), 10.0)
    lag.primary_is(Step(3, history=2), 50.0)
    assert lag.seconds(51.0) == 1.0


def test_marks_of_what_a_failover_has_lost_are_forgotten() -> None:
    """Where positions tell of no history: MySQL and MariaDB number transactions."""
    lag = Lag()
    lag.replica_is(standby(1))
    lag.primary_is(Step(1), 9.0)
    lag.primary_is(Step(5), 10.0)
    lag.primary_is(Step(3), 50.0)
    assert lag.seconds(51.0) == 1.0
    lag.replica_is(standby(3))
    assert lag.seconds(99.0) == 0.0


def test_the_oldest_marks_are_kept() -> None:
    lag = Lag()
    lag.replica_is(standby(0))
    for number in range(1, 5000):
        lag.primary_is(Step(number), float(number))
    assert lag.seconds(5000.0) == 4999.0
    lag.replica_is(standby(4999))
    lag.primary_is(Step(5000), 5001.0)
    assert lag.seconds(5002.0) == 1.0
