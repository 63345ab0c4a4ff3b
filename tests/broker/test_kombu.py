"""The broker on Redis: what only Redis has, does and suffers."""

from __future__ import annotations

import base64
import json
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis

from ecs_queue.broker import KombuBroker, Outgoing
from ecs_queue.broker.base import Delivery
from tests.conformance.broker.bench import Bench

#: No call may take longer than this, whatever happens to the server: a few socket time-outs. Seconds.
BOUND = 20.0


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
    broker.publish_requests([Outgoing("q", b"%d" % priority, priority) for priority in (0, 3, 9, 6, 1, 8, 2, 7, 5, 4)])

    with Bench(broker) as bench:
        assert bench.take(10) == [b"%d" % priority for priority in reversed(range(10))]
    assert broker.backlog("q") == 10  # given back


def test_what_is_put_back_is_next_again_and_what_is_released_last(make_broker: Callable[..., KombuBroker]) -> None:
    broker = make_broker()
    with Bench(broker, prefetch=2) as bench:
        bench.publish(b"1", b"2", b"3", priority=4)
        bench.take(2)
        bench.in_hand.pop().put_back()  # the later one first
        bench.in_hand.pop().put_back()
        bench.consumer.drain(0.01)
    with Bench(broker, prefetch=1) as bench:
        assert bench.take(1) == [b"1"]
        bench.in_hand[0].release()
        bench.take(2)
        bench.in_hand[1].ack()
        assert bench.take(3)[1:] == [b"2", b"3"]


class TestHolding:
    def test_a_message_that_was_on_its_way_is_delivered_all_the_same(
        self, make_broker: Callable[..., KombuBroker]
    ) -> None:
        """Else it would go to the end of its queue."""
        with Bench(make_broker(), queues=["a", "b"]) as bench:
            bench.consumer._channel.brpop_timeout = 5  # type: ignore[attr-defined]
            bench.consumer.drain(0.01)  # from here on the server is asked for both
            bench.consumer.pause("a")
            bench.publish(b"on its way", queue="a")

            assert bench.take(1) == [b"on its way"]

    def test_what_is_resumed_is_served_though_another_queue_was_being_waited_for(
        self, make_broker: Callable[..., KombuBroker]
    ) -> None:
        with Bench(make_broker(), queues=["a", "b"]) as bench:
            bench.consumer.pause("a")
            bench.publish(b"1", b"2", queue="a")
            assert bench.drain_for(0.2) == []
            before = time.monotonic()
            bench.consumer.resume("a")

            assert bench.take(2) == [b"1", b"2"]
            assert time.monotonic() - before < BOUND

    def test_with_every_queue_held_nothing_is_asked_for(self, make_broker: Callable[..., KombuBroker]) -> None:
        broker = make_broker()
        with Bench(broker) as bench:
            bench.consumer.pause("q")
            bench.publish(b"1")

            assert bench.drain_for(0.2) == []
            assert broker.backlog("q") == 1
            bench.consumer.resume("q")
            assert bench.take(1) == [b"1"]


class TestKeys:
    def test_all_stand_under_the_prefix_of_the_namespace(
        self, make_broker: Callable[..., KombuBroker], client: Any
    ) -> None:
        broker = make_broker(visibility_timeout=0.01)
        broker.publish_results([("me", b"1")])
        with Bench(broker) as bench:
            bench.publish(b"1", b"2", priority=5)
            bench.take(2)
            bench.in_hand[0].release()
            time.sleep(0.02)
            bench.consumer.restore()
            bench.drain_for(0.1)
            during = client.keys()

        assert during
        assert all(key.startswith(b"ns:q:") for key in [*during, *client.keys()])

    def test_results_expire_when_nobody_drains_them(self, make_broker: Callable[..., KombuBroker], client: Any) -> None:
        make_broker().publish_results([("me", b"1")])

        assert 3_500_000 < client.pttl("ns:q:results.me") <= 3_600_000

    def test_requests_do_not_expire(self, make_broker: Callable[..., KombuBroker], client: Any) -> None:
        make_broker().publish_requests([Outgoing("q", b"1", 9)])

        assert client.pttl("ns:q:requests.q") == -1

    def test_forgotten_results_leave_nothing(self, make_broker: Callable[..., KombuBroker], client: Any) -> None:
        broker = make_broker()
        broker.publish_results([("me", b"1")])

        broker.forget_results("me")

        assert client.keys() == []

    def test_acknowledged_messages_leave_nothing(self, make_broker: Callable[..., KombuBroker], client: Any) -> None:
        with Bench(make_broker()) as bench:
            bench.publish(b"1", b"2")
            bench.take(2)
            for delivery in bench.in_hand:
                delivery.ack()
            bench.consumer.drain(0.05)

        assert client.exists("ns:q:requests.q", "ns:q:unacked", "ns:q:unacked_index") == 0

    def test_nothing_is_lost_when_the_bindings_are(self, make_broker: Callable[..., KombuBroker], client: Any) -> None:
        with Bench(make_broker()) as bench:
            bench.publish(b"1")
            bench.take(1)
            for key in client.keys("*_kombu*"):
                client.delete(key)

            bench.in_hand.pop().release()
            bench.publish(b"2")

            assert sorted(bench.take(2)) == [b"1", b"2"]


