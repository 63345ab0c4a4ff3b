"""From the claim to the task, or to the proof that there is none: launched, unsure, no_effect, refused, none."""

from __future__ import annotations

import pytest

from ecs_queue.core.protocol import RefusalKind, Word
from ecs_queue.core.states import State
from tests.conformance.ledger.lab import HOUR, MINUTE, START, H, Lab, offer, refusal


def test_launched_keeps_the_task_and_lets_go_of_the_claim(lab: Lab) -> None:
    lab.launching()
    lab.advance(2)
    assert lab.ledger.launched("job", "nonce-01", 1, "arn:1", 1.0).word is Word.OK
    record = lab.record()
    assert (record.state, record.arn, record.launched_at) == (State.LAUNCHED, "arn:1", START + 2)
    assert (record.claim, record.lease_until, record.calls, record.reason) == ("", 0.0, 0, "")
    assert record.target == "here"
    assert lab.ledger.id_of("arn:1") == "job"


def test_launched_again_with_the_same_task_is_the_same(lab: Lab) -> None:
    before = lab.launched()
    assert lab.ledger.launched("job", "nonce-01", 1, "arn:1", 1.0).word is Word.SAME
    assert lab.record() == before


def test_launched_is_the_same_for_the_task_of_a_finished_record(lab: Lab) -> None:
    before = lab.ended()
    assert lab.ledger.launched("job", "nonce-01", 1, before.arn, 1.0).word is Word.SAME
    assert lab.record() == before


@pytest.mark.parametrize(
    ("record_id", "nonce", "launch", "arn"),
    [
        ("job", "nonce-01", 1, "arn:other"),
        ("job", "nonce-02", 1, "arn:1"),
        ("job", "nonce-01", 2, "arn:1"),
        ("nobody", "nonce-01", 1, "arn:1"),
    ],
    ids=["a second task", "another submission", "another launch", "no record"],
)
def test_launched_is_to_be_stopped_when_no_record_wants_it(
    lab: Lab, record_id: str, nonce: str, launch: int, arn: str
) -> None:
    before = lab.launched()
    assert lab.ledger.launched(record_id, nonce, launch, arn, 1.0).word is Word.STOP_IT
    assert lab.record() == before
    assert lab.ledger.get(["nobody"]) == [None]


def test_launched_is_to_be_stopped_after_the_record_went_to_the_next_number(lab: Lab) -> None:
    lab.launching()
    lab.ledger.refused("job", "claim-1", refusal(RefusalKind.CAPACITY))
    assert lab.ledger.launched("job", "nonce-01", 1, "arn:1", 1.0).word is Word.STOP_IT
    assert lab.state() is State.QUEUED


def test_launched_is_to_be_stopped_after_the_end(lab: Lab) -> None:
    lab.launching()
    lab.ledger.refused("job", "claim-1", refusal(RefusalKind.PERMANENT))
    assert lab.ledger.launched("job", "nonce-01", 1, "arn:1", 1.0).word is Word.STOP_IT
    assert lab.state() is State.FAILED


def test_a_late_word_of_a_task_is_believed_while_queued_with_its_number(lab: Lab) -> None:
    lab.launching()
    lab.ledger.no_effect("job", "claim-1", 5.0, "throttled")
    assert lab.ledger.launched("job", "nonce-01", 1, "arn:1", 1.0).word is Word.OK
    assert lab.state() is State.LAUNCHED
    lab.advance(10)
    assert lab.ledger.due_retries("default", 10) == []


def test_a_worker_that_lost_its_claim_is_still_believed_about_a_task(lab: Lab) -> None:
    lab.launching()
    lab.advance(30)
    lab.taken_over()
    assert lab.ledger.launched("job", "nonce-01", 1, "arn:1", 1.0).word is Word.OK
    assert not lab.record().dirty


def test_a_stopped_record_is_looked_at_at_once_when_it_is_launched(lab: Lab) -> None:
    lab.launching()
    lab.stop()
    lab.ledger.launched("job", "nonce-01", 1, "arn:1", 10.0)
    assert [record.id for record in lab.ledger.due(10)] == ["job"]
    assert lab.record().stop_by == "ann"


