"""Launches a second at 50 ms latency and no quota: one, two and four workers, beside boto3 alone and Celery.

All on the same stand-in and machine, turn by turn, with a backlog that is there before the first launch; a rate is
taken from the stand-in's own creation times, so that each side is measured alike. On two cores the stand-in, Redis and
the workers share them: more workers than that are bounded by it.
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
#: Turns of all sides; the median counts, of the rates as of the ratios of one turn, for a machine has its moods.
_ROUNDS = 3
_WORKER_COUNTS = {"one worker": 1, "two workers": 2, "four workers": 4}
_TARGETS = {"one worker": ">= 150"}


class _LaunchFigures(NamedTuple):
    """A second; and the processor seconds of one launch by kind of process, and how many cores were busy."""

    rate: float
    cpu_seconds: Counter[str]
    cores: float


def run(tasks: int) -> list[Measurement]:
    """`tasks` for each side of a turn."""
    turns = [_run_round(tasks) for _ in range(_ROUNDS)]
    return [
        Measurement(f"launches/s, boto3 alone, {THREADS} threads", _format_rate(turns, "boto3 alone")),
        Measurement(f"launches/s, one Celery worker, {THREADS} threads, only RunTask", _format_rate(turns, "Celery")),
        *(Measurement(f"launches/s, {who}", _format_rate(turns, who), _TARGETS.get(who, "")) for who in _WORKER_COUNTS),
        _ratio_measurement(turns, "one worker", "boto3 alone", ">= 0.60"),
        _ratio_measurement(turns, "one worker", "Celery", ""),
        _ratio_measurement(turns, "two workers", "one worker", ">= 1.5"),
        *(
            Measurement(f"ms of processor time a launch, {who}", _format_cpu(turns, who))
            for who in ("boto3 alone", *_WORKER_COUNTS)
        ),
    ]


def _run_round(tasks: int) -> dict[str, _LaunchFigures]:
    with running_stack(ECS_LATENCY, workers=0) as parts:
        found = {"boto3 alone": _measure(parts, tasks, _launch_with_boto3)}
    with running_stack(ECS_LATENCY, workers=0) as parts:
        found["Celery"] = _measure(parts, tasks, _launch_with_celery)
    for who, workers in _WORKER_COUNTS.items():
        with running_stack(ECS_LATENCY, workers=workers, paused=True, concurrency=str(THREADS)) as parts:
            submit(parts, tasks)
            found[who] = _measure(parts, tasks, launch_submitted)
    return found


def _format_rate(turns: list[dict[str, _LaunchFigures]], who: str) -> str:
    return median_and_range([turn[who].rate for turn in turns], 0)


def _ratio_measurement(turns: list[dict[str, _LaunchFigures]], one: str, other: str, aim: str) -> Measurement:
    ratios = [turn[one].rate / turn[other].rate for turn in turns]
    return Measurement(f"launches, {one} / {other}", median_and_range(ratios), aim, median(ratios))


def _format_cpu(turns: list[dict[str, _LaunchFigures]], who: str) -> str:
    """What bounds it: the processor time that each kind of process takes, and how many cores are busy."""
    kinds = sorted({kind for turn in turns for kind in turn[who].cpu_seconds})
    middle = {kind: 1000 * median(turn[who].cpu_seconds[kind] for turn in turns) for kind in kinds}
    shares = ", ".join(f"{kind} {middle[kind]:.2f}" for kind in sorted(kinds, key=lambda kind: -middle[kind]))
    return f"{shares} ({median(turn[who].cores for turn in turns):.1f} cores)"


def _measure(parts: Stack, tasks: int, launch: Callable[[Stack, int], None]) -> _LaunchFigures:
    """`launch` returns when all are launched."""
    before, start = parts.cpu_seconds(), time.monotonic()
    launch(parts, tasks)
    took, seconds = parts.cpu_seconds() - before, time.monotonic() - start
    taken = Counter({kind: spent / tasks for kind, spent in took.items()})
    return _LaunchFigures(launch_rate(tasks), taken, took.total() / seconds)


def submit(parts: Stack, tasks: int) -> None:
    """The backlog; on a stack that was started paused nothing of it is launched yet."""
    with parts.client() as client:
        client.submit_many({"command": COMMAND} for _ in range(tasks))


def launch_submitted(parts: Stack, tasks: int) -> None:
    """Returns when the backlog is launched."""
    with parts.client() as client:
        client.ledger.resume_queues(["default"])
    _wait_until_running(tasks)


def _launch_with_boto3(parts: Stack, tasks: int) -> None:
    del parts
    ecs = _client()
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
        _wait_until_running(tasks)
    finally:
        worker.terminate()
        worker.wait(30)


def _client() -> Any:
    return boto3.client("ecs", config=BotoConfig(max_pool_connections=THREADS), region_name="us-east-1")


def launch_rate(tasks: int) -> float:
    """Launches a second, from the first to the last task that the stand-in has made."""
    _wait_until_running(tasks)
    ecs = _client()
    times: list[float] = []
    for page in ecs.get_paginator("list_tasks").paginate(cluster="local"):
        shown = ecs.describe_tasks(cluster="local", tasks=page["taskArns"])["tasks"]
        times += [task["createdAt"].timestamp() for task in shown]
    return (len(times) - 1) / (max(times) - min(times))


def _wait_until_running(tasks: int) -> None:
    ecs = _client()

    def is_over() -> bool:
        cluster = ecs.describe_clusters(clusters=["local"])["clusters"][0]
        return int(cluster["runningTasksCount"]) + int(cluster["pendingTasksCount"]) >= tasks

    wait_until(is_over, 300, interval=0.25)
