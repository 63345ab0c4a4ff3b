"""The metrics by OpenTelemetry, as a collector gets them."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from importlib.metadata import EntryPoint
from typing import Any

import pytest
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.sdk.metrics.export import ConsoleMetricExporter

from ecs_queue.errors import ConfigError
from ecs_queue.monitoring import otel_exporters
from ecs_queue.monitoring.catalogue import METRICS, HistogramSample, Sample
from ecs_queue.monitoring.counters import WorkerCounters
from ecs_queue.monitoring.otel import OtelMetrics, open_exporters, otel_name
from tests.otlp_collector import Collector
from tests.wait import wait_until
from tests.worker.live_harness import LiveWorkerHarness


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    made = Collector()
    for name, value in {
        "OTEL_EXPORTER_OTLP_ENDPOINT": made.url,
        "OTEL_METRIC_EXPORT_INTERVAL": "200",
        "OTEL_RESOURCE_ATTRIBUTES": "deployment.environment=test",
    }.items():
        monkeypatch.setenv(name, value)
    yield made
    made.close()


def points(metric: Any) -> dict[tuple[str, ...], float]:
    """Attributes -> value of the points of a counter or a gauge; none of None."""
    if metric is None:
        return {}
    found = metric.sum if metric.HasField("sum") else metric.gauge
    return {tuple(each.value.string_value for each in point.attributes): point.as_double for point in found.data_points}


def test_a_worker_exports_what_it_shows_on_its_page(collector: Collector) -> None:
    harness = LiveWorkerHarness(otel_metrics=True)
    try:
        worker = harness.start_worker()
        harness.submit("a", "b")
        wait_until(lambda: len(harness.ecs.tasks) == 2)
        for arn in list(harness.ecs.tasks):
            harness.ecs.finish(arn)
        wait_until(lambda: harness.emitted.count("request.ended") == 2)
        submitted = "ecs_queue.requests_submitted"  # of the ledger, read every few seconds
        wait_until(lambda: points(collector.metrics().get(submitted)) == {("default",): 2}, "it was exported", 30)
    finally:
        harness.stop_workers()  # it exports for the last time

    wait_until(lambda: "ecs_queue.results" in collector.metrics(), "it was exported")
    metrics = collector.metrics()
    assert points(metrics["ecs_queue.results"]) == {("default", "SUCCESS", "EssentialContainerExited"): 2}
    assert metrics["ecs_queue.results"].sum.is_monotonic
    assert metrics["ecs_queue.wait"].unit == "s"
    (wait,) = metrics["ecs_queue.wait"].histogram.data_points
    assert (wait.count, list(wait.explicit_bounds)) == (2, list(METRICS["ecs_queue_wait_seconds"].buckets))
    resource = collector.resource()
    assert resource["service.instance.id"] == worker.name
    assert (resource["service.name"], resource["deployment.environment"]) == ("ecs-queue-worker", "test")


class EmptySource:
    def collect(self) -> tuple[list[Sample], list[HistogramSample]]:
        return [Sample(name, 1) for name, metric in METRICS.items() if not metric.labels and not metric.buckets], []


def test_a_collector_that_hangs_does_not_stop_the_worker(collector: Collector) -> None:
    collector.answers.clear()
    counters = WorkerCounters()
    exported = OtelMetrics(EmptySource(), counters, "w", time.monotonic, lambda has_succeeded: None)
    exported.start()
    time_before = time.monotonic()
    counters.observe("ecs_queue_launch_seconds", 1.0, ("default",))
    exported.stop()
    exported.join(0.5)
    assert time.monotonic() - time_before < 10


def test_a_collector_that_refuses_is_reported(collector: Collector) -> None:
    collector.status = 400  # an answer that is not repeated
    reported: list[bool] = []
    exported = OtelMetrics(EmptySource(), WorkerCounters(), "w", time.monotonic, reported.append)
    exported.start()
    wait_until(lambda: reported, "it failed")
    collector.status = 200
    wait_until(lambda: reported[-1], "it works")
    exported.stop()
    exported.join(5)
    assert reported[0] is False


def test_another_exporter_is_loaded_by_its_name() -> None:
    exporters = list(open_exporters({"OTEL_METRICS_EXPORTER": "console, otlp"}, lambda has_succeeded: None))
    assert [type(exporter).__mro__[1] for exporter in exporters] == [ConsoleMetricExporter, OTLPMetricExporter]
    assert list(open_exporters({"OTEL_METRICS_EXPORTER": "none"}, lambda has_succeeded: None)) == []


@pytest.mark.parametrize("prefix", ["OTEL_EXPORTER_OTLP", "OTEL_EXPORTER_OTLP_METRICS"])
def test_an_exporter_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch, prefix: str) -> None:
    monkeypatch.setenv(f"{prefix}_PROTOCOL", "grpc")
    with pytest.raises(ConfigError, match=r"OTEL_METRICS_EXPORTER: .* found otlp_proto_grpc; .* otel_metrics = False"):
        LiveWorkerHarness(otel_metrics=True).start_worker()


def test_an_exporter_that_does_not_push_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    entry = EntryPoint("prometheus", "opentelemetry.sdk.metrics.export:InMemoryMetricReader", "")
    monkeypatch.setattr(otel_exporters, "entry_points", lambda group, name: [entry])
    with pytest.raises(ConfigError, match="found InMemoryMetricReader; Prometheus reads the metrics at metrics_port"):
        list(open_exporters({"OTEL_METRICS_EXPORTER": "prometheus"}, lambda has_succeeded: None))


def test_an_exporter_keeps_the_temporality_that_it_prefers(
    collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE", "DELTA")
    exported = OtelMetrics(EmptySource(), WorkerCounters(), "w", time.monotonic, lambda has_succeeded: None)
    exported.start()
    counter = otel_name(METRICS["ecs_queue_retries_total"])
    wait_until(lambda: counter in collector.metrics(), "it was exported")
    exported.stop()
    assert exported.join(5)
    delta = 1  # AggregationTemporality of the protocol
    assert collector.metrics()[counter].sum.aggregation_temporality == delta


def test_names_are_unique() -> None:
    names = [otel_name(metric) for metric in METRICS.values()]
    assert len(set(names)) == len(names)


def test_without_its_packages_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "ecs_queue.monitoring.otel")
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.metrics", None)
    with pytest.raises(ConfigError, match=r"pip install 'ecs-queue\[otel\]'"):
        LiveWorkerHarness(otel_metrics=True).start_worker()