def test_unsure_stays_launching_and_dirty_and_may_be_taken_over_at_once(lab: Lab) -> None:
    lab.launching()
    assert lab.ledger.unsure("job", "claim-1", 4.0, "timed out").word is Word.OK
    record = lab.record()
    assert (record.state, record.dirty, record.reason) == (State.LAUNCHING, True, "timed out")
    assert record.lease_until == START
    lab.advance(3.875)
    assert lab.ledger.due(10) == []
    lab.advance(0.125)
    assert [record.id for record in lab.ledger.due(10)] == ["job"]
    assert lab.taken_over().word is Word.CALL


def test_an_answered_5xx_is_unsure_without_being_dirty(lab: Lab) -> None:
    lab.launching()
    assert lab.ledger.unsure("job", "claim-1", 4.0, "ServerException", "1").word is Word.OK
    assert not lab.record().dirty
    assert lab.taken_over().word is Word.CALL
    assert lab.record().dirty


@pytest.mark.parametrize("answered", ["", "1"])
def test_who_was_unsure_cannot_say_later_that_nothing_was_started(lab: Lab, answered: str) -> None:
    lab.launching()
    lab.ledger.unsure("job", "claim-1", 0.0, "in doubt", answered)
    assert lab.ledger.no_effect("job", "claim-1", 1.0, "throttled").word is Word.LOST
    assert lab.ledger.refused("job", "claim-1", refusal(RefusalKind.CAPACITY)).word is Word.LOST
    assert lab.state() is State.LAUNCHING


def test_no_effect_queues_the_same_number_again_and_forgets_the_call(lab: Lab) -> None:
    lab.launching()
    lab.advance(1)
    assert lab.ledger.no_effect("job", "claim-1", 4.0, "throttled").word is Word.OK
    record = lab.record()
    assert (record.state, record.launch, record.attempt) == (State.QUEUED, 1, 1)
    assert (record.not_before, record.reason) == (START + 5, "throttled")
    assert (record.first_called_at, record.last_claim_at, record.claim, record.lease_until) == (0.0, 0.0, "", 0.0)


def test_no_effect_of_a_dirty_holder_leaves_the_record_in_doubt(lab: Lab) -> None:
    lab.launching()
    lab.advance(30)
    lab.taken_over()
    assert lab.ledger.no_effect("job", "claim-2", 4.0, "throttled").word is Word.OK
    record = lab.record()
    assert (record.state, record.dirty, record.lease_until) == (State.LAUNCHING, True, START + 30)
    assert record.first_called_at == START


def test_no_effect_on_a_stopped_record_ends_it(lab: Lab) -> None:
    lab.launching()
    lab.stop()
    answer = lab.ledger.no_effect("job", "claim-1", 4.0, "throttled")
    assert answer.word is Word.ENDED
    assert answer.record is not None
    assert (answer.record.state, answer.record.attempts) == (State.REVOKED, 0)
    assert answer.record.reason == "stopped by ann"


def test_lack_of_capacity_takes_the_next_number_and_no_attempt(lab: Lab) -> None:
    lab.launching()
    answer = lab.ledger.refused("job", "claim-1", refusal(RefusalKind.CAPACITY, wait=8.0))
    assert answer.word is Word.RETRY
    record = lab.record()
    assert (record.state, record.launch, record.attempt) == (State.QUEUED, 2, 1)
    assert (record.not_before, record.reason, record.calls) == (START + 8, "no: capacity", 1)
    assert (record.args, record.target, record.first_called_at) == ("", "", 0.0)


def test_a_start_failure_takes_the_next_number_and_an_attempt(lab: Lab) -> None:
    lab.launching()
    assert lab.ledger.refused("job", "claim-1", refusal(RefusalKind.START_FAILURE)).word is Word.RETRY
    record = lab.record()
    assert (record.launch, record.attempt, record.calls) == (2, 2, 0)


def test_the_last_start_failure_removes_the_request(lab: Lab) -> None:
    lab.launching()
    answer = lab.ledger.refused("job", "claim-1", refusal(RefusalKind.START_FAILURE, max_attempts=1))
    assert answer.word is Word.ENDED
    record = lab.record()
    assert (record.state, record.attempts, record.reason) == (State.REMOVED, 1, "no: start_failure")


