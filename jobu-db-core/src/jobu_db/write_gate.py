"""Writers take turns, first come first served, across tasks, databases and event loops.

Invariant: at most one turn is current; it ends by `leave`, or with its event loop. A turn is
granted directly, under the lock: who comes later cannot take it in between, and one that was
granted to a waiter who is gone is passed on. While somebody waits, a timer of his event loop goes
off when his time is up, or as soon after it as `PAUSE_PER_WAITER` allows.

A forked child gets a copy whose holder never leaves, and whose lock may be taken: it is never
looked at again.
"""

from __future__ import annotations

import asyncio
import os
import threading
import weakref
from collections import OrderedDict
from collections.abc import Callable, Collection
from math import inf
from time import monotonic

from jobu_db.errors import DeadlockError, LockTimeoutError, TransactionError

Wake = Callable[["asyncio.Future[None]"], None]

PAUSE_PER_WAITER = 1e-6
"""Seconds between two looks at whose time is up; looking at one waiter takes a tenth of that."""


def _finish(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


class _Turn:
    __slots__ = ("_wake", "deadline", "future", "holder", "holding", "loop", "since", "timeout")

    def __init__(
        self, holder: object, timeout: float, holding: Collection[WriteGate], wake: Wake
    ) -> None:
        self._wake = wake
        self.holder = holder
        self.timeout = timeout
        self.holding = holding
        self.loop = asyncio.get_running_loop()
        self.future: asyncio.Future[None] | None = None
        self.since = monotonic()
        self.deadline = self.since + timeout

    def grant(self) -> bool:
        """Tell its task; say whether there may still be one."""
        assert self.future is not None
        self.since = monotonic()
        if _is_running(self.loop):
            self._wake(self.future)
            return True
        try:
            self.loop.call_soon_threadsafe(self._wake, self.future)
        except RuntimeError:  # its loop is closed
            return False
        return True


class WriteGate:
    """Lets one writer at a time in, for databases that have no more than one (SQLite's file).

    Args:
        wake: Gives the future of one who waits its result, if it is not done, in its event loop.
    """

    def __init__(self, wake: Wake = _finish) -> None:
        self._wake = wake
        # Event loops of several threads share a gate. Held for a few steps, and never across an
        # await.
        self._lock = threading.Lock()
        self._current: _Turn | None = None
        self._waiting: OrderedDict[_Turn, None] = OrderedDict()
        # When the timer of each event loop goes off, in seconds on the monotonic clock.
        self._due: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, float] = (
            weakref.WeakKeyDictionary()
        )
        self._process = os.getpid()
        self._inherited = False
        _gates.add(self)

    async def enter(
        self, holder: object, timeout: float, holding: Collection[WriteGate] = ()
    ) -> None:
        """Wait for the turn.

        Args:
            holder: Who asks; names itself in `str`.
            timeout: Seconds.
            holding: The other gates that the caller is inside of already.

        Raises:
            DeadlockError: The holder waits, directly or by way of others, for one of `holding`:
                neither could go on.
            LockTimeoutError: Names the holder and for how long it has held the turn.
            TransactionError: This process was forked after the gate was made.
        """
        if self._inherited:
            raise TransactionError(
                f"the database belongs to process {self._process}, and cannot be written to in "
                f"process {os.getpid()}, which was forked from it: open it after the fork"
            )
        turn = _Turn(holder, timeout, holding, self._wake)
        with self._lock:
            if self._is_free():
                self._current = turn
                return
            turn.future = turn.loop.create_future()
            self._waiting[turn] = None
            self._mind(turn.loop, turn.deadline)
        # Not under the lock, which this takes itself; and once we are in line: of two that would
        # wait for each other, the second sees the first.
        if holding and (other := self._waits_for_us(holding)) is not None:
            self._withdraw(turn)
            raise DeadlockError(
                f"deadlock: {holder} waits for {self._holder()}, while {other} waits for what it "
                "holds itself: name the databases in the same order everywhere"
            )
        try:
            await turn.future
        except BaseException:
            # If it was granted just then, it goes to the next.
            self._withdraw(turn)
            raise

    def leave(self) -> None:
        """Give the turn to the next in line, at once."""
        if self._inherited:
            return
        with self._lock:
            self._pass_on()

    def _holder(self) -> object:
        current = self._current
        return "a writer that has just left" if current is None else current.holder

    def _waits_for_us(self, holding: Collection[WriteGate]) -> object | None:
        """Follow who waits where, from the holder of this gate; return who waits for one of
        `holding`, or None."""
        # One lock at a time is held here, in `_waiting_turns`: with two, gates that are looked at
        # from two threads could wait for each other.
        to_follow, followed = [self], {self}
        while to_follow:
            inside = to_follow.pop()
            for gate in list(_gates):
                for turn in gate._waiting_turns():
                    if inside in turn.holding:
                        if gate in holding:
                            return turn.holder
                        if gate not in followed:
                            followed.add(gate)
                            to_follow.append(gate)
        return None

    def _waiting_turns(self) -> list[_Turn]:
        with self._lock:
            return list(self._waiting)

    def inherit(self) -> None:
        """In a forked child: be the parent's."""
        self._inherited = True

    def _is_free(self) -> bool:
        if self._current is not None and self._current.loop.is_closed():
            # The loop was closed inside of a write, by a test or Ctrl-C: `leave` will not come.
            self._pass_on()
        return self._current is None

    def _pass_on(self) -> None:
        self._current = None
        while self._waiting:
            turn, _ = self._waiting.popitem(last=False)
            if turn.grant():
                self._current = turn
                return

    def _withdraw(self, turn: _Turn) -> None:
        with self._lock:
            if turn is self._current:
                self._pass_on()
            elif turn in self._waiting:
                del self._waiting[turn]

    def _mind(self, loop: asyncio.AbstractEventLoop, deadline: float) -> None:
        """Ensure that somebody looks when this time is up; under the lock, in that loop.

        One timer serves all who wait in one event loop, and is left to go off when they are gone:
        one for each, cancelled as soon as the turn came, cost more than all the rest of waiting.
        """
        if deadline < self._due.get(loop, inf):
            self._due[loop] = deadline
            # Weakly: the time may be long, and a gate goes with the last who knows it.
            loop.call_later(deadline - monotonic(), _look, weakref.ref(self), loop, deadline)

    def look(self, loop: asyncio.AbstractEventLoop, due: float) -> None:
        """Refuse those whose time is up, and mind the deadlines of the others in this loop."""
        with self._lock:
            if self._due.get(loop) != due:
                return  # an earlier one came since, whose timer has seen to this one
            now, earliest = monotonic(), inf
            del self._due[loop]
            for turn in [turn for turn in self._waiting if turn.loop is loop]:
                if turn.deadline <= now:
                    self._give_up(turn, now)
                else:
                    earliest = min(earliest, turn.deadline)
            if earliest < inf:
                self._mind(loop, max(earliest, now + PAUSE_PER_WAITER * len(self._waiting)))

    def _give_up(self, turn: _Turn, now: float) -> None:
        # Out of the line first: from here on nobody grants him the turn.
        del self._waiting[turn]
        current = self._current
        assert current is not None
        assert turn.future is not None
        if not turn.future.done():  # else he was cancelled, and hears of that
            turn.future.set_exception(
                LockTimeoutError(
                    f"write lock timeout: waited {turn.timeout:.2f} s; held by {current.holder} "
                    f"for {now - current.since:.2f} s, {len(self._waiting)} more waiting"
                )
            )


def _look(reference: weakref.ref[WriteGate], loop: asyncio.AbstractEventLoop, due: float) -> None:
    gate = reference()
    if gate is not None:
        gate.look(loop, due)


def _is_running(loop: asyncio.AbstractEventLoop) -> bool:
    try:
        return asyncio.get_running_loop() is loop
    except RuntimeError:
        return False


_gates: weakref.WeakSet[WriteGate] = weakref.WeakSet()


def _inherit() -> None:
    for gate in list(_gates):
        gate.inherit()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_inherit)
