"""What a pool and its transactions tell of themselves: events to listeners, and the slow log.

While there is no listener and no limit is set, each of these costs one call, and an acquire and a
release not even that.
"""

from __future__ import annotations

from collections.abc import Awaitable, Sized
from time import monotonic
from typing import Any, TypeVar

from jobu_db._aio.callsite import Asked
from jobu_db.driver import Driver
from jobu_db.errors import QueryExecutionError
from jobu_db.events import events
from jobu_db.placeholders import Dialect
from jobu_db.pool.slow_log import SlowLog
from jobu_db.settings.models import PoolConfig
from jobu_db.statement_text import without_values

T = TypeVar("T")


class Observer:
    """One for each pool.

    Attributes:
        slow: The slow log.
    """

    __slots__ = ("_driver", "_name", "slow")

    def __init__(self, name: str, driver: Driver[Any], config: PoolConfig) -> None:
        self._name = name
        self._driver = driver
        self.slow = SlowLog(name, config)

    # -- connections

    def connected(self, seconds: float, error: BaseException | None) -> None:
        """A connection was opened, or failed to."""
        if events.connect:
            self._tell("connect", seconds=seconds, error=error)

    def acquired(self, waited: float) -> None:
        """A connection is being lent; to be called only if `events.acquire`."""
        self._tell("acquire", seconds=waited)

    def released(self, held: float) -> None:
        """A connection came back; to be called only if `events.release`."""
        self._tell("release", seconds=held)

    def closing(self, reason: str) -> None:
        """A connection is being closed."""
        if events.close:
            self._tell("close", reason=reason)

    def host_changed(self, host: str, before: str | None, role: str | None) -> None:
        """One of several servers has another role than before."""
        if events.host_changed:
            self._tell("host_changed", host=host, role=role, before=before)

    # -- statements

    def observe(
        self, operation: str, sql: str, parameters: Any, transaction: object | None
    ) -> Observation | None:
        """Begin to observe a statement; None if there is no listener and no limit.

        Args:
            operation: Name of the driver's method, or "iterate".
            transaction: What stands for its transaction in all events, None outside of one.
        """
        if not (events.statement or self.slow.statement is not None):
            return None
        return Observation(self, operation, sql, parameters, transaction)

    def statement_ended(
        self, observation: Observation, seconds: float, error: BaseException | None
    ) -> None:
        """A statement ended after so many seconds, waiting included."""
        limit = self.slow.statement
        if limit is not None and seconds >= limit:
            # Only where it was slow: to take the values out costs more than most statements.
            text = without_values(observation.sql, observation.dialect)
            self.slow.tell_statement(text, seconds, observation.waited, error)
        if events.statement:
            self._tell(
                "statement",
                statement=observation.sql,
                seconds=seconds,
                error=error,
                operation=observation.operation,
                batch_size=observation.batch_size,
                dialect=observation.dialect,
                transaction=observation.transaction,
            )

    def dialect_of(self, connection: Any) -> Dialect | None:
        """Say how the next statement on a connection is read, None if that is not known."""
        try:
            return self._driver.dialect_of(connection)
        except QueryExecutionError:
            return None

    # -- transactions

    def transaction_began(self, transaction: object, *, readonly: bool) -> None:
        """An outermost transaction began."""
        if events.transaction_begin:
            self._tell("transaction_begin", transaction=transaction, readonly=readonly)

    def transaction_ended(
        self,
        transaction: object,
        *,
        outcome: str,
        started: float,
        waited: float,
        asked: Asked | None,
        error: BaseException | None,
    ) -> None:
        """An outermost transaction ended, and its connection is back.

        Args:
            started: When it began, on the monotonic clock.
            waited: Seconds before that.
            asked: Who opened it.
            error: Why it could not be committed, or None.
        """
        limit = self.slow.transaction
        if not (events.transaction_end or limit is not None):
            return
        seconds = monotonic() - started
        if limit is not None and seconds >= limit:
            self.slow.tell_transaction(seconds, waited, outcome, asked)
        if events.transaction_end:
            self._tell(
                "transaction_end",
                outcome=outcome,
                seconds=seconds,
                transaction=transaction,
                error=error,
            )

    def _tell(self, event: str, **what: Any) -> None:
        events.tell(event, database=self._name, driver=self._driver, **what)


class Observation:
    """One statement under observation.

    Attributes:
        waited: Seconds until it went to the driver: for a connection, or for its turn.
        dialect: How its session reads it, None if that is not known.
    """

    __slots__ = (
        "_observer",
        "batch_size",
        "dialect",
        "operation",
        "sql",
        "started",
        "transaction",
        "waited",
    )

    def __init__(
        self, observer: Observer, operation: str, sql: str, parameters: Any, transaction: object
    ) -> None:
        self._observer = observer
        self.operation = operation
        self.sql = sql
        self.transaction = transaction
        self.batch_size: int | None = None
        # An iterator is not counted: that would use it up before the driver reads it.
        if operation == "executemany" and isinstance(parameters, Sized):
            self.batch_size = len(parameters)
        self.started = monotonic()
        self.waited = 0.0
        self.dialect: Dialect | None = None

    def sent(self, connection: Any) -> None:
        """Its turn has come: it goes to the driver now, on this connection."""
        self.waited = monotonic() - self.started
        self.dialect = self._observer.dialect_of(connection)

    async def of(self, running: Awaitable[T]) -> T:
        """Await the statement, and tell of its end."""
        failure: BaseException | None = None
        try:
            return await running
        except BaseException as error:
            failure = error
            raise
        finally:
            self.ended(monotonic() - self.started, failure)
            del failure  # which knows this frame

    def ended(self, seconds: float, error: BaseException | None) -> None:
        """Tell of its end."""
        self._observer.statement_ended(self, seconds, error)
