"""Waiting for results, where the client's tests do not reach."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence

import msgspec
import pytest

from ecs_queue.client import results as client_results
from ecs_queue.client.handle import Handle
from ecs_queue.client.producer import PreparedRequest, prepare_request
from ecs_queue.client.results import ResultReader
from ecs_queue.errors import BrokerUnavailable, LedgerUnavailable, ResultTimeout, UnknownTask, UsageError
from ecs_queue.messages.envelope import encode
from ecs_queue.messages.keyring import NO_KEYS
from ecs_queue.messages.request import new_request
from ecs_queue.messages.result import build_result
from ecs_queue.protocol.record import Record
from ecs_queue.protocol.states import State
from ecs_queue.testing.clock import FakeClock
from tests.wait import wait_until
from tests.worker.harness import make_config


def _record(record_id: str, state: State = State.SUCCESS, nonce: str = "n") -> Record:
    return Record(id=record_id, nonce=nonce, owner="me", queue="q", state=state)


PREPARED = prepare_request(
    new_request(id="a", command=["true"], now=1.7e9, accept_seconds=60.0), make_config(), NO_KEYS
)


class FakeInbox:
    """Returns the bodies that a test puts in; `is_unavailable` makes it raise."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []
        self.is_unavailable = False
        self.drains = 0
        self.open_count = 0

    def consume_results(self, owner: str) -> FakeInbox:
        self.open_count += 1
        return self

    def drain(self, timeout: float) -> list[bytes]:
        self.drains += 1
        if self.is_unavailable:
            raise BrokerUnavailable
        if not self.bodies:
            time.sleep(min(timeout, 0.01))
        bodies, self.bodies = self.bodies, []
        return bodies

    def close(self) -> None:
        self.open_count -= 1


class FakeLedger:
    """A ledger with the records that a test puts in; remembers the lookups."""

    def __init__(self) -> None:
        self.records: dict[str, Record] = {}
        self.lookups: list[list[str]] = []
        self.failures = 0
        self.confirmed: list[tuple[str, str]] = []
        self.is_confirming = threading.Event()
        self.may_confirm = threading.Event()
        self.may_confirm.set()

    def get(self, ids: Sequence[str]) -> list[Record | None]:
        self.lookups.append(list(ids))
        if self.failures:
            self.failures -= 1
            raise LedgerUnavailable
        return [self.records.get(record_id) for record_id in ids]

    def confirm(self, results: Sequence[tuple[str, str]], owner: str) -> None:
        self.is_confirming.set()
        assert self.may_confirm.wait(10)
        self.confirmed.extend(results)


class ResultReaderHarness:
    def __init__(self, owner: str = "me", monotonic: Callable[[], float] = time.monotonic) -> None:
        self.inbox = FakeInbox()
        self.ledger = FakeLedger()
        self.put_again: list[PreparedRequest] = []
        self.resubmit_accepted = True
        self.results = ResultReader(
            self.inbox,  # type: ignore[arg-type]
            self.ledger,  # type: ignore[arg-type]
            owner,
            self._put_again,
            monotonic=monotonic,
        )

    def watch(self, record_id: str, prepared_request: PreparedRequest | None = None) -> Handle:
        handle = Handle(self, record_id, "n", prepared_request)  # type: ignore[arg-type]
        self.results.watch(handle)
        return handle

    def wait(self, *ids: str, timeout: float = 5.0, prepared_request: PreparedRequest | None = None) -> list[str]:
        handles = [self.watch(record_id, prepared_request) for record_id in ids]
        return [result.id for result in self.results.as_completed(handles, timeout)]

    def end_and_publish(self, *records: Record) -> None:
        """End requests in the ledger, and publish their results."""
        self.ledger.records.update({record.id: record for record in records})
        self.publish(*records)

    def publish(self, *records: Record) -> None:
        """Publish results, whatever the ledger has."""
        self.inbox.bodies += [encode(build_result(record)) for record in records]

    def _put_again(self, prepared_request: PreparedRequest) -> bool:
        self.put_again.append(prepared_request)
        if self.resubmit_accepted:
            self.ledger.records["a"] = _record("a")
        return self.resubmit_accepted


@pytest.fixture
def harness(monkeypatch: pytest.MonkeyPatch) -> Iterator[ResultReaderHarness]:
    monkeypatch.setattr(client_results, "_LEDGER_CHECK_INTERVAL_SECONDS", 0.02)
    made = ResultReaderHarness()
    yield made
    made.results.close()


def test_an_early_result_is_kept(harness: ResultReaderHarness) -> None:
    harness.ledger.records.update({name: _record(name, State.LAUNCHED) for name in "ab"})
    harness.end_and_publish(_record("b"), _record("a"))

    assert harness.wait("a") == ["a"]
    assert harness.wait("b") == ["b"]


