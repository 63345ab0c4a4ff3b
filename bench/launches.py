"""Launches a second at 50 ms latency and no quota: one, two and four workers, beside boto3 alone and Celery.

All on the same stand-in and machine; a rate is taken from the stand-in's own creation times, so that each side is
measured alike. On two cores the stand-in, Redis and the workers share them: more workers than that are bounded by it.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import boto3
from botocore.config import Config as BotoConfig

from bench.row import Row
from bench.stack import Stack, stack, until

LATENCY = 0.05
THREADS = 32
COMMAND = ["sleep", "600"]


def run(tasks: int) -> list[Row]:
    """`tasks` for each side."""
    taken: dict[int, str] = {}
    with stack(LATENCY, workers=0) as parts:
        alone, taken[0] = _measured(parts, tasks, _boto3)
    with stack(LATENCY, workers=0) as parts:
        celery = _celery(parts, tasks)
    ours = {}
    for workers in (1, 2, 4):
        with stack(LATENCY, workers=workers, concurrency=str(THREADS)) as parts:
            ours[workers], taken[workers] = _measured(parts, tasks, _ours)
    return [
        Row(f"launches/s, boto3 alone, {THREADS} threads", f"{alone:.0f}"),
        Row(f"launches/s, one Celery worker, {THREADS} threads, only RunTask", f"{celery:.0f}"),
        *(Row(f"launches/s, {number} of our workers", f"{rate:.0f}", _AIMS[number]) for number, rate in ours.items()),
        _ratio("one worker / boto3 alone", ours[1] / alone, ">= 0.60"),
        _ratio("one worker / one Celery worker", ours[1] / celery, ""),
        _ratio("two workers / one worker", ours[2] / ours[1], ">= 1.5"),
        *(Row(f"ms of processor time a launch, {_WHO.get(number, number)}", said) for number, said in taken.items()),
    ]


_AIMS = {1: ">= 150", 2: "", 4: ""}
_WHO = {0: "boto3 alone", 1: "one worker", 2: "two workers", 4: "four workers"}


def _ratio(what: str, ratio: float, aim: str) -> Row:
    return Row(f"launches, {what}", f"{ratio:.2f}", aim, ratio)


def _measured(parts: Stack, tasks: int, launch: Callable[[Stack, int], float]) -> tuple[float, str]:
    """The rate; and what bounds it: the processor time that each kind of process takes, and how many cores are busy."""
    before, start = parts.processor_seconds(), time.monotonic()
    found = launch(parts, tasks)
    took, seconds = parts.processor_seconds() - before, time.monotonic() - start
    shares = ", ".join(f"{kind} {1000 * spent / tasks:.2f}" for kind, spent in took.most_common())
    return found, f"{shares} ({took.total() / seconds:.1f} cores)"


def _ours(parts: Stack, tasks: int) -> float:
    with parts.client() as client:
        client.submit_many({"command": COMMAND} for _ in range(tasks))
    return rate(tasks)


def _boto3(parts: Stack, tasks: int) -> float:
    del parts
    ecs = _client()
    override = {"containerOverrides": [{"name": "main", "command": COMMAND}]}

    def launch(_: int) -> None:
        ecs.run_task(cluster="local", taskDefinition="local", launchType="FARGATE", overrides=override)

    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(launch, range(tasks)))
    return rate(tasks)


def _celery(parts: Stack, tasks: int) -> float:
    os.environ["BENCH_CELERY_BROKER"] = parts.redis.url
    from bench.celery_app import app, launch

    app.conf.broker_url = parts.redis.url
    with app.connection_for_write() as connection, app.amqp.Producer(connection) as producer:
        for _ in range(tasks):
            launch.apply_async((COMMAND,), producer=producer)
    arguments = ["worker", "--pool", "threads", "--concurrency", str(THREADS), "--loglevel", "ERROR"]
    quiet = ["--without-gossip", "--without-mingle", "--without-heartbeat"]
    command = [sys.executable, "-m", "celery", "-A", "bench.celery_app", *arguments, *quiet]
    worker = subprocess.Popen(command, env={**parts.environ, **os.environ}, stdout=subprocess.DEVNULL)
    try:
        return rate(tasks)
    finally:
        worker.terminate()
        worker.wait(30)


def _client() -> Any:
    return boto3.client("ecs", config=BotoConfig(max_pool_connections=THREADS), region_name="us-east-1")


def rate(tasks: int) -> float:
    """Launches a second, from the first to the last task that the stand-in has made."""
    ecs = _client()
    until(lambda: _running(ecs) >= tasks, 300, every=0.25)
    times: list[float] = []
    for page in ecs.get_paginator("list_tasks").paginate(cluster="local"):
        shown = ecs.describe_tasks(cluster="local", tasks=page["taskArns"])["tasks"]
        times += [task["createdAt"].timestamp() for task in shown]
    return (len(times) - 1) / (max(times) - min(times))


def _running(ecs: Any) -> int:
    cluster = ecs.describe_clusters(clusters=["local"])["clusters"][0]
    return int(cluster["runningTasksCount"]) + int(cluster["pendingTasksCount"])