@pytest.fixture
def restore(make_broker: Callable[..., KombuBroker]) -> Callable[[], None]:
    """Makes a third consumer give back whatever others have in hand, as if the visibility timeout were over."""

    def restore_now() -> None:
        time.sleep(0.01)
        with Bench(make_broker(visibility_timeout=0.001), queues=["another"]) as hasty:
            hasty.consumer.restore()

    return restore_now


class TestRestore:
    def test_what_a_dead_consumer_had_in_hand_comes_again_after_the_visibility_timeout(
        self, make_broker: Callable[..., KombuBroker], restore: Callable[[], None]
    ) -> None:
        with Bench(make_broker()) as dead, Bench(make_broker()) as other:
            dead.publish(b"1", b"2")
            dead.take(2)
            other.consumer.restore()
            assert other.drain_for(0.1) == []

            restore()

            assert sorted(other.take(2)) == [b"1", b"2"]

    def test_an_acknowledgement_of_the_first_holder_does_no_harm(
        self, make_broker: Callable[..., KombuBroker], client: Any, restore: Callable[[], None]
    ) -> None:
        with Bench(make_broker()) as slow, Bench(make_broker()) as other:
            slow.publish(b"1")
            slow.take(1)
            restore()
            other.take(1)

            slow.in_hand[0].ack()
            slow.consumer.drain(0.02)
            other.in_hand[0].ack()
            other.consumer.drain(0.02)

            assert other.drain_for(0.1) == [b"1"]
            assert client.hlen("ns:q:unacked") == 0

    def test_one_that_is_restored_to_its_own_holder_keeps_the_count_right(
        self, make_broker: Callable[..., KombuBroker], restore: Callable[[], None]
    ) -> None:
        with Bench(make_broker(), prefetch=2) as bench:
            bench.publish(b"1")
            bench.take(1)
            restore()
            bench.take(2)
            for delivery in bench.in_hand:
                delivery.ack()
            bench.in_hand.clear()

            bench.publish(b"2", b"3")

            assert bench.take(2) == [b"2", b"3"]


def _message(**changes: Any) -> bytes:
    """A message in kombu's format as it stands on the list, with changes; None: left out."""
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


