"""What `queues` shows, and what pause and resume do."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import pytest

from ecs_queue.client.client import EcsQueue
from ecs_queue.protocol.operations import ClaimRequest, ResultCode
from tests.cli.conftest import Invoke, json_lines

LIMITED = {"AIRFLOW__AWS_ECS_EXECUTOR_ETL__MAX_IN_FLIGHT": "1", "AIRFLOW__AWS_ECS_EXECUTOR_ETL__WEIGHT": "3"}
STARTING = {"AIRFLOW__AWS_ECS_EXECUTOR_ETL__MAX_STARTING": "2"}


@pytest.fixture
def client(no_worker_environ: dict[str, str]) -> Iterator[EcsQueue]:
    with EcsQueue.from_config(environ=no_worker_environ, owner="") as queue:
        yield queue


def test_each_queue_is_shown_with_what_waits_and_what_it_may_do(
    invoke: Invoke, no_worker_environ: Mapping[str, str], client: EcsQueue
) -> None:
    client.submit_many([{"command": ["true"], "queue": "etl", "id": f"e{number}"} for number in range(3)])
    client.ledger.claim("e0", ClaimRequest(claim="c", worker="w", args="{}", target="t"))
    client.ledger.pause_queues(["reports"])
    environ = {**no_worker_environ, **LIMITED}

    lines = {line["queue"]: line for line in json_lines(invoke("queues", "--json", env=environ).stdout)}

    etl = lines["etl"]
    assert {name: etl[name] for name in ("backlog", "queued", "in_flight", "max_in_flight", "weight")} == {
        "backlog": 3,
        "queued": 2,
        "in_flight": 1,
        "max_in_flight": 1,
        "weight": 3,
    }
    assert (etl["paused_since"], etl["workers"]) == (None, [])
    assert lines["reports"]["paused_since"].endswith("Z")
    assert lines["default"]["max_in_flight"] is None
    table = {line.split()[0]: line.split() for line in invoke("queues", env=environ).stdout.splitlines()}
    assert table["etl"] == ["etl", "0", "3", "2", "1", "1", "3", "full"]
    assert table["reports"][7:9] == ["paused", "for"]
    assert table["default"][-1] == "active"


def test_a_queue_that_waits_for_tasks_to_start_says_so(
    invoke: Invoke, no_worker_environ: Mapping[str, str], client: EcsQueue
) -> None:
    environ = {**no_worker_environ, **STARTING}
    client.submit_many([{"command": ["true"], "queue": "etl", "id": f"e{number}"} for number in range(3)])
    for number in range(2):
        request = ClaimRequest(claim=f"c{number}", worker="w", args="{}", target="t", max_starting=2)
        assert client.ledger.claim(f"e{number}", request).code is ResultCode.RUN_TASK
    request = ClaimRequest(claim="c", worker="w", args="{}", target="t", max_starting=2)
    assert client.ledger.claim("e2", request).code is ResultCode.LIMIT_REACHED

    lines = {line["queue"]: line for line in json_lines(invoke("queues", "--json", env=environ).stdout)}
    assert (lines["etl"]["starting"], lines["etl"]["max_starting"]) == (2, 2)
    assert (lines["default"]["starting"], lines["default"]["max_starting"]) == (0, None)
    table = {line.split()[0]: line for line in invoke("queues", env=environ).stdout.splitlines()}
    assert table["etl"].endswith("2 of 2 starting")
    shown = invoke("status", "e2", env=environ).stdout
    assert "max_starting of its queue is reached" in shown
    assert "max_starting of its queue: 2 of 2" in shown
    assert json_lines(invoke("status", "e0", "--json", env=environ).stdout)[0]["waits_for"] is None


def test_requests_whose_key_is_full_say_so(
    invoke: Invoke, no_worker_environ: Mapping[str, str], client: EcsQueue
) -> None:
    environ = {**no_worker_environ, "AIRFLOW__AWS_ECS_EXECUTOR_ETL__MAX_PER_KEY": "1"}
    for number, key in enumerate(("customer 7", "customer 7", "customer 8")):
        line = ("submit", "--queue", "etl", "--id", f"e{number}", "--key", key, "--", "true")
        assert invoke(*line, env=environ).exit_code == 0
    codes = []
    for number in range(3):
        request = ClaimRequest(claim=f"c{number}", worker="w", args="{}", target="t", key_limit=1)
        codes.append(client.ledger.claim(f"e{number}", request).code)
    assert codes == [ResultCode.RUN_TASK, ResultCode.KEY_FULL, ResultCode.RUN_TASK]

    lines = {line["queue"]: line for line in json_lines(invoke("queues", "--json", env=environ).stdout)}
    assert (lines["etl"]["max_per_key"], lines["etl"]["key_waiting"]) == (1, 1)
    assert (lines["default"]["max_per_key"], lines["default"]["key_waiting"]) == (None, 0)
    table = {line.split()[0]: line for line in invoke("queues", env=environ).stdout.splitlines()}
    assert table["etl"].endswith("1 request waiting for a key")

    waits_for = "max_per_key of its queue: 1 of 1 in flight with the key customer 7, 1 request waiting"
    shown = invoke("status", "e1", env=environ).stdout
    assert waits_for in shown
    assert "next attempt" not in shown
    (facts,) = json_lines(invoke("status", "e1", "--json", env=environ).stdout)
    assert (facts["concurrency_key"], facts["waits_for"]) == ("customer 7", waits_for)
    (facts,) = json_lines(invoke("status", "e0", "--json", env=environ).stdout)
    assert (facts["concurrency_key"], facts["waits_for"]) == ("customer 7", None)
    for limit in ("0", "3"):  # other than that of the worker which claimed them
        other = {**environ, "AIRFLOW__AWS_ECS_EXECUTOR_ETL__MAX_PER_KEY": limit}
        (facts,) = json_lines(invoke("status", "e1", "--json", env=other).stdout)
        assert facts["waits_for"] == (
            "max_per_key of its queue: 1 in flight with the key customer 7, 1 request waiting; "
            f"max_per_key is {limit} in the configuration here, and that of the workers counts"
        )

    found = json_lines(invoke("tasks", "--key", "customer 7", "--json", env=environ).stdout)
    assert {line["id"] for line in found} == {"e0", "e1"}
    assert invoke("tasks", "--key", "none", env=environ).stderr == "no such requests\n"


def test_a_request_whose_turn_it_is_waits_for_its_key_no_longer(
    invoke: Invoke, no_worker_environ: Mapping[str, str], client: EcsQueue
) -> None:
    environ = {**no_worker_environ, "AIRFLOW__AWS_ECS_EXECUTOR_ETL__MAX_PER_KEY": "3"}
    client.submit_many([{"command": ["true"], "queue": "etl", "id": f"e{n}", "concurrency_key": "k"} for n in range(3)])
    for number, limit in ((0, 1), (1, 1), (2, 3)):  # the limit is raised: e1 has its turn when e2 has started
        request = ClaimRequest(claim=f"c{number}", worker="w", args="{}", target="t", key_limit=limit)
        client.ledger.claim(f"e{number}", request)

    (facts,) = json_lines(invoke("status", "e1", "--json", env=environ).stdout)
    assert (facts["state"], facts["waits_for"]) == ("QUEUED", None)
    full = {**environ, "AIRFLOW__AWS_ECS_EXECUTOR_ETL__MAX_IN_FLIGHT": "2"}
    (facts,) = json_lines(invoke("status", "e1", "--json", env=full).stdout)
    assert facts["waits_for"] == "max_in_flight of its queue: 2 of 2"


def test_a_queue_with_a_rate_shows_it(invoke: Invoke, no_worker_environ: Mapping[str, str], client: EcsQueue) -> None:
    environ = {**no_worker_environ, "AIRFLOW__AWS_ECS_EXECUTOR_ETL__LAUNCH_RATE": "0.5"}
    client.submit(["true"], queue="etl", id="e")
    lines = {line["queue"]: line for line in json_lines(invoke("queues", "--json", env=environ).stdout)}
    assert (lines["etl"]["launch_rate"], lines["default"]["launch_rate"]) == (0.5, None)
    table = {line.split()[0]: line for line in invoke("queues", env=environ).stdout.splitlines()}
    assert table["etl"].endswith("at most 0.5 a second")
    shown = json_lines(invoke("status", "e", "--json", env=environ).stdout)[0]
    assert shown["waits_for"] == "launch_rate of its queue: at most 0.5 a second"


@pytest.mark.parametrize(
    ("key", "text"),
    [
        ("AWS_ECS_EXECUTOR_ETL__MAX_IN_FLIGHT", "max_in_flight of its queue: 1 of 1"),
        ("ECS_QUEUE__MAX_IN_FLIGHT", "max_in_flight of the namespace: 1 of 1"),
    ],
)
def test_a_request_that_no_worker_has_tried_shows_the_limit_it_waits_for(
    invoke: Invoke, no_worker_environ: Mapping[str, str], client: EcsQueue, key: str, text: str
) -> None:
    for name in ("a", "b"):
        client.submit(["true"], queue="etl", id=name)
    client.ledger.claim("a", ClaimRequest(claim="c", worker="w", args="{}", target="t"))
    shown = invoke("status", "b", env={**no_worker_environ, f"AIRFLOW__{key}": "1"}).stdout
    assert text in shown


def test_a_paused_queue_launches_nothing_until_it_is_resumed(
    invoke: Invoke, no_worker_environ: Mapping[str, str], client: EcsQueue
) -> None:
    client.submit(["true"], id="a", queue="etl")
    claim_request = ClaimRequest(claim="c", worker="w", args="{}", target="t")

    done = invoke("queues", "pause", "etl", "reports", env=no_worker_environ)

    assert done.stdout.splitlines() == ["etl: paused", "reports: paused"]
    assert "no live worker serves queue etl; check its name" in done.stderr
    assert sorted(client.ledger.list_paused_queues()) == ["etl", "reports"]
    assert client.ledger.claim("a", claim_request).code is ResultCode.PAUSED
    resumed = invoke("queues", "resume", "etl", "unheard-of", env=no_worker_environ)
    assert resumed.stdout.splitlines() == ["etl: resumed", "unheard_of: was not paused"]
    assert sorted(client.ledger.list_paused_queues()) == ["reports"]


def test_pause_needs_a_name(invoke: Invoke, no_worker_environ: Mapping[str, str]) -> None:
    assert invoke("queues", "pause", env=no_worker_environ).exit_code == 2
