"""Behaviour of the broker that is specific to Redis."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest
from redis.commands.core import ListCommands

from ecs_queue.broker import Broker, RequestMessage
from ecs_queue.broker.topology import QueueKeys
from tests.broker.elements import UNDECODABLE, make_element
from tests.conformance.broker.harness import BrokerHarness

#: Maximum duration of any call, in any state of the server: a few socket time-outs. Seconds.
MAX_CALL_SECONDS = 20.0


def test_higher_priorities_come_first(make_broker: Callable[..., Broker]) -> None:
    broker = make_broker()
    broker.publish_requests(
        [RequestMessage("q", b"%d" % priority, priority) for priority in (0, 3, 9, 6, 1, 8, 2, 7, 5, 4)]
    )

    with BrokerHarness(broker) as harness:
        assert harness.receive(10) == [b"%d" % priority for priority in reversed(range(10))]
    assert broker.backlog("q") == 10  # requeued


def test_requeued_at_the_front_is_next_and_requeued_is_last(make_broker: Callable[..., Broker]) -> None:
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
    def test_a_resumed_queue_is_served_while_another_queue_is_polled(self, make_broker: Callable[..., Broker]) -> None:
        with BrokerHarness(make_broker(), queues=["a", "b"]) as harness:
            harness.consumer.suspend("a")
            harness.publish(b"1", b"2", queue="a")
            assert harness.drain_for(0.2) == []
            before = time.monotonic()
            harness.consumer.resume("a")

            assert harness.receive(2) == [b"1", b"2"]
            assert time.monotonic() - before < MAX_CALL_SECONDS

    def test_with_every_queue_suspended_the_server_is_not_polled(self, make_broker: Callable[..., Broker]) -> None:
        broker = make_broker()
        with BrokerHarness(broker) as harness:
            harness.consumer.suspend("q")
            harness.publish(b"1")

            assert harness.drain_for(0.2) == []
            assert broker.backlog("q") == 1
            harness.consumer.resume("q")
            assert harness.receive(1) == [b"1"]


class TestKeys:
    def test_all_keys_have_the_prefix_of_the_namespace(self, make_broker: Callable[..., Broker], client: Any) -> None:
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
        assert all(key.startswith(b"{ns}:q:") for key in [*during, *client.keys()])

    def test_results_expire_when_they_are_not_drained(self, make_broker: Callable[..., Broker], client: Any) -> None:
        make_broker().publish_results([("me", b"1")])

        assert 3_500_000 < client.pttl("{ns}:q:results.me") <= 3_600_000

    def test_requests_do_not_expire(self, make_broker: Callable[..., Broker], client: Any) -> None:
        make_broker().publish_requests([RequestMessage("q", b"1", 9)])

        assert client.pttl("{ns}:q:requests.q") == -1

    def test_deleted_results_leave_no_key(self, make_broker: Callable[..., Broker], client: Any) -> None:
        broker = make_broker()
        broker.publish_results([("me", b"1")])

        broker.delete_result_queue("me")

        assert client.keys() == []

    def test_acknowledged_messages_leave_no_key(self, make_broker: Callable[..., Broker], client: Any) -> None:
        with BrokerHarness(make_broker()) as harness:
            harness.publish(b"1", b"2")
            harness.receive(2)
            for delivery in harness.deliveries:
                delivery.ack()
            harness.consumer.drain(0.05)

        assert client.exists("{ns}:q:requests.q", "{ns}:q:unacked", "{ns}:q:unacked_index") == 0

    def test_no_message_is_lost_with_lost_bindings(self, make_broker: Callable[..., Broker], client: Any) -> None:
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
        self, make_broker: Callable[..., Broker], restore: Callable[[], None]
    ) -> None:
        with BrokerHarness(make_broker()) as dead, BrokerHarness(make_broker()) as other:
            dead.publish(b"1", b"2")
            dead.receive(2)
            other.consumer.restore_expired()
            assert other.drain_for(0.1) == []

            restore()

            assert sorted(other.receive(2)) == [b"1", b"2"]

    def test_a_late_acknowledgement_of_the_first_consumer_is_harmless(
        self, make_broker: Callable[..., Broker], client: Any, restore: Callable[[], None]
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
            assert client.hlen("{ns}:q:unacked") == 0

    def test_a_message_restored_to_its_own_consumer_keeps_the_count_right(
        self, make_broker: Callable[..., Broker], restore: Callable[[], None]
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

    def test_a_bounded_number_is_returned_at_once_and_the_order_is_kept_over_the_next_calls(
        self, make_broker: Callable[..., Broker], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("ecs_queue.broker.redis_restorer.MAX_PER_RUN", 3)
        broker = make_broker()
        with BrokerHarness(make_broker(visibility_timeout=0.001), queues=["another"]) as restorer:
            dead = BrokerHarness(broker, limits={"q": 8})
            dead.publish(*(b"%d" % number for number in range(9)))
            dead.receive(8)

            def restore() -> tuple[bool, int]:
                time.sleep(0.01)
                return restorer.consumer.restore_expired(), broker.backlog("q")

            def receive(number: int) -> list[bytes]:
                with BrokerHarness(broker, limits={"q": number}) as live:
                    found = live.receive(number)
                    for delivery in live.deliveries:
                        delivery.ack()
                    return found

            assert restore() == (True, 4)
            assert receive(1) == [b"0"]
            assert restore() == (True, 6)
            assert restore() == (False, 6)  # behind five others the rest would take the server too long
            assert receive(2) == [b"1", b"2"]
            assert restore() == (False, 4 + 2)  # begins anew, and goes on behind what it returned

            assert receive(6) == [b"3", b"4", b"5", b"6", b"7", b"8"]

    def test_a_call_reads_a_bounded_number_of_bytes(
        self, make_broker: Callable[..., Broker], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("ecs_queue.broker.redis_restorer._MAX_BYTES", 1000)
        broker = make_broker(visibility_timeout=0.001)
        with BrokerHarness(broker, queues=["another"]) as restorer:
            dead = BrokerHarness(broker, limits={"q": 2})
            dead.publish(b"1" * 2000, b"2" * 2000)
            dead.receive(2)
            time.sleep(0.01)

            assert restorer.consumer.restore_expired()
            assert broker.backlog("q") == 1
            assert not restorer.consumer.restore_expired()
            assert broker.backlog("q") == 2


class TestClosing:
    def test_a_message_of_a_suspended_queues_last_poll_is_requeued(self, make_broker: Callable[..., Broker]) -> None:
        with BrokerHarness(make_broker()) as harness:
            harness.drain_for(0.05)  # from here on the server has a poll
            harness.consumer.suspend("q")
            harness.publish(b"1")

        with BrokerHarness(make_broker()) as another:
            assert another.receive(1) == [b"1"]


class TestUndecodable:
    @pytest.mark.parametrize("raw", UNDECODABLE.values(), ids=UNDECODABLE.keys())
    def test_it_is_reported_with_its_raw_bytes_and_consumption_continues(
        self, make_broker: Callable[..., Broker], client: Any, raw: bytes
    ) -> None:
        with BrokerHarness(make_broker(), prefetch=1) as harness:
            client.lpush("{ns}:q:requests.q", raw, raw)
            harness.drain_until(lambda: len(harness.undecodable) == 2)
            harness.publish(b"1")

            assert harness.receive(1) == [b"1"]
        assert [(queue, element) for queue, element, _ in harness.undecodable] == [("q", raw)] * 2
        assert all(reason for _, _, reason in harness.undecodable)
        assert client.hlen("{ns}:q:unacked") == 0

    def test_at_a_low_priority_it_is_reported_for_the_same_queue(
        self, make_broker: Callable[..., Broker], client: Any
    ) -> None:
        with BrokerHarness(make_broker()) as harness:
            client.lpush("{ns}:q:requests.q\x06\x169", b"nope")
            harness.drain_until(lambda: bool(harness.undecodable))

        assert harness.undecodable[0][:2] == ("q", b"nope")

    def test_the_reason_quotes_nothing(self, make_broker: Callable[..., Broker], client: Any) -> None:
        with BrokerHarness(make_broker()) as harness:
            client.lpush("{ns}:q:requests.q", b'{"__type__": "x", "__value__": "hunter2"}', b"hunter2")
            harness.drain_until(lambda: len(harness.undecodable) == 2)

        assert not [reason for _, _, reason in harness.undecodable if "hunter2" in reason]

    @pytest.mark.parametrize("raw", UNDECODABLE.values(), ids=UNDECODABLE.keys())
    def test_among_results_it_is_dropped(self, make_broker: Callable[..., Broker], client: Any, raw: bytes) -> None:
        broker = make_broker()
        client.lpush("{ns}:q:results.me", raw)
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
        self, make_broker: Callable[..., Broker], client: Any
    ) -> None:
        """kombu requeues a message through its exchange, and drops it when there is none."""
        info = {"exchange": "celery", "routing_key": "somewhere.else"}
        with BrokerHarness(make_broker()) as harness:
            client.lpush("{ns}:q:requests.q", make_element(delivery_info=info))
            harness.receive(1)
            harness.deliveries.pop().requeue()

            assert harness.receive(1) == [b"{}"]

        with BrokerHarness(make_broker()) as other:
            assert other.receive(1) == [b"{}"]

    def test_a_message_without_delivery_info_is_received(self, make_broker: Callable[..., Broker], client: Any) -> None:
        with BrokerHarness(make_broker()) as harness:
            client.lpush("{ns}:q:requests.q", make_element(delivery_info=None))

            assert harness.receive(1) == [b"{}"]


class TestWaking:
    """An idle consumer waits on the wake-up keys, not on the lists."""

    @pytest.fixture(autouse=True)
    def _never_look_by_itself(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("ecs_queue.broker.redis_consumer.POLL_SECONDS", 1000.0)

    def test_a_publication_wakes_an_idle_consumer(self, make_broker: Callable[..., Broker]) -> None:
        with BrokerHarness(make_broker(), limits={"q": 5}) as harness:
            harness.consumer.drain(0.0, {"q": 5})
            harness.publish(b"1")

            assert harness.consumer.drain(10.0, {"q": 5}) == 1

    def test_a_consumer_without_room_for_all_leaves_the_rest_to_another_and_wakes_it(
        self, make_broker: Callable[..., Broker], client: Any
    ) -> None:
        with BrokerHarness(make_broker()) as busy, BrokerHarness(make_broker()) as idle:
            idle.consumer.drain(0.0, {"q": 9})
            busy.publish(b"1", b"2", b"3")
            client.delete("{ns}:q:requests.q:wake")
            assert busy.consumer.drain(5.0, {"q": 2}) == 2

            assert idle.consumer.drain(10.0, {"q": 9}) == 1
            assert client.exists("{ns}:q:requests.q:wake") == 0

    def test_a_requeued_message_wakes_another_consumer(self, make_broker: Callable[..., Broker], client: Any) -> None:
        with BrokerHarness(make_broker(), limits={"q": 1}) as harness:
            harness.publish(b"1")
            harness.receive(1)
            client.delete("{ns}:q:requests.q:wake")

        assert client.zcard("{ns}:q:requests.q:wake") == 1


class TestUnreadable:
    def test_an_element_whose_consumer_died_before_it_was_reported_is_reported_by_another(
        self, make_broker: Callable[..., Broker], client: Any
    ) -> None:
        def die(*_: object) -> None:
            raise RuntimeError("it dies")

        dead = make_broker().consume_requests(["q"], 5, die, die)
        client.lpush("{ns}:q:requests.q", b"nope", b"\xff")
        with pytest.raises(RuntimeError, match="it dies"):
            dead.drain(5.0, {"q": 5})
        assert client.llen("{ns}:q:requests.q") == 0

        with BrokerHarness(make_broker()) as early:
            early.consumer.restore_expired()
            assert early.undecodable == []
        with BrokerHarness(make_broker(visibility_timeout=0.001), queues=["another"]) as other:
            other.consumer.restore_expired()
            other.consumer.restore_expired()

        assert sorted((queue, raw) for queue, raw, _ in other.undecodable) == [("q", b"nope"), ("q", b"\xff")]
        assert client.exists("{ns}:q:unacked_unreadable") == 0

    @pytest.mark.parametrize(
        "value",
        [
            b"nope",
            b'[{"body": "e30="}, "", "requests.q"]',
            b'["", "", "requests.q"]',
            b'[{}, "\xff", "requests.q"]',
            b"[" * 5000,
        ],
        ids=["no JSON", "no properties", "no object", "invalid UTF-8", "deeply nested"],
    )
    def test_an_unacknowledged_message_that_cannot_be_returned_is_reported(
        self, make_broker: Callable[..., Broker], client: Any, value: bytes
    ) -> None:
        client.hset("{ns}:q:unacked", "tag", value)
        client.zadd("{ns}:q:unacked_index", {"tag": 1.0, "acknowledged already": 1.0})
        with BrokerHarness(make_broker()) as harness:
            harness.consumer.restore_expired()
            harness.consumer.drain(0.0)

        assert [raw for _, raw, _ in harness.undecodable] == [value]
        assert client.exists("{ns}:q:unacked", "{ns}:q:unacked_index") == 0

    @pytest.mark.parametrize("tag", [b"", b"x", b"word requests.q 0 id", b"1e9 requests.q 0 id", b"1.000000 \xff 0 id"])
    def test_an_entry_of_another_program_is_reported_and_stops_no_restore(
        self, make_broker: Callable[..., Broker], client: Any, tag: bytes
    ) -> None:
        client.hset("{ns}:q:unacked_unreadable", mapping={tag: b"nope", b"1.000000 requests.q 0 id": b"\xff"})
        with BrokerHarness(make_broker()) as harness:
            harness.consumer.restore_expired()

        assert sorted(raw for _, raw, _ in harness.undecodable) == [b"nope", b"\xff"]
        assert client.exists("{ns}:q:unacked_unreadable") == 0


def test_a_reply_that_is_lost_loses_no_message(
    make_broker: Callable[..., Broker], client: Any, restore: Callable[[], None]
) -> None:
    """The client repeats the script on another connection; what the first run took is returned later."""
    with BrokerHarness(make_broker(), limits={"q": 2}) as harness:
        harness.publish(b"1", b"2", b"3", b"4")
        script = harness.consumer._take_script  # type: ignore[attr-defined]
        script(keys=_take_keys("q"), args=[10, 2, 10**6, "x", 0, "requests.q", 2])

        assert harness.receive(2) == [b"3", b"4"]
        for delivery in harness.deliveries:
            delivery.ack()
        harness.consumer.drain(0.0)
        harness.deliveries.clear()
        restore()

        assert harness.receive(2) == [b"1", b"2"]
        assert all(delivery.redelivered for delivery in harness.deliveries)


def test_a_look_for_results_blocks_no_shorter_than_the_servers_tick(
    make_broker: Callable[..., Broker], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server ends a shorter wait at its next tick: each heartbeat of a scheduler would take up to 100 ms longer."""
    seconds: list[float] = []

    def brpop(_: object, __: object, timeout: float) -> None:
        seconds.append(timeout)

    broker = make_broker()
    consumer = broker.consume_results("me")
    monkeypatch.setattr(ListCommands, "brpop", brpop)
    assert consumer.drain(0.002) == []
    assert seconds == []
    assert consumer.drain(0.2) == []
    assert seconds
    assert all(0.1 <= waited <= 0.2 for waited in seconds)
    broker.publish_results([("me", b"1")])
    assert consumer.drain(0.002) == [b"1"]
    consumer.close()


def _take_keys(queue: str) -> list[str]:
    keys, name = QueueKeys("ns"), f"requests.{queue}"
    return [keys.unacked, keys.unacked_index, keys.unreadable, *keys.list_keys(name), keys.wake_key(name)]
