"""`scale`, and `workers --check`."""

from __future__ import annotations

import json
from collections.abc import Mapping

from ecs_queue.client.client import EcsQueue
from tests.cli.conftest import Deployment, Invoke, json_lines


def test_each_queue_has_the_workers_that_it_needs(invoke: Invoke, no_worker_environ: Mapping[str, str]) -> None:
    environ = {**no_worker_environ, "AIRFLOW__ECS_QUEUE__CONCURRENCY": "1", "AIRFLOW__ECS_QUEUE__RUN_TASK_RATE": "2"}
    with EcsQueue.from_config(environ=environ, owner="") as client:
        client.submit_many([{"command": ["true"], "queue": "etl"} for _ in range(9)])
        client.ledger.pause_queues(["reports"])

    lines = {
        line["queue"]: line for line in json_lines(invoke("scale", "--within", "3s", "--json", env=environ).stdout)
    }

    etl = lines["etl"]
    assert 0 <= etl.pop("oldest_age_seconds") < 60
    assert etl == {
        "queue": "etl",
        "backlog": 9,
        "in_flight": 0,
        "live_workers": 0,
        "workers_wanted": 2,  # 3 would launch them in time, and the quota feeds 2
        "paused": 0,
    }
    assert (lines["reports"]["paused"], lines["reports"]["workers_wanted"]) == (1, 0)
    table = {line.split()[0]: line.split() for line in invoke("scale", env=environ).stdout.splitlines()}
    assert table["etl"][:4] == ["etl", "0", "1", "9"]
    assert table["default"] == ["default", "0", "0", "0", "-", "0", "active"]
    (line,) = json_lines(invoke("scale", "--queue", "ETL", "--json", env=environ).stdout)
    assert line["queue"] == "etl"


def test_a_check_says_in_one_sentence_what_is_wrong(
    invoke: Invoke, no_worker_environ: Mapping[str, str], deployment: Deployment
) -> None:
    done = invoke("workers", "--check", env=no_worker_environ)
    assert (done.exit_code, done.stdout) == (
        1,
        "0 workers are alive, expected at least 1; start one: ecs-queue worker\n",
    )
    assert invoke("workers", "--check", "--min", "0", env=no_worker_environ).exit_code == 0
    with EcsQueue.from_config(environ=no_worker_environ, owner="") as client:
        client.submit(["true"], queue="etl")
    done = invoke("workers", "--check", "--min", "0", "--json", env=no_worker_environ)
    assert (done.exit_code, json.loads(done.stdout)["ok"]) == (1, False)
    assert "no worker serves this queue" in json.loads(done.stdout)["text"]

    away = {**no_worker_environ, "AIRFLOW__ECS_QUEUE__BROKER_URL": "redis://127.0.0.1:1/0"}
    done = invoke("workers", "--check", env=away)
    assert (done.exit_code, done.stdout) == (2, "")

    deployment.make_client().close()
    done = invoke("workers", "--check", env=deployment.environ)
    assert (done.exit_code, done.stdout) == (0, "1 worker is alive and healthy\n")
