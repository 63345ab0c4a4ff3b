"""Short commands on a cold queue, on a warm one and with Celery: how soon they start, and how many a second end.

Every side runs the same commands as processes, with as many at a time. The ECS tasks of a queue are runners or
containers of the local ECS, which takes `PROVISION_SECONDS` to start one; Celery has prefork processes that are there.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from bench.measurement import Measurement
from bench.stack import Stack, quantile, start_server_process, wait_until
from ecs_queue.local.ecs import local_environment
from ecs_queue.local.redis_server import RedisServer
from ecs_queue.messages.result import TaskResult

#: Fargate takes 30 to 90 s.
PROVISION_SECONDS = 30.0
OUTSTANDING = 10
WARM_SECONDS = 20
#: A cold command takes as long as a start; a few of them show it.
COLD_SHARE = 15
#: Appends when it began to a file, in one write, and runs for 50 ms.
SCRIPT = 'echo "$1 $(date +%s.%N)" >> "$2"; sleep 0.05'


class Side(NamedTuple):
    """What one side has shown: seconds from submit to each command's start, commands a second, seconds by stage."""

    delays: list[float]
    rate: float
    stages: Mapping[str, list[float]]


class Moments(NamedTuple):
    """What a client sees of one command: when it submitted it, when it had the result, and the result."""

    submitted: float
    received: float
    result: TaskResult | None


