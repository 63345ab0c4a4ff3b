"""Request messages on every transport."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from ecs_queue.broker import Broker, RequestMessage
from tests.conformance.broker.harness import BrokerHarness

MakeBroker = Callable[..., Broker]


def test_a_message_arrives_as_it_was_published(harness: BrokerHarness) -> None:
    body = '{"command": ["ünïcode", "\u2603"]}'.encode()

    harness.publish(body)

    assert harness.receive(1) == [body]
    assert harness.deliveries[0].queue == "q"


def test_bytes_of_any_kind_arrive_as_they_were_published(harness: BrokerHarness) -> None:
    harness.publish(bytes(range(256)), b"")

    assert sorted(harness.receive(2)) == [b"", bytes(range(256))]


def test_messages_of_one_priority_come_in_order(harness: BrokerHarness) -> None:
    bodies = [b"%d" % index for index in range(8)]

    harness.publish(*bodies)

    assert harness.receive(8) == bodies


def test_a_large_batch_arrives_whole(transport: str, broker: Broker) -> None:
    number = 100 if transport == "sqs" else 700  # moto's time grows with the square
    with BrokerHarness(broker, prefetch=2000, limits={"q": 2000}) as harness:
        harness.publish(*[b"%d" % index for index in range(number)])

        assert len(set(harness.receive(number))) == number


def test_an_empty_batch_is_no_error(broker: Broker) -> None:
    broker.publish_requests([])

    assert broker.backlog("q") == 0


def test_drain_returns_the_number_of_messages_and_respects_its_timeout(harness: BrokerHarness) -> None:
    before = time.monotonic()
    assert harness.consumer.drain(0.2) == 0
    assert 0.1 < time.monotonic() - before < 5

    harness.publish(b"1")

    assert harness.consumer.drain(5.0) == 1


def test_backlog_counts_waiting_messages(broker: Broker) -> None:
    broker.publish_requests([RequestMessage("q", b"1", 0), RequestMessage("q", b"2", 9), RequestMessage("other", b"3")])

    assert broker.backlog("q") == 2
    assert broker.backlog("nothing") == 0


def test_queues_are_separate(broker: Broker) -> None:
    with BrokerHarness(broker, queues=["a", "b"]) as harness:
        harness.publish(b"a", queue="a")
        harness.publish(b"b", queue="b")
        harness.publish(b"c", queue="c")
        harness.receive(2)

        assert sorted((delivery.queue, delivery.body) for delivery in harness.deliveries) == [("a", b"a"), ("b", b"b")]
        assert broker.backlog("c") == 1


def test_an_acknowledged_message_is_not_redelivered(make_broker: MakeBroker) -> None:
    with BrokerHarness(make_broker()) as harness:
        harness.publish(b"1")
        harness.receive(1)
        harness.deliveries[0].ack()
        harness.consumer.drain(0.05)

    with BrokerHarness(make_broker()) as other:
        assert other.drain_for(0.3) == []


def test_close_sends_pending_acknowledgements(make_broker: MakeBroker) -> None:
    with BrokerHarness(make_broker()) as harness:
        harness.publish(b"1")
        harness.receive(1)
        harness.deliveries[0].ack()

    with BrokerHarness(make_broker()) as other:
        assert other.drain_for(0.3) == []


def test_a_requeued_message_is_redelivered(harness: BrokerHarness) -> None:
    harness.publish(b"1")
    harness.receive(1)

    harness.deliveries.pop().requeue()

    assert harness.receive(1) == [b"1"]


def test_a_message_requeued_at_the_front_is_redelivered(harness: BrokerHarness) -> None:
    harness.publish(b"1")
    harness.receive(1)

    harness.deliveries.pop().requeue_at_front()

    assert harness.receive(1) == [b"1"]


def test_only_the_first_of_ack_and_requeue_counts(harness: BrokerHarness) -> None:
    harness.publish(b"1")
    harness.receive(1)
    delivery = harness.deliveries.pop()

    delivery.ack()
    delivery.requeue()
    delivery.ack()

    assert harness.drain_for(0.3) == []


def test_close_requeues_unacknowledged_messages(make_broker: MakeBroker) -> None:
    with BrokerHarness(make_broker()) as harness:
        harness.publish(b"1", b"2", b"3")
        harness.receive(3)
        harness.deliveries[1].ack()

    with BrokerHarness(make_broker()) as other:
        other.receive(2)
        assert sorted(other.drain_for(0.2)) == [b"1", b"3"]


def test_unacknowledged_messages_never_exceed_the_prefetch(broker: Broker) -> None:
    with BrokerHarness(broker, prefetch=3) as harness:
        harness.publish(*[b"%d" % index for index in range(10)])
        harness.receive(3)
        assert len(harness.drain_for(0.3)) == 3

        harness.deliveries[0].ack()
        harness.receive(4)

        assert len(harness.drain_for(0.3)) == 4


def test_a_full_prefetch_waits_for_an_acknowledgement_without_spinning(broker: Broker) -> None:
    with BrokerHarness(broker, prefetch=1) as harness:
        harness.publish(b"1", b"2")
        harness.receive(1)
        before = time.monotonic()
        assert harness.consumer.drain(0.3) == 0
        assert time.monotonic() - before >= 0.25

        timer = threading.Timer(0.05, harness.deliveries[0].ack)
        timer.start()
        before = time.monotonic()
        harness.consumer.drain(30.0)

        assert time.monotonic() - before < 15
        timer.join()


def test_messages_may_be_acknowledged_from_many_threads(make_broker: MakeBroker) -> None:
    broker = make_broker()
    with BrokerHarness(broker, prefetch=20, limits={"q": 20}) as harness:
        harness.publish(*[b"%d" % index for index in range(80)])
        acked = 0
        threads = []

        def ack_some() -> None:
            nonlocal acked
            for delivery in harness.deliveries[acked:]:
                threads.append(threading.Thread(target=delivery.ack))
                threads[-1].start()
            acked = len(harness.deliveries)

        while acked < 80:
            harness.drain_until(lambda: len(harness.deliveries) > acked)
            ack_some()
        for thread in threads:
            thread.join()
        harness.consumer.drain(0.05)

    assert len(set(harness.bodies)) == 80
    with BrokerHarness(make_broker()) as other:
        assert other.drain_for(0.2) == []


def test_a_suspended_queue_keeps_its_messages_until_it_is_resumed(broker: Broker) -> None:
    with BrokerHarness(broker, queues=["a", "b"]) as harness:
        harness.consumer.drain(0.05)
        harness.consumer.suspend("a")
        harness.drain_for(0.3)  # a poll that was under way may still bring one
        harness.publish(b"a", queue="a")
        harness.publish(b"b", queue="b")
        harness.receive(1)
        assert harness.drain_for(0.3) == [b"b"]

        harness.consumer.resume("a")

        assert harness.receive(2) == [b"b", b"a"]


def test_a_suspended_queue_without_room_does_not_hold_up_another(broker: Broker) -> None:
    with BrokerHarness(broker, queues=["a", "b"], limits={"a": -5, "b": 2}) as harness:
        harness.consumer.suspend("a")
        before = time.monotonic()
        harness.consumer.drain(0.3, harness.limits)
        assert time.monotonic() - before >= 0.25
        harness.publish(b"b", queue="b")

        assert harness.receive(1) == [b"b"]


def test_with_every_queue_suspended_acknowledgements_are_sent(make_broker: MakeBroker) -> None:
    broker = make_broker()
    with BrokerHarness(broker) as harness:
        harness.publish(b"1")
        harness.receive(1)
        harness.consumer.suspend("q")
        harness.deliveries[0].ack()
        harness.consumer.drain(0.02)

    with BrokerHarness(make_broker()) as other:
        assert other.drain_for(0.2) == []


def test_namespaces_are_separate(make_broker: MakeBroker) -> None:
    one, other = make_broker(), make_broker("another")
    with BrokerHarness(one) as harness, BrokerHarness(other) as foreign:
        harness.publish(b"1")
        one.publish_results([("me", b"result")])

        assert foreign.drain_for(0.3) == []
        assert other.backlog("q") == 0
        results = other.consume_results("me")
        assert results.drain(0.1) == []
        results.close()
        assert harness.receive(1) == [b"1"]


def test_publishing_is_thread_safe(broker: Broker) -> None:
    threads = [
        threading.Thread(target=lambda: broker.publish_requests([RequestMessage("q", b"1")] * 10)) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)

    assert broker.backlog("q") == 80


def test_no_representation_shows_a_body_or_a_url(harness: BrokerHarness) -> None:
    harness.publish(b"hunter2")
    harness.receive(1)

    assert "hunter2" not in repr(harness.deliveries[0])
    assert "hunter2" not in repr(RequestMessage("q", b"hunter2"))
    assert "://" not in repr(harness.broker)
