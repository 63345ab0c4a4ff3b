"""Workers and clients record their events, and work also when the journal fails."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator

import msgspec
import pytest

from ecs_queue.broker import open_broker
from ecs_queue.client.client import EcsQueue
from ecs_queue.errors import JournalUnavailable
from ecs_queue.ledger import open_ledger
from ecs_queue.protocol.states import State
from ecs_queue.worker.worker import Worker
from tests.fake_ecs import FakeEcs
from tests.journal.fake_journal_store import FakeJournalStore
from tests.wait import wait_until
from tests.worker.harness import make_config

Failure = Callable[[], Exception]
FAILURES: dict[str, Failure] = {
    "unavailable": JournalUnavailable,
    "a mistake of ours": lambda: KeyError("oops"),
    "out of memory": lambda: MemoryError(),
}


class JournalHarness:
    """A client and a worker in this process, with the same journal."""

    def __init__(self, store: FakeJournalStore) -> None:
        config = make_config(namespace=f"t{uuid.uuid4().hex[:12]}", lease_seconds=5)
        self.ecs = FakeEcs(time.time)
        broker, ledger = open_broker(config), open_ledger(config)
        self.client = EcsQueue(config, broker, ledger, owner="me", journal=store)
        self.worker = Worker(config, broker, ledger, gateway=self.ecs, journal=store)
        self.worker.start()

    def run_request(self) -> str:
        """Run one request to its end, and return its id."""
        handle = self.client.submit(["true"])
        wait_until(lambda: bool(self.ecs.tasks), "it is launched", 30)
        for task in self.ecs.live_tasks():
            self.ecs.finish(task["taskArn"])
        assert handle.result(30).state == State.SUCCESS
        return handle.id

    def stop(self) -> None:
        self.worker.stop()
        self.worker.join()
        self.client.close()


@pytest.fixture
def make_harness() -> Iterator[Callable[[FakeJournalStore], JournalHarness]]:
    harnesses: list[JournalHarness] = []

    def make(store: FakeJournalStore) -> JournalHarness:
        harnesses.append(JournalHarness(store))
        return harnesses[-1]

    yield make
    for harness in harnesses:
        harness.stop()


@pytest.mark.parametrize("failure", FAILURES.values(), ids=FAILURES.keys())
def test_a_journal_that_fails_stops_no_launch_and_no_result(
    make_harness: Callable[[FakeJournalStore], JournalHarness], failure: Failure
) -> None:
    store = FakeJournalStore(time.time, failure)
    harness = make_harness(store)

    harness.run_request()

    wait_until(lambda: store.append_count > 0, "the journal was asked", 10)


def test_worker_and_client_record_every_event_of_a_request(
    make_harness: Callable[[FakeJournalStore], JournalHarness],
) -> None:
    store = FakeJournalStore(time.time)
    harness = make_harness(store)

    record_id = harness.run_request()
    harness.stop()

    names = store.event_names(record_id)
    assert {batch.worker for batch in store.batches} == {"", harness.worker.name}
    assert names.count("request.submitted") == names.count("request.ended") == 1
    expected = [
        "request.received",
        "launch.called",
        "decision.run_task",
        "launch.started",
        "decision.poll",
        "request.ended",
    ]
    assert [name for name in names if name in expected] == expected
    assert "worker.stopped" in store.event_names(""), "the journal is the last to end"


def test_a_stop_is_recorded_with_its_requester(make_harness: Callable[[FakeJournalStore], JournalHarness]) -> None:
    store = FakeJournalStore(time.time)
    harness = make_harness(store)

    harness.client.stop("unknown-yet", by="alice")
    harness.client.close()

    (event,) = [e for batch in store.batches for e in msgspec.json.decode(batch.body) if e["id"]]
    assert (event["name"], event["id"], event["data"]) == (
        "stop.requested",
        "unknown-yet",
        {"by": "alice", "code": "ended"},
    )


def test_a_repeated_submission_is_recorded_once(make_harness: Callable[[FakeJournalStore], JournalHarness]) -> None:
    store = FakeJournalStore(time.time)
    harness = make_harness(store)
    for _ in range(2):
        harness.client.submit(["true"], id="same")
    harness.stop()

    assert store.event_names("same").count("request.submitted") == 1
