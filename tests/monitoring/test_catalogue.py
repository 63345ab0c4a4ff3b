"""The catalogue of metrics is complete, and the page docs/metrics.md is made of it."""

from __future__ import annotations

import re

import pytest

from ecs_queue.monitoring.catalogue import METRICS, Metric, MetricKind
from ecs_queue.monitoring.counters import WorkerCounters
from ecs_queue.monitoring.docs_page import render_metrics_page
from ecs_queue.telemetry import EVENTS
from tests.docs import ROOT


def test_the_page_is_the_one_that_the_catalogue_gives() -> None:
    command = "python -c 'from ecs_queue.monitoring.docs_page import *; print(render_metrics_page(), end=\"\")'"
    assert (ROOT / "docs" / "metrics.md").read_text() == render_metrics_page(), f"{command} > docs/metrics.md"


@pytest.mark.parametrize("metric", METRICS.values(), ids=METRICS)
def test_a_name_follows_the_conventions_of_prometheus(metric: Metric) -> None:
    assert re.fullmatch(r"ecs_queue(_[a-z]+)+", metric.name)
    assert metric.name.endswith("_total") == (metric.kind is MetricKind.COUNTER)
    assert not metric.buckets or metric.name.endswith("_seconds")
    assert bool(metric.buckets) == (metric.kind is MetricKind.HISTOGRAM)
    assert list(metric.buckets) == sorted(set(metric.buckets))
    assert "queue" not in metric.labels[1:], "counters bound the queues of the first label"


def test_the_sink_counts_the_events_that_the_catalogue_names() -> None:
    named = {event for metric in METRICS.values() for event in metric.events}
    assert WorkerCounters().events == named
    assert named <= EVENTS.keys()
