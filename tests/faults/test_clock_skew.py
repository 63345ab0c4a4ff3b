"""Clocks ten minutes off: leases and due times are the server's, so nothing ends early, late or twice."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest

from ecs_queue.client.client import EcsQueue
from ecs_queue.local.ecs import LocalEcs, local_environment
from ecs_queue.local.redis_server import RedisServer
from ecs_queue.protocol.states import State
from tests.faults.harness import FaultHarness
from tests.invariants import list_all_tasks
from tests.processes import QUICK_SETTINGS, merged_environ, run_worker
from tests.wait import wait_until

pytestmark = [pytest.mark.server, pytest.mark.slow]

TEN_MINUTES = 600.0


def test_workers_ten_minutes_ahead_and_behind_and_one_that_is_killed_change_nothing(
    own_redis: RedisServer, local_ecs: LocalEcs, tmp_path: Path
) -> None:
    environ = merged_environ(QUICK_SETTINGS, local_environment(local_ecs.endpoint_url, own_redis.url))
    names = [f"t{index}" for index in range(40)]
    with ExitStack() as stack:

        def start(clock: str) -> object:
            command = (sys.executable, "-m", "tests.faults.faulty_cli", f"clock{clock}", "worker")
            return stack.enter_context(run_worker(environ, tmp_path / f"{clock}.log", command=command))

        queue = stack.enter_context(EcsQueue.from_config(environ=environ))
        victim = stack.enter_context(run_worker(environ, tmp_path / "killed.log"))
        start("+600")
        start("-600")
        wait_until(lambda: len(queue.ledger.list_workers()) == 3, "three workers")
        handles = queue.submit_many({"id": name, "command": ["true"], "expires_in": 300.0} for name in names)
        wait_until(lambda: any(r is not None and r.is_terminal for r in queue.ledger.get(names)), "some have ended")
        victim.kill()
        victim.wait()
        results = list(queue.as_completed(handles, 90.0))

    assert sorted(result.id for result in results) == sorted(names)
    assert {(result.state, result.attempts) for result in results} == {("SUCCESS", 1)}
    started = [task["startedBy"] for task in list_all_tasks(local_ecs.endpoint_url)]
    assert len(started) == len(set(started)) == len(names)


@pytest.mark.parametrize("off", [-TEN_MINUTES, TEN_MINUTES], ids=["behind", "ahead"])
def test_a_client_ten_minutes_off_gives_its_requests_the_time_they_asked_for(
    redis_url: str, make_harness: Callable[..., FaultHarness], off: float
) -> None:
    harness = make_harness(redis_url)
    client = harness.make_client(clock=lambda: time.time() + off)

    client.submit_many(
        [
            {"id": "soon", "command": ["true"], "expires_in": 2.0},
            {"id": "later", "command": ["true"], "expires_in": 300.0},
        ]
    )
    harness.submit("plain")
    wait_until(lambda: time.time() > harness.queue.status("soon").expires_at, "the first deadline")
    harness.start_worker()

    harness.wait_for_state(State.EXPIRED, "soon")
    harness.wait_for_state(State.LAUNCHED, "later", "plain")
