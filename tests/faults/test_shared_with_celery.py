"""One database shared with an unrelated Celery application that has queues of the same names."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import redis

from ecs_queue.protocol.states import State
from tests.faults.harness import FaultHarness
from tests.processes import run_worker
from tests.wait import TIMEOUT_SECONDS, wait_until

pytestmark = [pytest.mark.server, pytest.mark.slow]

QUEUES = ("default", "celery")
NUMBERS = range(20)
_CELERY_WORKER = (sys.executable, "-m", "celery", "-A", "tests.faults.celery_app", "worker", "-P", "solo")


@pytest.fixture
def celery_environ(redis_url: str) -> dict[str, str]:
    """The environment of processes of the application."""
    return {**os.environ, "CELERY_SERVER": redis_url}


def _send(environ: dict[str, str]) -> list[str]:
    """Send Celery tasks from another process. Return their ids."""
    script = (
        "import json; from tests.faults.celery_app import double\n"
        f"ids = [double.apply_async((n,), queue={QUEUES!r}[n % 2]).id for n in {NUMBERS!r}]\n"
        "print(json.dumps(ids))"
    )
    done = subprocess.run([sys.executable, "-c", script], env=environ, capture_output=True, check=True, timeout=60)
    ids: list[str] = json.loads(done.stdout)
    return ids


def _results(client: Any, ids: list[str]) -> list[Any]:
    found = client.mget([f"celery-task-meta-{task}" for task in ids])
    return [json.loads(each)["result"] if each else None for each in found]


def test_neither_takes_or_harms_the_others_messages(
    redis_url: str, make_harness: Callable[..., FaultHarness], celery_environ: dict[str, str], tmp_path: Path
) -> None:
    harness = make_harness(redis_url)
    ids = _send(celery_environ)
    ours = [f"t{number}" for number in NUMBERS]
    for number, name in enumerate(ours):
        harness.submit(name, queue=QUEUES[number % 2])

    with redis.Redis.from_url(redis_url) as client:
        log = tmp_path / "celery.log"
        with run_worker(celery_environ, log, "-Q", ",".join(QUEUES), command=_CELERY_WORKER):
            harness.start_worker(*QUEUES)
            harness.wait_for_state(State.LAUNCHED, *ours)
            harness.end_all_tasks()
            harness.wait_for_state(State.SUCCESS, *ours)
            wait_until(
                lambda: _results(client, ids) == [2 * number for number in NUMBERS], "Celery's results", TIMEOUT_SECONDS
            )
        keys = {key.decode() for key in client.keys("*")}

    assert len(harness.started_by_values()) == len(set(harness.started_by_values())) == len(ours)
    assert not harness.queue.ledger.list_dead_letters(10)
    assert "Received unregistered task" not in log.read_text()
    assert "Received and deleted unknown message" not in log.read_text()
    results = harness.queue.as_completed([harness.queue.handle(name) for name in ours], 30.0)
    assert sorted(result.id for result in results) == sorted(ours)
    # Every key is either under the namespace, or Celery's own by its documented names.
    celerys = ("celery", "_kombu", "unacked", "default")
    assert [key for key in keys if not key.startswith(("{ecs-queue}:", *celerys))] == []


def test_celery_messages_put_on_our_list_by_mistake_are_dead_letters(
    redis_url: str, make_harness: Callable[..., FaultHarness], celery_environ: dict[str, str]
) -> None:
    harness = make_harness(redis_url)
    _send(celery_environ)
    with redis.Redis.from_url(redis_url) as client:
        while client.rpoplpush("default", "{ecs-queue}:q:requests.default"):
            pass
    harness.start_worker()
    harness.submit("good")

    harness.wait_for_state(State.LAUNCHED, "good")
    wait_until(lambda: len(harness.queue.ledger.list_dead_letters(100)) == len(NUMBERS) // 2, "they are dead letters")
