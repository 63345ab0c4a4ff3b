"""From the message to the claim: put, admit, claim, reclaim."""

from __future__ import annotations

import msgspec
import pytest

from ecs_queue.core.protocol import RefusalKind, Word
from ecs_queue.core.record import Submission
from ecs_queue.core.states import State
from tests.conformance.ledger.conftest import MakeLab
from tests.conformance.ledger.lab import DAY, HOUR, MINUTE, RULES, START, H, Lab, offer, refusal, submission


def test_put_makes_a_queued_record_with_every_field_of_the_submission(lab: Lab) -> None:
    new = submission(expires_at=START + 600, time_limit=90.5, relaunch="interrupted")
    assert lab.ledger.put([new])[0].word is Word.CREATED
    record = lab.record()
    kept = {name: getattr(record, name) for name in Submission.__struct_fields__ if name != "body"}
    assert kept == {name: getattr(new, name) for name in kept}
    assert record.request == new.body
    assert (record.state, record.launch, record.attempt, record.created_at) == (State.QUEUED, 1, 1, START)


def test_the_same_request_put_again_is_the_same_record_even_with_another_nonce(lab: Lab) -> None:
    lab.queued()
    lab.advance(60)
    again = lab.ledger.put([submission(nonce="nonce-02", accept_until=START + 2 * DAY)])[0]
    assert again.word is Word.SAME
    assert again.record is not None
    assert (again.record.nonce, again.record.state) == ("nonce-01", State.QUEUED)


def test_another_request_under_the_same_id_is_a_conflict_and_changes_nothing(lab: Lab) -> None:
    before = lab.queued()
    assert lab.ledger.put([submission(digest="e" * 32, body=b"other")])[0].word is Word.CONFLICT
    assert lab.record() == before


def test_a_finished_record_answers_same_and_conflict_too_and_is_never_run_again(lab: Lab) -> None:
    before = lab.ended()
    assert lab.ledger.put([submission()])[0].word is Word.SAME
    assert lab.ledger.put([submission(digest="e" * 32)])[0].word is Word.CONFLICT
    assert lab.record() == before


@pytest.mark.parametrize(("early", "word"), [(0.125, Word.CREATED), (0.0, Word.TOO_LATE)])
def test_no_record_is_made_at_or_after_accept_until(lab: Lab, early: float, word: Word) -> None:
    lab.advance(DAY - early)
    answer = lab.ledger.put([submission()])[0]
    assert answer.word is word
    assert (lab.ledger.get(["job"]) == [None]) == (word is Word.TOO_LATE)


def test_puts_of_one_batch_are_answered_in_order(lab: Lab) -> None:
    batch = [submission("a"), submission("b"), submission("a"), submission("b", digest="e" * 32)]
    words = [answer.word for answer in lab.ledger.put(batch)]
    assert words == [Word.CREATED, Word.CREATED, Word.SAME, Word.CONFLICT]
    assert lab.ledger.put([]) == []


def test_claim_of_a_queued_record_calls_and_freezes_arguments_and_target(lab: Lab) -> None:
    lab.queued()
    answer = lab.ledger.claim("job", offer())
    assert answer.word is Word.CALL
    assert answer.record is not None
    assert answer.record == msgspec.structs.replace(lab.record(), request=b"")
    record = lab.record()
    assert (record.state, record.claim, record.worker) == (State.LAUNCHING, "claim-1", "worker-1")
    assert (record.args, record.target, record.calls) == ('{"count": 1}', "here", 1)
    assert (record.first_called_at, record.last_claim_at, record.lease_until) == (START, START, START + 30)
    assert not record.dirty


@pytest.mark.parametrize(
    ("nonce", "launch", "word"),
    [
        ("nonce-01", 1, Word.CALL),
        ("nonce-02", 1, Word.MOVED_ON),
        ("nonce-01", 2, Word.MOVED_ON),
        ("", 0, Word.CALL),
    ],
)
def test_arguments_that_are_good_for_one_launch_alone_are_frozen_for_no_other(
    lab: Lab, nonce: str, launch: int, word: Word
) -> None:
    lab.queued()
    bound = msgspec.structs.replace(offer(), nonce=nonce, launch=launch)
    answer = lab.ledger.claim("job", bound)
    assert answer.word is word
    assert answer.record is not None
    assert answer.record.args == ('{"count": 1}' if word is Word.CALL else "")


