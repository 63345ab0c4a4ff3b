"""After the end: delivery, adoption, confirmation, retention."""

from __future__ import annotations

import pytest

from ecs_queue.protocol.operations import ResultCode
from ecs_queue.protocol.settings import MAX_CLOCK_SKEW
from ecs_queue.protocol.states import State
from tests.conformance.ledger.conftest import MakeHarness
from tests.conformance.ledger.harness import DAY, HOUR, LedgerHarness, make_submission
from tests.fake_clock import START
from tests.protocol.settings import make_settings


def _waiting(harness: LedgerHarness, owner: str = "airflow") -> list[str]:
    return [record.id for record in harness.ledger.list_undelivered(owner, 100)]


def test_results_wait_for_their_owner_oldest_first(harness: LedgerHarness) -> None:
    for name in ("late", "early", "other"):
        harness.make_launched(name, arn=f"arn:{name}", owner="bench" if name == "other" else "airflow")
    for name, at in (("late", 50), ("early", 40), ("other", 45)):
        harness.update_task(harness.get_record(name), end_state=State.SUCCESS, exit_code=0, finished_at=START + at)
    assert _waiting(harness) == ["early", "late"]
    assert _waiting(harness, "bench") == ["other"]
    assert [record.id for record in harness.ledger.list_undelivered("airflow", 1)] == ["early"]
    assert harness.ledger.list_undelivered("airflow", 10) == [harness.get_record("early"), harness.get_record("late")]


def test_a_result_that_nobody_waits_for_is_not_undelivered(harness: LedgerHarness) -> None:
    assert not harness.make_ended(owner="").undelivered
    assert _waiting(harness, "") == []


def test_a_confirmed_result_is_delivered(harness: LedgerHarness) -> None:
    harness.make_ended()
    harness.advance(5)
    assert [answer.code for answer in harness.ledger.confirm([("job", "nonce-01")], "airflow")] == [ResultCode.OK]
    record = harness.get_record()
    assert (record.undelivered, record.confirmed_at) == (False, START + 5)
    assert _waiting(harness) == []


def test_a_confirmation_may_come_twice(harness: LedgerHarness) -> None:
    harness.make_ended()
    harness.ledger.confirm([("job", "nonce-01")], "airflow")
    harness.advance(5)
    assert harness.ledger.confirm([("job", "nonce-01")], "airflow")[0].code is ResultCode.OK
    assert harness.get_record().confirmed_at == START


def test_only_the_owner_of_this_very_result_can_confirm_it(harness: LedgerHarness) -> None:
    before = harness.make_ended()
    harness.make_launched("live", arn="arn:live")
    pairs = [("job", "nonce-02"), ("nobody", "nonce-01"), ("live", "nonce-01")]
    assert {answer.code for answer in harness.ledger.confirm(pairs, "airflow")} == {ResultCode.NOT_OWNER}
    assert harness.ledger.confirm([("job", "nonce-01")], "bench")[0].code is ResultCode.NOT_OWNER
    assert harness.get_record() == before


def test_adoption_delivers_a_finished_result_again_to_the_new_owner(harness: LedgerHarness) -> None:
    harness.make_ended()
    harness.ledger.confirm([("job", "nonce-01")], "airflow")
    answer = harness.ledger.adopt(["job"], "bench")[0]
    assert answer.code is ResultCode.ENDED
    assert answer.record == harness.get_record()
    record = harness.get_record()
    assert (record.owner, record.undelivered, record.confirmed_at) == ("bench", True, 0.0)
    assert (_waiting(harness), _waiting(harness, "bench")) == ([], ["job"])


def test_a_late_confirmation_of_the_old_owner_is_refused(harness: LedgerHarness) -> None:
    harness.make_ended()
    harness.ledger.adopt(["job"], "bench")
    assert harness.ledger.confirm([("job", "nonce-01")], "airflow")[0].code is ResultCode.NOT_OWNER
    assert _waiting(harness, "bench") == ["job"]
    assert harness.ledger.confirm([("job", "nonce-01")], "bench")[0].code is ResultCode.OK


def test_adoption_by_the_same_owner_arms_the_delivery_again(harness: LedgerHarness) -> None:
    harness.make_ended()
    harness.ledger.confirm([("job", "nonce-01")], "airflow")
    harness.ledger.adopt(["job"], "airflow")
    assert _waiting(harness) == ["job"]


def test_the_result_of_an_adopted_live_record_goes_to_the_new_owner(harness: LedgerHarness) -> None:
    harness.make_launched()
    answer = harness.ledger.adopt(["job"], "bench")[0]
    assert answer.code is ResultCode.OK
    assert answer.record is not None
    assert answer.record.state is State.LAUNCHED
    harness.update_task(harness.get_record(), end_state=State.SUCCESS)
    assert (_waiting(harness), _waiting(harness, "bench")) == ([], ["job"])


def test_adoption_of_several_is_answered_in_order_and_unknown_ones_are_missing(harness: LedgerHarness) -> None:
    harness.make_ended("done")
    harness.make_queued("waiting")
    answers = harness.ledger.adopt(["waiting", "nobody", "done"], "bench")
    assert [answer.code for answer in answers] == [ResultCode.OK, ResultCode.NOT_FOUND, ResultCode.ENDED]


