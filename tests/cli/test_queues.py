"""What `queues` shows, and what pause and resume do."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import pytest

from ecs_queue.client import EcsQueue
from ecs_queue.core.protocol import ClaimOffer, Word
from tests.cli.conftest import Invoke, json_lines

LIMITED = {"AIRFLOW__AWS_ECS_EXECUTOR_ETL__MAX_IN_FLIGHT": "1", "AIRFLOW__AWS_ECS_EXECUTOR_ETL__WEIGHT": "3"}


@pytest.fixture
def client(nobody: dict[str, str]) -> Iterator[EcsQueue]:
    with EcsQueue.from_config(environ=nobody, owner="") as queue:
        yield queue


def test_each_queue_is_shown_with_what_waits_and_what_it_may_do(
    invoke: Invoke, nobody: Mapping[str, str], client: EcsQueue
) -> None:
    client.submit_many([{"command": ["true"], "queue": "etl", "id": f"e{number}"} for number in range(3)])
    client.ledger.claim("e0", ClaimOffer(claim="c", worker="w", args="{}", target="t"))
    client.ledger.pause(["reports"])
    environ = {**nobody, **LIMITED}

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
    assert table["default"][-1] == "open"


def test_a_paused_queue_launches_nothing_until_it_is_resumed(
    invoke: Invoke, nobody: Mapping[str, str], client: EcsQueue
) -> None:
    client.submit(["true"], id="a", queue="etl")
    offer = ClaimOffer(claim="c", worker="w", args="{}", target="t")

    done = invoke("queues", "pause", "etl", "reports", env=nobody)

    assert done.stdout.splitlines() == ["etl: paused", "reports: paused"]
    assert "no worker that is alive serves a queue etl" in done.stderr
    assert sorted(client.ledger.paused()) == ["etl", "reports"]
    assert client.ledger.claim("a", offer).word is Word.PAUSED
    resumed = invoke("queues", "resume", "etl", "unheard-of", env=nobody)
    assert resumed.stdout.splitlines() == ["etl: resumed", "unheard-of: was not paused"]
    assert sorted(client.ledger.paused()) == ["reports"]


def test_pause_wants_a_name(invoke: Invoke, nobody: Mapping[str, str]) -> None:
    assert invoke("queues", "pause", env=nobody).exit_code == 2
