"""`cost`: a real task of a deployment, by label, with prices; and what is refused."""

from __future__ import annotations

import json
from contextlib import closing

import pytest

from ecs_queue.cli.cost import find_reading_start
from ecs_queue.client.client import EcsQueue
from ecs_queue.config import load_config
from ecs_queue.journal import open_journal
from tests.cli.conftest import Deployment, Invoke, json_lines
from tests.wait import wait_until

PRICES = json.dumps({"FARGATE": {"vcpu_hour": 3600, "gb_hour": 0}})


def test_the_time_of_a_task_is_counted_for_its_label(invoke: Invoke, deployment: Deployment) -> None:
    with EcsQueue.from_config(environ=deployment.environ) as client:
        handle = client.submit(["true"], labels={"cost-test": "a"})
        handle.result(60)
    with closing(open_journal(client.config)) as journal:
        wait_until(
            lambda: "request.ended" in {event.name for event in journal.request_events(handle.id)},
            "its end is in the journal",
            60,
        )

    environ = {**deployment.environ, "AIRFLOW__ECS_QUEUE__PRICES": PRICES}
    done = invoke("cost", "--by", "label:cost-test", "--since", "1h", "--json", env=environ)

    assert done.exit_code == 0
    (row,) = (row for row in json_lines(done.stdout) if row["group"] == "a")
    assert (row["capacity"], row["use"], row["tasks"]) == ("FARGATE", "run", 1)
    assert row["vcpu_seconds"] > 0
    assert row["gb_seconds"] > 0
    assert row["cost"] == pytest.approx(row["vcpu_seconds"])
    assert "no cost" not in done.stderr
    without_prices = invoke("cost", "--by", "label:cost-test", env=deployment.environ)
    assert "no cost: `prices` of [ecs_queue] are not set" in without_prices.stderr
    table = without_prices.stdout.splitlines()
    assert table[0].split() == ["cost-test", "capacity", "use", "tasks", "vCPU-seconds", "GB-seconds", "cost"]
    assert table[-1].split()[:4] == ["a", "FARGATE", "run", "1"]
    assert table[-1].split()[-1] == "-"


def test_without_an_end_of_a_task_it_says_so(invoke: Invoke, no_worker_environ: dict[str, str]) -> None:
    done = invoke("cost", env=no_worker_environ)
    assert (done.exit_code, done.stdout) == (0, "")
    assert "the journal has no end of a task in this time" in done.stderr


@pytest.mark.parametrize("by", ["label:", "team", ""])
def test_another_group_is_refused(invoke: Invoke, no_worker_environ: dict[str, str], by: str) -> None:
    done = invoke("cost", "--by", by, env=no_worker_environ)
    assert done.exit_code == 2
    assert "expected queue, dag or label:KEY" in done.stderr


@pytest.mark.parametrize(
    "prices",
    ["[]", '{"EC2": {}}', '{"FARGATE": 1}', '{"FARGATE": {"vcpu_hour": 1}}']
    + [json.dumps({"FARGATE": {"vcpu_hour": value, "gb_hour": 0}}) for value in (-1, True, "1", 1e300)],
)
def test_a_table_that_has_no_prices_is_refused(invoke: Invoke, no_worker_environ: dict[str, str], prices: str) -> None:
    done = invoke("cost", env={**no_worker_environ, "AIRFLOW__ECS_QUEUE__PRICES": prices})
    assert done.exit_code == 2
    assert "prices: expected " in done.stderr


@pytest.mark.parametrize(("warm_seconds", "since", "expected"), [(0, 9e5, 9e5), (60, 9e5, 813600.0), (60, None, None)])
def test_what_runners_did_before_the_time_is_read(warm_seconds: int, since: float, expected: float) -> None:
    config = load_config(environ={"AIRFLOW__AWS_ECS_EXECUTOR_ETL__WARM_SECONDS": str(warm_seconds)})
    assert find_reading_start(config, since) == expected