def test_an_admitted_message_claims_only_the_launch_that_its_arguments_are_good_for(lab: Lab) -> None:
    lab.queued()
    bound = msgspec.structs.replace(offer(), nonce="nonce-02", launch=1)
    stored, claimed = lab.ledger.admit(submission(nonce="nonce-02"), bound)
    assert (stored.word, claimed.word, lab.state()) == (Word.SAME, Word.MOVED_ON, State.QUEUED)

    bound = msgspec.structs.replace(offer(), nonce="nonce-01", launch=1)
    stored, claimed = lab.ledger.admit(submission(), bound)
    assert (stored.word, claimed.word, lab.state()) == (Word.SAME, Word.CALL, State.LAUNCHING)


def test_a_claimed_record_cannot_be_claimed_again_even_after_its_lease(lab: Lab) -> None:
    lab.launching()
    lab.advance(HOUR)
    assert lab.ledger.claim("job", offer("claim-2")).word is Word.MOVED_ON
    assert lab.record().claim == "claim-1"


def test_claim_of_what_is_not_there_is_missing(lab: Lab) -> None:
    assert lab.ledger.claim("job", offer()).word is Word.MISSING
    assert lab.ledger.reclaim("job", offer()).word is Word.MISSING


@pytest.mark.parametrize("end", ["launched", "ended"])
def test_claim_and_reclaim_of_what_has_a_task_or_an_end_have_moved_on(lab: Lab, end: str) -> None:
    before = lab.launched() if end == "launched" else lab.ended()
    lab.advance(HOUR)
    assert lab.ledger.claim("job", offer()).word is Word.MOVED_ON
    assert lab.ledger.claim("job", None).word is Word.MOVED_ON
    assert lab.ledger.reclaim("job", offer()).word is Word.MOVED_ON
    assert lab.record() == before


def test_a_retry_cannot_be_claimed_before_its_time(lab: Lab) -> None:
    lab.launching()
    lab.ledger.no_effect("job", "claim-1", 8.0, "throttled")
    lab.advance(7.875)
    assert lab.ledger.claim("job", offer("claim-2")).word is Word.MOVED_ON
    lab.advance(0.125)
    assert lab.ledger.claim("job", offer("claim-2")).word is Word.CALL


def test_a_retry_of_the_same_launch_keeps_the_frozen_arguments_and_target(lab: Lab) -> None:
    lab.launching()
    lab.ledger.no_effect("job", "claim-1", 0.0, "throttled")
    lab.ledger.claim("job", offer("claim-2", args="newer", target="elsewhere"))
    record = lab.record()
    assert (record.launch, record.args, record.target, record.calls) == (1, '{"count": 1}', "here", 2)


def test_a_retry_under_a_new_number_takes_new_arguments_and_target(lab: Lab) -> None:
    lab.launching()
    lab.ledger.refused("job", "claim-1", refusal(RefusalKind.CAPACITY))
    lab.advance(2)
    lab.ledger.claim("job", offer("claim-2", args="newer", target="elsewhere"))
    record = lab.record()
    assert (record.launch, record.args, record.target) == (2, "newer", "elsewhere")


def test_a_claim_at_the_deadline_ends_the_record_as_expired(lab: Lab) -> None:
    lab.queued(expires_at=START + 60)
    lab.advance(59.875)
    assert lab.ledger.claim("job", None).word is Word.MOVED_ON
    lab.advance(0.125)
    answer = lab.ledger.claim("job", offer())
    assert answer.word is Word.ENDED
    assert answer.record is not None
    assert (answer.record.state, answer.record.attempts) == (State.EXPIRED, 0)
    assert "deadline" in answer.record.reason
    assert lab.state() is State.EXPIRED


def test_expiry_comes_earlier_by_the_startup_allowance(make_lab: MakeLab) -> None:
    lab = make_lab(msgspec.structs.replace(RULES, startup_allowance=20.0))
    lab.queued(expires_at=START + 60)
    lab.advance(39.875)
    assert lab.ledger.due_expired(10) == []
    lab.advance(0.125)
    assert lab.ledger.due_expired(10) == ["job"]
    assert lab.ledger.claim("job", None).word is Word.ENDED


def test_an_expired_record_says_what_it_waited_for(lab: Lab) -> None:
    lab.launching(expires_at=START + 60)
    lab.ledger.refused("job", "claim-1", refusal(RefusalKind.CAPACITY))
    lab.advance(60)
    lab.ledger.claim("job", None)
    assert lab.record().reason.endswith("it waited because: no: capacity")


