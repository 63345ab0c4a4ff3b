"""Result messages: what every broker does with them."""

from __future__ import annotations

import threading
import time

from ecs_queue.broker import KombuBroker


def _drain(broker: KombuBroker, owner: str, number: int) -> list[bytes]:
    """So many results of an owner, by a new inbox."""
    inbox = broker.consume_results(owner)
    found: list[bytes] = []
    deadline = time.monotonic() + 30
    while len(found) < number and time.monotonic() < deadline:
        found += inbox.drain(0.1)
    inbox.close()
    return found


def test_results_go_to_their_owner_in_order(broker: KombuBroker) -> None:
    broker.publish_results([("me", b"1"), ("you", b"2"), ("me", b"3")])

    assert _drain(broker, "me", 2) == [b"1", b"3"]
    assert _drain(broker, "you", 1) == [b"2"]


def test_what_came_before_the_inbox_was_opened_is_there(broker: KombuBroker) -> None:
    broker.publish_results([("me", b"1")])

    inbox = broker.consume_results("me")

    assert inbox.drain(5.0) == [b"1"]
    inbox.close()


def test_an_inbox_waits_for_what_comes(broker: KombuBroker) -> None:
    inbox = broker.consume_results("me")
    inbox.drain(0.01)
    timer = threading.Timer(0.1, lambda: broker.publish_results([("me", b"1")]))
    timer.start()

    found = inbox.drain(30.0)

    timer.join()
    assert found == [b"1"]
    inbox.close()


def test_an_empty_inbox_answers_in_time(broker: KombuBroker) -> None:
    inbox = broker.consume_results("me")
    before = time.monotonic()

    assert inbox.drain(0.2) == []

    assert time.monotonic() - before < 5
    inbox.close()


def test_a_drain_answers_though_results_never_cease(broker: KombuBroker) -> None:
    broker.publish_results([("me", b"%d" % index) for index in range(1200)])
    inbox = broker.consume_results("me")

    batches = [inbox.drain(2.0) for _ in range(3)]

    assert all(0 < len(batch) <= 500 for batch in batches)
    inbox.close()


def test_forgotten_results_are_gone(broker: KombuBroker) -> None:
    broker.publish_results([("me", b"1"), ("you", b"2")])

    broker.delete_result_queue("me")

    inbox = broker.consume_results("me")
    assert inbox.drain(0.2) == []
    inbox.close()
    assert _drain(broker, "you", 1) == [b"2"]


def test_an_owner_that_was_forgotten_may_have_results_again(broker: KombuBroker) -> None:
    broker.publish_results([("me", b"1")])
    broker.delete_result_queue("me")

    broker.publish_results([("me", b"2")])

    assert _drain(broker, "me", 1) == [b"2"]


def test_a_broker_writes_to_any_number_of_owners(broker: KombuBroker) -> None:
    for start in range(0, 1500, 300):
        broker.publish_results([(f"owner{index}", b"%d" % index) for index in range(start, start + 300)])

    assert _drain(broker, "owner0", 1) == [b"0"]
    assert _drain(broker, "owner1499", 1) == [b"1499"]


def test_closing_an_inbox_twice_or_before_it_was_used_does_no_harm(broker: KombuBroker) -> None:
    inbox = broker.consume_results("me")
    inbox.close()
    inbox.drain(0.01)
    inbox.close()
    inbox.close()


def test_checking_and_closing_a_broker_that_works_is_no_error(broker: KombuBroker) -> None:
    broker.check()
    broker.close()
    broker.close()

    broker.publish_results([("me", b"1")])
    assert _drain(broker, "me", 1) == [b"1"]
