"""Heartbeats of workers that do not run."""

from __future__ import annotations

from typing import Any

from ecs_queue.ledger.base import WorkerInfo


def make_worker_info(name: str = "w1", **facts: Any) -> WorkerInfo:
    """Return the heartbeat of a worker of the queue "default" that is healthy and has launched nothing yet."""
    known: dict[str, Any] = {
        "host": "h",
        "pid": 1,
        "version": "1",
        "queues": ["default"],
        "concurrency": 1,
        "launches_in_progress": 0,
        "launched_total": 0,
        "ended_total": 0,
        "health": "ok",
        "started_at": 0.0,
    }
    return WorkerInfo(name=name, **(known | facts))