def test_a_full_namespace_lets_a_claim_wait_whatever_its_queue(make_lab: MakeLab) -> None:
    lab = make_lab(msgspec.structs.replace(RULES, max_in_flight=2))
    lab.launching("one")
    lab.launched("two", queue="other")
    lab.queued("three", queue="third")
    assert lab.ledger.claim("three", offer("claim-3")).word is Word.FULL
    assert lab.record("three").not_before == START + 1
    assert lab.ledger.claim("three", offer("claim-3")).word is Word.MOVED_ON
    lab.advance(1)
    lab.outcome(lab.record("two"), end=State.SUCCESS)
    assert lab.ledger.claim("three", offer("claim-3")).word is Word.CALL


def test_an_expired_record_ends_even_in_a_full_namespace(make_lab: MakeLab) -> None:
    lab = make_lab(msgspec.structs.replace(RULES, max_in_flight=1))
    lab.launching("one")
    lab.queued("two", expires_at=START + 60)
    lab.advance(60)
    assert lab.ledger.claim("two", offer("claim-2")).word is Word.ENDED


def test_admit_makes_the_record_and_claims_it(lab: Lab) -> None:
    stored, claimed = lab.ledger.admit(submission(), offer())
    assert (stored.word, claimed.word) == (Word.CREATED, Word.CALL)
    assert claimed.record == msgspec.structs.replace(lab.record(), request=b"")


def test_admit_of_a_known_request_claims_its_record(lab: Lab) -> None:
    lab.queued()
    stored, claimed = lab.ledger.admit(submission(nonce="nonce-02"), offer())
    assert (stored.word, stored.record, claimed.word) == (Word.SAME, None, Word.CALL)
    assert claimed.record is not None
    assert claimed.record.nonce == "nonce-01"


def test_admit_of_a_message_that_came_twice_claims_once(lab: Lab) -> None:
    lab.ledger.admit(submission(), offer())
    stored, claimed = lab.ledger.admit(submission(), offer("claim-2"))
    assert (stored.word, claimed.word) == (Word.SAME, Word.MOVED_ON)


def test_admit_of_another_request_never_claims_the_record_it_conflicts_with(lab: Lab) -> None:
    before = lab.queued()
    stored, claimed = lab.ledger.admit(submission(digest="e" * 32), offer(args="of another request"))
    assert (stored.word, claimed.word) == (Word.CONFLICT, Word.MOVED_ON)
    assert lab.record() == before


def test_admit_after_accept_until_leaves_nothing(lab: Lab) -> None:
    lab.advance(DAY)
    stored, claimed = lab.ledger.admit(submission(), offer())
    assert (stored.word, claimed.word) == (Word.TOO_LATE, Word.MISSING)
    assert lab.ledger.get(["job"]) == [None]


def test_admit_after_a_stop_ends_at_once(lab: Lab) -> None:
    lab.stop()
    stored, claimed = lab.ledger.admit(submission(), offer())
    assert (stored.word, claimed.word) == (Word.ENDED, Word.MOVED_ON)
    assert stored.record is not None
    assert stored.record.state is State.REVOKED


def test_a_held_lease_cannot_be_taken_over(lab: Lab) -> None:
    before = lab.launching()
    lab.advance(29.875)
    assert lab.taken_over().word is Word.MOVED_ON
    assert lab.record() == before


def test_a_takeover_calls_again_with_the_same_number_and_arguments_and_is_dirty(lab: Lab) -> None:
    lab.launching()
    lab.advance(30)
    answer = lab.taken_over()
    assert answer.word is Word.CALL
    record = lab.record()
    assert answer.record == record  # with the request: whoever takes over has no message
    assert record.request == submission().body
    assert (record.launch, record.args, record.target) == (1, '{"count": 1}', "here")
    assert (record.claim, record.worker, record.dirty, record.calls) == ("claim-2", "worker-2", True, 2)
    assert (record.first_called_at, record.last_claim_at) == (START, START + 30)
    assert record.lease_until == START + 60


def test_a_takeover_is_itself_taken_over_by_one_only(lab: Lab) -> None:
    lab.launching()
    lab.advance(30)
    assert lab.taken_over("claim-2").word is Word.CALL
    assert lab.taken_over("claim-3").word is Word.MOVED_ON
    assert lab.record().claim == "claim-2"