def test_a_permanent_refusal_fails_the_request_whatever_attempts_are_left(lab: Lab) -> None:
    lab.launching()
    assert lab.ledger.refused("job", "claim-1", refusal(RefusalKind.PERMANENT)).word is Word.ENDED
    record = lab.record()
    assert (record.state, record.reason, record.request, record.args) == (State.FAILED, "no: permanent", b"", "")


@pytest.mark.parametrize(
    ("kind", "attempts"),
    [(RefusalKind.CAPACITY, 0), (RefusalKind.START_FAILURE, 1), (RefusalKind.PERMANENT, 1)],
)
def test_a_stopped_record_is_revoked_by_any_refusal(lab: Lab, kind: RefusalKind, attempts: int) -> None:
    lab.launching()
    lab.stop()
    assert lab.ledger.refused("job", "claim-1", refusal(kind)).word is Word.ENDED
    record = lab.record()
    assert (record.state, record.attempts, record.reason) == (State.REVOKED, attempts, "stopped by ann")


@pytest.mark.parametrize("kind", list(RefusalKind))
def test_a_refusal_to_a_dirty_holder_proves_nothing_and_burns_the_number(lab: Lab, kind: RefusalKind) -> None:
    lab.launching()
    lab.advance(30)
    lab.taken_over()
    assert lab.ledger.refused("job", "claim-2", refusal(kind, wait=4.0)).word is Word.OK
    record = lab.record()
    assert (record.state, record.launch, record.attempt, record.burnt) == (State.LAUNCHING, 1, 1, True)
    assert record.lease_until == START + 30


def test_a_claim_that_was_taken_over_can_deny_nothing(lab: Lab) -> None:
    lab.launching()
    lab.advance(30)
    lab.taken_over()
    before = lab.record()
    assert lab.ledger.unsure("job", "claim-1", 0.0, "late").word is Word.LOST
    assert lab.ledger.no_effect("job", "claim-1", 0.0, "late").word is Word.LOST
    assert lab.ledger.refused("job", "claim-1", refusal(RefusalKind.PERMANENT)).word is Word.LOST
    assert lab.ledger.none("job", "claim-1", 0.0).word is Word.LOST
    assert lab.record() == before


@pytest.mark.parametrize("step", ["queued", "launched", "ended"])
def test_an_empty_claim_holds_nothing_in_any_state(lab: Lab, step: str) -> None:
    before = getattr(lab, step)()
    assert lab.ledger.unsure("job", "", 0.0, "x").word is Word.LOST
    assert lab.ledger.no_effect("job", "", 0.0, "x").word is Word.LOST
    assert lab.ledger.refused("job", "", refusal(RefusalKind.PERMANENT)).word is Word.LOST
    assert lab.ledger.none("job", "", 0.0).word is Word.LOST
    assert lab.record() == before


def test_a_claim_on_nothing_is_lost(lab: Lab) -> None:
    assert lab.ledger.unsure("job", "claim-1", 0.0, "x").word is Word.LOST
    assert lab.ledger.no_effect("job", "claim-1", 0.0, "x").word is Word.LOST
    assert lab.ledger.refused("job", "claim-1", refusal(RefusalKind.PERMANENT)).word is Word.LOST
    assert lab.ledger.none("job", "claim-1", 0.0).word is Word.LOST


def test_the_holder_of_a_call_cannot_prove_that_nothing_was_started(lab: Lab) -> None:
    lab.launching()
    lab.advance(H)  # its lease is over, but nobody has taken over
    assert lab.ledger.none("job", "claim-1", 1.0).word is Word.EARLY


def test_nothing_found_before_h_is_early_and_due_again_at_h_at_the_latest(lab: Lab) -> None:
    lab.launching()
    lab.stop()
    lab.advance(H - 10)
    assert lab.taken_over().word is Word.LOOK
    assert lab.ledger.none("job", "claim-2", 30.0).word is Word.EARLY
    lab.advance(9.875)
    assert lab.ledger.due(10) == []
    lab.advance(0.125)
    assert [record.id for record in lab.ledger.due(10)] == ["job"]
    assert lab.state() is State.LAUNCHING


def test_early_waits_no_longer_than_asked(lab: Lab) -> None:
    lab.launching()
    lab.stop()
    lab.advance(30)
    lab.taken_over()
    lab.ledger.none("job", "claim-2", 7.0)
    lab.advance(7)
    assert [record.id for record in lab.ledger.due(10)] == ["job"]


