"""Other programs have kombu alone: they publish requests, consume results, and share the unacknowledged messages."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import kombu
import pytest

from ecs_queue.broker import Broker, RequestMessage
from tests.conformance.broker.harness import BrokerHarness


class StockConsumer:
    """kombu's own Redis transport, consuming one queue; `messages` are unacknowledged."""

    def __init__(self, connection: Any, name: str, visibility_timeout: float = 60.0) -> None:
        self.messages: list[Any] = []
        self._connection = connection.clone()
        self._connection.transport_options = {
            **connection.transport_options,
            "visibility_timeout": visibility_timeout,
            "unacked_restore_throttle": 1_000_000_000,
        }
        queue = kombu.Queue(name, exchange="", routing_key=name)
        self.channel = self._connection.channel()
        kombu.Consumer(self.channel, [queue], on_message=self.messages.append).consume()

    def receive(self, number: int) -> list[Any]:
        while len(self.messages) < number:
            self._connection.drain_events(timeout=10)
        return self.messages

    def close(self) -> None:
        self._connection.release()


@pytest.fixture
def connection(redis_url: str) -> Iterator[Any]:
    options = {"global_keyprefix": "{ns}:q:", "priority_steps": list(range(10))}
    with kombu.Connection(redis_url, transport_options=options) as stock:
        yield stock


@pytest.fixture
def publish(connection: Any) -> Callable[..., None]:
    """Return a function that publishes as another program does."""
    producer = kombu.Producer(connection.default_channel)

    def publish_request(body: Any, **options: Any) -> None:
        producer.publish(body, exchange="", routing_key="requests.q", **options)

    return publish_request


def test_its_requests_are_received_in_the_order_of_their_priorities(
    make_broker: Callable[..., Broker], publish: Callable[..., None]
) -> None:
    for priority in (9, 0, 4, 3):  # kombu serves 0 first on Redis
        publish({"priority": priority}, priority=priority, headers={"trace": "x"})
    with BrokerHarness(make_broker(), limits={"q": 9}) as harness:
        assert [json.loads(body)["priority"] for body in harness.receive(4)] == [0, 3, 4, 9]
        assert not any(delivery.redelivered for delivery in harness.deliveries)


def test_an_idle_consumer_finds_its_requests_though_nothing_wakes_it(
    make_broker: Callable[..., Broker], publish: Callable[..., None]
) -> None:
    with BrokerHarness(make_broker()) as harness:
        harness.consumer.drain(0.05)
        publish({"a": 1})
        before = time.monotonic()

        assert harness.consumer.drain(20.0, {"q": 1}) == 1
        assert time.monotonic() - before < 10


def test_a_requeued_message_keeps_what_its_producer_wrote(
    make_broker: Callable[..., Broker], connection: Any, publish: Callable[..., None]
) -> None:
    publish({"a": "\u2603"}, priority=7, headers={"trace": "x", "list": [], "object": {}}, correlation_id="c")
    with BrokerHarness(make_broker()) as harness:
        harness.receive(1)

    stock = StockConsumer(connection, "requests.q")
    (message,) = stock.receive(1)
    assert message.payload == {"a": "\u2603"}
    assert message.headers == {"trace": "x", "list": [], "object": {}, "redelivered": True}
    assert (message.properties["priority"], message.properties["correlation_id"]) == (7, "c")
    assert message.delivery_info["routing_key"] == "requests.q"
    message.ack()
    stock.close()


def test_it_consumes_results(make_broker: Callable[..., Broker], connection: Any, client: Any) -> None:
    broker = make_broker()
    broker.publish_results([("me", b'{"state": "SUCCESS"}'), ("me", b'{"state": "FAILED"}')])

    stock = StockConsumer(connection, "results.me")
    assert [message.payload["state"] for message in stock.receive(2)] == ["SUCCESS", "FAILED"]
    for message in stock.messages:
        assert (message.content_type, message.content_encoding, message.headers) == ("application/json", "utf-8", {})
        message.ack()
    stock.close()
    assert client.exists("{ns}:q:unacked", "{ns}:q:unacked_index") == 0


