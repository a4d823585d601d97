"""What took longer than a setting allows, at WARNING: `slow_statement`, `slow_acquire`,
`slow_transaction`.

A line says how long, who, where in the caller's code, what was waited for, and for a statement
its text without values. All of it is worked out only when something is slow.
"""

from __future__ import annotations

import asyncio
from time import monotonic

from jobu_db._aio.callsite import Asked, Callsite, note, where_asked
from jobu_db.logs import logger_of
from jobu_db.settings.models import PoolConfig

LINES_APART = 1.0
"""Seconds between two lines on waits: when a pool is exhausted, thousands wait."""

WORTH_TELLING = 0.01
"""Seconds: a shorter wait explains nothing."""


class SlowLog:
    """One for each pool.

    Attributes:
        statement, acquire, transaction: The limits in seconds; None if off.
    """

    __slots__ = ("_left_out", "_logger", "_name", "_next", "acquire", "statement", "transaction")

    def __init__(self, name: str, config: PoolConfig) -> None:
        self.statement = config.slow_statement
        self.acquire = config.slow_acquire
        self.transaction = config.slow_transaction
        self._name = name
        self._logger = logger_of(name)
        self._next = 0.0
        self._left_out = 0

    def tell_statement(
        self, text: str, seconds: float, waited: float, error: BaseException | None
    ) -> None:
        """Tell of a statement of the task that runs. `text` has no values."""
        asked = note(asyncio.current_task(), where_asked(with_stack=False))
        ended = f", {type(error).__name__}" if error is not None else ""
        self._warn(
            f"slow statement: {seconds:.3f} s{_waiting(waited, 'before it was sent')}{ended}, "
            f"{Callsite(asked)}: {text}"
        )

    def tell_acquire(self, waited: float, asked: Asked | None, counts: str) -> None:
        """Tell of a wait for a connection; of many, one line a second, which counts the others."""
        # An exhausted pool is told by one line: thousands of them would be one more burden.
        if monotonic() < self._next:
            self._left_out += 1
            return
        others = f"; {self._left_out} more since the last such line" if self._left_out else ""
        self._next, self._left_out = monotonic() + LINES_APART, 0
        self._warn(f"slow acquire: waited {waited:.3f} s, {Callsite(asked)} ({counts}){others}")

    def tell_transaction(
        self, seconds: float, waited: float, outcome: str, asked: Asked | None
    ) -> None:
        """Tell of a transaction that ended; `waited` came before it."""
        before = _waiting(waited, "before it began", "after ")
        self._warn(f"slow transaction: {seconds:.3f} s{before}, {outcome}, {Callsite(asked)}")

    def _warn(self, message: str) -> None:
        self._logger.warning("%s: %s", self._name, message)


def _waiting(waited: float, what: str, how: str = "") -> str:
    if waited < WORTH_TELLING:
        return ""
    return f", {how}{waited:.3f} s of waiting {what}" if how else f", {waited:.3f} s of it {what}"
