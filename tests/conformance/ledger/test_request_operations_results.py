"""Role `RequestOperations`: adoption, confirmation and retention of results."""

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


def test_a_confirmed_result_is_delivered(harness: LedgerHarness) -> None:
    harness.make_ended()
    harness.advance(5)
    assert [result.code for result in harness.ledger.confirm([("job", "nonce-01")], "airflow")] == [ResultCode.OK]
    record = harness.get_record()
    assert (record.undelivered, record.confirmed_at) == (False, START + 5)
    assert _waiting(harness) == []


def test_a_result_may_be_confirmed_twice(harness: LedgerHarness) -> None:
    harness.make_ended()
    harness.ledger.confirm([("job", "nonce-01")], "airflow")
    harness.advance(5)
    assert harness.ledger.confirm([("job", "nonce-01")], "airflow")[0].code is ResultCode.OK
    assert harness.get_record().confirmed_at == START


def test_only_the_owner_of_this_very_result_can_confirm_it(harness: LedgerHarness) -> None:
    before = harness.make_ended()
    harness.make_launched("live", arn="arn:live")
    pairs = [("job", "nonce-02"), ("unknown", "nonce-01"), ("live", "nonce-01")]
    assert {result.code for result in harness.ledger.confirm(pairs, "airflow")} == {ResultCode.NOT_OWNER}
    assert harness.ledger.confirm([("job", "nonce-01")], "bench")[0].code is ResultCode.NOT_OWNER
    assert harness.get_record() == before


def test_adoption_delivers_a_finished_result_again_to_the_new_owner(harness: LedgerHarness) -> None:
    harness.make_ended()
    harness.ledger.confirm([("job", "nonce-01")], "airflow")
    result = harness.ledger.adopt(["job"], "bench")[0]
    assert result.code is ResultCode.ENDED
    assert result.record == harness.get_record()
    record = harness.get_record()
    assert (record.owner, record.undelivered, record.confirmed_at) == ("bench", True, 0.0)
    assert (_waiting(harness), _waiting(harness, "bench")) == ([], ["job"])


def test_a_late_confirmation_of_the_old_owner_is_refused(harness: LedgerHarness) -> None:
    harness.make_ended()
    harness.ledger.adopt(["job"], "bench")
    assert harness.ledger.confirm([("job", "nonce-01")], "airflow")[0].code is ResultCode.NOT_OWNER
    assert _waiting(harness, "bench") == ["job"]
    assert harness.ledger.confirm([("job", "nonce-01")], "bench")[0].code is ResultCode.OK


def test_adoption_by_the_same_owner_makes_the_result_undelivered_again(harness: LedgerHarness) -> None:
    harness.make_ended()
    harness.ledger.confirm([("job", "nonce-01")], "airflow")
    harness.ledger.adopt(["job"], "airflow")
    assert _waiting(harness) == ["job"]


def test_the_result_of_an_adopted_live_record_goes_to_the_new_owner(harness: LedgerHarness) -> None:
    harness.make_launched()
    result = harness.ledger.adopt(["job"], "bench")[0]
    assert result.code is ResultCode.OK
    assert result.record is not None
    assert result.record.state is State.LAUNCHED
    harness.update_task(harness.get_record(), end_state=State.SUCCESS)
    assert (_waiting(harness), _waiting(harness, "bench")) == ([], ["job"])


def test_a_batch_of_adoptions_returns_results_in_order_and_unknown_ids_are_not_found(harness: LedgerHarness) -> None:
    harness.make_ended("done")
    harness.make_queued("waiting")
    results = harness.ledger.adopt(["waiting", "unknown", "done"], "bench")
    assert [result.code for result in results] == [ResultCode.OK, ResultCode.NOT_FOUND, ResultCode.ENDED]


def test_an_adopted_tombstone_keeps_its_new_owner_when_the_request_arrives(harness: LedgerHarness) -> None:
    harness.stop()
    harness.ledger.adopt(["job"], "bench")
    harness.ledger.put([make_submission()])
    assert (_waiting(harness), _waiting(harness, "bench")) == ([], ["job"])


@pytest.fixture
def short_retention(make_harness: MakeHarness) -> LedgerHarness:
    """Results are kept an hour, and unconfirmed ones two days."""
    return make_harness(make_settings(retention_seconds=HOUR, min_unconfirmed_retention=2 * DAY))


def test_a_confirmed_result_is_kept_while_a_late_duplicate_could_be_accepted(
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
    assert short_retention.ledger.list_records("", 10)[0] == short_retention.ledger.get(["job"])


def test_a_live_record_is_never_forgotten(short_retention: LedgerHarness) -> None:
    short_retention.make_launched(accept_until=START + 1)
    short_retention.advance(400 * DAY)
    assert short_retention.ledger.prune(10) == 0
    assert short_retention.get_state() is State.LAUNCHED
