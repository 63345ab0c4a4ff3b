"""From the task to the end: outcomes and stops."""

from __future__ import annotations

import pytest

from ecs_queue.core.protocol import Word
from ecs_queue.core.record import STOPPED_BY_EXPIRY, STOPPED_BY_TIME_LIMIT
from ecs_queue.core.states import TERMINAL, State
from tests.conformance.ledger.lab import DAY, START, Lab, offer, seen, submission


def test_a_running_task_is_noted_and_looked_at_again_after_the_wait(lab: Lab) -> None:
    record = lab.launched()
    answer = lab.outcome(record, 3, wait=10.0, started_at=START + 0.5)
    assert answer.word is Word.OK
    record = lab.record()
    assert (record.version, record.last_status, record.started_at) == (3, "RUNNING", START + 0.5)
    lab.advance(9.875)
    assert lab.ledger.due(10) == []
    lab.advance(0.125)
    assert [record.id for record in lab.ledger.due(10)] == ["job"]


def test_a_start_once_seen_is_not_forgotten(lab: Lab) -> None:
    record = lab.launched()
    lab.outcome(record, 1, started_at=START + 1)
    lab.outcome(record, 2, started_at=0.0)
    assert lab.record().started_at == START + 1


@pytest.mark.parametrize("version", [0, 2, 3])
def test_an_older_or_equal_version_is_stale(lab: Lab, version: int) -> None:
    record = lab.launched()
    lab.outcome(record, 3)
    before = lab.record()
    assert lab.outcome(record, version, end=State.FAILED).word is Word.STALE
    assert lab.record() == before


def test_unversioned_looks_are_believed_in_the_order_they_come(lab: Lab) -> None:
    record = lab.launched()
    assert lab.outcome(record, 0, last_status="PENDING").word is Word.OK
    assert lab.outcome(record, 0, last_status="RUNNING").word is Word.OK
    assert lab.outcome(record, 0, end=State.SUCCESS).word is Word.ENDED


def test_the_word_of_another_launch_or_task_is_stale(lab: Lab) -> None:
    record = lab.launched()
    assert lab.outcome(record, launch=2, end=State.FAILED).word is Word.STALE
    assert lab.outcome(record, arn="arn:other", end=State.FAILED).word is Word.STALE
    assert lab.record() == record


def test_the_word_about_what_is_not_launched_is_stale_or_missing(lab: Lab) -> None:
    record = lab.launching()
    assert lab.outcome(record, end=State.FAILED).word is Word.STALE
    assert lab.outcome(record, id="nobody", end=State.FAILED).word is Word.MISSING


@pytest.mark.parametrize("state", sorted(TERMINAL))
def test_an_ended_task_ends_the_record_with_its_words(lab: Lab, state: State) -> None:
    record = lab.launched()
    lab.outcome(record, 1, started_at=START + 1)
    lab.advance(20)
    answer = lab.outcome(
        record, 2, end=state, exit_code=3, stop_code="EssentialContainerExited", reason="exit 3", finished_at=START + 9
    )
    assert answer.word is Word.ENDED
    assert answer.record == lab.record()
    record = lab.record()
    assert (record.state, record.exit_code, record.stop_code) == (state, 3, "EssentialContainerExited")
    assert (record.reason, record.finished_at, record.attempts) == ("exit 3", START + 9, 1)
    assert (record.started_at, record.arn, record.undelivered) == (START + 1, "arn:1", True)


def test_the_end_scrubs_the_payload_and_leaves_the_live_indexes(lab: Lab) -> None:
    record = lab.ended()
    assert (record.request, record.args, record.exit_code) == (b"", "", 0)
    assert lab.ledger.id_of(record.arn) is None
    lab.advance(DAY)
    assert lab.ledger.due(10) == []


def test_an_end_without_its_time_has_the_ledgers(lab: Lab) -> None:
    record = lab.launched()
    lab.advance(7)
    lab.outcome(record, end=State.SUCCESS)
    assert lab.record().finished_at == START + 7
    assert lab.record().exit_code is None


def test_a_finished_record_never_moves_again(lab: Lab) -> None:
    record = lab.launched()
    lab.outcome(record, 1, end=State.SUCCESS)
    before = lab.record()
    assert lab.outcome(record, 9, end=State.FAILED).word is Word.STALE
    assert lab.stop().word is Word.SAME
    assert lab.ledger.claim("job", offer()).word is Word.MOVED_ON
    assert lab.ledger.launched("job", "nonce-01", 1, "arn:9", 0.0).word is Word.STOP_IT
    assert lab.record() == before


