"""Publishing results."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import pytest

from ecs_queue.errors import BrokerUnavailable
from ecs_queue.messages.envelope import decode_result
from ecs_queue.protocol.record import Record
from ecs_queue.protocol.states import State
from ecs_queue.telemetry import Telemetry
from ecs_queue.worker.result_publisher import ResultPublisher


class RecordingBroker:
    """A broker that takes results; `errors` are raised first, in order."""

    def __init__(self, *errors: Exception) -> None:
        self.errors = list(errors)
        self.batches: list[list[tuple[str, bytes]]] = []
        self.published = threading.Event()

    def publish_results(self, messages: Sequence[tuple[str, bytes]]) -> None:
        if self.errors:
            raise self.errors.pop(0)
        self.batches.append(list(messages))
        self.published.set()

    @property
    def ids(self) -> list[str]:
        return [decode_result(body).id for batch in self.batches for _, body in batch]


def _record(record_id: str, owner: str = "me", reason: str = "") -> Record:
    return Record(id=record_id, nonce="n", owner=owner, queue="q", state=State.SUCCESS, reason=reason)


def _make_publisher(broker: RecordingBroker, reasons: list[str] | None = None) -> ResultPublisher:
    telemetry = Telemetry(lambda name, fields: None if reasons is None else reasons.append(fields["reason"]))
    return ResultPublisher(broker, telemetry, error_delay=0.001)


def _stop_and_join(publisher: ResultPublisher) -> None:
    publisher.stop()
    assert publisher.join(10)


def test_results_go_to_their_owners() -> None:
    broker = RecordingBroker()
    publisher = _make_publisher(broker)
    publisher.publish(_record("a", owner="x"))
    publisher.publish(_record("b", owner="y"))

    publisher.start()
    _stop_and_join(publisher)

    assert [owner for batch in broker.batches for owner, _ in batch] == ["x", "y"]
    assert broker.ids == ["a", "b"]


def test_a_result_without_an_owner_is_not_published() -> None:
    broker = RecordingBroker()
    publisher = _make_publisher(broker)
    publisher.publish(_record("a", owner=""))

    publisher.start()
    _stop_and_join(publisher)

    assert broker.batches == []


def test_many_go_in_batches() -> None:
    broker = RecordingBroker()
    publisher = _make_publisher(broker)
    for index in range(1200):
        publisher.publish(_record(f"t{index}"))

    publisher.start()
    _stop_and_join(publisher)

    assert [len(batch) for batch in broker.batches] == [500, 500, 200]


def test_what_comes_soon_after_a_batch_goes_out_together() -> None:
    broker = RecordingBroker()
    publisher = _make_publisher(broker)

    class Rest(threading.Event):
        """Two results come while the publisher rests after the first batch."""

        def wait(self, timeout: float | None = None) -> bool:
            if len(broker.batches) == 1:
                publisher.publish(_record("b"))
                publisher.publish(_record("c"))
            return super().wait(0.0)

    publisher._stopping = Rest()
    publisher.publish(_record("a"))
    publisher.start()
    while len(broker.batches) < 2:
        threading.Event().wait(0.001)
    _stop_and_join(publisher)

    assert [len(batch) for batch in broker.batches] == [1, 2]
    assert broker.ids == ["a", "b", "c"]


def test_a_lost_broker_is_tried_again() -> None:
    broker = RecordingBroker(BrokerUnavailable(), BrokerUnavailable())
    publisher = _make_publisher(broker)
    publisher.start()

    publisher.publish(_record("a"))

    assert broker.published.wait(10)
    assert broker.ids == ["a"]
    _stop_and_join(publisher)


def test_stopping_does_not_wait_for_a_lost_broker() -> None:
    reasons: list[str] = []
    publisher = _make_publisher(RecordingBroker(*[BrokerUnavailable("gone")] * 1000), reasons)
    publisher.publish(_record("a"))
    publisher.stop()

    publisher.start()

    assert publisher.join(10)
    assert reasons == ["gone"]


@pytest.mark.parametrize("error", [ZeroDivisionError("never thought of"), AttributeError("kombu")])
def test_an_unexpected_error_does_not_end_it(error: Exception) -> None:
    broker, reasons = RecordingBroker(error), list[str]()
    publisher = _make_publisher(broker, reasons)
    publisher.publish(_record("a"))
    publisher.start()
    while not reasons:
        threading.Event().wait(0.001)

    publisher.publish(_record("b"))

    assert broker.published.wait(10)
    assert broker.ids == ["b"]
    assert str(error) in reasons[0]
    _stop_and_join(publisher)


def test_a_result_that_json_cannot_hold_does_not_hold_up_the_others() -> None:
    broker, reasons = RecordingBroker(), list[str]()
    publisher = _make_publisher(broker, reasons)
    publisher.publish(_record("bad", reason="\ud800"))
    publisher.publish(_record("good"))

    publisher.start()
    _stop_and_join(publisher)

    assert broker.ids == ["good"]
    assert reasons[0].startswith("bad: ")


def test_one_that_was_never_started_has_ended() -> None:
    assert _make_publisher(RecordingBroker()).join(0.0)


def test_results_are_pending_until_the_broker_has_taken_them() -> None:
    pending: list[int] = []

    class CountingBroker(RecordingBroker):
        def publish_results(self, messages: Sequence[tuple[str, bytes]]) -> None:
            pending.append(publisher.count_pending())
            super().publish_results(messages)

    publisher = _make_publisher(CountingBroker())
    publisher.publish(_record("a"))
    publisher.publish(_record("b"))
    pending.append(publisher.count_pending())

    publisher.start()
    _stop_and_join(publisher)
    assert [*pending, publisher.count_pending()] == [2, 2, 0]