def test_a_look_that_began_before_h_proves_nothing_even_when_it_is_told_after_h(lab: Lab) -> None:
    lab.launching()
    lab.stop()
    lab.advance(H - 0.125)
    lab.taken_over()
    lab.advance(1)
    assert lab.ledger.none("job", "claim-2", 30.0).word is Word.EARLY
    assert [record.id for record in lab.ledger.due(10)] == ["job"]
    assert lab.taken_over("claim-3").word is Word.LOOK
    assert lab.ledger.none("job", "claim-3", 30.0).word is Word.ENDED


def test_nothing_found_after_h_revokes_a_stopped_record(lab: Lab) -> None:
    lab.launching()
    lab.looking()
    assert lab.ledger.none("job", "claim-2", 2.0).word is Word.ENDED
    record = lab.record()
    assert (record.state, record.attempts, record.reason) == (State.REVOKED, 0, "stopped by ann")


def test_nothing_found_after_h_expires_an_expired_record(lab: Lab) -> None:
    lab.launching(expires_at=START + 60)
    lab.advance(H)
    lab.taken_over()
    assert lab.ledger.none("job", "claim-2", 2.0).word is Word.ENDED
    assert (lab.state(), lab.record().attempts) == (State.EXPIRED, 0)


def test_nothing_found_after_h_takes_the_next_number(lab: Lab) -> None:
    lab.launching()
    lab.advance(30)
    lab.taken_over("claim-2")
    lab.ledger.refused("job", "claim-2", refusal(RefusalKind.CAPACITY))
    lab.advance(H)
    assert lab.taken_over("claim-3").word is Word.LOOK
    assert lab.ledger.none("job", "claim-3", 2.0).word is Word.RETRY
    record = lab.record()
    assert (record.state, record.launch, record.attempt) == (State.QUEUED, 2, 1)
    assert record.not_before == START + 30 + H + 2
    assert (record.dirty, record.burnt, record.args, record.first_called_at) == (False, False, "", 0.0)


@pytest.mark.parametrize(("age", "word"), [(60 * MINUTE, Word.RETRY), (60 * MINUTE + 0.125, Word.ENDED)])
def test_beyond_an_hour_nothing_found_is_unknown(lab: Lab, age: float, word: Word) -> None:
    lab.launching()
    lab.advance(age)
    assert lab.taken_over().word is Word.LOOK
    assert lab.ledger.none("job", "claim-2", 2.0).word is word
    if word is Word.ENDED:
        assert (lab.state(), lab.record().attempts) == (State.UNKNOWN, 1)


@pytest.mark.parametrize("why", ["stopped", "expired", "burnt"])
def test_beyond_an_hour_it_is_unknown_for_stopped_expired_and_burnt_records_too(lab: Lab, why: str) -> None:
    lab.launching(expires_at=START + 60 if why == "expired" else 0.0)
    if why == "stopped":
        lab.stop()
    lab.advance(30)
    if why == "burnt":
        lab.taken_over("claim-2")
        lab.ledger.refused("job", "claim-2", refusal(RefusalKind.CAPACITY))
    lab.advance(HOUR)
    assert lab.taken_over("claim-3").word is Word.LOOK
    assert lab.ledger.none("job", "claim-3", 2.0).word is Word.ENDED
    assert lab.state() is State.UNKNOWN


def test_what_a_look_finds_is_launched_and_no_longer_in_doubt(lab: Lab) -> None:
    lab.launching()
    lab.looking()
    assert lab.ledger.launched("job", "nonce-01", 1, "arn:1", 5.0).word is Word.OK
    record = lab.record()
    assert (record.state, record.dirty, record.stop_by) == (State.LAUNCHED, False, "ann")


def test_a_claim_token_of_an_earlier_launch_holds_nothing_later(lab: Lab) -> None:
    lab.launching()
    lab.ledger.refused("job", "claim-1", refusal(RefusalKind.CAPACITY))
    lab.advance(2)
    lab.ledger.claim("job", offer("claim-2"))
    assert lab.ledger.no_effect("job", "claim-1", 0.0, "late").word is Word.LOST
    assert lab.record().claim == "claim-2"
