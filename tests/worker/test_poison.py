"""Requests that break their worker: it dies in the very step and never reports back."""

from __future__ import annotations

import threading

import pytest

from ecs_queue.ledger import MemoryLedger
from ecs_queue.messages import envelope
from ecs_queue.messages.keyring import Keyring
from ecs_queue.messages.request import TaskRequest
from ecs_queue.protocol.states import State
from ecs_queue.worker.poison import PoisonGuard
from tests.fake_ecs import LostResult, RunTaskCall
from tests.worker.harness import FakeDelivery, WorkerHarness, WorkerKilled

MAX_DELIVERIES = 3
LEASE = 30.0


@pytest.fixture
def harness() -> WorkerHarness:
    return WorkerHarness(max_deliveries=MAX_DELIVERIES)


@pytest.fixture
def killed_by_request(harness: WorkerHarness, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The worker that reads the request `a` dies, and does not end the delivery."""
    died: list[str] = []
    original, let_go = envelope.decode_request, harness.memory_ledger.end_delivery

    def read(body: bytes, keyring: Keyring) -> TaskRequest:
        request = original(body, keyring)
        if request.id == "a":
            died.append(request.id)
            monkeypatch.setattr(harness.memory_ledger, "end_delivery", lambda nonce: None)
            raise WorkerKilled
        monkeypatch.setattr(harness.memory_ledger, "end_delivery", let_go)
        return request

    monkeypatch.setattr(envelope, "decode_request", read)
    return died


def test_a_poison_message_becomes_a_dead_letter_unread(harness: WorkerHarness, killed_by_request: list[str]) -> None:
    message = FakeDelivery(harness.new_envelope(), redelivered=True)
    for _ in range(MAX_DELIVERIES):
        with pytest.raises(WorkerKilled):
            harness.worker.launcher.handle_message(message)

    assert harness.worker.launcher.handle_message(message)

    assert len(killed_by_request) == MAX_DELIVERIES
    (letter,) = harness.memory_ledger.list_dead_letters(10)
    assert letter.body == message.body
    assert "3 workers in a row died while they processed it" in letter.reason


def test_its_record_fails_when_it_is_swept_and_its_owner_hears_of_it(
    harness: WorkerHarness, killed_by_request: list[str]
) -> None:
    body = harness.new_envelope()
    harness.memory_ledger.put([_submission(harness, body)])
    for _ in range(MAX_DELIVERIES):
        harness.clock.advance(LEASE + 1)
        with pytest.raises(WorkerKilled):
            harness.worker.sweep()
        harness.worker = harness.new_worker()

    harness.advance(LEASE + 1)

    assert (harness.state(), len(killed_by_request)) == (State.FAILED, MAX_DELIVERIES)
    assert harness.published_results == [harness.record()]
    assert harness.memory_ledger.list_dead_letters(10)[0].body == body
    assert not harness.ecs.run_task_calls


def test_messages_that_come_again_for_good_reasons_are_never_given_up(harness: WorkerHarness) -> None:
    harness.ecs.run_task_results.extend([LostResult.NO_EFFECT] * (3 * MAX_DELIVERIES))
    for _ in range(3 * MAX_DELIVERIES):
        assert harness.worker.launcher.handle_message(FakeDelivery(harness.new_envelope(), redelivered=True))
        harness.clock.advance(1.0)

    assert not harness.memory_ledger.list_dead_letters(10)


def test_a_call_that_breaks_its_workers_ends_with_a_dead_letter_when_nothing_was_started(
    harness: WorkerHarness,
) -> None:
    calls: list[RunTaskCall] = []

    def die(call: RunTaskCall) -> None:
        calls.append(call)
        raise WorkerKilled

    harness.ecs.on_run_task = die
    body = harness.new_envelope()
    with pytest.raises(WorkerKilled):
        harness.worker.handle_message(body)
    for _ in range(MAX_DELIVERIES - 1):
        harness.clock.advance(LEASE + 1)
        harness.worker = harness.new_worker()
        with pytest.raises(WorkerKilled):
            harness.worker.poll()
    harness.worker = harness.new_worker()

    harness.advance_in_steps(harness.config.settle_seconds + 3 * LEASE, step=5)

    assert (harness.state(), len(calls)) == (State.FAILED, MAX_DELIVERIES)
    assert "3 workers in a row died" in harness.record().reason
    assert harness.published_results == [harness.record()]
    assert harness.memory_ledger.list_dead_letters(10)[0].body == body


def test_the_innocent_in_the_same_worker_are_launched(harness: WorkerHarness) -> None:
    """A worker with six requests in hand died of one of them; every takeover meets all of them."""

    def die(call: RunTaskCall) -> None:
        if call.client_token.startswith("culprit"):
            raise WorkerKilled

    harness.ecs.on_run_task = die
    names = ["b", "culprit", "c", "d", "e", "f"]
    for name in names:
        body = harness.new_envelope(name)
        harness.ecs.on_run_task = _kill_worker
        with pytest.raises(WorkerKilled):
            harness.worker.handle_message(body)
    harness.ecs.on_run_task = die
    for _ in range(2 * MAX_DELIVERIES):
        harness.clock.advance(LEASE + 1)
        harness.worker = harness.new_worker()
        try:
            harness.worker.poll()
        except WorkerKilled:
            continue
    harness.advance_in_steps(harness.config.settle_seconds + 3 * LEASE, step=5)

    states = {name: harness.state(name) for name in names}
    assert states == {name: State.FAILED if name == "culprit" else State.LAUNCHED for name in names}


def _kill_worker(call: RunTaskCall) -> None:
    raise WorkerKilled


def test_suspected_poison_messages_are_read_one_at_a_time(harness: WorkerHarness) -> None:
    guard = PoisonGuard(harness.memory_ledger, MAX_DELIVERIES)
    inside, most, lock = 0, 0, threading.Lock()

    def read(nonce: str) -> None:
        nonlocal inside, most
        with guard.guard_delivery(nonce) as reason:
            assert not reason
            with lock:
                inside += 1
                most = max(most, inside)
            with lock:
                inside -= 1

    threads = [threading.Thread(target=read, args=(f"n{index}",)) for index in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert most == 1


def test_what_is_raised_while_one_is_read_is_no_death() -> None:
    harness = WorkerHarness(max_deliveries=MAX_DELIVERIES)
    guard = PoisonGuard(harness.memory_ledger, MAX_DELIVERIES)
    for _ in range(3 * MAX_DELIVERIES):
        with pytest.raises(ZeroDivisionError), guard.guard_delivery("n"):
            raise ZeroDivisionError

    with guard.guard_delivery("n") as reason:
        assert reason == ""


def _submission(harness: WorkerHarness, body: bytes):  # type: ignore[no-untyped-def]
    """Made without reading the envelope: a worker that reads it dies."""
    from ecs_queue.protocol.record import Submission

    assert isinstance(harness.memory_ledger, MemoryLedger)
    return Submission(
        id="a",
        nonce=envelope.compute_nonce(harness.config.namespace, body),
        digest="d",
        queue="default",
        owner="me",
        relaunch="never_started",
        request=body,
        accept_until=harness.clock() + 86400.0,
    )