def test_early_results_are_limited_and_the_rest_is_read_from_the_ledger(
    harness: ResultReaderHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client_results, "_MAX_EARLY_RESULTS", 10)
    harness.ledger.records.update({f"t{index}": _record(f"t{index}") for index in range(100)})
    harness.end_and_publish(*[_record(f"t{index}") for index in range(100)], _record("a"))

    harness.wait("a")

    assert len(harness.results._early_results) == 10
    assert harness.wait("t0", "t99") == ["t99", "t0"]


def test_nothing_is_kept_of_requests_that_have_ended_or_are_not_awaited(harness: ResultReaderHarness) -> None:
    harness.ledger.records["b"] = _record("b", State.LAUNCHED)
    harness.end_and_publish(_record("a"))
    harness.wait("a", prepared_request=PREPARED)
    with pytest.raises(ResultTimeout):
        harness.wait("b", timeout=0.05, prepared_request=PREPARED)

    wait_until(lambda: not harness.results._watched)

    assert not harness.results._waiters
    assert not harness.results._kept
    assert not harness.results._early_results


def test_what_runs_is_known_from_the_records_that_are_read_anyway(harness: ResultReaderHarness) -> None:
    for name, started_at in (("a", 5.0), ("b", 5.0), ("c", 0.0)):
        harness.ledger.records[name] = msgspec.structs.replace(_record(name, State.LAUNCHED), started_at=started_at)
    handles = [harness.watch(name) for name in "abc"]
    wait_until(lambda: len(harness.results.running) == 2)

    harness.end_and_publish(_record("a"))
    assert handles[0].result(5.0).id == "a"
    wait_until(lambda: len(harness.results.running) == 1)
    harness.ledger.records["b"] = _record("b", State.QUEUED)
    wait_until(lambda: len(harness.results.running) == 0)

    harness.ledger.records["c"] = msgspec.structs.replace(harness.ledger.records["c"], started_at=5.0)
    wait_until(lambda: len(harness.results.running) == 1)
    del handles
    wait_until(lambda: len(harness.results.running) == 0)


def test_a_result_of_another_submission_of_the_id_is_not_taken_for_it(harness: ResultReaderHarness) -> None:
    harness.ledger.records["a"] = _record("a", State.LAUNCHED)
    harness.publish(_record("a", nonce="other"))

    with pytest.raises(ResultTimeout):
        harness.wait("a", timeout=0.2)


def test_a_duplicate_result_is_yielded_once(harness: ResultReaderHarness) -> None:
    harness.ledger.records["b"] = _record("b")
    harness.end_and_publish(_record("a"), _record("a"))

    assert sorted(harness.wait("a", "b")) == ["a", "b"]


def test_as_completed_waits_for_a_confirmation_that_the_other_thread_has_begun(harness: ResultReaderHarness) -> None:
    handle = harness.watch("a")
    harness.ledger.may_confirm.clear()
    harness.end_and_publish(_record("a"))
    handle.result(5.0)
    assert harness.ledger.is_confirming.wait(5.0)
    timer = threading.Timer(0.1, harness.ledger.may_confirm.set)
    timer.start()

    assert list(harness.results.as_completed([], None)) == []

    assert harness.ledger.confirmed == [("a", "n")]
    timer.join()


def test_an_unavailable_broker_is_retried_only_after_a_pause(harness: ResultReaderHarness) -> None:
    harness.inbox.is_unavailable = True
    harness.ledger.records["a"] = _record("a", State.LAUNCHED)

    with pytest.raises(ResultTimeout):
        harness.wait("a", timeout=0.6)

    assert harness.inbox.drains == 1


def test_the_ledger_is_read_in_batches_in_turn(harness: ResultReaderHarness) -> None:
    ids = [f"t{index}" for index in range(1100)]
    harness.ledger.records.update({record_id: _record(record_id) for record_id in ids})

    assert set(harness.wait(*ids)) == set(ids)

    numbers = [len(asked) for asked in harness.ledger.lookups]
    assert (max(numbers), sum(numbers)) == (500, 1100)


def test_the_ledger_is_read_once_an_interval() -> None:
    clock = FakeClock()
    harness = ResultReaderHarness(monotonic=clock)
    harness.ledger.records["a"] = _record("a", State.LAUNCHED)
    handle = harness.watch("a")

    for reads in (1, 2):
        drained = harness.inbox.drains
        wait_until(lambda drained=drained: harness.inbox.drains > drained + 10)  # type: ignore[misc]
        assert harness.ledger.lookups == [["a"]] * reads
        clock.advance(1.0)

    assert not handle.done()
    harness.results.close()


