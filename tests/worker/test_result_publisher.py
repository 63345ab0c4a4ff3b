"""Announcing results."""

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
    return ResultPublisher(broker, telemetry, error_delay=0.001)  # type: ignore[arg-type]


def _stop_and_join(announcer: ResultPublisher) -> None:
    announcer.stop()
    assert announcer.join(10)


def test_results_go_to_their_owners() -> None:
    outbox = RecordingBroker()
    announcer = _make_publisher(outbox)
    announcer.publish(_record("a", owner="x"))
    announcer.publish(_record("b", owner="y"))

    announcer.start()
    _stop_and_join(announcer)

    assert [owner for batch in outbox.batches for owner, _ in batch] == ["x", "y"]
    assert outbox.ids == ["a", "b"]


def test_a_result_without_an_owner_is_not_published() -> None:
    outbox = RecordingBroker()
    announcer = _make_publisher(outbox)
    announcer.publish(_record("a", owner=""))

    announcer.start()
    _stop_and_join(announcer)

    assert outbox.batches == []


def test_many_go_in_batches() -> None:
    outbox = RecordingBroker()
    announcer = _make_publisher(outbox)
    for index in range(1200):
        announcer.publish(_record(f"t{index}"))

    announcer.start()
    _stop_and_join(announcer)

    assert [len(batch) for batch in outbox.batches] == [500, 500, 200]


def test_what_comes_soon_after_a_batch_goes_out_together() -> None:
    outbox = RecordingBroker()
    announcer = _make_publisher(outbox)

    class Rest(threading.Event):
        """Two results come while the announcer rests after the first batch."""

        def wait(self, timeout: float | None = None) -> bool:
            if len(outbox.batches) == 1:
                announcer.publish(_record("b"))
                announcer.publish(_record("c"))
            return super().wait(0.0)

    announcer._stopping = Rest()
    announcer.publish(_record("a"))
    announcer.start()
    while len(outbox.batches) < 2:
        threading.Event().wait(0.001)
    _stop_and_join(announcer)

    assert [len(batch) for batch in outbox.batches] == [1, 2]
    assert outbox.ids == ["a", "b", "c"]


def test_a_lost_broker_is_tried_again() -> None:
    outbox = RecordingBroker(BrokerUnavailable(), BrokerUnavailable())
    announcer = _make_publisher(outbox)
    announcer.start()

    announcer.publish(_record("a"))

    assert outbox.published.wait(10)
    assert outbox.ids == ["a"]
    _stop_and_join(announcer)


def test_stopping_does_not_wait_for_a_lost_broker() -> None:
    told: list[str] = []
    announcer = _make_publisher(RecordingBroker(*[BrokerUnavailable("gone")] * 1000), told)
    announcer.publish(_record("a"))
    announcer.stop()

    announcer.start()

    assert announcer.join(10)
    assert told == ["gone"]


@pytest.mark.parametrize("error", [ZeroDivisionError("never thought of"), AttributeError("kombu")])
def test_an_error_nobody_thought_of_does_not_end_it(error: Exception) -> None:
    outbox, told = RecordingBroker(error), list[str]()
    announcer = _make_publisher(outbox, told)
    announcer.publish(_record("a"))
    announcer.start()
    while not told:
        threading.Event().wait(0.001)

    announcer.publish(_record("b"))

    assert outbox.published.wait(10)
    assert outbox.ids == ["b"]
    assert str(error) in told[0]
    _stop_and_join(announcer)


def test_a_result_that_json_cannot_hold_does_not_hold_up_the_others() -> None:
    outbox, told = RecordingBroker(), list[str]()
    announcer = _make_publisher(outbox, told)
    announcer.publish(_record("bad", reason="\ud800"))
    announcer.publish(_record("good"))

    announcer.start()
    _stop_and_join(announcer)

    assert outbox.ids == ["good"]
    assert told[0].startswith("bad: ")


def test_one_that_was_never_started_has_ended() -> None:
    assert _make_publisher(RecordingBroker()).join(0.0)
