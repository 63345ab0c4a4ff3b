"""The event queue's contract against an SQS that this project did not write: moto's server."""

from __future__ import annotations

import time
from typing import Any

import pytest

from ecs_queue.ecs.clients import EcsClients, Target
from ecs_queue.ecs.event_queue import EventQueue, SqsEventQueue, open_event_queue, open_sqs_client
from ecs_queue.errors import EventQueueUnavailable
from tests.ecs.scripted_endpoint import ScriptedEndpoint, error_reply, ok_reply

REGION = "eu-central-1"
TARGET = Target("us-east-1", "http://127.0.0.1:1", None, "jobs")


@pytest.fixture
def url(sqs: Any, request: pytest.FixtureRequest) -> str:
    name = f"events-{abs(hash(request.node.name))}"
    return str(sqs.create_queue(QueueName=name)["QueueUrl"])


def open_queue(clients: EcsClients, url: str, visibility_timeout: int = 30) -> EventQueue:
    return open_event_queue(clients, TARGET, url, 2.0, visibility_timeout)


def test_messages_are_received_and_stay_until_they_are_deleted(clients: EcsClients, sqs: Any, url: str) -> None:
    for number in range(12):
        sqs.send_message(QueueUrl=url, MessageBody=f"body {number} ü")
    queue = open_queue(clients, url)

    first, second = queue.receive(), queue.receive()
    assert (len(first), len(second)) == (10, 2)
    assert {message.body for message in first + second} == {f"body {number} ü" for number in range(12)}
    assert queue.delete(first) == 0

    names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
    left = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=names)["Attributes"]
    assert left == {names[0]: "0", names[1]: "2"}


def test_what_a_dead_reader_had_comes_again(clients: EcsClients, sqs: Any, url: str) -> None:
    sqs.send_message(QueueUrl=url, MessageBody="x")
    assert len(open_queue(clients, url, visibility_timeout=1).receive()) == 1
    queue = open_queue(clients, url)
    deadline = time.monotonic() + 30
    while not (found := queue.receive()):
        assert time.monotonic() < deadline
    assert [message.body for message in found] == ["x"]


def test_an_empty_queue_returns_nothing(clients: EcsClients, url: str) -> None:
    assert open_queue(clients, url).receive() == []


def test_a_deletion_that_sqs_refuses_is_counted(clients: EcsClients, sqs: Any, url: str) -> None:
    sqs.send_message(QueueUrl=url, MessageBody="x")
    queue = open_queue(clients, url)
    (message,) = queue.receive()
    assert queue.delete([message._replace(receipt_handle="none"), message]) == 1


def test_a_missing_queue_is_reported_with_the_message_of_aws(clients: EcsClients, moto_url: str) -> None:
    with pytest.raises(EventQueueUnavailable, match="does not exist"):
        open_queue(clients, f"{moto_url}/123456789012/nowhere").receive()


def test_a_denied_call_is_reported_and_the_next_one_has_a_new_client(
    clients: EcsClients, endpoint: ScriptedEndpoint
) -> None:
    url = f"{endpoint.url}/123456789012/events"
    built: list[Any] = []

    def build() -> Any:
        built.append(open_sqs_client(clients, TARGET, url))
        return built[-1]

    queue = SqsEventQueue(build, url, 0, 30)
    endpoint.enqueue(
        error_reply("AccessDeniedException", "is not authorized to perform sqs:ReceiveMessage"), ok_reply()
    )
    with pytest.raises(EventQueueUnavailable, match="sqs:ReceiveMessage"):
        queue.receive()
    assert queue.receive() == []

    assert len(built) == 2
    asked = {"QueueUrl": url, "MaxNumberOfMessages": 10, "WaitTimeSeconds": 0, "VisibilityTimeout": 30}
    assert [request.body for request in endpoint.requests] == [asked] * 2


def test_an_unreachable_queue_is_reported(clients: EcsClients) -> None:
    with pytest.raises(EventQueueUnavailable, match="SQS was not reached"):
        open_queue(clients, "http://127.0.0.1:1/123456789012/events").receive()


@pytest.mark.parametrize(
    ("url", "region"),
    [
        ("https://sqs.eu-west-1.amazonaws.com/1/q", "eu-west-1"),
        ("https://sqs.us-gov-west-1.amazonaws.com/1/q", "us-gov-west-1"),
        ("https://sqs.cn-north-1.amazonaws.com.cn/1/q", "cn-north-1"),
        ("https://vpce-0a1b-2c3d.sqs.ap-southeast-2.vpce.amazonaws.com/1/q", "ap-southeast-2"),
        ("https://ap-southeast-2.queue.amazonaws.com/1/q", "ap-southeast-2"),
        ("http://127.0.0.1:4566/1/q", "us-east-1"),
        ("http://localhost:4566/1/q", "us-east-1"),
    ],
)
def test_the_queues_url_names_endpoint_and_region(clients: EcsClients, url: str, region: str) -> None:
    client = open_sqs_client(clients, TARGET, url)
    assert client.meta.region_name == region
    assert url.startswith(client.meta.endpoint_url)
