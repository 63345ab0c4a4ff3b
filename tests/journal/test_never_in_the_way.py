"""Workers and clients do their work whatever becomes of the journal, and tell it what they did."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator

import msgspec
import pytest

from ecs_queue.broker import open_broker
from ecs_queue.client import EcsQueue
from ecs_queue.core.states import State
from ecs_queue.errors import JournalUnavailable
from ecs_queue.journal.base import Batch
from ecs_queue.launcher.worker import Worker
from ecs_queue.ledger import open_ledger
from tests.launcher.fake_ecs import FakeEcs
from tests.launcher.lab import config_of
from tests.system.processes import wait_for

Failure = Callable[[], Exception]
FAILURES: dict[str, Failure] = {
    "unavailable": JournalUnavailable,
    "a mistake of ours": lambda: KeyError("oops"),
    "out of memory": lambda: MemoryError(),
}


class Store:
    """A journal that keeps what it gets, or fails as it is told."""

    def __init__(self, failure: Failure | None = None) -> None:
        self.failure = failure
        self.batches: list[Batch] = []
        self.asked = 0

    def now(self) -> float:
        return time.time()

    def append(self, batch: Batch) -> float:
        self.asked += 1
        if self.failure is not None:
            raise self.failure()
        self.batches.append(batch)
        return time.time()

    def names(self, record_id: str) -> list[str]:
        events = [event for batch in self.batches for event in msgspec.json.decode(batch.body)]
        return [event["name"] for event in events if event["id"] == record_id]

    def close(self) -> None:
        pass


class Site:
    """A client and a worker in this process, on the same journal."""

    def __init__(self, store: Store) -> None:
        config = config_of(namespace=f"t{uuid.uuid4().hex[:12]}", lease_seconds=5)
        self.ecs = FakeEcs(time.time)
        broker, ledger = open_broker(config), open_ledger(config)
        self.client = EcsQueue(config, broker, ledger, owner="me", journal=store)
        self.worker = Worker(config, broker, ledger, gateway=self.ecs, journal=store)
        self.worker.start()

    def run_one(self) -> str:
        """One request to its end; its id."""
        handle = self.client.submit(["true"])
        wait_for(lambda: bool(self.ecs.tasks), 30, "it is launched")
        for task in self.ecs.alive():
            self.ecs.end(task["taskArn"])
        assert handle.result(30).state == State.SUCCESS
        return handle.id

    def stop(self) -> None:
        self.worker.stop()
        self.worker.join()
        self.client.close()


@pytest.fixture
def make_site() -> Iterator[Callable[[Store], Site]]:
    sites: list[Site] = []

    def make(store: Store) -> Site:
        sites.append(Site(store))
        return sites[-1]

    yield make
    for site in sites:
        site.stop()


@pytest.mark.parametrize("failure", FAILURES.values(), ids=FAILURES.keys())
def test_a_journal_that_fails_stops_no_launch_and_no_result(
    make_site: Callable[[Store], Site], failure: Failure
) -> None:
    store = Store(failure)
    site = make_site(store)

    site.run_one()

    wait_for(lambda: store.asked > 0, 10, "the journal was asked")


def test_worker_and_client_tell_it_from_envelope_to_end(make_site: Callable[[Store], Site]) -> None:
    store = Store()
    site = make_site(store)

    record_id = site.run_one()
    site.stop()

    names = store.names(record_id)
    assert {batch.worker for batch in store.batches} == {"", site.worker.name}
    assert names.count("request.submitted") == names.count("request.ended") == 1
    told = ["request.received", "launch.called", "decision.call", "launch.started", "decision.look", "request.ended"]
    assert [name for name in names if name in told] == told
    assert "worker.stopped" in store.names(""), "the journal is the last to end"


def test_a_stop_is_told_with_who_asked_for_it(make_site: Callable[[Store], Site]) -> None:
    store = Store()
    site = make_site(store)

    site.client.stop("unknown-yet", by="alice")
    site.client.close()

    (event,) = [e for batch in store.batches for e in msgspec.json.decode(batch.body) if e["id"]]
    assert (event["name"], event["id"], event["data"]) == (
        "stop.asked",
        "unknown-yet",
        {"by": "alice", "word": "ended"},
    )


def test_what_is_submitted_again_is_told_once(make_site: Callable[[Store], Site]) -> None:
    store = Store()
    site = make_site(store)
    for _ in range(2):
        site.client.submit(["true"], id="same")
    site.stop()

    assert store.names("same").count("request.submitted") == 1
