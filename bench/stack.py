"""The processes of every benchmark: a Redis, a fake ECS and workers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import NamedTuple

import psutil

from ecs_queue.client.client import EcsQueue
from ecs_queue.local.ecs import local_environment
from ecs_queue.local.redis_server import RedisServer

NO_RATE_LIMITS = {
    "AIRFLOW__ECS_QUEUE__RUN_TASK_RATE": "0",
    "AIRFLOW__ECS_QUEUE__DESCRIBE_TASKS_RATE": "0",
}

#: AWS's quota of DescribeTasks and ListTasks: calls per second, and the burst.
DESCRIBE_RATE, DESCRIBE_BURST = 20, 100
#: Launches per second of benchmarks that track tasks: six times AWS's quota. Without a limit, events come faster than a
#: worker that launches hundreds per second reads them, and the worker distrusts them for a minute.
LAUNCH_RATE = 120


class CpuLoad(NamedTuple):
    """Shares of one core, on average: of all workers together, of Redis, and of everything on the machine."""

    worker: float
    redis: float
    machine: float

    def format(self) -> str:
        """Return the text for the table."""
        return f"{self.worker:.0%}, {self.redis:.0%}, {self.machine:.0%} of {os.cpu_count() or 1:.0%}"


class CpuMeter:
    """Measures CPU time from its creation."""

    def __init__(self, read_seconds: Callable[[], Counter[str]]) -> None:
        """Start measuring; `read_seconds` is `Stack.cpu_seconds`."""
        self._read_seconds = read_seconds
        self._start = self._read()

    def load(self) -> CpuLoad:
        """Return the load since the start."""
        wall, *used = (now - before for now, before in zip(self._read(), self._start, strict=True))
        workers, redis, machine = (seconds / wall for seconds in used)
        return CpuLoad(workers, redis, machine)

    def _read(self) -> tuple[float, float, float, float]:
        machine = psutil.cpu_times()
        busy = sum(machine) - machine.idle - getattr(machine, "iowait", 0.0) - getattr(machine, "steal", 0.0)
        used = self._read_seconds()
        return time.monotonic(), used["workers"], used["Redis"], busy


@dataclass
class Stack:
    """The processes of one benchmark, and the environment that connects to them."""

    redis: RedisServer
    endpoint_url: str
    environ: dict[str, str]
    ecs_process: subprocess.Popen[bytes]
    workers: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def client(self) -> EcsQueue:
        """Return a client of this stack."""
        return EcsQueue.from_config(environ=self.environ)

    def start_worker(
        self, exit_stack: ExitStack, module: str = "ecs_queue", variables: Mapping[str, str] | None = None
    ) -> None:
        """Start one more worker, which ends with `exit_stack`; `variables` of its environment are its own."""
        command = [sys.executable, "-m", module, "--log-level", "warning", "worker"]
        self.workers.append(_start_process(exit_stack, command, {**self.environ, **(variables or {})}))

    def call_counts(self) -> tuple[Counter[str], Counter[str]]:
        """Return the fake ECS's number of calls by operation, and of throttled calls by operation."""
        with urllib.request.urlopen(f"{self.endpoint_url}/_local/stats", timeout=10) as response:
            stats = json.load(response)
        return Counter(stats["calls"]), Counter(stats["throttled"])

    def worker_process(self) -> psutil.Process:
        """Return the first worker."""
        return psutil.Process(self.workers[0].pid)

    def cpu_seconds(self) -> Counter[str]:
        """Return the CPU seconds of the processes so far by kind; this process is the client."""
        kinds = {"fake ECS": [self.ecs_process.pid], "Redis": [self.redis.pid], "client": [os.getpid()]}
        kinds["workers"] = [worker.pid for worker in self.workers]
        return Counter({kind: sum(map(_process_cpu_seconds, pids)) for kind, pids in kinds.items()})

    def meter(self) -> CpuMeter:
        """Return a meter of CPU time from now on."""
        return CpuMeter(self.cpu_seconds)


