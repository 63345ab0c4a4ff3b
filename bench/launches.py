"""Launches a second of one worker at 50 ms latency and no quota, beside boto3 alone on the same stand-in."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

import boto3
from botocore.config import Config as BotoConfig

from bench.stack import Stack, stack, until
from ecs_queue.core.states import State

LATENCY = 0.05
THREADS = 32


def run(tasks: int) -> list[tuple[str, str, str]]:
    """Rows: what, figure, aim."""
    with stack(LATENCY, workers=1, concurrency=str(THREADS)) as parts:
        ours = _ours(parts, tasks)
    with stack(LATENCY, workers=0) as parts:
        alone = _boto3(parts, tasks)
    return [
        ("launches/s, one worker, 50 ms latency", f"{ours:.0f}", ">= 150"),
        (f"launches/s, boto3 alone, {THREADS} threads", f"{alone:.0f}", ""),
        ("ours / boto3 alone", f"{ours / alone:.2f}", ""),
    ]


def _ours(parts: Stack, tasks: int) -> float:
    """From the first to the last RunTask that took effect: the backlog stands before the worker is let at it."""
    with parts.client() as client:
        handles = client.submit_many({"command": ["sleep", "600"]} for _ in range(tasks))
        counts = client.ledger.counts
        until(lambda: counts().get("default", {}).get(State.LAUNCHED, 0) >= tasks, 300, every=0.1)
        times = []
        for start in range(0, len(handles), 500):
            records = client.ledger.get([handle.id for handle in handles[start : start + 500]])
            times += [record.launched_at for record in records if record]
    return (tasks - 1) / (max(times) - min(times))


def _boto3(parts: Stack, tasks: int) -> float:
    ecs = boto3.client("ecs", config=BotoConfig(max_pool_connections=THREADS), region_name="us-east-1")
    override = {"containerOverrides": [{"name": "main", "command": ["sleep", "600"]}]}

    def launch(_: int) -> None:
        ecs.run_task(cluster="local", taskDefinition="local", launchType="FARGATE", overrides=override)

    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(launch, range(THREADS)))  # connections
        start = time.monotonic()
        list(pool.map(launch, range(tasks)))
        return tasks / (time.monotonic() - start)
