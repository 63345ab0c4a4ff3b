"""SIGTERM: calls in progress complete and messages return to their queues within 10 s, even if a server hangs."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from ecs_queue.client.client import EcsQueue
from ecs_queue.client.handle import Handle
from ecs_queue.local.ecs import LocalEcs, LocalEcsOptions, TimerRunner, local_environment
from ecs_queue.local.redis_server import RedisServer
from ecs_queue.messages.result import TaskResult
from ecs_queue.protocol.states import State
from tests.invariants import find_violations, list_all_tasks
from tests.processes import merged_environ, run_worker
from tests.wait import wait_until

pytestmark = [pytest.mark.server, pytest.mark.slow]

#: What the command's help promises. Seconds.
PROMISED = 10.0
#: How long no request may wait because workers are replaced. Seconds.
LONGEST_DELAY = 5.0


@pytest.fixture
def ledger_server(make_redis_server: Callable[[], RedisServer]) -> RedisServer:
    """A server for the ledger only: either of the two may fail."""
    return make_redis_server()


@contextmanager
def slow_ecs(seconds: float) -> Iterator[LocalEcs]:
    with LocalEcs(LocalEcsOptions(latency_seconds=seconds), TimerRunner(30.0)) as server:
        yield server


def is_ready(queue: EcsQueue, process: subprocess.Popen[bytes]) -> bool:
    return process.pid in {info.pid for info in queue.ledger.list_workers()}


def stopped_within(process: subprocess.Popen[bytes], seconds: float) -> float:
    """Send SIGTERM. Return the seconds until the process exits; its status must be that of an orderly stop."""
    started_at = time.monotonic()
    process.send_signal(signal.SIGTERM)
    assert process.wait(seconds) == 0
    return time.monotonic() - started_at


def killed(server: RedisServer) -> None:
    """The server refuses connections."""
    server.kill()


def hanging(server: RedisServer) -> None:
    """The server accepts connections and never replies."""
    os.kill(server.pid, signal.SIGSTOP)


def test_a_call_that_ecs_does_not_answer_does_not_hold_it_up(own_redis: RedisServer, tmp_path: Path) -> None:
    """The call takes longer than its timeout: another worker reclaims the launch when the lease is over."""
    with slow_ecs(60.0) as ecs:
        environ = merged_environ(local_environment(ecs.endpoint_url, own_redis.url))
        environ["AIRFLOW__AWS_ECS_EXECUTOR__CHECK_HEALTH_ON_STARTUP"] = "false"
        with EcsQueue.from_config(environ=environ) as queue, run_worker(environ, tmp_path / "a.log") as process:
            queue.submit(["true"], id="a")
            wait_until(lambda: bool(ecs.stats()["calls"].get("RunTask")), "RunTask is called", 30)
            stopped_within(process, PROMISED)
            assert queue.status("a").state is State.LAUNCHING


@pytest.mark.parametrize("fails", [killed, hanging])
@pytest.mark.parametrize("which", ["broker", "ledger"])
def test_a_server_that_does_not_answer_does_not_hold_it_up(
    own_redis: RedisServer,
    ledger_server: RedisServer,
    tmp_path: Path,
    which: str,
    fails: Callable[[RedisServer], None],
) -> None:
    """A call is in progress: its result is kept if the ledger is up; otherwise another worker repeats the call."""
    with slow_ecs(3.0) as ecs:
        environ = merged_environ(local_environment(ecs.endpoint_url, own_redis.url))
        environ["AIRFLOW__ECS_QUEUE__LEDGER_URL"] = ledger_server.url
        with EcsQueue.from_config(environ=environ) as queue, run_worker(environ, tmp_path / "a.log") as process:
            queue.submit(["true"], id="a")
            wait_until(lambda: bool(ecs.stats()["calls"].get("RunTask")), "RunTask is called", 30)
            victim = own_redis if which == "broker" else ledger_server
            fails(victim)
            try:
                stopped_within(process, PROMISED)
                if which == "broker":
                    assert queue.status("a").state is State.LAUNCHED
            finally:
                if fails is hanging:
                    os.kill(victim.pid, signal.SIGCONT)
            assert ecs.stats()["tasks_created"] == 1


class LoadGenerator:
    """A context that submits a request every `every` seconds on its own thread."""

    def __init__(self, queue: EcsQueue, every: float) -> None:
        self.handles: list[Handle] = []
        self._queue = queue
        self._every = every
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> LoadGenerator:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stopping.wait(self._every):
            self.handles.append(self._queue.submit(["sleep", "0.5"], id=f"r{len(self.handles)}"))


def replace_all(environ: Mapping[str, str], queue: EcsQueue, folder: Path) -> list[str]:
    """Replace each of two workers twice, one after the other. Return the ids of the requests submitted meanwhile."""
    longest = 0.0
    with ExitStack() as stack:
        running = [stack.enter_context(run_worker(environ, folder / f"{number}.log")) for number in range(2)]
        wait_until(lambda: all(is_ready(queue, process) for process in running), "the workers are ready", 30)
        with LoadGenerator(queue, every=0.1) as load:
            for number in range(4):
                new = stack.enter_context(run_worker(environ, folder / f"new-{number}.log"))
                wait_until(lambda: is_ready(queue, new), "the new worker is ready", 30)  # noqa: B023
                longest = max(longest, stopped_within(running.pop(0), PROMISED))
                running.append(new)
        results = list(queue.as_completed(load.handles, timeout=60))
        check_delays(results, longest)
        assert len(results) == len({result.id for result in results}) == len(load.handles)
    return [result.id for result in results]


def check_delays(results: list[TaskResult], longest_stop: float) -> None:
    delays = sorted(delay_of(result) for result in results)
    print(
        f"{len(results)} requests while every worker was replaced: from queued to launched "
        f"{delays[len(delays) // 2]:.2f} s in the middle, {delays[-1]:.2f} s at most; longest stop {longest_stop:.2f} s"
    )
    assert delays[-1] < LONGEST_DELAY


def delay_of(result: TaskResult) -> float:
    """Return the seconds from the put to the ARN in the ledger, by the server's clock."""
    assert result.launched_at is not None
    assert result.queued_at is not None
    return (result.launched_at - result.queued_at).total_seconds()


def test_replacing_every_worker_under_load_loses_and_doubles_nothing_and_delays_no_launch(
    own_redis: RedisServer, tmp_path: Path
) -> None:
    """With production leases and timeouts: a message that a worker did not return would wait for half a minute."""
    with LocalEcs(LocalEcsOptions(latency_seconds=0.1), TimerRunner()) as ecs:
        environ = merged_environ(local_environment(ecs.endpoint_url, own_redis.url))
        with EcsQueue.from_config(environ=environ) as queue:
            ids = replace_all(environ, queue, tmp_path)
            records = [record for record in queue.ledger.get(ids) if record is not None]
            assert [record.state for record in records] == [State.SUCCESS] * len(ids)
            assert find_violations(queue.config.namespace, records, list_all_tasks(ecs.endpoint_url), 1) == []
