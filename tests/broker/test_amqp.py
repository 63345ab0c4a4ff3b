"""The broker on a real RabbitMQ, where it differs from other transports."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any

import kombu
import pytest

from ecs_queue.broker import RequestMessage, make_broker
from ecs_queue.broker.amqp import AmqpBroker, ConfirmingPublisher
from ecs_queue.doctor.broker import check_broker
from ecs_queue.errors import BrokerUnavailable, MissingRight, UnusableServer
from tests.conformance.broker.harness import BrokerHarness
from tests.rabbitmq_server import LIMITED_USER


def open_broker(url: str, namespace: str) -> AmqpBroker:
    broker = make_broker(url, namespace, visibility_timeout=60.0, socket_timeout=5.0)
    assert isinstance(broker, AmqpBroker)
    return broker


@pytest.fixture
def namespace() -> str:
    return f"t{uuid.uuid4().hex[:12]}"


@pytest.fixture
def broker(rabbitmq_url: str, namespace: str) -> Iterator[AmqpBroker]:
    made = open_broker(rabbitmq_url, namespace)
    yield made
    made.close()


@pytest.fixture
def stock(rabbitmq_url: str) -> Iterator[Any]:
    """A connection as another program has it."""
    with kombu.Connection(rabbitmq_url) as connection:
        yield connection


def declare_classic(connection: Any, name: str, **arguments: Any) -> None:
    kombu.Queue(name, exchange="", durable=True, queue_arguments=arguments)(connection.default_channel).declare()


def test_urgent_requests_do_not_wait_behind_a_backlog(broker: AmqpBroker) -> None:
    broker.publish_requests([RequestMessage("q", b"%d" % index, 4) for index in range(20)])
    broker.publish_requests([RequestMessage("q", b"urgent", 5)])

    with BrokerHarness(broker, prefetch=2) as harness:
        assert b"urgent" in harness.receive(2)
        assert broker.backlog("q") < 21


def test_a_queue_that_was_deleted_is_declared_again_for_the_next_request(
    broker: AmqpBroker, stock: Any, namespace: str
) -> None:
    broker.publish_requests([RequestMessage("q", b"1")])
    stock.default_channel.queue_delete(f"{namespace}.requests.q")

    broker.publish_requests([RequestMessage("q", b"2")])

    assert broker.backlog("q") == 1


def test_a_consumer_whose_queue_is_deleted_ends_and_the_next_one_declares_it_again(
    broker: AmqpBroker, stock: Any, namespace: str
) -> None:
    with BrokerHarness(broker) as harness:
        stock.default_channel.queue_delete(f"{namespace}.requests.q")
        with pytest.raises(BrokerUnavailable):
            harness.drain_for(5.0)
    with BrokerHarness(broker) as harness:
        harness.publish(b"1")
        assert harness.receive(1) == [b"1"]


def test_a_result_for_an_owner_without_a_queue_is_dropped(broker: AmqpBroker, stock: Any, namespace: str) -> None:
    broker.publish_results([("me", b"1")])
    stock.default_channel.queue_delete(f"{namespace}.results.me")

    broker.publish_results([("me", b"2")])

    with pytest.raises(stock.channel_errors, match="NOT_FOUND"):
        stock.default_channel.queue_declare(f"{namespace}.results.me", passive=True)


def test_a_message_that_rabbitmq_does_not_store_is_an_error(stock: Any, namespace: str) -> None:
    arguments = {"x-max-length": 1, "x-overflow": "reject-publish"}
    queue = kombu.Queue(f"{namespace}.short", exchange="", durable=True, queue_arguments=arguments)

    with pytest.raises(BrokerUnavailable, match="refused a message: it was not stored"):
        ConfirmingPublisher(stock, 5.0).publish([(queue, 0, b"1")] * 5, mandatory=True)


def test_publishing_more_than_one_window_confirms_every_message(broker: AmqpBroker) -> None:
    broker.publish_requests([RequestMessage("q", b"%d" % index) for index in range(450)])

    assert broker.backlog("q") == 450


class TestQueueOfAnotherProgram:
    """A queue of our name exists, and is no quorum queue."""

    @pytest.fixture(autouse=True)
    def _classic(self, stock: Any, namespace: str) -> None:
        declare_classic(stock, f"{namespace}.requests.q")

    def test_a_check_names_it_and_what_to_do(self, broker: AmqpBroker, namespace: str) -> None:
        with pytest.raises(UnusableServer, match=rf"queue {namespace}\.requests\.q exists.*rabbitmqctl delete_queue"):
            broker.check(["q"])
        broker.check(["other"])

    def test_a_process_that_runs_sees_an_outage_with_that_sentence(self, broker: AmqpBroker) -> None:
        with pytest.raises(BrokerUnavailable, match="exists and is not as ecs-queue declares it"):
            broker.publish_requests([RequestMessage("q", b"1")])
        with pytest.raises(BrokerUnavailable, match="exists and is not as ecs-queue declares it"):
            BrokerHarness(broker)
        broker.publish_requests([RequestMessage("other", b"1")])

    def test_doctor_says_so_and_makes_no_queue(self, broker: AmqpBroker, rabbitmq_url: str, namespace: str) -> None:
        (finding,) = check_broker(rabbitmq_url, broker, ["q", "other"])
        assert finding.prevents_launches
        assert f"{namespace}.requests.q" in finding.text
        findings = {one.check: one.severity.value for one in check_broker(rabbitmq_url, broker, ["other"])}
        passed = {"server.reachable": "ok", "server.queues": "ok", "server.transport": "ok"}
        assert findings == passed | {"server.rights": "info"}
        assert broker.backlog("other") == 0


def test_the_documented_rights_are_enough_and_a_missing_one_is_named(rabbitmq_url: str) -> None:
    url = rabbitmq_url.replace("guest:guest", f"{LIMITED_USER}:{LIMITED_USER}")
    allowed, denied = open_broker(url, LIMITED_USER), open_broker(url, "another")
    name = uuid.uuid4().hex
    with BrokerHarness(allowed, queues=[name]) as harness:
        harness.publish(b"1", queue=name)
        assert harness.receive(1) == [b"1"]
        harness.deliveries[0].ack()
    allowed.publish_results([(name, b"1")])
    results = allowed.consume_results(name)
    assert results.drain(5.0) == [b"1"]
    results.close()
    allowed.delete_result_queue(name)
    with pytest.raises(MissingRight, match=r"another\.requests\.q.*rabbitmqctl set_permissions"):
        denied.publish_requests([RequestMessage("q", b"1")])
    allowed.close()
    denied.close()


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("guest:guest", "guest:hunter2", "correct the user and the password"),
        (":guest@", ":guest@127.0.0.1:1/?", "refused"),
        ("/", "/nothing", "vhost nothing not found"),
    ],
    ids=["password", "port", "virtual host"],
)
def test_a_server_that_does_not_take_us_is_an_outage_with_a_sentence(
    rabbitmq_url: str, old: str, new: str, expected: str
) -> None:
    head, _, tail = rabbitmq_url.rpartition(old) if old == "/" else rabbitmq_url.partition(old)
    url = f"{head}{new}" if "?" in new else f"{head}{new}{tail}"
    broker = open_broker(url, "t")

    with pytest.raises(BrokerUnavailable, match=expected) as raised:
        broker.check()
    assert "hunter2" not in str(raised.value)
    broker.close()


def test_a_body_is_taken_as_it_came_whatever_its_encoding_is_called(
    broker: AmqpBroker, stock: Any, namespace: str
) -> None:
    name = f"{namespace}.requests.q"
    with BrokerHarness(broker) as harness:
        kombu.Producer(stock.default_channel).publish(
            b"\xe9", exchange="", routing_key=name, content_type="text/plain", content_encoding="latin-1"
        )
        assert harness.receive(1) == [b"\xe9"]
