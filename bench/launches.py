"""Launches per second at 50 ms latency without quota: one, two and four workers, boto3 alone, and Celery.

All sides run in turn on the same machine and fake ECS, with a backlog that is there before the first launch. The rate
comes from the creation times of the fake ECS, so all sides are measured alike. On two cores the fake ECS, Redis and
the workers share the CPU, which bounds the rate of several workers.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from statistics import median
from typing import Any, NamedTuple

import boto3
from botocore.config import Config as BotoConfig

from bench.measurement import Measurement, median_and_range
from bench.stack import Stack, running_stack, wait_until

ECS_LATENCY = 0.05
THREADS = 32
COMMAND = ["sleep", "600"]
#: Rounds of all sides. The median counts, of rates and of the ratios within a round: a machine's speed varies.
_ROUNDS = 3
_WORKER_COUNTS = {"one worker": 1, "two workers": 2, "four workers": 4}
_TARGETS = {"one worker": ">= 150"}


class LaunchFigures(NamedTuple):
    """Launches per second, CPU seconds per launch by kind of process, and the number of busy cores."""

    rate: float
    cpu_seconds: Counter[str]
    cores: float


def run(tasks: int) -> list[Measurement]:
    """Measure each side with `tasks` tasks per round."""
    rounds = [_run_round(tasks) for _ in range(_ROUNDS)]
    return [
        Measurement(f"launches/s, boto3 alone, {THREADS} threads", _format_rate(rounds, "boto3 alone")),
        Measurement(f"launches/s, one Celery worker, {THREADS} threads, only RunTask", _format_rate(rounds, "Celery")),
        *(
            Measurement(f"launches/s, {side}", _format_rate(rounds, side), _TARGETS.get(side, ""))
            for side in _WORKER_COUNTS
        ),
        _ratio_measurement(rounds, "one worker", "boto3 alone", ">= 0.60"),
        _ratio_measurement(rounds, "one worker", "Celery", ""),
        _ratio_measurement(rounds, "two workers", "one worker", ">= 1.5"),
        *(
            Measurement(f"CPU ms per launch, {side}", _format_cpu(rounds, side))
            for side in ("boto3 alone", *_WORKER_COUNTS)
        ),
    ]


def _run_round(tasks: int) -> dict[str, LaunchFigures]:
    with running_stack(ECS_LATENCY, workers=0) as parts:
        found = {"boto3 alone": measure(parts, tasks, launch_with_boto3)}
    with running_stack(ECS_LATENCY, workers=0) as parts:
        found["Celery"] = measure(parts, tasks, _launch_with_celery)
    for side, workers in _WORKER_COUNTS.items():
        with running_stack(ECS_LATENCY, workers=workers, paused=True, concurrency=str(THREADS)) as parts:
            submit(parts, tasks)
            found[side] = measure(parts, tasks, launch_submitted)
    return found


def _format_rate(rounds: list[dict[str, LaunchFigures]], side: str) -> str:
    return median_and_range([round_[side].rate for round_ in rounds], 0)


def _ratio_measurement(rounds: list[dict[str, LaunchFigures]], first: str, second: str, target: str) -> Measurement:
    ratios = [round_[first].rate / round_[second].rate for round_ in rounds]
    return Measurement(f"launches, {first} / {second}", median_and_range(ratios), target, median(ratios))


def _format_cpu(rounds: list[dict[str, LaunchFigures]], side: str) -> str:
    """The CPU time of each kind of process, and the number of busy cores: what bounds the rate."""
    kinds = sorted({kind for round_ in rounds for kind in round_[side].cpu_seconds})
    medians = {kind: 1000 * median(round_[side].cpu_seconds[kind] for round_ in rounds) for kind in kinds}
    shares = ", ".join(f"{kind} {medians[kind]:.2f}" for kind in sorted(kinds, key=lambda kind: -medians[kind]))
    return f"{shares} ({median(round_[side].cores for round_ in rounds):.1f} cores)"


def measure(parts: Stack, tasks: int, launch: Callable[[Stack, int], None]) -> LaunchFigures:
    """Measure `launch`, which returns when all tasks are launched."""
    before, start = parts.cpu_seconds(), time.monotonic()
    launch(parts, tasks)
    used, seconds = parts.cpu_seconds() - before, time.monotonic() - start
    per_launch = Counter({kind: spent / tasks for kind, spent in used.items()})
    return LaunchFigures(launch_rate(tasks), per_launch, used.total() / seconds)


def submit(parts: Stack, tasks: int) -> None:
    """Submit the backlog; a stack that was started paused launches none of it yet."""
    with parts.client() as client:
        client.submit_many({"command": COMMAND} for _ in range(tasks))


def launch_submitted(parts: Stack, tasks: int) -> None:
    """Resume the queue, and return when the backlog is launched."""
    with parts.client() as client:
        client.ledger.resume_queues(["default"])
    wait_until_running(tasks)


def launch_with_boto3(parts: Stack, tasks: int) -> None:
    """Launch with 32 threads of this process."""
    del parts
    ecs = ecs_client()
    override = {"containerOverrides": [{"name": "main", "command": COMMAND}]}

    def launch(_: int) -> None:
        ecs.run_task(cluster="local", taskDefinition="local", launchType="FARGATE", overrides=override)

    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(launch, range(tasks)))


def _launch_with_celery(parts: Stack, tasks: int) -> None:
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
        wait_until_running(tasks)
    finally:
        worker.terminate()
        worker.wait(30)


def ecs_client() -> Any:
    """Return a client of the stack's fake ECS."""
    return boto3.client("ecs", config=BotoConfig(max_pool_connections=THREADS), region_name="us-east-1")


def launch_rate(tasks: int) -> float:
    """Return launches per second, from the first to the last task that the fake ECS created."""
    wait_until_running(tasks)
    ecs = ecs_client()
    times: list[float] = []
    for page in ecs.get_paginator("list_tasks").paginate(cluster="local"):
        described = ecs.describe_tasks(cluster="local", tasks=page["taskArns"])["tasks"]
        times += [task["createdAt"].timestamp() for task in described]
    return (len(times) - 1) / (max(times) - min(times))


def wait_until_running(tasks: int) -> None:
    """Return when the fake ECS has created this many tasks."""
    ecs = ecs_client()

    def are_all_created() -> bool:
        cluster = ecs.describe_clusters(clusters=["local"])["clusters"][0]
        return int(cluster["runningTasksCount"]) + int(cluster["pendingTasksCount"]) >= tasks

    wait_until(are_all_created, 300, interval=0.25)
