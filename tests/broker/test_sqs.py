"""The broker on SQS as moto has it, where it differs from other transports."""

from __future__ import annotations

import base64
import json
import re
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import pytest
from botocore.exceptions import ClientError

from ecs_queue.broker import Broker, RequestMessage, make_broker, sqs_names
from ecs_queue.broker.sqs import SqsBroker
from ecs_queue.broker.sqs_client import SqsQueues, wrap_sqs_errors
from ecs_queue.doctor.broker import check_broker
from ecs_queue.errors import BrokerUnavailable, MissingRight, UnusableServer
from ecs_queue.messages.request import MAX_BODY_BYTES
from tests.conformance.broker.harness import BrokerHarness

MakeBroker = Callable[..., Broker]


@pytest.fixture
def namespace() -> str:
    return f"t{uuid.uuid4().hex[:12]}"


@pytest.fixture
def make(moto_url: str, redis_url: str, namespace: str) -> Iterator[MakeBroker]:
    made: list[Broker] = []

    def make_one(options: str = f"region=us-east-1&endpoint_url={moto_url}", visibility: float = 60.0) -> Broker:
        waits: dict[str, Any] = {"visibility_timeout": visibility, "socket_timeout": 2.0}
        made.append(make_broker(f"sqs://?{options}", namespace, ledger_url=redis_url, **waits))
        return made[-1]

    yield make_one
    for broker in made:
        broker.close()


@pytest.fixture
def broker(make: MakeBroker) -> Broker:
    return make()


def as_kombu_writes(body: bytes) -> str:
    encoded = base64.b64encode(body).decode()
    properties = {"body_encoding": "base64", "delivery_tag": "t", "delivery_info": {}}
    return json.dumps({"body": encoded, "headers": {}, "properties": properties})


def send(sqs: Any, name: str, *bodies: str) -> None:
    url = sqs.create_queue(QueueName=name)["QueueUrl"]
    for body in bodies:
        sqs.send_message(QueueUrl=url, MessageBody=body)


def test_each_form_of_a_request_is_received_and_what_is_none_is_reported_once(
    broker: Broker, sqs: Any, namespace: str
) -> None:
    """kombu's own consumer would raise for some of these after each visibility timeout, for ever."""
    name = sqs_names.request_queue_name(namespace, "q")
    broken = ['{"properties": 1}', '{"properties": {}, "headers": [1]}', "hello", "[1]", as_kombu_writes(b"")[:-9]]
    double = base64.b64encode(as_kombu_writes(b'{"id": "double"}').encode()).decode()
    send(sqs, name, *broken, '{"id": "plain"}', as_kombu_writes(b'{"id": "kombu"}'), double)
    with BrokerHarness(broker, limits={"q": 10}) as harness:
        harness.drain_until(lambda: len(harness.undecodable) == 5 and len(harness.deliveries) == 3)
        harness.consumer.drain(0.05)  # deletes what was reported

        assert sorted(harness.bodies) == [b'{"id": "double"}', b'{"id": "kombu"}', b'{"id": "plain"}']
        assert {queue for queue, _, _ in harness.undecodable} == {"q"}
        assert all(reason for _, _, reason in harness.undecodable)
        for delivery in harness.deliveries:
            delivery.ack()
        harness.consumer.drain(0.05)
    url = sqs.get_queue_url(QueueName=name)["QueueUrl"]
    counts = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
    assert set(sqs.get_queue_attributes(QueueUrl=url, AttributeNames=counts)["Attributes"].values()) == {"0"}


def test_an_unacknowledged_message_comes_again_after_the_visibility_timeout(make: MakeBroker) -> None:
    broker = make(visibility=1.0)
    with BrokerHarness(broker) as harness:
        harness.publish(b"1")
        harness.receive(1)
        assert not harness.deliveries[0].redelivered
        assert harness.receive(2) == [b"1", b"1"]
        assert harness.deliveries[1].redelivered
        for delivery in harness.deliveries:  # the first one's receipt has expired
            delivery.ack()
        assert harness.consumer.drain(0.05) == 0


