"""A line in CloudWatch's embedded metric format: CloudWatch Logs makes metrics of it, without any call."""

from __future__ import annotations

import json

from ecs_queue.monitoring.scaling import ScaleSignal

#: CloudWatch's namespace of the metrics, and their dimensions.
EMF_NAMESPACE = "ecs-queue"
EMF_DIMENSIONS = ("Installation", "Queue")
#: Name -> unit and field of the signal.
EMF_METRICS = {
    "Backlog": ("Count", "backlog"),
    "OldestAge": ("Seconds", "oldest_age_seconds"),
    "InFlight": ("Count", "in_flight"),
    "LiveWorkers": ("Count", "live_workers"),
    "WorkersWanted": ("Count", "workers_wanted"),
}


def build_emf_line(namespace: str, signal: ScaleSignal, now: float) -> str:
    """Return the line of one queue.

    Args:
        namespace: That of ecs-queue: the dimension `Installation`.
        signal: The queue's load.
        now: Seconds since the epoch by this machine's clock, as of every line of its log.
    """
    metrics = [{"Name": name, "Unit": unit} for name, (unit, _) in EMF_METRICS.items()]
    directive = {"Namespace": EMF_NAMESPACE, "Dimensions": [list(EMF_DIMENSIONS)], "Metrics": metrics}
    values = {name: getattr(signal, field) for name, (_, field) in EMF_METRICS.items()}
    dimensions = dict(zip(EMF_DIMENSIONS, (namespace, signal.queue), strict=True))
    return json.dumps(
        {"_aws": {"Timestamp": int(now * 1000), "CloudWatchMetrics": [directive]}, **dimensions, **values}
    )
