"""The page for Prometheus: a collector of prometheus_client over the catalogue, with a registry of its own."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from ecs_queue.monitoring.catalogue import METRICS, HistogramSample, MetricKind, Sample, SampleSource

#: Prometheus' text format, which every version reads: all names and labels are in its old alphabet.
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_FAMILIES = {MetricKind.COUNTER: CounterMetricFamily, MetricKind.GAUGE: GaugeMetricFamily}


def open_exposition(source: SampleSource) -> Callable[[], bytes]:
    """Return a function that returns the page as of now."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_CatalogueCollector(source))
    return lambda: generate_latest(registry)


class _CatalogueCollector(Collector):
    def __init__(self, source: SampleSource) -> None:
        self._source = source

    def describe(self) -> Iterable[Metric]:
        """Return nothing: the names are unique in the catalogue."""
        return ()

    def collect(self) -> Iterable[Metric]:
        """Return the families that have values, in the order of the catalogue."""
        samples, histograms = self._source.collect()
        values: dict[str, list[Sample]] = {}
        for sample in samples:
            values.setdefault(sample.name, []).append(sample)
        measured: dict[str, list[HistogramSample]] = {}
        for histogram in histograms:
            measured.setdefault(histogram.name, []).append(histogram)
        for name, metric in METRICS.items():
            if metric.kind is MetricKind.HISTOGRAM and name in measured:
                yield _histogram_family(name, measured[name])
            elif name in values:
                family = _FAMILIES[metric.kind](name, metric.help, labels=metric.labels)
                for sample in values[name]:
                    family.add_metric(sample.labels, float(sample.value))
                yield family


def _histogram_family(name: str, histograms: Iterable[HistogramSample]) -> HistogramMetricFamily:
    metric = METRICS[name]
    family = HistogramMetricFamily(name, metric.help, labels=metric.labels)
    for histogram in histograms:
        buckets, number = list[tuple[str, float]](), 0
        for bound, count in zip((*metric.buckets, math.inf), histogram.counts, strict=True):
            number += count
            buckets.append(("+Inf" if math.isinf(bound) else repr(bound), number))
        family.add_metric(histogram.labels, buckets, histogram.total)
    return family
