"""Bugs to seed into the pool: each is one text in one file, replaced by another."""

from __future__ import annotations

from mutant import Mutant

STATE, SLOTS, BACKOFF = "_pool_state.py", "_slots.py", "_backoff.py"

MUTANTS = [
    Mutant(
        "last come, first served",
        STATE,
        "self.waiters.popitem(last=False)",
        "self.waiters.popitem(last=True)",
    ),
    Mutant(
        "a released connection is there for whoever comes first",
        STATE,
        "self.park(slot, now)\n        return self._settle(now, actions)\n\n    def resize(",
        "self.park(slot, now)\n        return actions\n\n    def resize(",
    ),
    Mutant(
        "a grant given back stays leased",
        STATE,
        "return self._back_in_service(slot, now)\n\n    def release(",
        "return []\n\n    def release(",
    ),
    Mutant(
        "a grant given back wakes nobody",
        STATE,
        "return self._back_in_service(slot, now)\n\n    def release(",
        "self.park(slot, now)\n        return []\n\n    def release(",
    ),
    Mutant(
        "lifetimes are not looked at",
        STATE,
        "if now >= slot.expires_at:",
        "if False:",
    ),
    Mutant(
        "lifetimes all alike",
        STATE,
        "LIFETIME_JITTER * self._random()",
        "LIFETIME_JITTER * 0",
    ),
    Mutant(
        "one connection too many",
        STATE,
        "len(self.slots) < self.limits.max_size",
        "len(self.slots) <= self.limits.max_size",
    ),
    Mutant(
        "connections being closed do not count",
        STATE,
        "len(self.slots) < self.limits.max_size",
        "self.staying < self.limits.max_size",
    ),
    Mutant(
        "a connection known dead is lent",
        STATE,
        "if not self._alive(slot.connection):",
        "if False:",
    ),
    Mutant(
        "an unproven connection is lent unchecked",
        STATE,
        "elif not self._is_unproven(slot, now):",
        "else:",
    ),
    Mutant(
        "a lost connection wakes nobody",
        STATE,
        "self.remove(slot)\n        return self._settle(now, [])",
        "self.remove(slot)\n        return []",
    ),
    Mutant(
        "more is opened than is waited for",
        STATE,
        "return soon + self.count(Phase.OPENING)",
        "return soon",
    ),
    Mutant(
        "a stuck reset holds up growth for ever",
        STATE,
        " and now - slot.since < PATIENCE",
        "",
    ),
    Mutant(
        "shrinking goes below min_size",
        STATE,
        "while self.idle and self.staying > self.limits.min_size:",
        "while self.idle:",
    ),
    Mutant(
        "a ping counts as use",
        STATE,
        "slot.proven_at = now\n        return self._back_in_service",
        "slot.proven_at = slot.last_used_at = now\n        return self._back_in_service",
    ),
    Mutant(
        "what broke one is not looked for in the others",
        STATE,
        "if slot.phase is Phase.CHECKING:",
        "if False:",
    ),
    Mutant(
        "a failure for good lets waiters wait",
        STATE,
        "[] if transient else self._refuse_all(error)",
        "[]",
    ),
    Mutant(
        "a closing pool takes back what is released",
        STATE,
        'if self.closing:\n            return "pool closed"',
        'if False:\n            return "pool closed"',
    ),
    Mutant(
        "a closing pool lets callers wait",
        STATE,
        "if self.closing:\n            return [Refuse(waiter, None)]",
        "if False:\n            return [Refuse(waiter, None)]",
    ),
    Mutant(
        "the longest idle is lent first",
        SLOTS,
        "while at and idle[at - 1].last_used_at > slot.last_used_at:",
        "while at:",
    ),
    Mutant(
        "many probes at once",
        BACKOFF,
        "return now >= self.retry_at and not opening",
        "return now >= self.retry_at",
    ),
    Mutant(
        "no pause after a failure",
        BACKOFF,
        "return now >= self.retry_at and not opening",
        "return not opening",
    ),
    Mutant(
        "a stampede when the server is back",
        BACKOFF,
        "self._at_once = 1.0",
        "self._at_once = inf",
    ),
    Mutant(
        "failures together count one by one",
        BACKOFF,
        "if began >= self.retry_at:",
        "if True:",
    ),
]