def test_it_consumes_our_requests_in_the_order_of_their_priorities(
    make_broker: Callable[..., Broker], connection: Any
) -> None:
    make_broker().publish_requests([RequestMessage("q", b'{"a": %d}' % priority, priority) for priority in (0, 9, 4)])

    stock = StockConsumer(connection, "requests.q")
    assert [message.payload["a"] for message in stock.receive(3)] == [9, 4, 0]
    stock.close()


class TestSharedUnackedMessages:
    """Workers of the version before this one consume with kombu: each kind returns the other's messages."""

    def test_what_a_dead_kombu_consumer_has_taken_is_returned(
        self, make_broker: Callable[..., Broker], connection: Any, client: Any, restore: Callable[[], None]
    ) -> None:
        with BrokerHarness(make_broker(), limits={"q": 9}) as harness:
            harness.publish(b'{"a": 1}', b'{"a": 2}', priority=3)
            stock = StockConsumer(connection, "requests.q")
            stock.receive(2)

            restore()

            assert harness.receive(2) == [b'{"a": 1}', b'{"a": 2}']
            assert all(delivery.redelivered for delivery in harness.deliveries)
            assert client.hlen("{ns}:q:unacked") == client.zcard("{ns}:q:unacked_index") == 2
            for message in stock.messages:
                message.ack()
            stock.close()

    def test_a_kombu_consumer_returns_what_one_of_ours_has_taken(
        self, make_broker: Callable[..., Broker], connection: Any, client: Any
    ) -> None:
        with BrokerHarness(make_broker(), limits={"q": 9}) as dead:
            dead.publish(b'{"a": 1}', b'{"a": 2}', priority=3)
            dead.receive(2)
            stock = StockConsumer(connection, "requests.q", visibility_timeout=0.001)
            time.sleep(0.01)
            stock.channel.qos.restore_visible(num=1000, interval=1)

            assert sorted(message.payload["a"] for message in stock.receive(2)) == [1, 2]
            for message in stock.messages:
                message.ack()
            stock.close()
        assert client.exists("{ns}:q:unacked", "{ns}:q:unacked_index", "{ns}:q:requests.q\x06\x166") == 0

    def test_messages_of_a_named_exchange_are_left_to_kombu(
        self, make_broker: Callable[..., Broker], connection: Any, client: Any, restore: Callable[[], None]
    ) -> None:
        exchange = kombu.Exchange("other", type="direct")
        queue = kombu.Queue("another", exchange, routing_key="key")
        kombu.Producer(connection.default_channel).publish({}, exchange=exchange, routing_key="key", declare=[queue])
        taken = connection.SimpleQueue(queue).get(timeout=10)
        assert client.hlen("{ns}:q:unacked") == 1

        restore()

        assert client.hlen("{ns}:q:unacked") == client.zcard("{ns}:q:unacked_index") == 1
        taken.ack()

    def test_unacknowledged_results_are_left_to_kombu_and_hide_no_request(
        self,
        make_broker: Callable[..., Broker],
        connection: Any,
        client: Any,
        restore: Callable[[], None],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr("ecs_queue.broker.redis_restorer.MAX_PER_RUN", 2)
        broker = make_broker()
        broker.publish_results([("me", b"{}")] * 3)
        stock = StockConsumer(connection, "results.me")
        stock.receive(3)
        with BrokerHarness(broker, limits={"q": 9}) as dead, BrokerHarness(make_broker(), limits={"q": 9}) as other:
            dead.publish(b"1", b"2", b"3")
            dead.receive(3)

            restore()

            assert other.receive(3) == [b"1", b"2", b"3"]
            assert client.hlen("{ns}:q:unacked") == client.zcard("{ns}:q:unacked_index") == 6
            for message in stock.messages:
                message.ack()
            stock.close()
