"""Behaviour of the broker that is specific to Redis."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from ecs_queue.broker import KombuBroker, RequestMessage
from tests.broker.elements import UNDECODABLE, make_element
from tests.conformance.broker.harness import BrokerHarness

#: Maximum duration of any call, in any state of the server: a few socket time-outs. Seconds.
MAX_CALL_SECONDS = 20.0


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


class TestSuspending:
    def test_a_message_in_transit_is_still_delivered(self, make_broker: Callable[..., KombuBroker]) -> None:
        """Otherwise it would go to the end of its queue."""
        with BrokerHarness(make_broker(), queues=["a", "b"]) as harness:
            harness.consumer._channel.brpop_timeout = 5  # type: ignore[attr-defined]
            harness.consumer.drain(0.01)  # from here on the server is asked for both
            harness.consumer.suspend("a")
            harness.publish(b"on its way", queue="a")

            assert harness.receive(1) == [b"on its way"]

    def test_a_resumed_queue_is_served_while_another_queue_is_polled(
        self, make_broker: Callable[..., KombuBroker]
    ) -> None:
        with BrokerHarness(make_broker(), queues=["a", "b"]) as harness:
            harness.consumer.suspend("a")
            harness.publish(b"1", b"2", queue="a")
            assert harness.drain_for(0.2) == []
            before = time.monotonic()
            harness.consumer.resume("a")

            assert harness.receive(2) == [b"1", b"2"]
            assert time.monotonic() - before < MAX_CALL_SECONDS

    def test_with_every_queue_suspended_the_server_is_not_polled(self, make_broker: Callable[..., KombuBroker]) -> None:
        broker = make_broker()
        with BrokerHarness(broker) as harness:
            harness.consumer.suspend("q")
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


class TestClosing:
    def test_a_message_of_a_suspended_queues_last_poll_is_requeued(
        self, make_broker: Callable[..., KombuBroker]
    ) -> None:
        with BrokerHarness(make_broker()) as harness:
            harness.drain_for(0.05)  # from here on the server has a poll
            harness.consumer.suspend("q")
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
            client.lpush("ns:q:requests.q", make_element(delivery_info=info))
            harness.receive(1)
            harness.deliveries.pop().requeue()

            assert harness.receive(1) == [b"{}"]

        with BrokerHarness(make_broker()) as other:
            assert other.receive(1) == [b"{}"]

    def test_a_message_without_delivery_info_is_received(
        self, make_broker: Callable[..., KombuBroker], client: Any
    ) -> None:
        with BrokerHarness(make_broker()) as harness:
            client.lpush("ns:q:requests.q", make_element(delivery_info=None))

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
