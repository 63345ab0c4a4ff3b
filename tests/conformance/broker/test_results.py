"""Result messages on every transport."""

from __future__ import annotations

import threading
import time

import pytest

from ecs_queue.broker import Broker
from tests.conformance.broker.conftest import RESULT_TRANSPORTS

pytestmark = pytest.mark.parametrize("transport", RESULT_TRANSPORTS, indirect=True)


def _drain(broker: Broker, owner: str, number: int) -> list[bytes]:
    """Receive `number` results of an owner with a new consumer."""
    consumer = broker.consume_results(owner)
    found: list[bytes] = []
    deadline = time.monotonic() + 30
    while len(found) < number and time.monotonic() < deadline:
        found += consumer.drain(0.1)
    consumer.close()
    return found


def test_results_go_to_their_owner_in_order(broker: Broker) -> None:
    broker.publish_results([("me", b"1"), ("you", b"2"), ("me", b"3")])

    assert _drain(broker, "me", 2) == [b"1", b"3"]
    assert _drain(broker, "you", 1) == [b"2"]


def test_results_published_before_the_consumer_opened_are_received(broker: Broker) -> None:
    broker.publish_results([("me", b"1")])

    consumer = broker.consume_results("me")

    assert consumer.drain(5.0) == [b"1"]
    consumer.close()


def test_a_result_consumer_waits_for_results(broker: Broker) -> None:
    consumer = broker.consume_results("me")
    consumer.drain(0.01)
    timer = threading.Timer(0.1, lambda: broker.publish_results([("me", b"1")]))
    timer.start()

    found = consumer.drain(30.0)

    timer.join()
    assert found == [b"1"]
    consumer.close()


def test_drain_of_an_empty_result_queue_returns_in_time(broker: Broker) -> None:
    consumer = broker.consume_results("me")
    before = time.monotonic()

    assert consumer.drain(0.2) == []

    assert time.monotonic() - before < 5
    consumer.close()


def test_drain_returns_although_results_keep_coming(broker: Broker) -> None:
    broker.publish_results([("me", b"%d" % index) for index in range(1200)])
    consumer = broker.consume_results("me")

    batches = [consumer.drain(2.0) for _ in range(3)]

    assert all(0 < len(batch) <= 500 for batch in batches)
    consumer.close()


def test_deleted_results_are_gone(broker: Broker) -> None:
    broker.publish_results([("me", b"1"), ("you", b"2")])

    broker.delete_result_queue("me")

    consumer = broker.consume_results("me")
    assert consumer.drain(0.2) == []
    consumer.close()
    assert _drain(broker, "you", 1) == [b"2"]


def test_an_owner_whose_queue_was_deleted_may_get_results_again(broker: Broker) -> None:
    broker.publish_results([("me", b"1")])
    broker.delete_result_queue("me")

    broker.publish_results([("me", b"2")])

    assert _drain(broker, "me", 1) == [b"2"]


def test_a_broker_writes_to_any_number_of_owners(broker: Broker) -> None:
    for start in range(0, 150, 30):
        broker.publish_results([(f"owner{index}", b"%d" % index) for index in range(start, start + 30)])

    assert _drain(broker, "owner0", 1) == [b"0"]
    assert _drain(broker, "owner149", 1) == [b"149"]


def test_closing_a_result_consumer_twice_or_unused_is_harmless(broker: Broker) -> None:
    consumer = broker.consume_results("me")
    consumer.close()
    consumer.drain(0.01)
    consumer.close()
    consumer.close()


def test_checking_and_closing_a_working_broker_is_no_error(broker: Broker) -> None:
    broker.check()
    broker.close()
    broker.close()

    broker.publish_results([("me", b"1")])
    assert _drain(broker, "me", 1) == [b"1"]