def test_a_retry_takes_the_next_number_and_attempt_and_forgets_the_task(lab: Lab) -> None:
    record = lab.launched()
    lab.outcome(record, 1, started_at=START + 1)
    answer = lab.outcome(record, 2, end=State.FAILED, retry=True, max_attempts=2, wait=4.0, reason="host lost")
    assert answer.word is Word.RETRY
    record = lab.record()
    assert (record.state, record.launch, record.attempt) == (State.QUEUED, 2, 2)
    assert (record.not_before, record.reason) == (START + 4, "host lost")
    assert (record.arn, record.version, record.last_status) == ("", 0, "")
    assert (record.started_at, record.launched_at, record.args, record.target) == (0.0, 0.0, "", "")
    assert record.request == submission().body
    assert lab.ledger.id_of("arn:1") is None


def test_the_old_task_of_a_retry_is_stale(lab: Lab) -> None:
    old = lab.launched()
    lab.outcome(old, 1, end=State.FAILED, retry=True, max_attempts=2)
    assert lab.outcome(old, 2, end=State.SUCCESS).word is Word.STALE
    lab.advance(10)
    lab.ledger.claim("job", offer("claim-2"))
    lab.ledger.launched("job", "nonce-01", 2, "arn:2", 1.0)
    assert lab.outcome(old, 3, end=State.SUCCESS).word is Word.STALE
    assert lab.outcome(lab.record(), 1, end=State.SUCCESS).word is Word.ENDED
    assert lab.record().attempts == 2


def test_without_attempts_left_there_is_no_retry(lab: Lab) -> None:
    record = lab.launched()
    assert lab.outcome(record, end=State.REMOVED, retry=True, max_attempts=1).word is Word.ENDED
    assert lab.state() is State.REMOVED


def test_a_stopped_record_is_not_retried(lab: Lab) -> None:
    record = lab.launched()
    lab.stop()
    assert lab.outcome(record, end=State.FAILED, retry=True, max_attempts=5, reason="exit 1").word is Word.ENDED
    assert (lab.state(), lab.record().reason) == (State.FAILED, "exit 1")


def test_a_stopped_task_is_revoked_only_if_ecs_says_so(lab: Lab) -> None:
    record = lab.launched()
    lab.stop()
    lab.outcome(record, end=State.FAILED, by_user=True, exit_code=137)
    record = lab.record()
    assert (record.state, record.reason, record.exit_code) == (State.REVOKED, "stopped by ann", 137)


def test_a_task_that_ran_to_its_end_before_the_stop_keeps_its_real_end(lab: Lab) -> None:
    record = lab.launched()
    lab.stop()
    lab.outcome(record, end=State.SUCCESS, exit_code=0)
    assert lab.state() is State.SUCCESS


def test_a_stop_that_nobody_here_asked_for_revokes_nothing(lab: Lab) -> None:
    record = lab.launched()
    lab.outcome(record, end=State.FAILED, by_user=True, reason="stopped in the console")
    assert (lab.state(), lab.record().reason) == (State.FAILED, "stopped in the console")


def test_a_task_stopped_at_its_time_limit_has_failed(lab: Lab) -> None:
    record = lab.launched(time_limit=90.5)
    lab.stop(by=STOPPED_BY_TIME_LIMIT, launch=1)
    lab.outcome(record, end=State.FAILED, by_user=True, exit_code=137)
    assert lab.state() is State.FAILED
    assert "time limit of 90.5 s" in lab.record().reason


def test_a_task_stopped_at_its_deadline_is_expired_unless_it_had_started(lab: Lab) -> None:
    for name, started_at, state in (("late", 0.0, State.EXPIRED), ("started", START + 1, State.FAILED)):
        record = lab.launched(name, arn=f"arn:{name}", expires_at=START + 60)
        lab.stop(name, by=STOPPED_BY_EXPIRY, launch=1)
        lab.outcome(record, end=State.REMOVED, by_user=True, started_at=started_at)
        assert lab.state(name) is state
        assert "deadline" in lab.record(name).reason


def test_outcomes_of_one_batch_are_answered_in_order(lab: Lab) -> None:
    one, two = lab.launched("one", arn="arn:one"), lab.launched("two", arn="arn:two")
    batch = [seen(one), seen(two, end=State.SUCCESS), seen(one, 1), seen(two, 2)]
    words = [answer.word for answer in lab.ledger.outcomes(batch)]
    assert words == [Word.OK, Word.ENDED, Word.STALE, Word.STALE]
    assert lab.ledger.outcomes([]) == []


def test_a_stop_ends_a_queued_record_at_once(lab: Lab) -> None:
    lab.queued()
    answer = lab.stop()
    assert answer.word is Word.ENDED
    assert answer.record is not None
    assert (answer.record.state, answer.record.attempts, answer.record.reason) == (State.REVOKED, 0, "stopped by ann")
    assert (answer.record.stop_by, answer.record.stop_at, answer.record.undelivered) == ("ann", START, True)
    lab.advance(DAY)
    assert lab.ledger.due_silent("default", 10) == []


