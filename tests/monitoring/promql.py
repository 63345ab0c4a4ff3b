"""What an expression of PromQL names: metrics, labels and their values, compared with the catalogue."""

from __future__ import annotations

import re
from collections.abc import Iterator

from ecs_queue.monitoring.catalogue import METRICS, Metric, MetricKind
from ecs_queue.protocol.ecs_results import RunTaskResultKind
from ecs_queue.protocol.states import LIVE_STATES, State

#: Labels of every target of Prometheus, and the label of the buckets.
TARGET_LABELS = frozenset({"job", "namespace", "instance"})
#: Of the series ALERTS.
_ALERT_LABELS = frozenset({"alertname", "queue"})
_SELECTOR = re.compile(r"\b(ecs_queue_\w+|up|ALERTS)\b(?:\{([^}]*)\})?")
_MATCHER = re.compile(r'(\w+)(=~|!~|!=|=)"([^"]*)"')
_GROUPING = re.compile(r"\b(?:by|on|without|ignoring)\s*\(([^)]*)\)")
_LIVE = frozenset(state.value for state in LIVE_STATES)
#: (metric, label) -> every value.
_VALUES = {
    ("ecs_queue_requests", "state"): _LIVE,
    ("ecs_queue_requests_ended_total", "state"): frozenset(State) - _LIVE,
    ("ecs_queue_run_task_results_total", "result"): frozenset(kind.value for kind in RunTaskResultKind),
    ("ecs_queue_ecs_call_seconds", "operation"): frozenset({"RunTask", "DescribeTasks", "StopTask", "ListTasks"}),
    ("ecs_queue_quota_used_ratio", "limiter"): frozenset({"run_task", "describe_tasks"}),
}


def find_metric(name: str) -> Metric | None:
    """Return the metric of a series' name; the series of a histogram have suffixes."""
    if name in METRICS:
        return None if METRICS[name].kind is MetricKind.HISTOGRAM else METRICS[name]
    found = METRICS.get(re.sub(r"_(bucket|sum|count)$", "", name))
    return found if found and found.kind is MetricKind.HISTOGRAM else None


def find_unknown(expression: str) -> list[str]:
    """Return what an expression names and no worker shows; variables of Grafana stand for any value."""
    return list(_find_unknown(expression))


def metrics_of(expression: str) -> list[Metric]:
    """Return the metrics of an expression."""
    return [metric for name, _ in _SELECTOR.findall(expression) if (metric := find_metric(name))]


def _find_unknown(expression: str) -> Iterator[str]:
    known = {*TARGET_LABELS, "le"}.union(*(metric.labels for metric in metrics_of(expression)))
    if "ALERTS" in expression:
        known |= _ALERT_LABELS
    for group in _GROUPING.findall(expression):
        yield from (f"label {label}" for label in re.findall(r"\w+", group) if label not in known)
    for name, matchers in _SELECTOR.findall(expression):
        metric = find_metric(name)
        if name == "ALERTS":
            continue
        if metric is None and name != "up":
            yield f"metric {name}"
            continue
        labels = {*TARGET_LABELS, *(metric.labels if metric else ())}
        for label, _, value in _MATCHER.findall(matchers):
            if label not in labels:
                yield f"label {label} of {name}"
            values = _VALUES.get((metric.name, label)) if metric else None
            if values and "$" not in value and not set(value.split("|")) <= values:
                yield f"{label}={value} of {name}"
