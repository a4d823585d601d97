"""How far a replica is behind its primary, from what both said of their positions."""

from __future__ import annotations

from collections import deque
from math import inf

from jobu_db.replication import HostState, Position

_MOST_MARKS = 1000


class _Mark:
    """A position of the primary.

    Attributes:
        first, last: When it was seen there, for the first and the last time.
    """

    __slots__ = ("first", "last", "position")

    def __init__(self, position: Position, when: float) -> None:
        self.position = position
        self.first = self.last = when


class Lag:
    """Of one replica. Times are in seconds on the monotonic clock.

    What it has not reached was written after the last mark that it has, and before the first one
    that it has not: so far behind it is at least, and at most. Between these, its own word counts.
    It is not further behind while the primary is gone.
    """

    def __init__(self) -> None:
        self._state: HostState[Position] | None = None
        self._marks: deque[_Mark] = deque()
        self._reached = -inf
        self._told_at = 0.0
        self._primary_answers = False

    def primary_is(self, position: Position, when: float) -> None:
        """Take note of where the primary was."""
        self._told_at, self._primary_answers = when, True
        marks = self._marks
        if marks and not position.covers(marks[-1].position):
            # Another one was promoted since, without the last of what this one had written: no
            # replica will ever have that.
            marks.clear()
        # One mark for as long as nothing is written, however often the primary is asked: an idle
        # hour is no hour behind.
        if marks and marks[-1].position == position:
            marks[-1].last = when
        elif len(marks) < _MOST_MARKS:  # beyond that, new ones are left out: the oldest counts
            # `when` is the time of the question; the primary was there at some time between that
            # and its answer. For `last`, which ends what a replica can at most be behind, that is
            # the safe side: with the time of the answer, a write that came in between would not
            # count. For `first`, a replica seems to be further behind by as long as the answer
            # took, at most `check_timeout`: it is left alone too early rather than too late.
            marks.append(_Mark(position, when))
        self._forget_reached()

    def primary_is_gone(self) -> None:
        """Take note that it does not answer."""
        self._primary_answers = False

    def replica_is(self, state: HostState[Position]) -> None:
        """Take note of where the replica was."""
        self._state = state
        self._forget_reached()

    def _forget_reached(self) -> None:
        state, marks = self._state, self._marks
        while state is not None and marks and state.position.covers(marks[0].position):
            self._reached = marks.popleft().last

    def seconds(self, now: float) -> float:
        """Return how far it is behind, as far as is known."""
        if self._state is None or not self._marks:
            return 0.0
        if not self._primary_answers:
            now = self._told_at
        at_least, at_most = now - self._marks[0].first, now - self._reached
        told = self._state.lag
        # What a replica says of itself grows on an idle primary too, and its clock may be another:
        # it counts only as far as the marks do not contradict it.
        return at_least if told is None else min(max(at_least, told), at_most)
