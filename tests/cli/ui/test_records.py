"""What commands say about queues."""

from __future__ import annotations

import pytest

from ecs_queue.broker import open_broker
from ecs_queue.cli.ui.records import describe_default_server, warn_unserved_queues
from ecs_queue.client.client import EcsQueue
from ecs_queue.config import load_config
from ecs_queue.ledger import open_ledger

_CHOSEN = {"AIRFLOW__ECS_QUEUE__BROKER_URL": "memory://"}


def test_a_default_server_is_named_once_where_no_worker_serves_a_queue(capsys: pytest.CaptureFixture[str]) -> None:
    """A user who meant another server sees where the requests went."""
    chosen = load_config(environ=_CHOSEN)
    with EcsQueue(chosen, open_broker(chosen), open_ledger(chosen)) as client:
        warn_unserved_queues(client, ["etl", "reports"])
        assert "default" not in capsys.readouterr().err
        client.config = load_config(environ={})
        warn_unserved_queues(client, ["etl", "reports"])
        said = capsys.readouterr().err.splitlines()
        warn_unserved_queues(client, [])
        assert capsys.readouterr().err == ""

    assert [line.split(";")[0] for line in said[:2]] == [
        "ecs-queue: no live worker serves queue etl",
        "ecs-queue: no live worker serves queue reports",
    ]
    assert said[2:] == ["ecs-queue: broker_url is not set, so the server is its default, redis://127.0.0.1:6379/0"]


def test_a_paused_queue_is_named_to_those_who_submit_to_it(capsys: pytest.CaptureFixture[str]) -> None:
    """Otherwise a request waits and nothing says why."""
    chosen = load_config(environ=_CHOSEN)
    with EcsQueue(chosen, open_broker(chosen), open_ledger(chosen)) as client:
        client.pause("etl", "reports")
        capsys.readouterr()
        warn_unserved_queues(client, ["etl", "default"], expects_launch=False)
        assert "paused" not in capsys.readouterr().err
        warn_unserved_queues(client, ["etl", "default"])
        assert capsys.readouterr().err.splitlines()[0] == (
            "ecs-queue: queue etl is paused: its requests wait until `ecs-queue queues resume etl`"
        )
        client.resume("etl")
        warn_unserved_queues(client, ["etl"])
        assert "paused" not in capsys.readouterr().err


def test_a_server_that_someone_chose_is_not_called_a_default() -> None:
    assert describe_default_server(load_config(environ=_CHOSEN)) == ""
    same = {"AIRFLOW__ECS_QUEUE__BROKER_URL": "redis://127.0.0.1:6379/0"}
    assert describe_default_server(load_config(environ=same)) == ""
