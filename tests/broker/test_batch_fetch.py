"""Taking several messages at once."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from ecs_queue.broker import Broker, RequestMessage
from ecs_queue.broker.base import Delivery
from tests.broker.elements import UNDECODABLE
from tests.conformance.broker.harness import BrokerHarness


class TestBatchFetch:
    """take.lua"""

    def test_one_drain_fetches_several_the_highest_priority_first(self, make_broker: Callable[..., Broker]) -> None:
        with BrokerHarness(make_broker(), limits={"q": 5}) as harness:
            for priority in (0, 9, 4, 9, 0, 7):
                harness.publish(b"%d" % priority, priority=priority)

            assert harness.consumer.drain(5.0, {"q": 5}) == 5
            assert harness.bodies == [b"9", b"9", b"7", b"4", b"0"]

    def test_pending_acknowledgements_go_with_the_fetch(self, make_broker: Callable[..., Broker], client: Any) -> None:
        with BrokerHarness(make_broker(), prefetch=50, limits={"q": 3}) as harness:
            harness.publish(*[b"%d" % index for index in range(9)])
            assert harness.consumer.drain(5.0, {"q": 4}) == 4
            harness.deliveries[0].ack()
            harness.deliveries[0].ack()
            harness.deliveries[2].ack()
            harness.deliveries[3].requeue()

            assert harness.consumer.drain(5.0, {"q": 2}) == 2
            assert client.hlen("{ns}:q:unacked") == client.zcard("{ns}:q:unacked_index") == 3
            harness.receive(10)
            for delivery in harness.deliveries:
                delivery.ack()
            harness.drain_for(0.1)
            assert sorted(set(harness.bodies)) == [b"%d" % index for index in range(9)]
            assert client.exists("{ns}:q:unacked", "{ns}:q:unacked_index", "{ns}:q:requests.q") == 0

    def test_no_more_of_a_queue_than_its_limit(self, make_broker: Callable[..., Broker]) -> None:
        broker = make_broker()
        with BrokerHarness(broker, queues=["a", "b", "c"], prefetch=50) as harness:
            for queue in "abc":
                harness.publish(*[b"%d" % index for index in range(10)], queue=queue)
            waiting = {queue: broker.backlog(queue) for queue in "abc"}

            harness.consumer.drain(5.0, {"a": 2, "b": 5})

            assert {queue: waiting[queue] - broker.backlog(queue) for queue in "abc"} == {"a": 2, "b": 5, "c": 0}

    def test_no_more_than_the_prefetch(self, make_broker: Callable[..., Broker]) -> None:
        with BrokerHarness(make_broker(), queues=["a", "b"], prefetch=5, limits={"a": 9, "b": 9}) as harness:
            harness.publish(*[b"%d" % index for index in range(9)], queue="a")
            harness.publish(*[b"%d" % index for index in range(9)], queue="b")

            assert len(harness.drain_for(0.5)) == 5

    def test_a_queue_behind_a_busy_one_gets_its_turn(self, make_broker: Callable[..., Broker]) -> None:
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
        self, make_broker: Callable[..., Broker], client: Any, restore: Callable[[], None]
    ) -> None:
        with (
            BrokerHarness(make_broker(), limits={"q": 5}) as dead,
            BrokerHarness(make_broker(), prefetch=20, limits={"q": 5}) as other,
        ):
            dead.publish(b"1", b"2", b"3", b"4", priority=3)
            dead.receive(4)
            entries = [json.loads(entry) for entry in client.hgetall("{ns}:q:unacked").values()]
            assert {(exchange, key) for _, exchange, key in entries} == {("", "requests.q")}
            assert client.zcard("{ns}:q:unacked_index") == 4

            restore()

            assert sorted(other.receive(4)) == [b"1", b"2", b"3", b"4"]
            assert all(delivery.redelivered for delivery in other.deliveries)
            assert client.llen("{ns}:q:requests.q") == 0

    def test_requeued_and_unacknowledged_messages_are_redelivered(
        self, make_broker: Callable[..., Broker], client: Any
    ) -> None:
        with BrokerHarness(make_broker(), limits={"q": 5}) as harness:
            harness.publish(b"1", b"2", b"3", b"4")
            harness.receive(4)
            harness.deliveries[1].requeue()
            harness.deliveries[2].requeue_at_front()
            harness.deliveries[3].ack()

        assert client.hlen("{ns}:q:unacked") == 0
        with BrokerHarness(make_broker(), limits={"q": 5}) as other:
            assert sorted(other.receive(3)) == [b"1", b"2", b"3"]

    def test_an_error_in_the_middle_loses_no_later_element(self, make_broker: Callable[..., Broker]) -> None:
        broker = make_broker()
        received_bodies: list[bytes] = []

        def received(delivery: Delivery) -> None:
            received_bodies.append(delivery.body)
            if delivery.body == b"2":
                raise RuntimeError("a bug")

        consumer = broker.consume_requests(["q"], 10, received, lambda *_: None)
        broker.publish_requests([RequestMessage("q", b"%d" % index) for index in range(1, 5)])
        with pytest.raises(RuntimeError, match="a bug"):
            consumer.drain(5.0, {"q": 5})

        assert consumer.drain(5.0, {"q": 5}) == 2
        assert received_bodies == [b"1", b"2", b"3", b"4"]
        consumer.close()
        assert broker.backlog("q") == 4

    @pytest.mark.parametrize("raw", UNDECODABLE.values(), ids=UNDECODABLE.keys())
    def test_an_undecodable_element_among_them_is_reported(
        self, make_broker: Callable[..., Broker], client: Any, raw: bytes
    ) -> None:
        with BrokerHarness(make_broker(), limits={"q": 5}) as harness:
            harness.publish(b"1", b"2")
            client.lpush("{ns}:q:requests.q", raw)
            harness.publish(b"3", b"4")

            assert harness.receive(4) == [b"1", b"2", b"3", b"4"]
            assert [(queue, element) for queue, element, _ in harness.undecodable] == [("q", raw)]
            harness.consumer.drain(0.0)
            assert client.hlen("{ns}:q:unacked") == client.zcard("{ns}:q:unacked_index") == 4
            assert not client.exists("{ns}:q:unacked_unreadable")

    def test_a_script_that_the_server_lost_is_loaded_again(
        self, make_broker: Callable[..., Broker], client: Any
    ) -> None:
        with BrokerHarness(make_broker(), limits={"q": 2}) as harness:
            harness.publish(*[b"%d" % index for index in range(8)])
            harness.receive(3)
            client.script_flush()

            assert len(harness.receive(8)) == 8
