"""Behaviour of the broker that is specific to Redis."""

from __future__ import annotations

import base64
import json
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis

from ecs_queue.broker import KombuBroker, RequestMessage
from ecs_queue.broker.base import Delivery
from tests.conformance.broker.harness import BrokerHarness

#: Maximum duration of any call, in any state of the server: a few socket time-outs. Seconds.
MAX_CALL_SECONDS = 20.0


@pytest.fixture
def client(redis_url: str) -> Iterator[Any]:
    """A plain client of the server."""
    with redis.Redis.from_url(redis_url) as plain:
        yield plain


@pytest.fixture
def make_broker(redis_url: str) -> Iterator[Callable[..., KombuBroker]]:
    made: list[KombuBroker] = []

    def make(namespace: str = "ns", visibility_timeout: float = 60.0) -> KombuBroker:
        broker = KombuBroker(redis_url, namespace, visibility_timeout=visibility_timeout, socket_timeout=5.0)
        made.append(broker)
        return broker

    yield make
    for broker in made:
        broker.close()


def test_higher_priorities_come_first(make_broker: Callable[..., KombuBroker]) -> None:
    broker = make_broker()
    broker.publish_requests(
        [RequestMessage("q", b"%d" % priority, priority) for priority in (0, 3, 9, 6, 1, 8, 2, 7, 5, 4)]
    )

    with BrokerHarness(broker) as harness:
        assert harness.receive(10) == [b"%d" % priority for priority in reversed(range(10))]
    assert broker.backlog("q") == 10  # requeued


def test_requeued_at_the_front_is_next_and_requeued_is_last(make_broker: Callable[..., KombuBroker]) -> None:
    broker = make_broker()
    with BrokerHarness(broker, prefetch=2) as harness:
        harness.publish(b"1", b"2", b"3", priority=4)
        harness.receive(2)
        harness.deliveries.pop().requeue_at_front()  # the later one first
        harness.deliveries.pop().requeue_at_front()
        harness.consumer.drain(0.01)
    with BrokerHarness(broker, prefetch=1) as harness:
        assert harness.receive(1) == [b"1"]
        harness.deliveries[0].requeue()
        harness.receive(2)
        harness.deliveries[1].ack()
        assert harness.receive(3)[1:] == [b"2", b"3"]


class TestPausing:
    def test_a_message_in_transit_is_still_delivered(self, make_broker: Callable[..., KombuBroker]) -> None:
        """Otherwise it would go to the end of its queue."""
        with BrokerHarness(make_broker(), queues=["a", "b"]) as harness:
            harness.consumer._channel.brpop_timeout = 5  # type: ignore[attr-defined]
            harness.consumer.drain(0.01)  # from here on the server is asked for both
            harness.consumer.pause("a")
            harness.publish(b"on its way", queue="a")

            assert harness.receive(1) == [b"on its way"]

    def test_a_resumed_queue_is_served_while_another_queue_is_polled(
        self, make_broker: Callable[..., KombuBroker]
    ) -> None:
        with BrokerHarness(make_broker(), queues=["a", "b"]) as harness:
            harness.consumer.pause("a")
            harness.publish(b"1", b"2", queue="a")
            assert harness.drain_for(0.2) == []
            before = time.monotonic()
            harness.consumer.resume("a")

            assert harness.receive(2) == [b"1", b"2"]
            assert time.monotonic() - before < MAX_CALL_SECONDS

    def test_with_every_queue_paused_the_server_is_not_polled(self, make_broker: Callable[..., KombuBroker]) -> None:
        broker = make_broker()
        with BrokerHarness(broker) as harness:
            harness.consumer.pause("q")
            harness.publish(b"1")

            assert harness.drain_for(0.2) == []
            assert broker.backlog("q") == 1
            harness.consumer.resume("q")
            assert harness.receive(1) == [b"1"]


