"""Decoding the messages of the event queue."""

from __future__ import annotations

import json
from typing import Any

import pytest

from ecs_queue.ecs.task_events import TaskEvent, decode_event, newest_event_per_task
from ecs_queue.errors import UndecodableMessage
from ecs_queue.protocol.settings import MAX_STORED_NUMBER

ARN = "arn:aws:ecs:us-west-2:111122223333:task/jobs/d7ec8af4c3a1470d9d9c9a1b3e1c2f3a"
SECRET = "hunter2"


def event(**changes: Any) -> dict[str, Any]:
    """In the form of AWS's own example."""
    detail = {
        "clusterArn": "arn:aws:ecs:us-west-2:111122223333:cluster/jobs",
        "containers": [{"name": "main", "lastStatus": "STOPPED", "exitCode": 0}],
        "createdAt": "2026-11-23T06:41:05.702Z",
        "desiredStatus": "STOPPED",
        "lastStatus": "STOPPED",
        "overrides": {"containerOverrides": [{"environment": [{"name": "PASSWORD", "value": SECRET}], "name": "main"}]},
        "startedBy": "ecs-queue/job-1/abcd1234/2",
        "stoppedAt": "2026-11-23T06:42:05Z",
        "taskArn": ARN,
        "updatedAt": "2026-11-23T06:42:05.250Z",
        "version": 5,
        **changes.pop("detail", {}),
    }
    return {
        "version": "0",
        "id": "105f6bb1-4da6-c630-4965-35383018cbca",
        "detail-type": "ECS Task State Change",
        "source": "aws.ecs",
        "account": "111122223333",
        "time": "2026-11-23T06:42:06Z",
        "region": "us-west-2",
        "resources": [ARN],
        "detail": detail,
        **changes,
    }


def decoded(**changes: Any) -> TaskEvent | None:
    return decode_event(json.dumps(event(**changes)), "ecs-queue")


def test_an_event_names_its_launch_its_task_and_when_it_happened() -> None:
    found = decoded()
    assert found is not None
    assert (found.record_id, found.nonce, found.launch) == ("job-1", "abcd1234", 2)
    assert (found.arn, found.version, found.happened_at) == (ARN, 5, 1795416125.25)
    assert found.task["containers"][0]["exitCode"] == 0


def test_without_a_time_of_its_own_the_envelopes_time_counts() -> None:
    found = decoded(detail={"updatedAt": None})
    assert found is not None
    assert found.happened_at == 1795416126.0


@pytest.mark.parametrize(
    "changes",
    [
        {"source": "aws.s3"},
        {"detail-type": "ECS Container Instance State Change"},
        {"detail": {"startedBy": "other/job-1/abcd1234/2"}},
        {"detail": {"startedBy": "ecs-queue-2/job-1/abcd1234/2"}},
        {"detail": {"startedBy": "ecs-svc/123456"}},
        {"detail": {"startedBy": "ecs-queue/job-1/abcd1234/two"}},
        {"detail": {"startedBy": None}},
    ],
)
def test_what_others_started_is_foreign(changes: dict[str, Any]) -> None:
    assert decoded(**changes) is None


@pytest.mark.parametrize(
    "body",
    [
        "",
        "not json",
        "[]",
        "{}",
        '{"source": 7}',
        "[" * 100_000,
        '{"Type": "Notification"}',
        json.dumps(event(detail={"version": "5"})),
        json.dumps(event(detail={"version": -1})),
        json.dumps(event(detail={"taskArn": None})),
        json.dumps(event(detail={"lastStatus": None})),
        json.dumps({**event(), "detail": SECRET}),
        json.dumps(event(detail={"version": int(MAX_STORED_NUMBER)})),
        json.dumps(event(detail={"containers": 5})),
        json.dumps(event(detail={"containers": [SECRET]})),
        json.dumps(event(detail={"containers": [{"exitCode": 2**31}]})),
        json.dumps(event(detail={"stopCode": [SECRET]})),
        json.dumps(event(detail={"stoppedReason": {"a": SECRET}})),
        "{\udcff",
    ],
)
def test_an_unreadable_event_is_reported_without_quoting_it(body: str) -> None:
    with pytest.raises(UndecodableMessage) as raised:
        decode_event(body, "ecs-queue")
    assert SECRET not in str(raised.value)


def test_no_secret_of_the_task_is_in_its_repr() -> None:
    assert SECRET not in repr(decoded())


def test_of_several_events_of_one_task_the_newest_is_kept() -> None:
    events = [decoded(detail={"version": version, "lastStatus": "RUNNING"}) for version in (2, 5, 5, 1)]
    other = decoded(detail={"taskArn": ARN + "0", "version": 1})
    found = newest_event_per_task([each for each in (*events, other) if each])
    assert [(each.arn, each.version) for each in found] == [(ARN, 5), (ARN + "0", 1)]


@pytest.mark.parametrize("version", [None, 0])
def test_an_endpoint_without_versions_is_understood(version: int | None) -> None:
    found = decoded(detail={"version": version})
    assert found is not None
    assert found.version == 0


@pytest.mark.parametrize("order", [1, -1])
def test_of_several_events_of_one_version_the_latest_status_with_the_most_exit_codes_is_kept(order: int) -> None:
    shown: list[dict[str, Any]] = [
        {"lastStatus": "RUNNING"},
        {"lastStatus": "STOPPED", "containers": [{"name": "main"}]},
        {"lastStatus": "STOPPED", "containers": [{"name": "main", "exitCode": 3}]},
    ]
    events = [decoded(detail={"version": 1, **detail}) for detail in shown[::order]]
    (found,) = newest_event_per_task([each for each in events if each])
    assert found.task["containers"] == [{"name": "main", "exitCode": 3}]
