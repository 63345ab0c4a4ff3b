"""Clocks ten minutes off: leases and due times are the server's, so nothing ends early, late or twice."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest

from ecs_queue.client import EcsQueue
from ecs_queue.core.states import State
from ecs_queue.local.ecs import LocalEcs, local_environment
from ecs_queue.local.redis_server import RedisServer
from tests.faults.site import Site, eventually
from tests.system.processes import QUICK, environment, worker
from tests.system.test_main_job import all_tasks

TEN_MINUTES = 600.0


def test_workers_ten_minutes_ahead_and_behind_and_one_that_is_killed_change_nothing(
    server: RedisServer, local_ecs: LocalEcs, tmp_path: Path
) -> None:
    environ = environment(QUICK, local_environment(local_ecs.endpoint_url, server.url))
    names = [f"t{index}" for index in range(40)]
    with ExitStack() as stack:

        def start(clock: str) -> object:
            command = (sys.executable, "-m", "tests.faults.sabotage", f"clock{clock}", "worker")
            return stack.enter_context(worker(environ, tmp_path / f"{clock}.log", command=command))

        queue = stack.enter_context(EcsQueue.from_config(environ=environ))
        victim = stack.enter_context(worker(environ, tmp_path / "killed.log"))
        start("+600")
        start("-600")
        eventually(lambda: len(queue.ledger.workers()) == 3, "three workers")
        handles = queue.submit_many({"id": name, "command": ["true"], "expires_in": 300.0} for name in names)
        eventually(lambda: any(r is not None and r.ended for r in queue.ledger.get(names)), "some have ended")
        victim.kill()
        victim.wait()
        results = list(queue.as_completed(handles, 90.0))

    assert sorted(result.id for result in results) == sorted(names)
    assert {(result.state, result.attempts) for result in results} == {("SUCCESS", 1)}
    started = [task["startedBy"] for task in all_tasks(local_ecs)]
    assert len(started) == len(set(started)) == len(names)


@pytest.mark.parametrize("off", [-TEN_MINUTES, TEN_MINUTES], ids=["behind", "ahead"])
def test_a_client_ten_minutes_off_gives_its_requests_the_time_they_asked_for(
    redis_url: str, make_site: Callable[..., Site], off: float
) -> None:
    site = make_site(redis_url)
    client = site.client(clock=lambda: time.time() + off)

    client.submit_many(
        [
            {"id": "soon", "command": ["true"], "expires_in": 2.0},
            {"id": "later", "command": ["true"], "expires_in": 300.0},
        ]
    )
    site.submit("plain")
    eventually(lambda: time.time() > site.queue.status("soon").expires_at, "the first deadline")
    site.worker()

    site.all_in(State.EXPIRED, "soon")
    site.all_in(State.LAUNCHED, "later", "plain")
