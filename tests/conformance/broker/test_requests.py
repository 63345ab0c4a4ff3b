"""Request messages: what every broker does with them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from ecs_queue.broker import KombuBroker, Outgoing
from tests.conformance.broker.bench import Bench

MakeBroker = Callable[..., KombuBroker]


def test_a_message_arrives_as_it_was_published(bench: Bench) -> None:
    body = '{"command": ["ünïcode", "\u2603"]}'.encode()

    bench.publish(body)

    assert bench.take(1) == [body]
    assert bench.in_hand[0].queue == "q"


def test_bytes_of_any_kind_arrive_as_they_were_published(bench: Bench) -> None:
    bench.publish(bytes(range(256)), b"")

    assert sorted(bench.take(2)) == [b"", bytes(range(256))]


def test_messages_of_one_priority_come_in_order(bench: Bench) -> None:
    bodies = [b"%d" % index for index in range(8)]

    bench.publish(*bodies)

    assert bench.take(8) == bodies


def test_a_large_batch_arrives_whole(broker: KombuBroker) -> None:
    with Bench(broker, prefetch=2000) as bench:
        bench.publish(*[b"%d" % index for index in range(700)])

        assert len(set(bench.take(700))) == 700


def test_an_empty_batch_is_no_error(broker: KombuBroker) -> None:
    broker.publish_requests([])

    assert broker.backlog("q") == 0


def test_draining_answers_how_many_came_and_waits_no_longer_than_it_is_told(bench: Bench) -> None:
    before = time.monotonic()
    assert bench.consumer.drain(0.2) == 0
    assert 0.1 < time.monotonic() - before < 5

    bench.publish(b"1")

    assert bench.consumer.drain(5.0) == 1


def test_the_backlog_counts_what_waits(broker: KombuBroker) -> None:
    broker.publish_requests([Outgoing("q", b"1", 0), Outgoing("q", b"2", 9), Outgoing("other", b"3")])

    assert broker.backlog("q") == 2
    assert broker.backlog("nothing") == 0


def test_queues_are_apart(broker: KombuBroker) -> None:
    with Bench(broker, queues=["a", "b"]) as bench:
        bench.publish(b"a", queue="a")
        bench.publish(b"b", queue="b")
        bench.publish(b"c", queue="c")
        bench.take(2)

        assert sorted((delivery.queue, delivery.body) for delivery in bench.in_hand) == [("a", b"a"), ("b", b"b")]
        assert broker.backlog("c") == 1


def test_an_acknowledged_message_does_not_come_again(make_broker: MakeBroker) -> None:
    with Bench(make_broker()) as bench:
        bench.publish(b"1")
        bench.take(1)
        bench.in_hand[0].ack()
        bench.consumer.drain(0.05)

    with Bench(make_broker()) as other:
        assert other.drain_for(0.3) == []


def test_an_acknowledgement_that_was_not_carried_out_yet_is_by_the_close(make_broker: MakeBroker) -> None:
    with Bench(make_broker()) as bench:
        bench.publish(b"1")
        bench.take(1)
        bench.in_hand[0].ack()

    with Bench(make_broker()) as other:
        assert other.drain_for(0.3) == []


def test_a_released_message_comes_again(bench: Bench) -> None:
    bench.publish(b"1")
    bench.take(1)

    bench.in_hand.pop().release()

    assert bench.take(1) == [b"1"]


def test_a_message_put_back_comes_again(bench: Bench) -> None:
    bench.publish(b"1")
    bench.take(1)

    bench.in_hand.pop().put_back()

    assert bench.take(1) == [b"1"]


def test_only_the_first_of_ack_and_release_counts(bench: Bench) -> None:
    bench.publish(b"1")
    bench.take(1)
    delivery = bench.in_hand.pop()

    delivery.ack()
    delivery.release()
    delivery.ack()

    assert bench.drain_for(0.3) == []


def test_what_is_in_hand_at_the_close_is_given_back(make_broker: MakeBroker) -> None:
    with Bench(make_broker()) as bench:
        bench.publish(b"1", b"2", b"3")
        bench.take(3)
        bench.in_hand[1].ack()

    with Bench(make_broker()) as other:
        other.take(2)
        assert sorted(other.drain_for(0.2)) == [b"1", b"3"]


def test_never_more_is_in_hand_than_was_asked_for(broker: KombuBroker) -> None:
    with Bench(broker, prefetch=3) as bench:
        bench.publish(*[b"%d" % index for index in range(10)])
        bench.take(3)
        assert len(bench.drain_for(0.3)) == 3

        bench.in_hand[0].ack()
        bench.take(4)

        assert len(bench.drain_for(0.3)) == 4


def test_a_full_hand_waits_for_an_acknowledgement_without_spinning(broker: KombuBroker) -> None:
    with Bench(broker, prefetch=1) as bench:
        bench.publish(b"1", b"2")
        bench.take(1)
        before = time.monotonic()
        assert bench.consumer.drain(0.3) == 0
        assert time.monotonic() - before >= 0.25

        timer = threading.Timer(0.05, bench.in_hand[0].ack)
        timer.start()
        before = time.monotonic()
        bench.consumer.drain(30.0)

        assert time.monotonic() - before < 15
        timer.join()


def test_messages_may_be_acknowledged_from_many_threads(make_broker: MakeBroker) -> None:
    broker = make_broker()
    with Bench(broker, prefetch=20) as bench:
        bench.publish(*[b"%d" % index for index in range(200)])
        acked = 0
        threads = []

        def ack_some() -> None:
            nonlocal acked
            for delivery in bench.in_hand[acked:]:
                threads.append(threading.Thread(target=delivery.ack))
                threads[-1].start()
            acked = len(bench.in_hand)

        while acked < 200:
            bench.drain_until(lambda: len(bench.in_hand) > acked)
            ack_some()
        for thread in threads:
            thread.join()
        bench.consumer.drain(0.05)

    assert len(set(bench.bodies)) == 200
    with Bench(make_broker()) as other:
        assert other.drain_for(0.2) == []


def test_a_paused_queue_keeps_its_messages_until_it_is_resumed(broker: KombuBroker) -> None:
    with Bench(broker, queues=["a", "b"]) as bench:
        bench.consumer.drain(0.05)
        bench.consumer.pause("a")
        bench.drain_for(0.3)  # a poll that was under way may still bring one
        bench.publish(b"a", queue="a")
        bench.publish(b"b", queue="b")
        bench.take(1)
        assert bench.drain_for(0.3) == [b"b"]

        bench.consumer.resume("a")

        assert bench.take(2) == [b"b", b"a"]


def test_with_every_queue_paused_acknowledgements_are_carried_out(make_broker: MakeBroker) -> None:
    broker = make_broker()
    with Bench(broker) as bench:
        bench.publish(b"1")
        bench.take(1)
        bench.consumer.pause("q")
        bench.in_hand[0].ack()
        bench.consumer.drain(0.02)

    with Bench(make_broker()) as other:
        assert other.drain_for(0.2) == []


def test_namespaces_do_not_meet(make_broker: MakeBroker) -> None:
    one, other = make_broker(), make_broker("another")
    with Bench(one) as bench, Bench(other) as foreign:
        bench.publish(b"1")
        one.publish_results([("me", b"result")])

        assert foreign.drain_for(0.3) == []
        assert other.backlog("q") == 0
        inbox = other.results("me")
        assert inbox.drain(0.1) == []
        inbox.close()
        assert bench.take(1) == [b"1"]


def test_publishing_is_thread_safe(broker: KombuBroker) -> None:
    threads = [threading.Thread(target=lambda: broker.publish_requests([Outgoing("q", b"1")] * 10)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)

    assert broker.backlog("q") == 80


def test_no_representation_shows_a_body_or_a_url(bench: Bench) -> None:
    bench.publish(b"hunter2")
    bench.take(1)

    assert "hunter2" not in repr(bench.in_hand[0])
    assert "hunter2" not in repr(Outgoing("q", b"hunter2"))
    assert "://" not in repr(bench.broker)