UNREADABLE = {
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


class TestSeveralAtOnce:
    """What take.lua brings, once a first message has shown that there is a backlog."""

    def test_they_come_in_one_drain_the_most_urgent_ones_first(self, make_broker: Callable[..., KombuBroker]) -> None:
        with Bench(make_broker(), most={"q": 5}) as bench:
            for priority in (0, 9, 4, 9, 0, 7):
                bench.publish(b"%d" % priority, priority=priority)
            bench.take(1)

            assert bench.consumer.drain(5.0, {"q": 4}) == 4
            assert bench.bodies == [b"9", b"9", b"7", b"4", b"0"]

    def test_what_is_acknowledged_meanwhile_goes_with_them(
        self, make_broker: Callable[..., KombuBroker], client: Any
    ) -> None:
        with Bench(make_broker(), prefetch=50, most={"q": 3}) as bench:
            bench.publish(*[b"%d" % index for index in range(9)])
            bench.take(4)
            bench.in_hand[0].ack()
            bench.in_hand[0].ack()
            bench.in_hand[2].ack()
            bench.in_hand[3].release()

            assert bench.consumer.drain(5.0, {"q": 2}) == 2
            assert client.hlen("ns:q:unacked") == client.zcard("ns:q:unacked_index") == 4
            bench.take(10)
            for delivery in bench.in_hand:
                delivery.ack()
            bench.drain_for(0.1)
            assert sorted(set(bench.bodies)) == [b"%d" % index for index in range(9)]
            assert client.exists("ns:q:unacked", "ns:q:unacked_index", "ns:q:requests.q") == 0

    def test_no_more_of_a_queue_than_was_asked_for(self, make_broker: Callable[..., KombuBroker]) -> None:
        broker = make_broker()
        with Bench(broker, queues=["a", "b", "c"], prefetch=50) as bench:
            for queue in "abc":
                bench.publish(*[b"%d" % index for index in range(10)], queue=queue)
            bench.take(1)
            waiting = {queue: broker.backlog(queue) for queue in "abc"}

            bench.consumer.drain(5.0, {"a": 2, "b": 5})

            assert {queue: waiting[queue] - broker.backlog(queue) for queue in "abc"} == {"a": 2, "b": 5, "c": 0}

    def test_no_more_than_the_prefetch(self, make_broker: Callable[..., KombuBroker]) -> None:
        with Bench(make_broker(), queues=["a", "b"], prefetch=5, most={"a": 9, "b": 9}) as bench:
            bench.publish(*[b"%d" % index for index in range(9)], queue="a")
            bench.publish(*[b"%d" % index for index in range(9)], queue="b")

            assert len(bench.drain_for(0.5)) == 5

    def test_a_queue_behind_a_busy_one_gets_its_turn(self, make_broker: Callable[..., KombuBroker]) -> None:
        broker = make_broker()
        with Bench(broker, queues=["busy", "other"], prefetch=3, most={"busy": 3, "other": 3}) as bench:
            bench.publish(*[b"busy"] * 30, queue="busy")
            bench.publish(b"other", queue="other")
            for _ in range(4):
                bench.take(1)
                for delivery in bench.in_hand:
                    delivery.ack()
                if b"other" in bench.bodies:
                    break
                bench.in_hand.clear()

            assert b"other" in bench.bodies

    def test_what_is_in_hand_is_as_safe_as_kombus_own(
        self, make_broker: Callable[..., KombuBroker], client: Any, restore: Callable[[], None]
    ) -> None:
        with Bench(make_broker(), most={"q": 5}) as dead, Bench(make_broker(), prefetch=20, most={"q": 5}) as other:
            dead.publish(b"1", b"2", b"3", b"4", priority=3)
            dead.take(4)
            entries = [json.loads(entry) for entry in client.hgetall("ns:q:unacked").values()]
            assert {(exchange, key) for _, exchange, key in entries} == {("", "requests.q")}
            assert client.zcard("ns:q:unacked_index") == 4

            restore()

            assert sorted(other.take(4)) == [b"1", b"2", b"3", b"4"]
            assert all(delivery.redelivered for delivery in other.in_hand)
            assert client.llen("ns:q:requests.q") == 0

    def test_what_is_released_or_in_hand_at_the_close_comes_again(
        self, make_broker: Callable[..., KombuBroker], client: Any
    ) -> None:
        with Bench(make_broker(), most={"q": 5}) as bench:
            bench.publish(b"1", b"2", b"3", b"4")
            bench.take(4)
            bench.in_hand[1].release()
            bench.in_hand[2].put_back()
            bench.in_hand[3].ack()

        assert client.hlen("ns:q:unacked") == 0
        with Bench(make_broker(), most={"q": 5}) as other:
            assert sorted(other.take(3)) == [b"1", b"2", b"3"]

    def test_an_error_in_the_middle_loses_none_of_those_behind(self, make_broker: Callable[..., KombuBroker]) -> None:
        broker = make_broker()
        seen: list[bytes] = []

        def received(delivery: Delivery) -> None:
            seen.append(delivery.body)
            if delivery.body == b"2":
                raise RuntimeError("a bug")

        consumer = broker.consume(["q"], 10, received, lambda *_: None)
        broker.publish_requests([Outgoing("q", b"%d" % index) for index in range(1, 5)])
        while not seen:
            consumer.drain(5.0, {"q": 5})
        with pytest.raises(RuntimeError, match="a bug"):
            consumer.drain(5.0, {"q": 5})

        assert consumer.drain(5.0, {"q": 5}) == 2
        assert seen == [b"1", b"2", b"3", b"4"]
        consumer.close()
        assert broker.backlog("q") == 4

    @pytest.mark.parametrize("raw", UNREADABLE.values(), ids=UNREADABLE.keys())
    def test_what_is_no_message_among_them_is_kept_apart(
        self, make_broker: Callable[..., KombuBroker], client: Any, raw: bytes
    ) -> None:
        with Bench(make_broker(), most={"q": 5}) as bench:
            bench.publish(b"1", b"2")
            client.lpush("ns:q:requests.q", raw)
            bench.publish(b"3", b"4")

            assert bench.take(4) == [b"1", b"2", b"3", b"4"]
            assert [(queue, element) for queue, element, _ in bench.undecodable] == [("q", raw)]
            assert client.hlen("ns:q:unacked") == client.zcard("ns:q:unacked_index") == 4

    def test_a_script_that_the_server_has_forgotten_is_loaded_again(
        self, make_broker: Callable[..., KombuBroker], client: Any
    ) -> None:
        with Bench(make_broker(), most={"q": 2}) as bench:
            bench.publish(*[b"%d" % index for index in range(8)])
            bench.take(3)
            client.script_flush()

            assert len(bench.take(8)) == 8


class TestClosing:
    def test_what_the_last_poll_of_a_paused_queue_brings_is_given_back(
        self, make_broker: Callable[..., KombuBroker]
    ) -> None:
        with Bench(make_broker()) as bench:
            bench.drain_for(0.05)  # from here on the server has a poll that it may answer
            bench.consumer.pause("q")
            bench.publish(b"1")

        with Bench(make_broker()) as another:
            assert another.take(1) == [b"1"]


class TestUnreadable:
    @pytest.mark.parametrize("raw", UNREADABLE.values(), ids=UNREADABLE.keys())
    def test_it_is_kept_with_its_raw_bytes_and_consumption_goes_on(
        self, make_broker: Callable[..., KombuBroker], client: Any, raw: bytes
    ) -> None:
        with Bench(make_broker(), prefetch=1) as bench:
            client.lpush("ns:q:requests.q", raw, raw)
            bench.drain_until(lambda: len(bench.undecodable) == 2)
            bench.publish(b"1")

            assert bench.take(1) == [b"1"]
        assert [(queue, element) for queue, element, _ in bench.undecodable] == [("q", raw)] * 2
        assert all(reason for _, _, reason in bench.undecodable)
        assert client.hlen("ns:q:unacked") == 0

    def test_in_a_queue_of_low_priority_it_is_of_the_same_queue(
        self, make_broker: Callable[..., KombuBroker], client: Any
    ) -> None:
        with Bench(make_broker()) as bench:
            client.lpush("ns:q:requests.q\x06\x169", b"nope")
            bench.drain_until(lambda: bool(bench.undecodable))

        assert bench.undecodable[0][:2] == ("q", b"nope")

    def test_the_reason_quotes_nothing(self, make_broker: Callable[..., KombuBroker], client: Any) -> None:
        with Bench(make_broker()) as bench:
            client.lpush("ns:q:requests.q", b'{"__type__": "x", "__value__": "hunter2"}', b"hunter2")
            bench.drain_until(lambda: len(bench.undecodable) == 2)

        assert not [reason for _, _, reason in bench.undecodable if "hunter2" in reason]

    @pytest.mark.parametrize("raw", UNREADABLE.values(), ids=UNREADABLE.keys())
    def test_among_results_it_is_dropped(
        self, make_broker: Callable[..., KombuBroker], client: Any, raw: bytes
    ) -> None:
        broker = make_broker()
        client.lpush("ns:q:results.me", raw)
        broker.publish_results([("me", b"1")])
        inbox = broker.results("me")
        found: list[bytes] = []

        deadline = time.monotonic() + BOUND
        while not found and time.monotonic() < deadline:
            found = inbox.drain(0.2)

        inbox.close()
        assert found == [b"1"]


class TestForeignProducers:
    def test_a_message_that_names_an_exchange_nobody_knows_survives_being_given_back(
        self, make_broker: Callable[..., KombuBroker], client: Any
    ) -> None:
        """kombu restores a message through its exchange, and drops it when there is none."""
        info = {"exchange": "celery", "routing_key": "somewhere.else"}
        with Bench(make_broker()) as bench:
            client.lpush("ns:q:requests.q", _message(delivery_info=info))
            bench.take(1)
            bench.in_hand.pop().release()

            assert bench.take(1) == [b"{}"]

        with Bench(make_broker()) as other:
            assert other.take(1) == [b"{}"]

    def test_a_message_without_delivery_info_is_taken(
        self, make_broker: Callable[..., KombuBroker], client: Any
    ) -> None:
        with Bench(make_broker()) as bench:
            client.lpush("ns:q:requests.q", _message(delivery_info=None))

            assert bench.take(1) == [b"{}"]


def test_a_closing_consumer_starts_nothing_more(make_broker: Callable[..., KombuBroker]) -> None:
    """Closing reads the answer of the poll that is under way, which may be a message."""
    broker = make_broker()
    with Bench(broker) as bench:
        bench.consumer._channel.brpop_timeout = 1.0  # type: ignore[attr-defined]
        bench.consumer.drain(0.05)  # from here on a poll is under way
        timer = threading.Timer(0.2, lambda: bench.publish(b"1"))
        timer.start()
        bench.consumer.close()
        timer.join()

        assert bench.in_hand == []
    with Bench(make_broker()) as other:
        assert other.take(1) == [b"1"]