def test_a_lost_put_is_repeated(harness: ResultReaderHarness) -> None:
    assert harness.wait("a", prepared_request=PREPARED) == ["a"]

    assert harness.put_again == [PREPARED]


def test_a_stop_that_the_ledger_has_without_its_request_is_not_the_end(harness: ResultReaderHarness) -> None:
    """The put that stores its owner was lost."""
    harness.ledger.records["a"] = _record("a", State.REVOKED, nonce="")

    harness.wait("a", prepared_request=PREPARED)

    assert harness.put_again == [PREPARED]


def test_what_is_not_accepted_again_is_unknown(harness: ResultReaderHarness) -> None:
    harness.resubmit_accepted = False

    with pytest.raises(UnknownTask, match="a"):
        harness.wait("a", prepared_request=PREPARED)


def test_without_an_owner_neither_messages_nor_confirmations_are_used() -> None:
    harness = ResultReaderHarness(owner="")
    harness.ledger.records["a"] = _record("a")

    assert harness.wait("a") == ["a"]
    harness.results.close()

    assert (harness.inbox.drains, harness.ledger.confirmed, harness.results.has_result_queue) == (0, [], False)


def test_closing_confirms_and_closes_the_result_queue(harness: ResultReaderHarness) -> None:
    harness.end_and_publish(_record("a"))
    next(harness.results.as_completed([harness.watch("a")], 5.0))
    assert harness.results.has_result_queue

    harness.results.close()

    assert harness.ledger.confirmed == [("a", "n")]
    assert harness.inbox.open_count == 0


@pytest.mark.parametrize(
    "truth",
    [
        None,
        _record("a", State.LAUNCHED),
        _record("a", nonce="other"),
        Record(id="a", nonce="n", owner="another", queue="q", state=State.SUCCESS),
    ],
    ids=["an unknown id", "not ended", "a wrong nonce", "another owner's"],
)
def test_a_forged_result_is_ignored(harness: ResultReaderHarness, truth: Record | None) -> None:
    if truth is not None:
        harness.ledger.records["a"] = truth
    harness.ledger.records["b"] = _record("b")
    harness.publish(_record("a"))
    harness.end_and_publish(_record("b"))

    assert harness.wait("b") == ["b"]

    assert not harness.results._early_results
    assert ("a", "n") not in harness.ledger.confirmed


def test_the_result_comes_from_the_ledger_and_not_from_the_message(harness: ResultReaderHarness) -> None:
    harness.ledger.records["a"] = _record("a", State.FAILED)
    harness.publish(_record("a", State.SUCCESS))

    assert harness.watch("a").result(5.0).state == State.FAILED


def test_results_wait_for_an_unavailable_ledger(harness: ResultReaderHarness) -> None:
    harness.end_and_publish(_record("a"))
    harness.ledger.failures = 3

    assert harness.wait("a") == ["a"]


def test_a_handle_that_a_close_in_another_thread_overtakes_is_ended(harness: ResultReaderHarness) -> None:
    harness.results.close()

    with pytest.raises(UsageError, match="the client was closed"):
        harness.watch("a").result(5.0)


def test_after_a_thread_that_could_not_be_started_the_next_handle_starts_one() -> None:
    harness = ResultReaderHarness()
    can_start = False

    def start(run: Callable[[], None]) -> None:
        if not can_start:
            raise RuntimeError("can't start new thread")
        client_results.start_thread(run)

    harness.results._start = start
    with pytest.raises(RuntimeError):
        harness.watch("a")
    can_start = True
    harness.ledger.records["b"] = _record("b")

    assert harness.wait("b") == ["b"]
    harness.results.close()


def test_a_result_is_returned_also_when_its_confirmation_finds_no_thread(harness: ResultReaderHarness) -> None:
    def start(run: Callable[[], None]) -> None:
        raise RuntimeError("can't create new thread at interpreter shutdown")

    handle = harness.watch("a")
    harness.end_and_publish(_record("a"))
    wait_until(handle.done)
    harness.results._wake.set()
    wait_until(lambda: not harness.results._is_running)
    harness.results._start = start

    assert handle.result(0).succeeded
    harness.results.close()
    assert harness.ledger.confirmed == [("a", "n")]


def test_a_confirmation_that_fails_in_an_unknown_way_is_tried_again_after_a_pause(
    harness: ResultReaderHarness,
) -> None:
    attempts: list[object] = []

    def confirm(results: object, owner: str) -> None:
        attempts.append(results)
        raise ZeroDivisionError

    harness.ledger.confirm = confirm  # type: ignore[method-assign]
    harness.end_and_publish(_record("a"))
    assert harness.watch("a").result(5.0).succeeded
    wait_until(lambda: attempts)
    time.sleep(0.3)

    assert len(attempts) < 50  # without a pause: thousands
    del harness.ledger.confirm
