"""Reads the values of `--label`, and names requests by their labels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ecs_queue.client.records import decode_labels
from ecs_queue.errors import UsageError

if TYPE_CHECKING:
    from ecs_queue.protocol.record import Record

#: The labels that together name a task instance of Airflow, as `airflow_labels` sets them.
_AIRFLOW_NAMES = ("dag_id", "task_id", "run_id", "map_index")


def parse_labels(texts: Sequence[str]) -> dict[str, str]:
    """Return the labels of KEY=VALUE texts."""
    labels = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not key or not equals:
            raise UsageError(f"--label: expected KEY=VALUE, such as team=data, found {text!r:.80}")
        labels[key] = value
    return labels


def name_by_labels(record: Record) -> str:
    """Return what the request is for: `dag/task/run` of a task instance of Airflow, and its other labels as KEY=VALUE.

    Empty for a request without labels.
    """
    labels = decode_labels(record)
    instance = []
    if "dag_id" in labels and "task_id" in labels:
        instance = ["/".join(labels.pop(name) for name in _AIRFLOW_NAMES if name in labels)]
    return ", ".join([*instance, *(f"{key}={value}" for key, value in labels.items())])
