"""The event files of conf/: the pattern matches only our tasks' events, the policies grant only what is needed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from moto.events.models import EventPattern

from ecs_queue.local.ecs.events import build_event
from ecs_queue.protocol.record import build_started_by

CONF = Path(__file__).parent.parent / "conf"
FILLED_IN = {"REGION": "eu-west-1", "ACCOUNT": "123456789012", "CLUSTER": "jobs", "NAMESPACE": "ecs-queue"}
WHERE = "arn:aws:ecs:eu-west-1:123456789012"


def filled_in(name: str) -> Any:
    text = (CONF / name).read_text()
    for placeholder, value in FILLED_IN.items():
        text = text.replace(placeholder, value)
    return json.loads(text)


def event(started_by: str, cluster: str = "jobs") -> Any:
    task = {
        "taskArn": f"{WHERE}:task/{cluster}/1",
        "clusterArn": f"{WHERE}:cluster/{cluster}",
        "version": 1,
        "startedBy": started_by,
    }
    return json.loads(build_event(json.dumps(task).encode(), "eu-west-1", "123456789012", 0.0))


@pytest.mark.parametrize(
    ("detail", "matches"),
    [
        (event(build_started_by("ecs-queue", "job", "abcd1234", 1)), True),
        (event(build_started_by("ecs-queue-2", "job", "abcd1234", 1)), False),
        (event(build_started_by("ecs-queue", "job", "abcd1234", 1), cluster="others"), False),
        (event("ecs-svc/1234567890"), False),
        ({**event("ecs-queue/a/b/1"), "detail-type": "ECS Deployment State Change"}, False),
        ({**event("ecs-queue/a/b/1"), "source": "aws.batch"}, False),
    ],
)
def test_the_rule_matches_this_namespaces_tasks_on_this_cluster(detail: Any, matches: bool) -> None:
    pattern = EventPattern.load(json.dumps(filled_in("event-rule.json")))
    assert pattern.matches_event(detail) is matches


def test_the_worker_may_take_events_from_one_queue_and_nothing_else() -> None:
    (statement,) = filled_in("iam-events-policy.json")["Statement"]
    assert sorted(statement["Action"]) == ["sqs:DeleteMessage", "sqs:ReceiveMessage"]
    assert statement["Resource"] == "arn:aws:sqs:eu-west-1:123456789012:ecs-queue-events"


def test_only_the_rule_may_send_to_the_queue() -> None:
    allowed = [one for one in filled_in("event-queue-policy.json")["Statement"] if one["Effect"] == "Allow"]
    (statement,) = allowed
    assert (statement["Action"], statement["Principal"]) == ("sqs:SendMessage", {"Service": "events.amazonaws.com"})
    rule = "arn:aws:events:eu-west-1:123456789012:rule/ecs-queue-events"
    assert statement["Condition"] == {"ArnEquals": {"aws:SourceArn": rule}}
