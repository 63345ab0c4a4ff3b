"""What `status`, `tasks` and `workers` say."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import pytest

from ecs_queue.cli.ui.records import STATE_NAMES
from ecs_queue.client.client import EcsQueue
from ecs_queue.protocol.states import State
from tests.cli.conftest import Deployment, Invoke, json_lines
from tests.worker_info import make_worker_info


@pytest.fixture
def client(no_worker_environ: dict[str, str]) -> Iterator[EcsQueue]:
    with EcsQueue.from_config(environ=no_worker_environ, owner="") as queue:
        yield queue


def test_the_states_of_the_option_are_those_of_the_protocol() -> None:
    assert sorted(STATE_NAMES) == sorted(State)


def test_status_shows_each_queue_with_its_states_backlog_and_workers(
    invoke: Invoke, no_worker_environ: Mapping[str, str], client: EcsQueue
) -> None:
    client.submit_many([{"command": ["true"], "queue": "etl", "id": f"e{n}"} for n in range(3)])
    client.stop("e0")
    client.stop("never-submitted")
    client.ledger.heartbeat(make_worker_info(queues=["default", "reports"]), 15)
    lines = {line["queue"]: line for line in json_lines(invoke("status", "--json", env=no_worker_environ).stdout)}
    assert sorted(lines) == ["default", "etl", "reports"]
    etl = lines["etl"]
    assert (etl["states"]["QUEUED"], etl["states"]["REVOKED"], etl["backlog"], etl["workers"]) == (2, 1, 3, [])
    assert lines["default"]["workers"] == ["w1"]
    shown = invoke("status", env=no_worker_environ).stdout
    assert shown.splitlines()[-1] == "1 worker is alive, all healthy"
    assert next(line.split()[:4] for line in shown.splitlines() if line.startswith("etl")) == ["etl", "0", "3", "2"]


def test_status_has_a_block_for_each_queue_on_a_terminal_of_80_columns(
    invoke: Invoke, no_worker_environ: Mapping[str, str], client: EcsQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    client.submit(["true"])
    monkeypatch.setattr("ecs_queue.cli.ui.output.is_terminal", lambda *_: True)
    monkeypatch.setenv("COLUMNS", "80")
    shown = invoke("status", env=no_worker_environ).stdout.splitlines()
    assert "default" in shown[0]
    assert ["LAUNCHING", "0"] in [line.split() for line in shown]


def test_status_shows_why_a_worker_is_unhealthy(
    invoke: Invoke, no_worker_environ: Mapping[str, str], client: EcsQueue
) -> None:
    assert "no worker is alive: start one" in invoke("status", env=no_worker_environ).stdout
    for name, health in (("w1", "ok"), ("w2", "default: no credentials")):
        client.ledger.heartbeat(make_worker_info(name, health=health, launched_total=4, ended_total=3), 15)
    assert "2 workers are alive; w2: default: no credentials" in invoke("status", env=no_worker_environ).stdout
    lines = json_lines(invoke("workers", "--json", env=no_worker_environ).stdout)
    assert [(line["name"], line["health"], line["launched_total"]) for line in lines] == [
        ("w1", "ok", 4),
        ("w2", "default: no credentials", 4),
    ]
    assert lines[0]["last_seen_at"].endswith("Z")
    table = invoke("workers", env=no_worker_environ).stdout.splitlines()
    assert table[0].split()[:4] == ["name", "queues", "launching", "launched"]
    assert len(table) == 4


def test_without_a_worker_workers_shows_how_to_start_one(invoke: Invoke, no_worker_environ: Mapping[str, str]) -> None:
    done = invoke("workers", env=no_worker_environ)
    assert (done.exit_code, done.stdout) == (0, "")
    assert "start one with `ecs-queue worker`" in done.stderr


def test_status_of_an_unknown_id_is_status_1_and_a_sentence(
    invoke: Invoke, no_worker_environ: Mapping[str, str]
) -> None:
    for name in ("never-submitted-id", "arn:aws:ecs:eu-west-1:123456789012:task/prod/nope"):
        done = invoke("status", name, env=no_worker_environ)
        assert (done.exit_code, done.stdout) == (1, "")
        assert f"no request {name} is known" in done.stderr


def test_status_of_a_waiting_request_says_that_its_queue_is_paused(
    invoke: Invoke, no_worker_environ: Mapping[str, str], client: EcsQueue
) -> None:
    client.submit(["true"], id="a1")
    assert "paused" not in invoke("status", "a1", env=no_worker_environ).stdout
    client.ledger.pause_queues(["default"])

    assert "its queue is paused for" in invoke("status", "a1", env=no_worker_environ).stdout
    (facts,) = json_lines(invoke("status", "a1", "--json", env=no_worker_environ).stdout)
    assert facts["queue_paused_since"].endswith("Z")


def test_status_of_a_request_shows_its_facts_and_not_its_payload(
    invoke: Invoke, no_worker_environ: Mapping[str, str], client: EcsQueue
) -> None:
    config = {"environment": [{"name": "TOKEN", "value": "hunter2"}]}
    client.submit(["login", "hunter2"], id="a1", executor_config=config)
    for flags in ([], ["--json"]):
        done = invoke("status", "a1", *flags, env=no_worker_environ)
        assert done.exit_code == 0
        assert "QUEUED" in done.stdout
        assert "hunter2" not in done.stdout + done.stderr


def test_tasks_are_listed_newest_first_and_filtered_by_state_and_queue(
    invoke: Invoke, no_worker_environ: Mapping[str, str], client: EcsQueue
) -> None:
    for number in range(4):
        client.submit(["true"], id=f"t{number}", queue="etl" if number % 2 else "default")
    client.stop("t1")

    def ids(*arguments: str) -> list[str]:
        return [line["id"] for line in json_lines(invoke("tasks", "--json", *arguments, env=no_worker_environ).stdout)]

    assert ids() == ["t3", "t2", "t0", "t1"]  # the live ones first
    assert ids("--state", "queued", "--queue", "etl") == ["t3"]
    assert ids("--state", "Revoked", "--state", "SUCCESS") == ["t1"]
    assert ids("--limit", "2") == ["t3", "t2"]
    table = invoke("tasks", env=no_worker_environ).stdout.splitlines()
    assert table[0].split()[:3] == ["id", "state", "queue"]
    assert [line.split()[0] for line in table[1:]] == ids()


def test_no_tasks_is_nothing_on_stdout(invoke: Invoke, no_worker_environ: Mapping[str, str]) -> None:
    done = invoke("tasks", env=no_worker_environ)
    assert (done.exit_code, done.stdout, done.stderr) == (0, "", "no requests\n")


def test_status_finds_a_request_by_the_arn_of_its_task(deployment: Deployment) -> None:
    line = json_lines(deployment.run("submit", "--wait", "--json", "--", "true").stdout)[0]
    done = deployment.run("status", line["task_arn"], "--json")
    facts = json_lines(done.stdout)[0]
    assert (facts["id"], facts["state"], facts["exit_code"]) == (line["id"], "SUCCESS", 0)
    assert facts["ran_seconds"] >= 0


def test_status_works_when_only_the_broker_is_unavailable(invoke: Invoke, no_worker_environ: Mapping[str, str]) -> None:
    ledger = no_worker_environ["AIRFLOW__ECS_QUEUE__BROKER_URL"]
    away = ["--ledger-url", ledger, "--broker-url", "redis://127.0.0.1:1/0"]
    done = invoke("status", "--json", *away, env=no_worker_environ)
    assert done.exit_code == 0
    assert json_lines(done.stdout)[0]["backlog"] is None
    assert "the broker failed" in done.stderr
    assert ".;" not in done.stderr
    assert invoke("status", *away, env=no_worker_environ).stdout.splitlines()[1].split()[:3] == ["default", "0", "?"]