class TestKeys:
    def test_all_keys_have_the_prefix_of_the_namespace(
        self, make_broker: Callable[..., KombuBroker], client: Any
    ) -> None:
        broker = make_broker(visibility_timeout=0.01)
        broker.publish_results([("me", b"1")])
        with BrokerHarness(broker) as harness:
            harness.publish(b"1", b"2", priority=5)
            harness.receive(2)
            harness.deliveries[0].requeue()
            time.sleep(0.02)
            harness.consumer.restore_expired()
            harness.drain_for(0.1)
            during = client.keys()

        assert during
        assert all(key.startswith(b"ns:q:") for key in [*during, *client.keys()])

    def test_results_expire_when_they_are_not_drained(
        self, make_broker: Callable[..., KombuBroker], client: Any
    ) -> None:
        make_broker().publish_results([("me", b"1")])

        assert 3_500_000 < client.pttl("ns:q:results.me") <= 3_600_000

    def test_requests_do_not_expire(self, make_broker: Callable[..., KombuBroker], client: Any) -> None:
        make_broker().publish_requests([RequestMessage("q", b"1", 9)])

        assert client.pttl("ns:q:requests.q") == -1

    def test_deleted_results_leave_no_key(self, make_broker: Callable[..., KombuBroker], client: Any) -> None:
        broker = make_broker()
        broker.publish_results([("me", b"1")])

        broker.delete_result_queue("me")

        assert client.keys() == []

    def test_acknowledged_messages_leave_no_key(self, make_broker: Callable[..., KombuBroker], client: Any) -> None:
        with BrokerHarness(make_broker()) as harness:
            harness.publish(b"1", b"2")
            harness.receive(2)
            for delivery in harness.deliveries:
                delivery.ack()
            harness.consumer.drain(0.05)

        assert client.exists("ns:q:requests.q", "ns:q:unacked", "ns:q:unacked_index") == 0

    def test_no_message_is_lost_with_lost_bindings(self, make_broker: Callable[..., KombuBroker], client: Any) -> None:
        with BrokerHarness(make_broker()) as harness:
            harness.publish(b"1")
            harness.receive(1)
            for key in client.keys("*_kombu*"):
                client.delete(key)

            harness.deliveries.pop().requeue()
            harness.publish(b"2")

            assert sorted(harness.receive(2)) == [b"1", b"2"]


@pytest.fixture
def restore(make_broker: Callable[..., KombuBroker]) -> Callable[[], None]:
    """Let a third consumer requeue all unacknowledged messages, as if the visibility timeout were over."""

    def restore_now() -> None:
        time.sleep(0.01)
        with BrokerHarness(make_broker(visibility_timeout=0.001), queues=["another"]) as hasty:
            hasty.consumer.restore_expired()

    return restore_now


class TestRestore:
    def test_messages_of_a_dead_consumer_are_redelivered_after_the_visibility_timeout(
        self, make_broker: Callable[..., KombuBroker], restore: Callable[[], None]
    ) -> None:
        with BrokerHarness(make_broker()) as dead, BrokerHarness(make_broker()) as other:
            dead.publish(b"1", b"2")
            dead.receive(2)
            other.consumer.restore_expired()
            assert other.drain_for(0.1) == []

            restore()

            assert sorted(other.receive(2)) == [b"1", b"2"]

    def test_a_late_acknowledgement_of_the_first_consumer_is_harmless(
        self, make_broker: Callable[..., KombuBroker], client: Any, restore: Callable[[], None]
    ) -> None:
        with BrokerHarness(make_broker()) as slow, BrokerHarness(make_broker()) as other:
            slow.publish(b"1")
            slow.receive(1)
            restore()
            other.receive(1)

            slow.deliveries[0].ack()
            slow.consumer.drain(0.02)
            other.deliveries[0].ack()
            other.consumer.drain(0.02)

            assert other.drain_for(0.1) == [b"1"]
            assert client.hlen("ns:q:unacked") == 0

    def test_a_message_restored_to_its_own_consumer_keeps_the_count_right(
        self, make_broker: Callable[..., KombuBroker], restore: Callable[[], None]
    ) -> None:
        with BrokerHarness(make_broker(), prefetch=2) as harness:
            harness.publish(b"1")
            harness.receive(1)
            restore()
            harness.receive(2)
            for delivery in harness.deliveries:
                delivery.ack()
            harness.deliveries.clear()

            harness.publish(b"2", b"3")

            assert harness.receive(2) == [b"2", b"3"]