def test_an_adopted_tombstone_keeps_its_new_owner_when_the_request_arrives(harness: LedgerHarness) -> None:
    harness.stop()
    harness.ledger.adopt(["job"], "bench")
    harness.ledger.put([make_submission()])
    assert (_waiting(harness), _waiting(harness, "bench")) == ([], ["job"])


@pytest.fixture
def short_retention(make_harness: MakeHarness) -> LedgerHarness:
    """Results are kept an hour, and unconfirmed ones two days."""
    return make_harness(make_settings(retention_seconds=HOUR, min_unconfirmed_retention=2 * DAY))


def test_a_confirmed_result_is_kept_while_a_late_duplicate_could_still_come(
    short_retention: LedgerHarness,
) -> None:
    short_retention.make_ended()
    short_retention.ledger.confirm([("job", "nonce-01")], "airflow")
    short_retention.advance(DAY + MAX_CLOCK_SKEW - 0.125)
    assert short_retention.ledger.put([make_submission()])[0].code is ResultCode.UNCHANGED
    short_retention.advance(0.125)
    assert short_retention.ledger.get(["job"]) == [None]
    assert short_retention.ledger.put([make_submission()])[0].code is ResultCode.TOO_LATE


def test_a_confirmed_result_is_kept_for_the_retention_time(short_retention: LedgerHarness) -> None:
    short_retention.make_ended(accept_until=START + 1)
    short_retention.advance(100)
    short_retention.ledger.confirm([("job", "nonce-01")], "airflow")
    short_retention.advance(HOUR - 0.125)
    assert short_retention.get_state() is State.SUCCESS
    short_retention.advance(0.125)
    assert short_retention.ledger.get(["job"]) == [None]


def test_a_result_that_is_never_confirmed_is_kept_to_the_cap(short_retention: LedgerHarness) -> None:
    short_retention.make_ended(accept_until=START + 1)
    short_retention.advance(2 * DAY - 0.125)
    assert _waiting(short_retention) == ["job"]
    short_retention.advance(0.125)
    assert _waiting(short_retention) == []
    assert short_retention.ledger.adopt(["job"], "bench")[0].code is ResultCode.NOT_FOUND
    assert short_retention.ledger.confirm([("job", "nonce-01")], "airflow")[0].code is ResultCode.NOT_OWNER


def test_adoption_starts_the_time_of_a_result_again(short_retention: LedgerHarness) -> None:
    short_retention.make_ended(accept_until=START + 1, owner="")
    short_retention.advance(HOUR - 1)
    short_retention.ledger.adopt(["job"], "bench")
    short_retention.advance(2 * DAY - 1)
    assert _waiting(short_retention, "bench") == ["job"]


def test_a_duplicate_does_not_lengthen_the_life_of_a_result(short_retention: LedgerHarness) -> None:
    short_retention.make_ended(accept_until=START + 1)
    short_retention.ledger.confirm([("job", "nonce-01")], "airflow")
    short_retention.advance(HOUR - 1)
    short_retention.ledger.put([make_submission(accept_until=START + DAY)])
    short_retention.advance(1)
    assert short_retention.ledger.get(["job"]) == [None]


def test_a_tombstone_outlives_every_message_that_it_may_be_meant_for(short_retention: LedgerHarness) -> None:
    short_retention.stop()
    short_retention.advance(DAY + MAX_CLOCK_SKEW - 0.125)
    assert short_retention.ledger.put([make_submission(accept_until=START + 3 * DAY)])[0].code is ResultCode.ENDED


def test_after_the_retention_an_id_is_free_for_another_request(short_retention: LedgerHarness) -> None:
    short_retention.make_ended(accept_until=START + 1, owner="")
    short_retention.advance(HOUR)
    assert (
        short_retention.ledger.put([make_submission(digest="e" * 32, nonce="nonce-02")])[0].code is ResultCode.CREATED
    )
    assert short_retention.ledger.prune(10) == 0
    record = short_retention.get_record()
    assert (record.state, record.nonce, record.arn, record.attempts) == (State.QUEUED, "nonce-02", "", 0)
    assert short_retention.ledger.list_records("", 10)[0] == [record]


def test_a_live_record_is_never_forgotten(short_retention: LedgerHarness) -> None:
    short_retention.make_launched(accept_until=START + 1)
    short_retention.advance(400 * DAY)
    assert short_retention.ledger.prune(10) == 0
    assert short_retention.get_state() is State.LAUNCHED


def test_prune_drops_what_is_over_up_to_the_limit(short_retention: LedgerHarness) -> None:
    for name in ("one", "two", "three"):
        short_retention.make_ended(name, accept_until=START + 1, owner="")
    short_retention.make_ended("kept", accept_until=START + 3 * DAY, owner="")
    short_retention.advance(HOUR)
    assert [
        short_retention.ledger.prune(2),
        short_retention.ledger.prune(2),
        short_retention.ledger.prune(2),
    ] == [2, 1, 0]
    assert short_retention.get_state("kept") is State.SUCCESS