@contextmanager
def running_stack(
    latency: float = 0.0, workers: int = 1, ecs_options: Sequence[str] = (), *, paused: bool = False, **settings: str
) -> Iterator[Stack]:
    """Yield a stack that is ready; its processes end with the context.

    Args:
        latency: of an ECS call, in seconds.
        workers: number of workers.
        ecs_options: command-line options of the fake ECS.
        paused: start the workers with the queue `default` paused, so that they launch nothing until it is resumed.
        settings: keys of [ecs_queue].
    """
    with ExitStack() as exit_stack:
        redis = exit_stack.enter_context(RedisServer())
        ecs, endpoint_url = start_server_process(exit_stack, "bench.fake_ecs", "--latency", str(latency), *ecs_options)
        environ = {**os.environ, **local_environment(endpoint_url, redis.url), **NO_RATE_LIMITS}
        environ.update({f"AIRFLOW__ECS_QUEUE__{key.upper()}": value for key, value in settings.items()})
        os.environ.update(environ)  # boto3 reads the process's own environment
        stack = Stack(redis, endpoint_url, environ, ecs)
        if paused:
            with stack.client() as client:
                client.ledger.pause_queues(["default"])
        for _ in range(workers):
            stack.start_worker(exit_stack)
        with stack.client() as client:
            wait_until(lambda: len(client.ledger.list_workers()) == workers, 30)
        yield stack


@contextmanager
def tracking_stack(*, by_events: bool) -> Iterator[Stack]:
    """Yield a stack with one worker and AWS's quota of DescribeTasks; `by_events` adds a fake SQS."""
    rate, burst = str(DESCRIBE_RATE), str(DESCRIBE_BURST)
    options = ["--describe-quota", rate, burst]
    with ExitStack() as exit_stack:
        url = start_server(exit_stack, "bench.fake_sqs") if by_events else ""
        options += ["--event-queue-url", url] if url else []
        settings = {"event_queue_url": url, "run_task_rate": str(LAUNCH_RATE), "run_task_burst": str(LAUNCH_RATE)}
        settings.update(describe_tasks_rate=rate, describe_tasks_burst=burst)
        yield exit_stack.enter_context(running_stack(0.0, 1, options, paused=False, **settings))


def start_server(exit_stack: ExitStack, module: str, *arguments: str) -> str:
    """Start a fake server, which ends with `exit_stack`. Return its URL."""
    return start_server_process(exit_stack, module, *arguments)[1]


def start_server_process(exit_stack: ExitStack, module: str, *arguments: str) -> tuple[subprocess.Popen[bytes], str]:
    """Start a fake server, which ends with `exit_stack`. Return its process and its URL."""
    process = _start_process(exit_stack, [sys.executable, "-m", module, *arguments])
    assert process.stdout is not None
    url = process.stdout.readline().decode().strip()
    if not url:  # otherwise the workers would call AWS
        raise RuntimeError(f"{module} did not start")
    return process, url


def wait_until(condition: Callable[[], bool], timeout: float, interval: float = 0.02) -> float:
    """Wait for a condition, and return the seconds that it took. TimeoutError after `timeout` seconds."""
    start = time.monotonic()
    while not condition():
        if time.monotonic() - start > timeout:
            raise TimeoutError(f"the condition was not met within {timeout} s")
        time.sleep(interval)
    return time.monotonic() - start


def quantile(values: list[float], share: float) -> float:
    """Return the value below which `share` of the values lie."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def _process_cpu_seconds(pid: int) -> float:
    times = psutil.Process(pid).cpu_times()
    return float(times.user + times.system)


def _start_process(
    exit_stack: ExitStack, command: list[str], environ: dict[str, str] | None = None
) -> subprocess.Popen[bytes]:
    process = subprocess.Popen(command, env=environ, stdout=subprocess.PIPE)
    exit_stack.callback(process.wait, 30)
    exit_stack.callback(process.terminate)
    return process
