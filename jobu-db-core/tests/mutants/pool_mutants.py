"""Bugs to seed into the pool: each is one text in one file, replaced by another."""

from __future__ import annotations

from mutant import Mutant

STATE, BACKOFF = "pool/state.py", "pool/backoff.py"
POOL, WAITING, WORK = "pool/pool.py", "pool/waiters.py", "pool/maintenance.py"
RUNNER, TASKLESS, LIMIT = "pool/runner.py", "_aio/inline_task.py", "_aio/timeouts.py"
STEPPER, SHIELD = "_aio/stepper.py", "_aio/shield.py"

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
        "self.park(slot, now)\n        return self._settle(now, actions)\n\n    def send_owed(",
        "self.park(slot, now)\n        return actions\n\n    def send_owed(",
    ),
    Mutant(
        "a grant given back stays leased",
        STATE,
        "return self._back_in_service(slot, now)\n        actions: Actions = []",
        "return []\n        actions: Actions = []",
    ),
    Mutant(
        "a grant given back wakes nobody",
        STATE,
        "return self._back_in_service(slot, now)\n        actions: Actions = []",
        "self.park(slot, now)\n            return []\n        actions: Actions = []",
    ),
    Mutant(
        "an end is owed to whoever is first",
        STATE,
        "if fit and first is not None and first.begins:",
        "if fit and first is not None:",
    ),
    Mutant(
        "an end that is owed is never sent alone",
        STATE,
        "return [Reset(slot) for slot in owing if slot in self.slots]",
        "return []",
    ),
    Mutant(
        "a closing pool forgets what is owed",
        STATE,
        "[*self._refuse_all(None), *self.send_owed()]",
        "self._refuse_all(None)",
    ),
    Mutant(
        "a grant given back owes nothing",
        STATE,
        "if slot.ends is None:\n            return self._back_in_service(slot, now)",
        "if True:\n            return self._back_in_service(slot, now)",
    ),
    Mutant(
        "whoever comes is lent what owes an end",
        STATE,
        "self._pop_owing(now) if begins and self.owing else None",
        "self._pop_owing(now) if self.owing else None",
    ),
    Mutant(
        "one that is to be closed is lent with its end owed",
        STATE,
        "if self._reason_to_retire(self.owing[-1], now):",
        "if False:",
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
        "if len(self.slots) >= self.limits.max_size:",
        "if len(self.slots) > self.limits.max_size:",
    ),
    Mutant(
        "connections being closed do not count",
        STATE,
        "if len(self.slots) >= self.limits.max_size:",
        "if self.staying >= self.limits.max_size:",
    ),
    Mutant(
        "a connection known dead is lent",
        STATE,
        'if not self._alive(slot.connection):\n            return "dead"',
        'if False:\n            return "dead"',
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
        "slot.proven_at, slot.suspect = now, False",
        "slot.proven_at, slot.suspect, slot.last_used_at = now, False, now",
    ),
    Mutant(
        "idle connections are not suspect when another one was lost",
        STATE,
        "return slot.suspect or now",
        "return now",
    ),
    Mutant(
        "those whose time is up stay in the queue",
        STATE,
        "            del self.waiters[waiter]\n        return actions",
        "        return actions",
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
        STATE,
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
        "self._at_once = 1.0  #",
        "self._at_once = inf  #",
    ),
    Mutant(
        "failures together count one by one",
        BACKOFF,
        "if began >= self.retry_at:",
        "if True:",
    ),
    Mutant(
        "a waiter cancelled after the grant keeps it",
        POOL,
        "self._runner.perform(self._state.give_back(waiter.slot, monotonic()))",
        "pass",
    ),
    Mutant(
        "a cancelled waiter stays in the queue",
        POOL,
        "self._state.withdraw(waiter)",
        "pass",
    ),
    Mutant(
        "a waiter that gave up and its error keep one another",
        POOL,
        "            del waiter  #",
        "            pass  #",
    ),
    Mutant(
        "whoever holds one may not wait for another",
        POOL,
        "            and all(\n                slot.phase is Phase.LEASED",
        "            and any(\n                slot.phase is Phase.LEASED",
    ),
    Mutant(
        "another event loop may use the pool",
        POOL,
        "get_ident() == self._thread  # None until it is opened\n            and ",
        "",
    ),
    Mutant(
        "only the first deadline is kept",
        WAITING,
        "if deadline < self._due:",
        "if self._due == inf:",
    ),
    Mutant(
        "no deadline is kept after the first",
        WAITING,
        "self.mind(max(earliest,",
        "str(max(earliest,",
    ),
    Mutant(
        "a ping may take as long as it likes",
        WORK,
        "limit = self._config.check_timeout",
        "limit = 60.0",
    ),
    Mutant(
        "what a failed on_connect leaves stays open",
        WORK,
        "self.terminate(connection)\n                raise",
        "raise",
    ),
    Mutant(
        "a connection lost at once is opened again at full speed",
        WORK,
        "if not self.is_alive(connection):  #",
        "if False:  #",
    ),
    Mutant(
        "a driver that raises keeps the place",
        WORK,
        "and have the connection closed\n            return True",
        "and have the connection closed\n            raise",
    ),
    Mutant(
        "what a cancelled call left running is not stopped",
        WORK,
        "        if interrupted:\n            await driver.abort(connection)\n",
        "",
    ),
    Mutant(
        "an error that a reset waits for is not raised in it",
        TASKLESS,
        "self.step(failure(future))",
        "self.step()",
    ),
    Mutant(
        "a cancellation during a step of a reset is lost",
        TASKLESS,
        "            self._must_cancel = True\n",
        "            pass\n",
    ),
    Mutant(
        "work may take as long as it likes",
        LIMIT,
        "                limited.expire()\n",
        "                pass\n",
    ),
    Mutant(
        "time that is up as an answer comes is forgotten",
        LIMIT,
        "self.overdue = not self.alone\n\n"
        "    def cancel(self, msg: Any = None) -> bool:\n"
        '        """The task is cancelled',
        "self.overdue = False\n\n"
        "    def cancel(self, msg: Any = None) -> bool:\n"
        '        """The task is cancelled',
    ),
    Mutant(
        "the same of a task in line",
        LIMIT,
        "if self.overdue and self._limits.minds(self):",
        "if False and self._limits.minds(self):",
    ),
    Mutant(
        "only the first of several limits is kept",
        LIMIT,
        "now, self._due = monotonic(), inf",
        "now = monotonic()",
    ),
    Mutant(
        "all limits end with the first",
        LIMIT,
        "if deadline <= now]",
        "]",
    ),
    Mutant(
        "time that is up leaves no pass for an answer that is there",
        STEPPER,
        "call_soon(_pass, loop, PASSES,",
        "call_soon(_pass, loop, 0,",
    ),
    Mutant(
        "what a stepped coroutine awaits tells it no error",
        STEPPER,
        "                    heard = self.heard(error)\n",
        "                    pass\n",
    ),
    Mutant(
        "a cancellation of the caller cuts its commit short",
        SHIELD,
        "        self._limit_time()\n        return False\n",
        "        return super().cancel(msg)\n",
    ),
    Mutant(
        "a shielded caller waits for ever",
        SHIELD,
        "                self._loop.call_soon(callback, self, context=context)\n",
        "                pass\n",
    ),
    Mutant(
        "work is lost that is cancelled before its task runs",
        SHIELD,
        "    begun.send(None)\n",
        "",
    ),
]
