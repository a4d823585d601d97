"""OpenTelemetry's SDK with exporters in memory."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from jobu_db import telemetry


class Told:
    """What was told so far."""

    def __init__(self) -> None:
        self.exporter = InMemorySpanExporter()
        self.tracers = TracerProvider()
        self.tracers.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.reader = InMemoryMetricReader()
        self.meters = MeterProvider([self.reader])

    def spans(self) -> list[ReadableSpan]:
        """Return the spans that have ended, in that order."""
        return list(self.exporter.get_finished_spans())

    def span(self, name: str) -> ReadableSpan:
        """Return the one span of this name."""
        (found,) = [span for span in self.spans() if span.name == name]
        return found

    def metrics(self) -> dict[str, Any]:
        """Return the metrics by name."""
        data = self.reader.get_metrics_data()
        return {
            metric.name: metric
            for resource in (data.resource_metrics if data else ())
            for scope in resource.scope_metrics
            for metric in scope.metrics
        }

    def points(self, name: str, pool: str) -> list[Any]:
        """Return the points of one metric of one pool."""
        every = self.metrics()[name].data.data_points
        return [
            point for point in every if point.attributes["db.client.connection.pool.name"] == pool
        ]


@pytest.fixture
def told() -> Iterator[Told]:
    """The telemetry of one test, turned on."""
    told = Told()
    telemetry.instrument(tracer_provider=told.tracers, meter_provider=told.meters)
    yield told
    telemetry.uninstrument()
    told.tracers.shutdown()
    told.meters.shutdown()
