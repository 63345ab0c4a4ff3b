"""The SDK's side of the export of spans: exporters, provider and queue, as the usual OTEL_ variables say."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping, Sequence

from opentelemetry import trace as api
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.id_generator import IdGenerator
from opentelemetry.sdk.trace.sampling import Sampler

from ecs_queue.monitoring.otel_exporters import TRACES_SIGNAL, load_exporter_classes
from ecs_queue.monitoring.otel_outages import Report
from ecs_queue.monitoring.otel_resource import build_resource

#: For the last export, when the process stops. Seconds.
STOP_SECONDS = 2.0
SCOPE = "ecs-queue"


def open_exporters(environ: Mapping[str, str]) -> list[SpanExporter]:
    """Return what OTEL_TRACES_EXPORTER names, by default OTLP over HTTP; none for `none`.

    Raises:
        ConfigError: One of them is not installed.
    """
    return [make() for make in load_exporter_classes(TRACES_SIGNAL, environ)]


class WatchedExporter(SpanExporter):
    """Reports whether exports succeed; the SDK's own thread calls it."""

    def __init__(self, exporter: SpanExporter, report: Report) -> None:
        self._exporter = exporter
        self._report = report

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """See `SpanExporter`."""
        result = SpanExportResult.FAILURE
        try:
            result = self._exporter.export(spans)
        finally:
            self._report(result is SpanExportResult.SUCCESS)
        return result

    def shutdown(self) -> None:
        """See `SpanExporter`."""
        self._exporter.shutdown()

    def force_flush(self, timeout_millis: int = 30000) -> bool:
        """See `SpanExporter`."""
        return self._exporter.force_flush(timeout_millis)


class SpanPipeline:
    """Queues spans and exports them on the SDK's own thread. A `Service`; nothing waits for a collector.

    The queue has at most OTEL_BSP_MAX_QUEUE_SIZE spans, and drops the oldest beyond.
    """

    def __init__(
        self,
        service_name: str,
        instance: str,
        report: Report,
        environ: Mapping[str, str] = os.environ,
        ids: IdGenerator | None = None,
    ) -> None:
        """Open the exporters; `report` is called after each export with whether it succeeded.

        Raises:
            ConfigError: An exporter is not installed.
        """
        self._exporters = [WatchedExporter(each, report) for each in open_exporters(environ)]
        resource = build_resource(service_name, instance)
        self._provider = TracerProvider(resource=resource, shutdown_on_exit=False, id_generator=ids)
        self.tracer = self._provider.get_tracer(SCOPE)
        self.is_enabled = bool(self._exporters) and not isinstance(self.tracer, api.NoOpTracer)
        self._stopper: threading.Thread | None = None
        self._has_started = False

    @property
    def sampler(self) -> Sampler:
        """What decides which traces are recorded."""
        found: Sampler = self._provider.sampler
        return found

    def start(self) -> None:
        """Begin to export; returns at once."""
        if not self._has_started and self.is_enabled:
            for exporter in self._exporters:
                self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._has_started = True

    def stop(self) -> None:
        """Export what is queued; returns at once."""
        if self._stopper is None:
            self._stopper = threading.Thread(target=self._provider.shutdown, name="otel-traces-stop", daemon=True)
            self._stopper.start()

    def join(self, timeout: float) -> bool:
        """Wait for the end after `stop`, for some seconds at most; return whether it came."""
        if self._stopper is None:
            return True
        self._stopper.join(min(timeout, STOP_SECONDS))
        if not self._stopper.is_alive():
            return True
        for exporter in self._exporters:  # so that it repeats an export no more; some wait for the present one
            threading.Thread(target=exporter.shutdown, name="otel-exporter-stop", daemon=True).start()
        return False
