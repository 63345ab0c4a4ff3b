"""Role `RequestOperations`: reclaim: taking over a LAUNCHING record."""

from __future__ import annotations

import pytest

from ecs_queue.protocol.operations import RefusalKind, ResultCode
from ecs_queue.protocol.states import State
from tests.conformance.ledger.harness import (
    ABSENCE_PROVABLE_AFTER,
    HOUR,
    MINUTE,
    LedgerHarness,
    claim_request,
    make_refusal,
    make_submission,
)
from tests.fake_clock import START


def test_a_claim_of_an_unknown_id_is_not_found(harness: LedgerHarness) -> None:
    assert harness.ledger.claim("job", claim_request()).code is ResultCode.NOT_FOUND
    assert harness.ledger.reclaim("job", claim_request()).code is ResultCode.NOT_FOUND


@pytest.mark.parametrize("end", ["launched", "ended"])
def test_claim_and_reclaim_of_what_has_a_task_or_an_end_have_moved_on(harness: LedgerHarness, end: str) -> None:
    before = harness.make_launched() if end == "launched" else harness.make_ended()
    harness.advance(HOUR)
    assert harness.ledger.claim("job", claim_request()).code is ResultCode.NOT_CLAIMABLE
    assert harness.ledger.claim("job", None).code is ResultCode.NOT_CLAIMABLE
    assert harness.ledger.reclaim("job", claim_request()).code is ResultCode.NOT_CLAIMABLE
    assert harness.get_record() == before


def test_a_claim_cannot_be_taken_over_before_its_lease_is_over(harness: LedgerHarness) -> None:
    before = harness.make_launching()
    harness.advance(29.875)
    assert harness.reclaim().code is ResultCode.NOT_CLAIMABLE
    assert harness.get_record() == before


def test_a_reclaim_calls_again_with_the_same_number_and_arguments_and_is_ambiguous(harness: LedgerHarness) -> None:
    harness.make_launching()
    harness.advance(30)
    result = harness.reclaim()
    assert result.code is ResultCode.RUN_TASK
    record = harness.get_record()
    assert result.record == record  # with the request: the worker that takes over has no message
    assert record.request == make_submission().request
    assert (record.launch, record.args, record.target) == (1, '{"count": 1}', "here")
    assert (record.claim, record.worker, record.ambiguous, record.calls) == ("claim-2", "worker-2", True, 2)
    assert (record.first_called_at, record.last_claim_at) == (START, START + 30)
    assert record.lease_until == START + 60


def test_only_one_worker_takes_over_an_expired_takeover(harness: LedgerHarness) -> None:
    harness.make_launching()
    harness.advance(30)
    assert harness.reclaim("claim-2").code is ResultCode.RUN_TASK
    assert harness.reclaim("claim-3").code is ResultCode.NOT_CLAIMABLE
    assert harness.get_record().claim == "claim-2"


def test_a_stopped_record_is_list_only(harness: LedgerHarness) -> None:
    harness.make_launching()
    harness.stop()
    harness.advance(30)
    assert harness.reclaim().code is ResultCode.LIST_TASKS


def test_an_expired_record_is_list_only(harness: LedgerHarness) -> None:
    harness.make_launching(expires_at=START + 30)
    harness.advance(30)
    assert harness.reclaim().code is ResultCode.LIST_TASKS


def test_a_retired_launch_number_is_list_only(harness: LedgerHarness) -> None:
    harness.make_launching()
    harness.advance(30)
    harness.reclaim("claim-2")
    assert harness.ledger.refused("job", "claim-2", *make_refusal(RefusalKind.CAPACITY)).code is ResultCode.OK
    assert harness.reclaim("claim-3").code is ResultCode.LIST_TASKS


@pytest.mark.parametrize(
    ("age", "code"), [(40 * MINUTE - 0.125, ResultCode.RUN_TASK), (40 * MINUTE, ResultCode.LIST_TASKS)]
)
def test_from_forty_minutes_on_a_record_is_list_only(harness: LedgerHarness, age: float, code: ResultCode) -> None:
    harness.make_launching()
    harness.advance(age)
    assert harness.reclaim().code is code


def test_takeovers_do_not_reset_the_forty_minutes(harness: LedgerHarness) -> None:
    harness.make_launching()
    for number in range(4):
        harness.advance(10 * MINUTE)
        code = harness.reclaim(f"claim-{number + 2}").code
    assert code is ResultCode.LIST_TASKS
    assert harness.get_record().first_called_at == START


def test_a_list_only_reclaim_does_not_move_last_claim_at(harness: LedgerHarness) -> None:
    harness.make_launching()
    harness.stop()
    harness.advance(ABSENCE_PROVABLE_AFTER)
    assert harness.reclaim().code is ResultCode.LIST_TASKS
    record = harness.get_record()
    assert (record.last_claim_at, record.ambiguous, record.calls) == (START, True, 1)
    assert record.lease_until == START + ABSENCE_PROVABLE_AFTER + 30


def test_a_request_of_a_paused_queue_expires_and_an_ambiguous_launch_goes_on(harness: LedgerHarness) -> None:
    harness.make_launching("doubt", queue="q")
    harness.make_queued("late", queue="q", expires_at=START + 60)
    harness.ledger.pause_queues(["q"])
    harness.advance(61)
    assert harness.ledger.claim("late", claim_request("claim-l")).code is ResultCode.ENDED
    assert harness.get_state("late") is State.EXPIRED
    assert harness.ledger.reclaim("doubt", claim_request("claim-2")).code is ResultCode.RUN_TASK