def test_a_stop_between_two_attempts_counts_the_attempt_that_was_made(lab: Lab) -> None:
    record = lab.launched()
    lab.outcome(record, end=State.FAILED, retry=True, max_attempts=3)
    lab.stop()
    assert (lab.state(), lab.record().attempts) == (State.REVOKED, 1)


def test_a_stop_marks_a_launched_record_and_makes_it_due(lab: Lab) -> None:
    lab.launched()
    answer = lab.stop()
    assert answer.word is Word.MARKED
    assert answer.record is not None
    assert (answer.record.state, answer.record.arn) == (State.LAUNCHED, "arn:1")
    assert [record.id for record in lab.ledger.due(10)] == ["job"]


def test_a_stop_leaves_a_held_lease_and_is_due_when_it_is_over(lab: Lab) -> None:
    lab.launching()
    lab.advance(10)
    assert lab.stop().word is Word.MARKED
    lab.advance(19.875)
    assert lab.ledger.due(10) == []
    lab.advance(0.125)
    assert [record.id for record in lab.ledger.due(10)] == ["job"]


def test_a_stop_while_in_doubt_is_looked_at_at_once(lab: Lab) -> None:
    lab.launching()
    lab.ledger.unsure("job", "claim-1", 60.0, "timed out")
    lab.stop()
    assert [record.id for record in lab.ledger.due(10)] == ["job"]
    assert lab.taken_over().word is Word.LOOK


def test_the_first_stop_names_who_stopped_it(lab: Lab) -> None:
    lab.launched()
    lab.stop(by="ann")
    lab.advance(5)
    lab.stop(by="bob")
    assert (lab.record().stop_by, lab.record().stop_at) == ("ann", START)


@pytest.mark.parametrize("launch", [1, 2])
def test_a_stop_of_one_launch_spares_every_other_state_and_number(lab: Lab, launch: int) -> None:
    lab.queued("queued")
    lab.launching("launching")
    record = lab.launched("launched", arn="arn:launched")
    words = [answer.word for answer in lab.ledger.stop(["queued", "launching", "launched", "nobody"], "expiry", launch)]
    last = Word.MARKED if launch == record.launch else Word.STALE
    assert words == [Word.STALE, Word.STALE, last, Word.MISSING]
    assert lab.state("queued") is State.QUEUED
    assert lab.ledger.get(["nobody"]) == [None]


def test_a_stop_during_a_look_is_not_put_off_by_what_the_look_says(lab: Lab) -> None:
    record = lab.launched()
    lab.advance(1)
    assert len(lab.ledger.due(10)) == 1
    lab.stop()
    lab.outcome(record, wait=600.0)
    assert [record.id for record in lab.ledger.due(10)] == ["job"]
    lab.stop()
    lab.ledger.rest({"job": 600.0})
    assert [record.id for record in lab.ledger.due(10)] == ["job"]


def test_after_the_look_that_carries_out_a_stop_the_waits_count_again(lab: Lab) -> None:
    record = lab.launched()
    lab.stop()
    assert len(lab.ledger.due(10)) == 1
    lab.outcome(record, wait=5.0)
    assert lab.ledger.due(10) == []
    lab.advance(5)
    assert len(lab.ledger.due(10)) == 1
    lab.ledger.rest({"job": 5.0})
    assert lab.ledger.due(10) == []


def test_a_stop_before_the_request_leaves_a_tombstone_that_revokes_it(lab: Lab) -> None:
    assert lab.stop().word is Word.ENDED
    assert (lab.state(), lab.record().undelivered) == (State.REVOKED, False)
    answer = lab.ledger.put([submission()])[0]
    assert answer.word is Word.ENDED
    assert answer.record is not None
    assert (answer.record.state, answer.record.nonce, answer.record.owner) == (State.REVOKED, "nonce-01", "airflow")
    assert answer.record == lab.record()
    assert [record.id for record in lab.ledger.undelivered("airflow", 10)] == ["job"]
    assert lab.ledger.put([submission()])[0].word is Word.SAME
    assert lab.ledger.put([submission(digest="e" * 32)])[0].word is Word.CONFLICT


def test_a_stop_of_several_is_answered_in_order(lab: Lab) -> None:
    lab.queued("one")
    lab.launched("two")
    answers = lab.ledger.stop(["two", "one", "three", "one"], "ann")
    assert [answer.word for answer in answers] == [Word.MARKED, Word.ENDED, Word.ENDED, Word.SAME]
    assert [answer.record.id for answer in answers if answer.record] == ["two", "one", "three", "one"]