def _message(**changes: Any) -> bytes:
    """Return a message in kombu's format with changed members; None removes a member."""
    properties = {
        "delivery_tag": "tag",
        "body_encoding": "base64",
        "delivery_info": {"exchange": "", "routing_key": "requests.q"},
        "priority": 0,
    }
    message = {"body": base64.b64encode(b"{}").decode(), "headers": {}, "properties": properties}
    for name, value in changes.items():
        (properties if name in properties else message)[name] = value
    return json.dumps(message).encode()


UNDECODABLE = {
    "not JSON": b"nope",
    "empty": b"",
    "invalid UTF-8": b"\xff\xfe{}",
    "deeply nested": b"[" * 100_000,
    "a list": b"[]",
    "a number": b"5",
    "null": b"null",
    "an empty object": b"{}",
    "a type that kombu does not know": b'{"__type__": "x", "__value__": 1}',
    "a type that kombu cannot read": b'{"__type__": "decimal", "__value__": "x"}',
    "no body": _message(body=None),
    "a number as body": _message(body=10**12),
    "a body that is no base64": _message(body="e30"),
    "an unknown encoding of the body": _message(body_encoding="rot13"),
    "a body with half a character": _message(body="\ud800", body_encoding="utf-8"),
    "no delivery tag": _message(delivery_tag=None),
    "a list as delivery tag": _message(delivery_tag=[1]),
    "headers that are no object": _message(headers=[1]),
    "properties that are no object": _message(properties=[1]),
}


