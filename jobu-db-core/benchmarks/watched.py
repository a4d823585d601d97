"""jobu-db while somebody watches: with slow logs, and with OpenTelemetry and its SDK.

Telemetry is of the whole process, and all contestants are in one: it is on during one's own samples
only.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from ours import Ours

from jobu_db import telemetry

NEVER_SLOW = 3600.0
"""Seconds: everything is timed, nothing is told."""


class OursWithSlowLogs(Ours):
    """jobu-db with all limits set, and never reached."""

    title = "jobu-db, slow logs"
    more = {  # noqa: RUF012
        "slow_statement": NEVER_SLOW,
        "slow_acquire": NEVER_SLOW,
        "slow_transaction": NEVER_SLOW,
    }


class _Nowhere(SpanExporter):
    """Takes spans and drops them, so that no network is measured."""

    def export(self, spans: Any) -> SpanExportResult:
        return SpanExportResult.SUCCESS


_tracers, _meters = TracerProvider(), MeterProvider([InMemoryMetricReader()])
_tracers.add_span_processor(BatchSpanProcessor(_Nowhere()))


class OursWithMetrics(Ours):
    """jobu-db with the metrics of OpenTelemetry, and no spans."""

    title = "jobu-db, metrics"
    spans = False

    @contextmanager
    def sampling(self) -> Iterator[None]:
        telemetry.instrument(
            tracer_provider=_tracers, meter_provider=_meters, spans=self.spans, measures=True
        )
        try:
            yield
        finally:
            telemetry.uninstrument()


class OursWithTelemetry(OursWithMetrics):
    """jobu-db with metrics and spans, every one of them sampled and batched."""

    title = "jobu-db, metrics and spans"
    spans = True


WATCHED = (OursWithSlowLogs, OursWithMetrics, OursWithTelemetry)
