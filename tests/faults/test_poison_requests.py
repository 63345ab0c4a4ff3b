"""A request that kills its worker, over real processes: some workers die of it, then it fails."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path

import pytest

from ecs_queue.client.client import EcsQueue
from ecs_queue.local.ecs import LocalEcs, local_environment
from ecs_queue.local.redis_server import RedisServer
from ecs_queue.protocol.states import State
from tests.processes import QUICK_SETTINGS, merged_environ, run_worker

pytestmark = [pytest.mark.server, pytest.mark.slow]

MAX_DELIVERIES = 2
GOOD = [f"good-{index}" for index in range(12)]


def _restart_until(environ: Mapping[str, str], fault: str, log: Path, until: Callable[[], bool]) -> int:
    """Restart a worker whenever it dies, as a supervisor does. Return how often it died."""
    deadline, deaths = time.monotonic() + 100.0, 0
    command = (sys.executable, "-m", "tests.faults.faulty_cli", fault, "worker")
    while True:
        with ExitStack() as stack:
            process = stack.enter_context(run_worker(environ, log, command=command))
            while process.poll() is None and not until():
                assert time.monotonic() < deadline, f"{deaths} deaths\n{log.read_text()}"
                time.sleep(0.1)
            if process.poll() is None:
                return deaths
        deaths += 1


@pytest.mark.parametrize("fault", ["crash-on-decode", "kill-on-run-task"])
def test_it_kills_max_deliveries_workers_and_harms_no_other_request(
    own_redis: RedisServer, local_ecs: LocalEcs, tmp_path: Path, fault: str
) -> None:
    limits = {"AIRFLOW__ECS_QUEUE__MAX_DELIVERIES": str(MAX_DELIVERIES), "AIRFLOW__ECS_QUEUE__VISIBILITY_TIMEOUT": "3"}
    environ = merged_environ(QUICK_SETTINGS, limits, local_environment(local_ecs.endpoint_url, own_redis.url))
    with EcsQueue.from_config(environ=environ) as queue:
        tasks = [{"id": name, "command": ["true"]} for name in GOOD]
        tasks.insert(len(tasks) // 2, {"id": "poison", "command": ["true"]})
        queue.submit_many(tasks)

        def all_ended() -> bool:
            return all(record is not None and record.is_terminal for record in queue.ledger.get([*GOOD, "poison"]))

        deaths = _restart_until(environ, fault, tmp_path / "worker.log", all_ended)

        poison = queue.status("poison")
        assert poison.state is State.FAILED
        assert f"{MAX_DELIVERIES} workers in a row died while they processed it" in poison.reason
        assert [queue.status(name).state for name in GOOD] == [State.SUCCESS] * len(GOOD)
        # The first delivery of a message is not counted: most workers never meet a second one.
        assert MAX_DELIVERIES <= deaths <= MAX_DELIVERIES + 1
        dead_letters = queue.ledger.list_dead_letters(10)
        assert dead_letters
        assert all(b'"poison"' in each.body and "workers in a row died" in each.reason for each in dead_letters)