class TestBatchFetch:
    """fetch.lua, after a first message has shown that there is a backlog."""

    def test_one_drain_fetches_several_the_highest_priority_first(
        self, make_broker: Callable[..., KombuBroker]
    ) -> None:
        with BrokerHarness(make_broker(), limits={"q": 5}) as harness:
            for priority in (0, 9, 4, 9, 0, 7):
                harness.publish(b"%d" % priority, priority=priority)
            harness.receive(1)

            assert harness.consumer.drain(5.0, {"q": 4}) == 4
            assert harness.bodies == [b"9", b"9", b"7", b"4", b"0"]

    def test_pending_acknowledgements_go_with_the_fetch(
        self, make_broker: Callable[..., KombuBroker], client: Any
    ) -> None:
        with BrokerHarness(make_broker(), prefetch=50, limits={"q": 3}) as harness:
            harness.publish(*[b"%d" % index for index in range(9)])
            harness.receive(4)
            harness.deliveries[0].ack()
            harness.deliveries[0].ack()
            harness.deliveries[2].ack()
            harness.deliveries[3].requeue()

            assert harness.consumer.drain(5.0, {"q": 2}) == 2
            assert client.hlen("ns:q:unacked") == client.zcard("ns:q:unacked_index") == 4
            harness.receive(10)
            for delivery in harness.deliveries:
                delivery.ack()
            harness.drain_for(0.1)
            assert sorted(set(harness.bodies)) == [b"%d" % index for index in range(9)]
            assert client.exists("ns:q:unacked", "ns:q:unacked_index", "ns:q:requests.q") == 0

    def test_no_more_of_a_queue_than_its_limit(self, make_broker: Callable[..., KombuBroker]) -> None:
        broker = make_broker()
        with BrokerHarness(broker, queues=["a", "b", "c"], prefetch=50) as harness:
            for queue in "abc":
                harness.publish(*[b"%d" % index for index in range(10)], queue=queue)
            harness.receive(1)
            waiting = {queue: broker.backlog(queue) for queue in "abc"}

            harness.consumer.drain(5.0, {"a": 2, "b": 5})

            assert {queue: waiting[queue] - broker.backlog(queue) for queue in "abc"} == {"a": 2, "b": 5, "c": 0}

    def test_no_more_than_the_prefetch(self, make_broker: Callable[..., KombuBroker]) -> None:
        with BrokerHarness(make_broker(), queues=["a", "b"], prefetch=5, limits={"a": 9, "b": 9}) as harness:
            harness.publish(*[b"%d" % index for index in range(9)], queue="a")
            harness.publish(*[b"%d" % index for index in range(9)], queue="b")

            assert len(harness.drain_for(0.5)) == 5

    def test_a_queue_behind_a_busy_one_gets_its_turn(self, make_broker: Callable[..., KombuBroker]) -> None:
        broker = make_broker()
        with BrokerHarness(broker, queues=["busy", "other"], prefetch=3, limits={"busy": 3, "other": 3}) as harness:
            harness.publish(*[b"busy"] * 30, queue="busy")
            harness.publish(b"other", queue="other")
            for _ in range(4):
                harness.receive(1)
                for delivery in harness.deliveries:
                    delivery.ack()
                if b"other" in harness.bodies:
                    break
                harness.deliveries.clear()

            assert b"other" in harness.bodies

    def test_fetched_messages_are_stored_as_kombu_stores_them(
        self, make_broker: Callable[..., KombuBroker], client: Any, restore: Callable[[], None]
    ) -> None:
        with (
            BrokerHarness(make_broker(), limits={"q": 5}) as dead,
            BrokerHarness(make_broker(), prefetch=20, limits={"q": 5}) as other,
        ):
            dead.publish(b"1", b"2", b"3", b"4", priority=3)
            dead.receive(4)
            entries = [json.loads(entry) for entry in client.hgetall("ns:q:unacked").values()]
            assert {(exchange, key) for _, exchange, key in entries} == {("", "requests.q")}
            assert client.zcard("ns:q:unacked_index") == 4

            restore()

            assert sorted(other.receive(4)) == [b"1", b"2", b"3", b"4"]
            assert all(delivery.redelivered for delivery in other.deliveries)
            assert client.llen("ns:q:requests.q") == 0

    def test_requeued_and_unacknowledged_messages_are_redelivered(
        self, make_broker: Callable[..., KombuBroker], client: Any
    ) -> None:
        with BrokerHarness(make_broker(), limits={"q": 5}) as harness:
            harness.publish(b"1", b"2", b"3", b"4")
            harness.receive(4)
            harness.deliveries[1].requeue()
            harness.deliveries[2].requeue_at_front()
            harness.deliveries[3].ack()

        assert client.hlen("ns:q:unacked") == 0
        with BrokerHarness(make_broker(), limits={"q": 5}) as other:
            assert sorted(other.receive(3)) == [b"1", b"2", b"3"]

    def test_an_error_in_the_middle_loses_no_later_message(self, make_broker: Callable[..., KombuBroker]) -> None:
        broker = make_broker()
        received_bodies: list[bytes] = []

        def received(delivery: Delivery) -> None:
            received_bodies.append(delivery.body)
            if delivery.body == b"2":
                raise RuntimeError("a bug")

        consumer = broker.consume_requests(["q"], 10, received, lambda *_: None)
        broker.publish_requests([RequestMessage("q", b"%d" % index) for index in range(1, 5)])
        while not received_bodies:
            consumer.drain(5.0, {"q": 5})
        with pytest.raises(RuntimeError, match="a bug"):
            consumer.drain(5.0, {"q": 5})

        assert consumer.drain(5.0, {"q": 5}) == 2
        assert received_bodies == [b"1", b"2", b"3", b"4"]
        consumer.close()
        assert broker.backlog("q") == 4

    @pytest.mark.parametrize("raw", UNDECODABLE.values(), ids=UNDECODABLE.keys())
    def test_an_undecodable_element_among_them_is_reported(
        self, make_broker: Callable[..., KombuBroker], client: Any, raw: bytes
    ) -> None:
        with BrokerHarness(make_broker(), limits={"q": 5}) as harness:
            harness.publish(b"1", b"2")
            client.lpush("ns:q:requests.q", raw)
            harness.publish(b"3", b"4")

            assert harness.receive(4) == [b"1", b"2", b"3", b"4"]
            assert [(queue, element) for queue, element, _ in harness.undecodable] == [("q", raw)]
            assert client.hlen("ns:q:unacked") == client.zcard("ns:q:unacked_index") == 4

    def test_a_script_that_the_server_lost_is_loaded_again(
        self, make_broker: Callable[..., KombuBroker], client: Any
    ) -> None:
        with BrokerHarness(make_broker(), limits={"q": 2}) as harness:
            harness.publish(*[b"%d" % index for index in range(8)])
            harness.receive(3)
            client.script_flush()

            assert len(harness.receive(8)) == 8


