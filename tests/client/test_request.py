"""The typed request, and what its conveniences become."""

from __future__ import annotations

import inspect
from dataclasses import fields
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from ecs_queue import Request
from ecs_queue.client.client import EcsQueue
from ecs_queue.client.main_container import render_main_container
from ecs_queue.client.request import RequestOptions
from ecs_queue.client.task_line import TASK_FIELDS
from ecs_queue.errors import InvalidRequest
from ecs_queue.messages import envelope
from ecs_queue.messages.request import TaskRequest
from tests.client.harness import ClientHarness

VARIABLE = {"name": "C", "value": "3"}
ENVIRONMENT = [{"name": "A", "value": "1"}, {"name": "B", "value": "2"}]


def _submitted(harness: ClientHarness, record_id: str) -> TaskRequest:
    return envelope.decode_request(harness.record(record_id).request)


def test_submit_and_request_have_the_members_of_a_task_line() -> None:
    parameters = inspect.signature(EcsQueue.submit).parameters
    assert {field.name for field in fields(Request)} == TASK_FIELDS
    assert [name for name in parameters if name != "self"] == [field.name for field in fields(Request)]
    assert ["command", *RequestOptions.__annotations__] == [field.name for field in fields(Request)]
    assert "Any" not in {str(parameter.annotation) for parameter in parameters.values()}


def test_every_argument_of_submit_reaches_the_request(harness: ClientHarness, queue: EcsQueue) -> None:
    handle = queue.submit(
        ("python", "etl.py"),
        queue="etl",
        id="a",
        priority=3,
        expires_in=timedelta(minutes=10),
        time_limit="2h",
        start_timeout=300,
        environment={"B": "2", "A": "1"},
        cpu=512,
        memory=1024,
        relaunch="interrupted",
        concurrency_key="customer 7",
        traceparent="00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
    )

    found = _submitted(harness, handle.id)
    assert (found.command, found.queue, found.id, found.priority) == (["python", "etl.py"], "etl", "a", 3)
    assert (found.expires_in, found.time_limit, found.relaunch) == (600.0, 7200.0, "interrupted")
    assert found.executor_config == {"cpu": 512, "memory": 1024, "environment": ENVIRONMENT}
    assert (found.start_timeout, found.traceparent[-3:], found.concurrency_key) == (300.0, "-01", "customer 7")


def test_requests_and_task_lines_are_submitted_together(harness: ClientHarness, queue: EcsQueue) -> None:
    queue.submit_many([Request(command=["one"], id="a", cpu=256), {"command": ["two"], "id": "b", "memory": 512}])

    assert _submitted(harness, "a").executor_config == {"cpu": 256}
    assert _submitted(harness, "b").executor_config == {"memory": 512}


def test_the_same_variables_in_another_order_are_the_same_request(queue: EcsQueue) -> None:
    first = queue.submit(["true"], id="a", environment={"A": "1", "B": "2"})

    assert queue.submit(["true"], id="a", environment={"B": "2", "A": "1"}).nonce == first.nonce


@pytest.mark.parametrize(
    "config",
    [
        {"environment": [VARIABLE], "memory": 512},
        {"overrides": {"containerOverrides": [{"environment": [VARIABLE], "memory": 512}]}},
        {
            "overrides": {
                "containerOverrides": [{"name": "main", "memory": 512, "environment": [{"name": "C", "value": "3"}]}]
            }
        },
    ],
    ids=["flat", "unnamed", "named"],
)
def test_they_are_merged_with_the_executor_config_for_the_main_container(config: dict[str, Any]) -> None:
    rendered = render_main_container({"executor_config": config, "cpu": 256, "environment": {"A": "1"}}, "main")

    (container,) = rendered["executor_config"]["overrides"]["containerOverrides"]
    assert (container["name"], container["cpu"], container["memory"]) == ("main", 256, 512)
    assert {variable["name"] for variable in container["environment"]} == {"A", "C"}


def test_another_containers_overrides_stay() -> None:
    config = {"overrides": {"cpu": "1024", "containerOverrides": [{"name": "side", "cpu": 128}]}}

    rendered = render_main_container({"executor_config": config, "cpu": 256}, "main")["executor_config"]

    assert rendered["overrides"] == {
        "cpu": "1024",
        "containerOverrides": [{"name": "side", "cpu": 128}, {"name": "main", "cpu": 256}],
    }


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"cpu": 0}, "cpu: expected a whole number above 0 (CPU units, 1024 for a vCPU), found 0"),
        ({"cpu": True}, "cpu: expected a whole number above 0 (CPU units, 1024 for a vCPU), found True"),
        ({"memory": "1g"}, "memory: expected a whole number above 0 (MiB), found '1g'"),
        ({"environment": ["A=1"]}, 'environment: expected variables such as {"DAY": "2025-01-31"}, found list'),
        ({"environment": {"A": 1}}, "environment: expected a text as the value of A, found int"),
        ({"environment": {"A=B": "1"}}, "environment: expected names of variables that are not empty and have no ="),
        (
            {"cpu": 1, "executor_config": {"cpu": 2}},
            "cpu: found in the request and in its executor_config; leave one of them out",
        ),
        (
            {"environment": {"A": "secret"}, "executor_config": {"environment": [{"name": "A", "value": "other"}]}},
            "environment: found A in the request and in its executor_config; leave one out",
        ),
        (
            {"cpu": 1, "executor_config": {"overrides": {"containerOverrides": [{"name": "main", "cpu": 2}]}}},
            "cpu: the name of the main container is not known here, and executor_config names one; set container_name "
            "in [aws_ecs_executor], or write all of it into overrides.containerOverrides",
        ),
    ],
)
def test_what_is_wrong_is_one_sentence(fields: dict[str, Any], sentence: str) -> None:
    with pytest.raises(InvalidRequest) as raised:
        render_main_container(fields, None)

    assert str(raised.value) == sentence


def test_the_representation_shows_neither_command_nor_variables() -> None:
    shown = repr(Request(command=["login", "hunter2"], environment={"PASSWORD": "hunter2"}, queue="etl"))

    assert "hunter2" not in shown
    assert "etl" in shown


@pytest.mark.parametrize("delay", [0, 0.0, "0", "0s", timedelta()])
def test_a_delay_of_nothing_is_none(harness: ClientHarness, queue: EcsQueue, delay: Any) -> None:
    first = queue.submit(["true"], id="a")

    assert queue.submit(["true"], id="a", delay=delay).nonce == first.nonce
    assert _submitted(harness, "a").delay is None


@pytest.mark.parametrize("text", ["2031-01-01T03:00:00Z", "2031-01-01t03:00:00z", "2031-01-01T04:00:00+01:00"])
def test_a_time_may_have_every_spelling_of_rfc_3339(harness: ClientHarness, queue: EcsQueue, text: str) -> None:
    handle = queue.submit(["true"], not_before=text)

    assert _submitted(harness, handle.id).not_before == datetime(2031, 1, 1, 3, tzinfo=UTC).timestamp()


@pytest.mark.parametrize("moment", ["2031-01-01T03:00:00", "2031-01-01", datetime(2031, 1, 1, 3)])
def test_a_time_without_its_zone_is_refused(queue: EcsQueue, moment: datetime | str) -> None:
    with pytest.raises(InvalidRequest, match=r"not_before: expected a time .* found one without its time zone"):
        queue.submit(["true"], not_before=moment)