def run(tasks: int) -> list[Measurement]:
    """See `bench.__main__`."""
    celery = _run_celery(tasks)
    with warm_stack(warm_seconds=0) as stack:
        cold = run_queue(stack, max(OUTSTANDING, tasks // COLD_SHARE))
    with warm_stack(warm_seconds=WARM_SECONDS) as stack:
        run_queue(stack, OUTSTANDING)  # the pool is warm
        warm = run_queue(stack, tasks)
        calls = stack.call_counts()[0]["RunTask"]
        idle = wait_until(lambda: not _runner_count(stack), WARM_SECONDS + 60.0)
    delay_ratio = quantile(celery.delays, 0.5) / quantile(warm.delays, 0.5)
    return [
        *_measurements("Celery prefork", celery),
        *_measurements("cold", cold),
        *_measurements("warm", warm, "<= 30 ms"),
        *(_stage_measurement(name, seconds) for name, seconds in warm.stages.items()),
        Measurement("start: Celery / warm, p50", f"{delay_ratio:.2f}", ">= 0.67", delay_ratio),
        Measurement("commands/s: warm / Celery", f"{warm.rate / celery.rate:.2f}", ">= 0.80", warm.rate / celery.rate),
        Measurement("warm: RunTask calls", str(calls), "<= 15"),
        Measurement("warm: seconds until the last runner is gone", f"{idle:.1f} s", f"<= {WARM_SECONDS + 20} s"),
    ]


def _measurements(name: str, side: Side, target: str = "") -> list[Measurement]:
    median, worst = (quantile(side.delays, share) for share in (0.5, 0.99))
    return [
        Measurement(f"{name}: submit to start, p50", f"{median * 1000:.0f} ms", target),
        Measurement(f"{name}: submit to start, p99", f"{worst * 1000:.0f} ms"),
        Measurement(f"{name}: commands/s", f"{side.rate:.1f}"),
    ]


def _stage_measurement(name: str, seconds: list[float]) -> Measurement:
    median, most = (1000 * quantile(seconds, share) for share in (0.5, 0.9))
    return Measurement(f"  {name}, p50 and p90", f"{median:.1f}, {most:.1f} ms")


def _measure(
    tasks: int, run_one: Callable[[list[str]], TaskResult | None], outstanding: int = OUTSTANDING, script: str = SCRIPT
) -> Side:
    """Run commands with `outstanding` of them at a time."""
    moments: dict[str, Moments] = {}
    with tempfile.TemporaryDirectory() as directory:
        starts = Path(directory, "starts")

        def run_and_wait(_: int) -> None:
            name, submitted = uuid.uuid4().hex, time.time()
            result = run_one(["sh", "-c", script, "sh", name, str(starts)])
            moments[name] = Moments(submitted, time.time(), result)

        began = time.monotonic()
        with ThreadPoolExecutor(outstanding) as pool:
            list(pool.map(run_and_wait, range(tasks)))
        seconds = time.monotonic() - began
        started = [line.split() for line in starts.read_text().splitlines()]
    starts_of = {name: float(at) for name, at in started}
    if len(started) != tasks or len(starts_of) != tasks:
        raise RuntimeError(f"{len(started)} starts of {tasks} commands")
    delays = [starts_of[name] - seen.submitted for name, seen in moments.items()]
    return Side(delays, tasks / seconds, _find_stages(moments, starts_of))


def _find_stages(moments: dict[str, Moments], started: dict[str, float]) -> dict[str, list[float]]:
    """Seconds by stage, of the commands whose results have every time; all clocks are this machine's."""
    stages: dict[str, list[float]] = {}
    for name, (submitted, received, result) in moments.items():
        times = result and (result.queued_at, result.launched_at, result.started_at, result.finished_at)
        if times and all(times):
            queued, assigned, taken, ended = (each.timestamp() for each in times if each)
            for stage, seconds in {
                "submit to the ledger": queued - submitted,
                "ledger to the runner's assignment": assigned - queued,
                "assignment to the runner": taken - assigned,
                "runner to the command's first line": started[name] - taken,
                "first line to the reported end": ended - started[name],
                "reported end to the client": received - ended,
            }.items():
                stages.setdefault(stage, []).append(seconds)
    return stages


def run_queue(stack: Stack, tasks: int, outstanding: int = OUTSTANDING, script: str = SCRIPT) -> Side:
    """Run commands of the queue."""
    with stack.client() as client:

        def run_one(command: list[str]) -> TaskResult:
            result = client.submit(command).result(timeout=PROVISION_SECONDS * 4)
            if result.state != "SUCCESS":
                raise RuntimeError(f"a command ended as {result.state}: {result.reason}")
            return result

        return _measure(tasks, run_one, outstanding, script)


def _runner_count(stack: Stack) -> int:
    import boto3

    ecs: Any = boto3.client("ecs", region_name="us-east-1", endpoint_url=stack.endpoint_url)
    return len(ecs.list_tasks(cluster="local")["taskArns"])


@contextmanager
def warm_stack(
    *, warm_seconds: int, provision_seconds: float = PROVISION_SECONDS, launch_quota: tuple[int, int] | None = None
) -> Iterator[Stack]:
    """Yield a stack with one worker and a local ECS that runs commands. `launch_quota`: of both, rate and burst."""
    with ExitStack() as exit_stack:
        redis = exit_stack.enter_context(RedisServer())
        arguments = ["--provision-seconds", str(provision_seconds), "--redis-url", redis.url]
        if launch_quota:
            arguments += ["--launch-quota", *map(str, launch_quota)]
        ecs, endpoint_url = start_server_process(exit_stack, "bench.process_ecs", *arguments)
        environ = {**os.environ, **local_environment(endpoint_url, redis.url)}
        if warm_seconds:
            environ["AIRFLOW__AWS_ECS_EXECUTOR__WARM_SECONDS"] = str(warm_seconds)
        if launch_quota:
            rate, burst = map(str, launch_quota)
            environ.update(AIRFLOW__ECS_QUEUE__RUN_TASK_RATE=rate, AIRFLOW__ECS_QUEUE__RUN_TASK_BURST=burst)
        os.environ.update(environ)  # boto3 reads the process's own environment
        stack = Stack(redis, endpoint_url, environ, ecs)
        stack.start_worker(exit_stack)
        with stack.client() as client:
            wait_until(lambda: len(client.ledger.list_workers()) == 1, 30)
        yield stack


def _run_celery(tasks: int) -> Side:
    with RedisServer() as redis:
        os.environ["BENCH_CELERY_BROKER"] = redis.url
        from bench.celery_commands import app
        from bench.celery_commands import run as celery_task

        command = [sys.executable, "-m", "celery", "-A", "bench.celery_commands", "worker", "--pool", "prefork"]
        options = ["--concurrency", str(OUTSTANDING), "--without-gossip", "--without-mingle", "--loglevel", "ERROR"]
        worker = subprocess.Popen([*command, *options])
        try:
            wait_until(lambda: bool(app.control.ping(timeout=0.5)), 60)

            def run_one(command: list[str]) -> None:
                # Not get(): ten threads that wait for one subscription take longer than the commands.
                result = celery_task.delay(command)
                wait_until(result.ready, 60, interval=0.01)

            _measure(OUTSTANDING * 2, run_one)  # connections
            return _measure(tasks, run_one)
        finally:
            worker.terminate()
            worker.wait(30)
