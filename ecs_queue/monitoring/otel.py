"""Exports the metrics of the catalogue by OpenTelemetry, as the usual OTEL_ variables say.

Counters and gauges are read when the SDK collects; histograms get each value as it is measured.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from opentelemetry.metrics import CallbackOptions, Observation
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import (
    MetricExporter,
    MetricExportResult,
    MetricsData,
    PeriodicExportingMetricReader,
)

from ecs_queue.errors import ConfigError
from ecs_queue.monitoring.catalogue import METRICS, Metric, MetricKind, Sample, SampleSource
from ecs_queue.monitoring.counters import WorkerCounters
from ecs_queue.monitoring.otel_exporters import METRICS_SIGNAL, load_exporter_classes
from ecs_queue.monitoring.otel_outages import Report
from ecs_queue.monitoring.otel_resource import build_resource

#: The instruments are read one after the other; for this time they share one read. Seconds.
_COLLECTION_SECONDS = 1.0
#: For the last export, when the worker stops. Seconds.
_STOP_SECONDS = 2.0


def otel_name(metric: Metric) -> str:
    """Return the metric's name by OpenTelemetry's conventions: `ecs_queue.launch` for ecs_queue_launch_seconds."""
    name = metric.name.removeprefix("ecs_queue_")
    for suffix in ("_total", "_seconds", "_ratio"):
        name = name.removesuffix(suffix)
    return f"ecs_queue.{name}"


def otel_unit(metric: Metric) -> str:
    """Return the metric's unit by OpenTelemetry's conventions."""
    return "s" if metric.name.endswith("_seconds") else "1"


def open_exporters(environ: Mapping[str, str], report: Report) -> Iterator[MetricExporter]:
    """Yield the exporters that the OTEL_ variables name; `report` gets whether each export succeeded.

    Each is of a class made from its own, because the reader asks it for the temporality that it prefers.

    Raises:
        ConfigError: One of them is not installed, or one does not push (`prometheus`).
    """
    for made_by in load_exporter_classes(METRICS_SIGNAL, environ):
        if not (isinstance(made_by, type) and issubclass(made_by, MetricExporter)):
            raise ConfigError(
                f"OTEL_METRICS_EXPORTER: expected an exporter that pushes, found {made_by.__name__}; Prometheus reads "
                "the metrics at metrics_port"
            )
        yield type("WatchedExporter", (made_by,), {"export": _watched(made_by.export, report)})()


def _watched(export: Callable[..., MetricExportResult], report: Report) -> Callable[..., MetricExportResult]:
    def watched(
        self: MetricExporter, metrics_data: MetricsData, timeout_millis: float = 10_000, **kwargs: Any
    ) -> MetricExportResult:
        result = MetricExportResult.FAILURE
        try:
            result = export(self, metrics_data, timeout_millis, **kwargs)
        finally:
            report(result is MetricExportResult.SUCCESS)
        return result

    return watched


class OtelMetrics:
    """A `Service` of the worker: the SDK's own thread collects and exports."""

    def __init__(
        self,
        source: SampleSource,
        counters: WorkerCounters,
        worker: str,
        monotonic: Callable[[], float],
        report: Report,
        environ: Mapping[str, str] = os.environ,
    ) -> None:
        """`worker` is the worker's name, and `report` gets whether each export succeeded.

        Raises:
            ConfigError: An exporter is not installed.
        """
        self._exporters = list(open_exporters(environ, report))
        self._source = source
        self._counters = counters
        self._worker = worker
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._samples: Sequence[Sample] = ()
        self._read_at = float("-inf")
        self._provider: MeterProvider | None = None
        self._stopper: threading.Thread | None = None

    def start(self) -> None:
        """Begin to export; returns at once."""
        if self._provider is not None:
            return
        resource = build_resource("ecs-queue-worker", self._worker)
        readers = [PeriodicExportingMetricReader(exporter) for exporter in self._exporters]
        self._provider = MeterProvider(readers, resource, shutdown_on_exit=False)
        meter = self._provider.get_meter("ecs-queue")
        histograms: dict[str, Any] = {}
        for metric in METRICS.values():
            name, unit = otel_name(metric), otel_unit(metric)
            if metric.kind is MetricKind.HISTOGRAM:
                histograms[metric.name] = meter.create_histogram(
                    name, unit, metric.help, explicit_bucket_boundaries_advisory=list(metric.buckets)
                )
            elif metric.kind is MetricKind.COUNTER:
                meter.create_observable_counter(name, [self._observe(metric)], unit, metric.help)
            else:
                meter.create_observable_gauge(name, [self._observe(metric)], unit, metric.help)
        self._counters.observer = lambda name, seconds, labels: histograms[name].record(
            seconds, dict(zip(METRICS[name].labels, labels, strict=True))
        )

    def stop(self) -> None:
        """Export for the last time; returns at once."""
        if self._provider is not None and self._stopper is None:
            self._stopper = threading.Thread(target=self._shut_down, name="otel-stop", daemon=True)
            self._stopper.start()

    def join(self, timeout: float) -> bool:
        """Wait for the end after `stop`; return whether it came."""
        if self._stopper is None:
            return True
        self._stopper.join(timeout)
        return not self._stopper.is_alive()

    def _shut_down(self) -> None:
        with self._lock:
            self._read_at = float("-inf")  # the last export has the last values
        if self._provider is not None:
            self._provider.shutdown(timeout_millis=_STOP_SECONDS * 1000)

    def _observe(self, metric: Metric) -> Callable[[CallbackOptions], Iterable[Observation]]:
        def read(_: CallbackOptions) -> Iterable[Observation]:
            return [
                Observation(float(sample.value), dict(zip(metric.labels, sample.labels, strict=True)))
                for sample in self._collect()
                if sample.name == metric.name
            ]

        return read

    def _collect(self) -> Sequence[Sample]:
        with self._lock:
            if self._monotonic() - self._read_at > _COLLECTION_SECONDS:
                self._samples, _ = self._source.collect()
                self._read_at = self._monotonic()
            return self._samples