def test_what_a_redrive_policy_moved_to_our_dead_letter_queue_becomes_a_dead_letter(
    make: MakeBroker, sqs: Any, namespace: str
) -> None:
    dead_name = sqs_names.dead_letter_queue_name(namespace, "q")
    dead_url = sqs.create_queue(QueueName=dead_name)["QueueUrl"]
    arn = sqs.get_queue_attributes(QueueUrl=dead_url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    policy = json.dumps({"deadLetterTargetArn": arn, "maxReceiveCount": 1})
    sqs.create_queue(QueueName=sqs_names.request_queue_name(namespace, "q"), Attributes={"RedrivePolicy": policy})
    broker = make(visibility=1.0)
    with BrokerHarness(broker) as harness:
        harness.publish(b'{"id": "1"}')
        harness.receive(1)
        harness.drain_for(1.5)  # SQS moves it when it would give it out again
    with BrokerHarness(broker) as harness:
        harness.drain_until(lambda: bool(harness.undecodable))
        harness.consumer.drain(0.05)
    ((queue, body, reason),) = harness.undecodable
    assert (queue, body) == ("q", b'{"id": "1"}')
    assert dead_name in reason
    count = sqs.get_queue_attributes(QueueUrl=dead_url, AttributeNames=["ApproximateNumberOfMessages"])
    assert count["Attributes"]["ApproximateNumberOfMessages"] == "0"


def test_a_queue_for_shorter_messages_is_refused_before_anything_is_queued(
    broker: Broker, sqs: Any, namespace: str
) -> None:
    name = sqs_names.request_queue_name(namespace, "q")
    sqs.create_queue(QueueName=name, Attributes={"MaximumMessageSize": "65536"})
    with pytest.raises(UnusableServer, match=f"queue {name} takes messages of at most 65536 bytes"):
        broker.check(["q"])


def test_the_largest_requests_fit_into_a_queue_of_256_kib_and_into_batches(
    broker: Broker, sqs: Any, namespace: str
) -> None:
    name = sqs_names.request_queue_name(namespace, "q")
    sqs.create_queue(QueueName=name, Attributes={"MaximumMessageSize": "262144"})
    broker.check(["q"])
    body = b'"' + b"x" * (MAX_BODY_BYTES - 2) + b'"'
    with BrokerHarness(broker, limits={"q": 10}) as harness:
        harness.publish(body, body, body)
        assert harness.receive(3) == [body] * 3


def test_doctor_makes_no_queue_and_a_check_makes_those_that_are_asked_for(
    broker: Broker, sqs: Any, namespace: str
) -> None:
    def names() -> list[str]:
        return list(sqs.list_queues(QueueNamePrefix=namespace).get("QueueUrls", []))

    findings = {one.check: one.severity.value for one in check_broker("sqs://", broker, ["q"])}
    passed = {"server.reachable": "ok", "server.queues": "ok", "server.transport": "ok"}
    assert findings == passed | {"server.rights": "info"}
    assert {one.check for one in check_broker("sqs://", broker, ["q"], has_canary=True)} == set(passed)
    *_, transport = check_broker("sqs://?endpoint_url=http://sqs.internal", broker, ["q"])
    assert (transport.severity.value, transport.advice) == ("warning", "use an endpoint_url with https")
    assert names() == []
    broker.check(["q"])
    assert len(names()) == 1


def test_a_queue_that_was_deleted_is_an_outage_until_it_is_made_again(broker: Broker, sqs: Any, namespace: str) -> None:
    with BrokerHarness(broker) as harness:
        harness.publish(b"1")
        harness.receive(1)
        sqs.delete_queue(QueueUrl=sqs.get_queue_url(QueueName=sqs_names.request_queue_name(namespace, "q"))["QueueUrl"])
        with pytest.raises(BrokerUnavailable, match="does not exist"):
            harness.drain_for(5.0)
    with pytest.raises(BrokerUnavailable, match="does not exist"):
        broker.publish_requests([RequestMessage("q", b"2")])
    with BrokerHarness(broker) as harness:
        harness.publish(b"3")
        assert harness.receive(1) == [b"3"]


def test_an_empty_queue_does_not_hold_up_another_and_an_idle_drain_makes_few_calls(broker: Broker) -> None:
    assert isinstance(broker, SqsBroker)
    with BrokerHarness(broker, queues=["a", "b", "c"], limits={"a": 5, "b": 5, "c": 5}) as harness:
        harness.publish(b"1", queue="b")
        before = time.monotonic()
        harness.consumer.drain(10.0, harness.limits)
        assert harness.bodies == [b"1"]
        assert time.monotonic() - before < 3


def test_results_go_over_the_ledgers_server(make: MakeBroker, broker: Broker, sqs: Any, namespace: str) -> None:
    results = broker.consume_results("me")
    make().publish_results([("me", b"1")])
    assert results.drain(5.0) == [b"1"]
    make().publish_results([("me", b"2")])
    broker.delete_result_queue("me")
    assert results.drain(0.1) == []
    results.close()
    assert sqs.list_queues(QueueNamePrefix=namespace).get("QueueUrls", []) == []


def test_without_a_region_it_cannot_be_used_and_an_endpoint_that_is_down_is_an_outage(make: MakeBroker) -> None:
    with pytest.raises(UnusableServer, match=r"sqs://\?region="):
        make("").check()
    with pytest.raises(BrokerUnavailable, match=r"sqs://\?region="):  # a scheduler that runs goes on
        make("").publish_requests([RequestMessage("q", b"1")])
    with pytest.raises(BrokerUnavailable, match=r"sqs://\?region="):
        BrokerHarness(make(""))
    down = make("region=us-east-1&endpoint_url=http://127.0.0.1:1")
    for call in (down.check, lambda: down.backlog("q"), lambda: BrokerHarness(down)):
        with pytest.raises(BrokerUnavailable, match="check the network, the credentials and the Region"):
            call()


def test_a_denied_call_is_a_missing_right_but_for_a_dead_letter_queue_that_need_not_be_there() -> None:
    response = {"Error": {"Code": "AccessDenied", "Message": "User: arn is not authorized to perform: sqs:createqueue"}}
    client = MagicMock()
    client.exceptions.QueueDoesNotExist = KeyError
    client.get_queue_url.side_effect = ClientError(response, "GetQueueUrl")
    assert SqsQueues(client, 60).find_optional_url("n--dead--q") is None
    with pytest.raises(MissingRight, match=r"sqs:createqueue.*docs/production\.md"), wrap_sqs_errors():
        raise ClientError(response, "CreateQueue")


def test_the_policy_in_conf_has_the_actions_of_every_call_and_no_other() -> None:
    root = Path(__file__).parents[2]
    policy = json.loads((root / "conf" / "iam-sqs-broker-policy.json").read_text())
    actions = [one["Action"] for one in policy["Statement"]]
    allowed = {action for one in actions for action in ([one] if isinstance(one, str) else one)}
    sources = "".join(path.read_text() for path in (root / "ecs_queue" / "broker").glob("sqs*.py"))
    called = set(re.findall(r"client\.([a-z_]+)\(", sources)) - {"close"}
    names = {name.removesuffix("_batch").replace("_", " ").title().replace(" ", "") for name in called}
    assert {f"sqs:{name}" for name in names} == allowed


@pytest.mark.parametrize(
    ("namespace", "queue", "expected"),
    [
        ("ecs-queue", "default", "ecs-queue--requests--default"),
        ("n", "a.b", "n--requests--a-b--"),
        ("n" * 32, "q" * 64, f"{'n' * 32}--requests--{'q' * 22}--"),
        ("a-", "b", "a---requests--b--"),
        ("a--requests--b", "c", "a--requests--b--requests--c--"),
    ],
)
def test_a_name_is_one_that_sqs_can_have(namespace: str, queue: str, expected: str) -> None:
    name = sqs_names.request_queue_name(namespace, queue)
    assert name == expected or (expected.endswith("--") and name.startswith(expected))
    assert len(name) <= 80
    assert name.replace("-", "").replace("_", "").isalnum()


def test_no_two_queues_have_one_name() -> None:
    parts = ["a", "b", "a--b", "-a", "a-", "a-b", "a.b", "a--requests--b", "requests", "x" * 64, "x" * 63]
    names = [
        make_name(namespace, queue)
        for make_name in (sqs_names.request_queue_name, sqs_names.dead_letter_queue_name)
        for namespace in parts[:9]
        for queue in parts
    ]
    assert len(set(names)) == len(names)