def test_a_stopped_record_is_only_looked_for(lab: Lab) -> None:
    lab.launching()
    lab.stop()
    lab.advance(30)
    assert lab.taken_over().word is Word.LOOK


def test_an_expired_record_is_only_looked_for(lab: Lab) -> None:
    lab.launching(expires_at=START + 30)
    lab.advance(30)
    assert lab.taken_over().word is Word.LOOK


def test_a_burnt_number_is_only_looked_for(lab: Lab) -> None:
    lab.launching()
    lab.advance(30)
    lab.taken_over("claim-2")
    assert lab.ledger.refused("job", "claim-2", refusal(RefusalKind.CAPACITY)).word is Word.OK
    assert lab.taken_over("claim-3").word is Word.LOOK


@pytest.mark.parametrize(("age", "word"), [(40 * MINUTE - 0.125, Word.CALL), (40 * MINUTE, Word.LOOK)])
def test_from_forty_minutes_on_a_record_is_only_looked_for(lab: Lab, age: float, word: Word) -> None:
    lab.launching()
    lab.advance(age)
    assert lab.taken_over().word is word


def test_takeovers_do_not_reset_the_forty_minutes(lab: Lab) -> None:
    lab.launching()
    for number in range(4):
        lab.advance(10 * MINUTE)
        word = lab.taken_over(f"claim-{number + 2}").word
    assert word is Word.LOOK
    assert lab.record().first_called_at == START


def test_a_look_does_not_move_the_last_claim_and_so_not_the_proof(lab: Lab) -> None:
    lab.launching()
    lab.stop()
    lab.advance(H)
    assert lab.taken_over().word is Word.LOOK
    record = lab.record()
    assert (record.last_claim_at, record.dirty, record.calls) == (START, True, 1)
    assert record.lease_until == START + H + 30


def test_a_claim_beyond_the_limit_of_its_queue_waits_and_other_queues_do_not(lab: Lab) -> None:
    lab.launching("one", queue="q")
    lab.queued("two", queue="q")
    lab.queued("other", queue="p")
    assert lab.ledger.claim("two", offer("claim-2", limit=1)).word is Word.FULL
    assert lab.ledger.claim("other", offer("claim-3", limit=1)).word is Word.CALL
    record = lab.record("two")
    assert (record.state, record.not_before, record.args) == (State.QUEUED, START + 1, "")
    assert [found.id for found in lab.ledger.due_retries("q", 10)] == []
    lab.advance(1)
    assert [found.id for found in lab.ledger.due_retries("q", 10)] == ["two"]
    assert lab.ledger.claim("two", offer("claim-2", limit=2)).word is Word.CALL


def test_the_limit_counts_launching_and_launched_of_the_queue_alone(lab: Lab) -> None:
    first = lab.launched("first", queue="q")
    lab.launching("second", claim="claim-s", queue="q")
    lab.queued("third", queue="q")
    assert lab.ledger.claim("third", offer("claim-3", limit=2)).word is Word.FULL
    assert lab.outcome(first, end=State.SUCCESS).word is Word.ENDED
    lab.advance(1)
    assert lab.ledger.claim("third", offer("claim-3", limit=2)).word is Word.CALL


def test_a_request_of_a_paused_queue_is_not_claimed_until_it_is_resumed(lab: Lab) -> None:
    lab.ledger.pause(["q"])
    lab.queued("waits", queue="q")
    lab.queued("other", queue="p")
    assert lab.ledger.claim("waits", offer()).word is Word.PAUSED
    assert lab.ledger.admit(submission("new", queue="q"), offer("claim-n"))[1].word is Word.PAUSED
    assert lab.ledger.claim("other", offer("claim-o")).word is Word.CALL
    lab.ledger.resume(["q"])
    lab.advance(1)
    assert lab.ledger.claim("waits", offer()).word is Word.CALL


def test_a_request_of_a_paused_queue_expires_and_a_launch_in_doubt_goes_on(lab: Lab) -> None:
    lab.launching("doubt", queue="q")
    lab.queued("late", queue="q", expires_at=START + 60)
    lab.ledger.pause(["q"])
    lab.advance(61)
    assert lab.ledger.claim("late", offer("claim-l")).word is Word.ENDED
    assert lab.state("late") is State.EXPIRED
    assert lab.ledger.reclaim("doubt", offer("claim-2")).word is Word.CALL
