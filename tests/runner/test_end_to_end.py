"""A warm queue as a whole: a worker, a slow local ECS, and runners of which some are killed."""

from __future__ import annotations

import os
import signal
import sys
from collections import Counter
from pathlib import Path

import psutil
import pytest

from ecs_queue.client.client import EcsQueue
from ecs_queue.local.ecs import LocalEcs, LocalEcsOptions, local_environment
from ecs_queue.runs.runner_key import derive_runner_key
from ecs_queue.runs.runner_options import KEY_VARIABLE, URL_VARIABLE
from tests.docs import ROOT
from tests.processes import QUICK_SETTINGS, merged_environ, run_worker
from tests.wait import wait_until

pytestmark = [pytest.mark.server, pytest.mark.slow]

COMMANDS = 24
NAMESPACE = "endtoend"
SIGNING_KEY = "k" * 32
SETTINGS = {
    "AIRFLOW__ECS_QUEUE__NAMESPACE": NAMESPACE,
    "AIRFLOW__ECS_QUEUE__SIGNING_KEYS": f"k1:{SIGNING_KEY}",
    "AIRFLOW__ECS_QUEUE__RUNNER_TTL": "3",
    "AIRFLOW__AWS_ECS_EXECUTOR__WARM_SECONDS": "3",
    "AIRFLOW__AWS_ECS_EXECUTOR__MAX_IN_FLIGHT": "3",
}


def _runners() -> list[psutil.Process]:
    """The runners of this test, oldest first."""
    own = {child.pid for child in psutil.Process().children(recursive=True)}
    found = [each for each in psutil.process_iter(["cmdline", "create_time"]) if each.pid in own]
    runners = [each for each in found if (each.info["cmdline"] or [""])[-1] == "runner"]
    return sorted(runners, key=lambda each: float(each.info["create_time"]))


def test_of_runners_that_are_killed_nothing_is_lost_or_doubled(redis_url: str, tmp_path: Path) -> None:
    variables = {
        URL_VARIABLE: redis_url,
        KEY_VARIABLE: derive_runner_key(NAMESPACE, "default", SIGNING_KEY.encode(), b""),
        "PATH": f"{os.path.dirname(sys.executable)}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
    }
    starts = tmp_path / "starts"
    starts.touch()
    script = f'echo "$1" >> {starts}; sleep 0.1'
    policies = {f"cmd-{n}": ("never_started", "any_failure")[n % 2] for n in range(COMMANDS)}
    lines = [
        {"id": name, "command": ["sh", "-c", script, "sh", name], "relaunch": policy}
        for name, policy in policies.items()
    ]
    with LocalEcs(LocalEcsOptions(provision_seconds=(0.2, 0.6), runner_environment=variables)) as ecs:
        environ = merged_environ(local_environment(ecs.endpoint_url, redis_url), QUICK_SETTINGS, SETTINGS)
        with run_worker(environ, tmp_path / "worker.log"), EcsQueue.from_config(environ=environ) as queue:
            handles = queue.submit_many(lines)
            # SIGTERM as for a Spot interruption.
            for count, number in ((4, signal.SIGKILL), (10, signal.SIGTERM), (16, signal.SIGKILL)):
                wait_until(lambda: len(starts.read_text().split()) >= count and _runners(), f"{count} starts")  # noqa: B023
                _runners()[0].send_signal(number)
            results = {result.id: result for result in queue.as_completed(handles, timeout=60)}
            wait_until(lambda: not _runners(), "the runners leave when nothing more comes")
        calls = ecs.stats()["calls"]["RunTask"]
    started = Counter(starts.read_text().split())
    assert results.keys() == policies.keys()
    for name, result in results.items():
        assert started[name] <= result.attempts, "nothing was started twice"
        assert result.state == "SUCCESS" or policies[name] == "never_started", result.reason
    failed = [result for result in results.values() if result.state != "SUCCESS"]
    assert len(failed) <= 3, "only what the killed runners had"
    assert all(result.reason.startswith("the runner stopped before it reported") for result in failed)
    assert calls <= 12
