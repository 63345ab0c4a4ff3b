"""Requests that break their worker, with workers that die in the very step and never say a word."""

from __future__ import annotations

import threading

import pytest

from ecs_queue.core import envelope
from ecs_queue.core.keyring import Keyring
from ecs_queue.core.states import State
from ecs_queue.launcher.suspects import Suspects
from ecs_queue.ledger import MemoryLedger
from tests.launcher.fake_ecs import Lost, RunCall
from tests.launcher.lab import Lab, Message

MOST = 3
LEASE = 30.0


class _Killed(BaseException):
    """The worker is gone: nothing after it runs, not even what tidies up."""


@pytest.fixture
def lab() -> Lab:
    return Lab(max_deliveries=MOST)


@pytest.fixture
def deaths(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Whoever reads the request `a` dies, and with it whatever it would have let go of."""
    died: list[str] = []
    original, let_go = envelope.decode_request, lab.memory.let_go

    def read(body: bytes, keyring: Keyring) -> envelope.TaskRequest:
        request = original(body, keyring)
        if request.id == "a":
            died.append(request.id)
            monkeypatch.setattr(lab.memory, "let_go", lambda nonce: None)
            raise _Killed
        monkeypatch.setattr(lab.memory, "let_go", let_go)
        return request

    monkeypatch.setattr(envelope, "decode_request", read)
    return died


def test_a_message_that_breaks_its_workers_is_buried_unread(lab: Lab, deaths: list[str]) -> None:
    message = Message(lab.body(), redelivered=True)
    for _ in range(MOST):
        with pytest.raises(_Killed):
            lab.worker.launcher.take(message)

    assert lab.worker.launcher.take(message)

    assert len(deaths) == MOST
    (letter,) = lab.memory.dead(10)
    assert letter.body == message.body
    assert "workers died 3 times in a row with it in hand" in letter.reason


def test_its_record_fails_when_it_is_swept_and_its_owner_hears_of_it(lab: Lab, deaths: list[str]) -> None:
    body = lab.body()
    lab.memory.put([_submission(lab, body)])
    for _ in range(MOST):
        lab.clock.advance(LEASE + 1)
        with pytest.raises(_Killed):
            lab.worker.sweep()
        lab.worker = lab.new_worker()

    lab.later(LEASE + 1)

    assert (lab.state(), len(deaths)) == (State.FAILED, MOST)
    assert lab.published == [lab.record()]
    assert lab.memory.dead(10)[0].body == body
    assert not lab.ecs.calls


def test_messages_that_come_again_for_good_reasons_are_never_given_up(lab: Lab) -> None:
    lab.ecs.answers.extend([Lost.BEFORE] * (3 * MOST))
    for _ in range(3 * MOST):
        assert lab.worker.launcher.take(Message(lab.body(), redelivered=True))
        lab.clock.advance(1.0)

    assert not lab.memory.dead(10)


def test_a_call_that_breaks_its_workers_ends_with_a_dead_letter_when_nothing_was_started(lab: Lab) -> None:
    calls: list[RunCall] = []

    def die(call: RunCall) -> None:
        calls.append(call)
        raise _Killed

    lab.ecs.on_run = die
    body = lab.body()
    with pytest.raises(_Killed):
        lab.worker.take(body)
    for _ in range(MOST - 1):
        lab.clock.advance(LEASE + 1)
        lab.worker = lab.new_worker()
        with pytest.raises(_Killed):
            lab.worker.track()
    lab.worker = lab.new_worker()

    lab.pass_time(lab.config.settle_seconds + 3 * LEASE, step=5)

    assert (lab.state(), len(calls)) == (State.FAILED, MOST)
    assert "workers died 3 times in a row" in lab.record().reason
    assert lab.published == [lab.record()]
    assert lab.memory.dead(10)[0].body == body


def test_the_innocent_in_the_same_worker_are_launched(lab: Lab) -> None:
    """Six requests were in hand when a worker died of one of them; every takeover meets all of them."""

    def die(call: RunCall) -> None:
        if call.token.startswith("culprit"):
            raise _Killed

    lab.ecs.on_run = die
    names = ["b", "culprit", "c", "d", "e", "f"]
    for name in names:
        body = lab.body(name)
        lab.ecs.on_run = _killed
        with pytest.raises(_Killed):
            lab.worker.take(body)
    lab.ecs.on_run = die
    for _ in range(2 * MOST):
        lab.clock.advance(LEASE + 1)
        lab.worker = lab.new_worker()
        try:
            lab.worker.track()
        except _Killed:
            continue
    lab.pass_time(lab.config.settle_seconds + 3 * LEASE, step=5)

    states = {name: lab.state(name) for name in names}
    assert states == {name: State.FAILED if name == "culprit" else State.LAUNCHED for name in names}


def _killed(call: RunCall) -> None:
    raise _Killed


def test_suspects_are_read_one_at_a_time(lab: Lab) -> None:
    suspects = Suspects(lab.memory, MOST)
    inside, most, lock = 0, 0, threading.Lock()

    def read(nonce: str) -> None:
        nonlocal inside, most
        with suspects.in_hand(nonce) as harm:
            assert not harm
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
    lab = Lab(max_deliveries=MOST)
    suspects = Suspects(lab.memory, MOST)
    for _ in range(3 * MOST):
        with pytest.raises(ZeroDivisionError), suspects.in_hand("n"):
            raise ZeroDivisionError

    with suspects.in_hand("n") as harm:
        assert harm == ""


def _submission(lab: Lab, body: bytes):  # type: ignore[no-untyped-def]
    """Made without reading the envelope: whoever reads it dies."""
    from ecs_queue.core.record import Submission

    assert isinstance(lab.memory, MemoryLedger)
    return Submission(
        id="a",
        nonce=envelope.nonce_of(lab.config.namespace, body),
        digest="d",
        queue="default",
        owner="me",
        relaunch="never_started",
        body=body,
        accept_until=lab.clock() + 86400.0,
    )
