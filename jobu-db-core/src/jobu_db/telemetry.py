"""OpenTelemetry: metrics of the pools, and spans of transactions and statements.

    from jobu_db import telemetry

    telemetry.instrument()

turns it on for all databases of the process, those that are open already included. It needs the
extra `jobu-db-core[otel]`, which is OpenTelemetry's API alone: what is measured goes where the
program's SDK sends it. Nothing else in jobu_db imports this module.

Names, units and attributes are those of OpenTelemetry's semantic conventions, version 1.44.0:
https://opentelemetry.io/docs/specs/semconv/db/ . There, spans and `db.client.operation.duration`
are stable, and the metrics of connection pools are still "in development".

Values never leave the program: a statement's text is without them, `error.type` is the name of the
exception's class, and its message is not told.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from importlib.metadata import version
from time import time_ns
from typing import Any
from weakref import WeakKeyDictionary

try:
    from opentelemetry import metrics, trace
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        "jobu_db.telemetry needs OpenTelemetry's API; run: pip install 'jobu-db-core[otel]'",
        name=error.name,
    ) from error
from opentelemetry.context import Context
from opentelemetry.metrics import CallbackOptions, Observation
from opentelemetry.trace import Span, SpanKind, Status, StatusCode

from jobu_db.driver import Driver
from jobu_db.errors import DatabaseError
from jobu_db.events import events
from jobu_db.placeholders import Dialect
from jobu_db.plugins import hookimpl
from jobu_db.pool.pool import open_pools
from jobu_db.statement_text import summarize, without_values

SCHEMA_URL = "https://opentelemetry.io/schemas/1.44.0"

BUCKETS = (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 10)
"""Seconds: those that the conventions give for `db.client.operation.duration`."""

POOL = "db.client.connection.pool.name"

Attributes = dict[str, str | int]

_lock = threading.Lock()
_measures: WeakKeyDictionary[metrics.MeterProvider, _Measures] = WeakKeyDictionary()
"""By provider: one that is asked again for an instrument keeps the callbacks that it had."""

_listener: _Listener | None = None


def instrument(
    *,
    tracer_provider: trace.TracerProvider | None = None,
    meter_provider: metrics.MeterProvider | None = None,
    spans: bool = True,
    measures: bool = True,
) -> None:
    """Tell OpenTelemetry from now on. Again: nothing happens, until `uninstrument`.

    Args:
        tracer_provider, meter_provider: Where to; the program's global ones if None.
        spans: One for each outermost transaction and each statement.
        measures: The metrics.
    """
    global _listener
    with _lock:
        if _listener is None:
            _listener = _Listener(tracer_provider, meter_provider, spans=spans, measures=measures)
            events.register(_listener)


def uninstrument() -> None:
    """Tell OpenTelemetry nothing any more."""
    global _listener
    with _lock:
        if _listener is not None:
            events.unregister(_listener)
            _listener.stop()
            _listener = None


class _Listener:
    """Hears the events of all databases."""

    def __init__(
        self,
        tracer_provider: trace.TracerProvider | None,
        meter_provider: metrics.MeterProvider | None,
        *,
        spans: bool,
        measures: bool,
    ) -> None:
        self._tracer = None
        self._measures = None
        if spans:
            self._tracer = trace.get_tracer(
                "jobu_db", version("jobu-db-core"), tracer_provider, SCHEMA_URL
            )
        if measures:
            self._measures = _measures_of(meter_provider or metrics.get_meter_provider())
            self._measures.active = True
        self._where: WeakKeyDictionary[Driver[Any], Attributes] = WeakKeyDictionary()
        self._transactions: WeakKeyDictionary[object, tuple[Span, Context]] = WeakKeyDictionary()

    def stop(self) -> None:
        """Report no figures any more: OpenTelemetry has no way to take an instrument back."""
        if self._measures is not None:
            self._measures.active = False

    def _attributes(self, database: str, driver: Driver[Any]) -> Attributes:
        """Return where a database is. It does not change once a connection was opened."""
        attributes = self._where.get(driver)
        if attributes is None:
            attributes = self._where[driver] = {**driver.attributes, POOL: database}
        return attributes

    # -- connections

    @hookimpl
    def jobu_db_connect(self, database: str, seconds: float, error: BaseException | None) -> None:
        if self._measures is not None and error is None:
            self._measures.create_time.record(seconds, {POOL: database})

    @hookimpl
    def jobu_db_acquire(self, database: str, seconds: float) -> None:
        if self._measures is not None:
            self._measures.wait_time.record(seconds, {POOL: database})

    @hookimpl
    def jobu_db_release(self, database: str, seconds: float) -> None:
        if self._measures is not None:
            self._measures.use_time.record(seconds, {POOL: database})

    # -- statements

    @hookimpl
    def jobu_db_statement(
        self,
        database: str,
        driver: Driver[Any],
        statement: str,
        seconds: float,
        error: BaseException | None,
        batch_size: int | None,
        dialect: Dialect | None,
        transaction: object | None,
    ) -> None:
        attributes = dict(self._attributes(database, driver))
        summary = summarize(statement, dialect)
        # To the conventions, one row alone is no batch.
        is_batch = batch_size is not None and batch_size != 1
        if summary:
            attributes["db.query.summary"] = f"BATCH {summary}" if is_batch else summary
        attributes |= _failure(error)
        if self._measures is not None:
            self._measures.duration.record(seconds, attributes)
        if self._tracer is not None:
            # In another dictionary: an older SDK keeps the one that the measure was given.
            attributes = {**attributes, "db.query.text": without_values(statement, dialect)}
            if batch_size is not None and is_batch:
                attributes["db.operation.batch.size"] = batch_size
            known = self._transactions.get(transaction) if transaction is not None else None
            # The event comes when the statement is over: the span is begun in the past.
            end = time_ns()
            span = self._tracer.start_span(
                str(attributes.get("db.query.summary") or attributes["db.system.name"]),
                None if known is None else known[1],
                SpanKind.CLIENT,
                attributes,
                start_time=end - int(seconds * 1e9),
            )
            _end(span, error, end)

    # -- transactions

    @hookimpl
    def jobu_db_transaction_begin(
        self, database: str, driver: Driver[Any], transaction: object, readonly: bool
    ) -> None:
        if self._tracer is not None:
            attributes: dict[str, Any] = {
                **self._attributes(database, driver),
                "jobu_db.transaction.readonly": readonly,
            }
            # Not made the current span: what makes it current must be undone in the same context,
            # and a transaction may end in another one. Statements get their parent from here.
            span = self._tracer.start_span(f"transaction {database}", attributes=attributes)
            self._transactions[transaction] = span, trace.set_span_in_context(span)

    @hookimpl
    def jobu_db_transaction_end(
        self, outcome: str, transaction: object, error: BaseException | None
    ) -> None:
        known = self._transactions.pop(transaction, None)
        if known is not None:
            span, _ = known
            span.set_attributes({"jobu_db.transaction.outcome": outcome, **_failure(error)})
            _end(span, error, time_ns())


def _failure(error: BaseException | None) -> Attributes:
    """Say of what class an error is, and its code: in no way what is in it."""
    if error is None:
        return {}
    failure: Attributes = {"error.type": type(error).__qualname__}
    if isinstance(error, DatabaseError) and error.code:
        failure["db.response.status_code"] = error.code
    return failure


def _end(span: Span, error: BaseException | None, end: int) -> None:
    if error is not None:
        span.set_status(Status(StatusCode.ERROR))
    span.end(end)


def _measures_of(provider: metrics.MeterProvider) -> _Measures:
    if provider not in _measures:
        _measures[provider] = _Measures(
            provider.get_meter("jobu_db", version("jobu-db-core"), SCHEMA_URL)
        )
    return _measures[provider]


class _Measures:
    """The instruments. Those that tell a state are asked when somebody collects: they cost nothing
    in between.

    Attributes:
        active: False: nothing is reported any more.
    """

    def __init__(self, meter: metrics.Meter) -> None:
        self.active = False
        self._meter = meter
        self.duration = self._seconds(
            "db.client.operation.duration", "Duration of database client operations."
        )
        self.create_time = self._seconds(
            "db.client.connection.create_time", "The time it took to create a new connection."
        )
        self.wait_time = self._seconds(
            "db.client.connection.wait_time",
            "The time it took to obtain an open connection from the pool.",
        )
        self.use_time = self._seconds(
            "db.client.connection.use_time",
            "The time between borrowing a connection and returning it to the pool.",
        )
        state = "db.client.connection.state"
        self._state(
            "db.client.connection.count",
            "The number of connections that are currently in state described by the `state` "
            "attribute.",
            lambda stats: [
                (stats["idle"], {state: "idle"}),
                (stats["size"] - stats["idle"], {state: "used"}),
            ],
        )
        self._state(
            "db.client.connection.idle.max",
            "The maximum number of idle open connections allowed.",
            lambda stats: [(stats["max_size"], {})],
        )
        self._state(
            "db.client.connection.idle.min",
            "The minimum number of idle open connections allowed.",
            lambda stats: [(stats["min_size"], {})],
        )
        self._state(
            "db.client.connection.max",
            "The maximum number of open connections allowed.",
            lambda stats: [(stats["max_size"], {})],
        )
        self._state(
            "db.client.connection.pending_requests",
            "The number of current pending requests for an open connection.",
            lambda stats: [(stats["waiting"], {})],
            unit="{request}",
        )
        meter.create_observable_counter(
            "db.client.connection.timeouts",
            [self._observer(lambda stats: [(stats["timeouts"], {})])],
            "{timeout}",
            "The number of connection timeouts that have occurred trying to obtain a connection "
            "from the pool.",
        )

    def _seconds(self, name: str, description: str) -> metrics.Histogram:
        return self._meter.create_histogram(
            name, "s", description, explicit_bucket_boundaries_advisory=BUCKETS
        )

    def _state(
        self,
        name: str,
        description: str,
        read: Callable[[dict[str, Any]], list[tuple[int, Attributes]]],
        unit: str = "{connection}",
    ) -> None:
        self._meter.create_observable_up_down_counter(
            name, [self._observer(read)], unit, description
        )

    def _observer(
        self, read: Callable[[dict[str, Any]], list[tuple[int, Attributes]]]
    ) -> Callable[[CallbackOptions], Iterable[Observation]]:
        def observe(options: CallbackOptions) -> Iterator[Observation]:
            for pool in open_pools() if self.active else ():
                for value, attributes in read(pool.stats()):
                    yield Observation(value, {POOL: pool.name, **attributes})

        return observe
