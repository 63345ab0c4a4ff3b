"""Role `RequestOperations`: requests that kill their workers, counted by their abandoned claims."""

from __future__ import annotations

import msgspec
import pytest

from ecs_queue.protocol.operations import RefusalKind, ResultCode
from ecs_queue.protocol.states import State
from tests.conformance.ledger.conftest import MakeHarness
from tests.conformance.ledger.harness import (
    ABSENCE_PROVABLE_AFTER,
    SETTINGS,
    LedgerHarness,
    claim_request,
    make_refusal,
)
from tests.fake_clock import START
from tests.worker_info import make_worker_info

MAX_DELIVERIES = 3
POISON_SETTINGS = msgspec.structs.replace(SETTINGS, max_deliveries=MAX_DELIVERIES)


@pytest.fixture
def harness(make_harness: MakeHarness) -> LedgerHarness:
    """A ledger with max_deliveries = 3."""
    return make_harness(POISON_SETTINGS)


def _heartbeat(harness: LedgerHarness, name: str, started_at: float = START - 1.0) -> None:
    harness.ledger.heartbeat(make_worker_info(name, started_at=started_at), 15.0)


def _abandon_claims(harness: LedgerHarness, times: int) -> ResultCode:
    """Let workers claim the record and never report back; return what the last one was to do."""
    code = ResultCode.RUN_TASK
    for number in range(times):
        harness.advance(SETTINGS.lease_seconds)
        code = harness.reclaim(f"takeover-{number}", f"worker-{number}").code
    return code


def test_after_max_deliveries_run_task_is_not_called_again(harness: LedgerHarness) -> None:
    harness.make_launching()

    assert _abandon_claims(harness, MAX_DELIVERIES - 1) is ResultCode.RUN_TASK
    assert _abandon_claims(harness, 1) is ResultCode.LIST_TASKS
    assert "3 workers in a row died" in harness.get_record().reason


def test_a_poison_request_fails_once_no_task_provably_exists(harness: LedgerHarness) -> None:
    harness.make_launching()
    _abandon_claims(harness, MAX_DELIVERIES)
    assert harness.ledger.task_absent("job", harness.get_record().claim, 1.0).code is ResultCode.TOO_EARLY
    harness.advance(ABSENCE_PROVABLE_AFTER)
    harness.reclaim("late")

    result = harness.ledger.task_absent("job", "late", 1.0)

    assert (result.code, harness.get_state()) == (ResultCode.ENDED, State.FAILED)
    record = harness.get_record()
    assert (record.attempts, record.undelivered, record.request) == (0, True, b"")
    assert "read their logs, correct the request and submit it under another id" in record.reason


def test_a_found_task_resets_abandoned_claims(harness: LedgerHarness) -> None:
    record = harness.make_launching()
    _abandon_claims(harness, MAX_DELIVERIES)

    assert harness.ledger.launched("job", record.nonce, 1, "arn:1", 1.0).code is ResultCode.OK

    assert (harness.get_state(), harness.get_record().abandoned_claims, harness.get_record().reason) == (
        State.LAUNCHED,
        0,
        "",
    )


def test_a_request_that_kills_listing_workers_ends_unknown(harness: LedgerHarness) -> None:
    harness.make_launching()
    assert _abandon_claims(harness, 2 * MAX_DELIVERIES) is ResultCode.LIST_TASKS

    assert _abandon_claims(harness, 1) is ResultCode.ENDED

    assert harness.get_state() is State.UNKNOWN
    assert "search for it by hand" in harness.get_record().reason
    assert harness.ledger.list_undelivered("airflow", 10)[0].id == "job"


@pytest.mark.parametrize("code", ["call_ambiguous", "no_effect", "refused"])
def test_a_report_of_the_worker_resets_abandoned_claims(harness: LedgerHarness, code: str) -> None:
    harness.make_launching()
    for round_ in range(4 * MAX_DELIVERIES):
        harness.advance(SETTINGS.lease_seconds)
        claim = f"claim-{round_}"
        if harness.reclaim(claim).code is ResultCode.NOT_CLAIMABLE:
            harness.ledger.claim("job", claim_request(claim))
        if code == "call_ambiguous":
            harness.ledger.call_ambiguous("job", claim, 0.0, "a time-out")
        elif code == "no_effect":
            harness.ledger.no_effect("job", claim, 0.0, "throttled")
        else:
            harness.ledger.refused("job", claim, *make_refusal(RefusalKind.CAPACITY))
        assert harness.get_record().abandoned_claims == 0

    assert harness.get_state() is State.LAUNCHING
    assert "died while they processed it" not in harness.get_record().reason


def test_a_poison_request_stays_poison_until_a_task_is_found(harness: LedgerHarness) -> None:
    harness.make_launching()
    _abandon_claims(harness, MAX_DELIVERIES)
    for round_ in range(2 * MAX_DELIVERIES):
        harness.ledger.call_ambiguous("job", harness.get_record().claim, 0.0, "ListTasks: a time-out")
        assert harness.reclaim(f"list-{round_}").code is ResultCode.LIST_TASKS


def test_a_claim_of_a_live_worker_is_not_abandoned(harness: LedgerHarness) -> None:
    """The worker lost only the ledger's reply: an outage is not the request's fault."""
    harness.make_launching()
    for round_ in range(4 * MAX_DELIVERIES):
        harness.advance(SETTINGS.lease_seconds)
        _heartbeat(harness, harness.get_record().worker)
        assert harness.reclaim(f"claim-{round_}", f"worker-{round_ % 2}").code is ResultCode.RUN_TASK


def test_a_new_worker_of_the_same_name_is_not_the_one_that_died(harness: LedgerHarness) -> None:
    harness.make_launching()
    code = ResultCode.RUN_TASK
    for round_ in range(MAX_DELIVERIES):
        harness.advance(SETTINGS.lease_seconds)
        _heartbeat(harness, "worker-1", started_at=harness.clock.now)
        code = harness.reclaim(f"claim-{round_}", "worker-1").code

    assert code is ResultCode.LIST_TASKS


def test_a_stop_of_a_poison_request_revokes_it(harness: LedgerHarness) -> None:
    harness.make_launching()
    _abandon_claims(harness, MAX_DELIVERIES)
    harness.stop()
    harness.advance(ABSENCE_PROVABLE_AFTER)
    harness.reclaim("late")

    harness.ledger.task_absent("job", "late", 1.0)

    assert harness.get_state() is State.REVOKED
