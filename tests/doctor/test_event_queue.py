"""What the doctor says of the event queue, on moto's SQS; what moto has not, on botocore's own stub."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import boto3
import pytest
from botocore.stub import Stubber
from moto import mock_aws

from ecs_queue.doctor.event_queue import check_event_queue
from ecs_queue.findings import Reporter, Severity

REGION = "eu-central-1"
EMPTY: dict[str, Any] = {}


@pytest.fixture
def sqs() -> Iterator[Any]:
    with mock_aws():
        yield boto3.client("sqs", region_name=REGION)


def examined(sqs: Any, url: str) -> list[tuple[Severity, str]]:
    return [(finding.severity, finding.text) for finding in check_event_queue(Reporter("default"), url, sqs)]


def test_a_queue_that_can_be_read_is_fine_and_keeps_its_messages(sqs: Any) -> None:
    url = sqs.create_queue(QueueName="events")["QueueUrl"]
    sqs.send_message(QueueUrl=url, MessageBody="x")
    assert examined(sqs, url) == [
        (Severity.OK, "the event queue can be read, and its messages deleted"),
        (Severity.OK, "about 1 events wait"),
    ]
    assert len(sqs.receive_message(QueueUrl=url)["Messages"]) == 1


def test_a_missing_queue_is_an_error(sqs: Any) -> None:
    ((level, text),) = examined(sqs, f"https://sqs.{REGION}.amazonaws.com/123456789012/nowhere")
    assert level is Severity.ERROR
    assert "does not exist" in text


@pytest.mark.parametrize(
    ("denied", "level", "action"),
    [
        ("receive_message", Severity.ERROR, "sqs:ReceiveMessage is denied"),
        ("delete_message_batch", Severity.ERROR, "sqs:DeleteMessage is denied"),
        ("get_queue_attributes", Severity.INFO, "the backlog is unknown"),
    ],
)
def test_a_missing_permission_is_named(denied: str, level: Severity, action: str) -> None:
    sqs = boto3.client("sqs", region_name=REGION)
    with Stubber(sqs) as stub:
        for operation in ("receive_message", "delete_message_batch", "get_queue_attributes"):
            if operation == denied:
                stub.add_client_error(operation, "AccessDenied", "not authorized", http_status_code=403)
                break
            stub.add_response(operation, {"Successful": [], "Failed": []} if "batch" in operation else EMPTY)
        findings = examined(sqs, "https://sqs.eu-central-1.amazonaws.com/1/events")
    assert findings[-1][0] is level
    assert action in findings[-1][1]


def test_unread_events_are_a_warning() -> None:
    sqs = boto3.client("sqs", region_name=REGION)
    with Stubber(sqs) as stub:
        stub.add_response("receive_message", EMPTY)
        stub.add_client_error("delete_message_batch", "ReceiptHandleIsInvalid")
        stub.add_response("get_queue_attributes", {"Attributes": {"ApproximateNumberOfMessages": "9000"}})
        findings = examined(sqs, "https://sqs.eu-central-1.amazonaws.com/1/events")
    assert [level for level, _ in findings] == [Severity.OK, Severity.WARNING]
    assert "about 9000 events" in findings[1][1]