class TestClosing:
    def test_a_message_of_a_paused_queues_last_poll_is_requeued(self, make_broker: Callable[..., KombuBroker]) -> None:
        with BrokerHarness(make_broker()) as harness:
            harness.drain_for(0.05)  # from here on the server has a poll
            harness.consumer.pause("q")
            harness.publish(b"1")

        with BrokerHarness(make_broker()) as another:
            assert another.receive(1) == [b"1"]


class TestUndecodable:
    @pytest.mark.parametrize("raw", UNDECODABLE.values(), ids=UNDECODABLE.keys())
    def test_it_is_reported_with_its_raw_bytes_and_consumption_continues(
        self, make_broker: Callable[..., KombuBroker], client: Any, raw: bytes
    ) -> None:
        with BrokerHarness(make_broker(), prefetch=1) as harness:
            client.lpush("ns:q:requests.q", raw, raw)
            harness.drain_until(lambda: len(harness.undecodable) == 2)
            harness.publish(b"1")

            assert harness.receive(1) == [b"1"]
        assert [(queue, element) for queue, element, _ in harness.undecodable] == [("q", raw)] * 2
        assert all(reason for _, _, reason in harness.undecodable)
        assert client.hlen("ns:q:unacked") == 0

    def test_at_a_low_priority_it_is_reported_for_the_same_queue(
        self, make_broker: Callable[..., KombuBroker], client: Any
    ) -> None:
        with BrokerHarness(make_broker()) as harness:
            client.lpush("ns:q:requests.q\x06\x169", b"nope")
            harness.drain_until(lambda: bool(harness.undecodable))

        assert harness.undecodable[0][:2] == ("q", b"nope")

    def test_the_reason_quotes_nothing(self, make_broker: Callable[..., KombuBroker], client: Any) -> None:
        with BrokerHarness(make_broker()) as harness:
            client.lpush("ns:q:requests.q", b'{"__type__": "x", "__value__": "hunter2"}', b"hunter2")
            harness.drain_until(lambda: len(harness.undecodable) == 2)

        assert not [reason for _, _, reason in harness.undecodable if "hunter2" in reason]

    @pytest.mark.parametrize("raw", UNDECODABLE.values(), ids=UNDECODABLE.keys())
    def test_among_results_it_is_dropped(
        self, make_broker: Callable[..., KombuBroker], client: Any, raw: bytes
    ) -> None:
        broker = make_broker()
        client.lpush("ns:q:results.me", raw)
        broker.publish_results([("me", b"1")])
        consumer = broker.consume_results("me")
        found: list[bytes] = []

        deadline = time.monotonic() + MAX_CALL_SECONDS
        while not found and time.monotonic() < deadline:
            found = consumer.drain(0.2)

        consumer.close()
        assert found == [b"1"]


class TestForeignProducers:
    def test_a_message_with_an_unknown_exchange_survives_a_requeue(
        self, make_broker: Callable[..., KombuBroker], client: Any
    ) -> None:
        """kombu requeues a message through its exchange, and drops it when there is none."""
        info = {"exchange": "celery", "routing_key": "somewhere.else"}
        with BrokerHarness(make_broker()) as harness:
            client.lpush("ns:q:requests.q", _message(delivery_info=info))
            harness.receive(1)
            harness.deliveries.pop().requeue()

            assert harness.receive(1) == [b"{}"]

        with BrokerHarness(make_broker()) as other:
            assert other.receive(1) == [b"{}"]

    def test_a_message_without_delivery_info_is_received(
        self, make_broker: Callable[..., KombuBroker], client: Any
    ) -> None:
        with BrokerHarness(make_broker()) as harness:
            client.lpush("ns:q:requests.q", _message(delivery_info=None))

            assert harness.receive(1) == [b"{}"]


def test_a_closing_consumer_delivers_no_message(make_broker: Callable[..., KombuBroker]) -> None:
    """Closing reads the response of the current poll, which may be a message."""
    broker = make_broker()
    with BrokerHarness(broker) as harness:
        harness.consumer._channel.brpop_timeout = 1.0  # type: ignore[attr-defined]
        harness.consumer.drain(0.05)  # from here on a poll is under way
        timer = threading.Timer(0.2, lambda: harness.publish(b"1"))
        timer.start()
        harness.consumer.close()
        timer.join()

        assert harness.deliveries == []
    with BrokerHarness(make_broker()) as other:
        assert other.receive(1) == [b"1"]
