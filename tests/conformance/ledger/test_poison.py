"""Requests that break their workers: how often is counted, and what is decided of it."""

from __future__ import annotations

import msgspec
import pytest

from ecs_queue.ledger.base import WorkerInfo
from ecs_queue.protocol.operations import RefusalKind, ResultCode
from ecs_queue.protocol.states import State
from tests.conformance.ledger.conftest import MakeHarness
from tests.conformance.ledger.harness import (
    ABSENCE_PROVABLE_AFTER,
    HOUR,
    SETTINGS,
    LedgerHarness,
    claim_request,
    make_refusal,
)
from tests.fake_clock import START

MAX_DELIVERIES = 3
POISON_SETTINGS = msgspec.structs.replace(SETTINGS, max_deliveries=MAX_DELIVERIES)


@pytest.fixture
def harness(make_harness: MakeHarness) -> LedgerHarness:
    """At most three deaths in a row."""
    return make_harness(POISON_SETTINGS)


def _heartbeat(harness: LedgerHarness, name: str, started_at: float = START - 1.0) -> None:
    info = WorkerInfo(
        name=name,
        host="h",
        pid=1,
        version="1",
        queues=["default"],
        concurrency=1,
        launches_in_progress=0,
        launched_total=0,
        ended_total=0,
        health="ok",
        started_at=started_at,
    )
    harness.ledger.heartbeat(info, 15.0)


def _abandon_claims(harness: LedgerHarness, times: int) -> ResultCode:
    """So many holders in a row say nothing; what the next one is told to do."""
    word = ResultCode.RUN_TASK
    for number in range(times):
        harness.advance(SETTINGS.lease_seconds)
        word = harness.reclaim(f"takeover-{number}", f"worker-{number}").code
    return word


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

    answer = harness.ledger.task_absent("job", "late", 1.0)

    assert (answer.code, harness.get_state()) == (ResultCode.ENDED, State.FAILED)
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


@pytest.mark.parametrize("word", ["call_ambiguous", "no_effect", "refused"])
def test_a_report_of_the_holder_resets_abandoned_claims(harness: LedgerHarness, word: str) -> None:
    harness.make_launching()
    for round_ in range(4 * MAX_DELIVERIES):
        harness.advance(SETTINGS.lease_seconds)
        claim = f"claim-{round_}"
        if harness.reclaim(claim).code is ResultCode.NOT_CLAIMABLE:
            harness.ledger.claim("job", claim_request(claim))
        if word == "call_ambiguous":
            harness.ledger.call_ambiguous("job", claim, 0.0, "a time-out")
        elif word == "no_effect":
            harness.ledger.no_effect("job", claim, 0.0, "throttled")
        else:
            harness.ledger.refused("job", claim, *make_refusal(RefusalKind.CAPACITY))
        assert harness.get_record().abandoned_claims == 0

    assert harness.get_state() is State.LAUNCHING
    assert "workers died" not in harness.get_record().reason


def test_a_poison_request_stays_poison_until_a_task_is_found(harness: LedgerHarness) -> None:
    harness.make_launching()
    _abandon_claims(harness, MAX_DELIVERIES)
    for round_ in range(2 * MAX_DELIVERIES):
        harness.ledger.call_ambiguous("job", harness.get_record().claim, 0.0, "ListTasks: a time-out")
        assert harness.reclaim(f"look-{round_}").code is ResultCode.LIST_TASKS


def test_a_claim_of_a_live_holder_is_not_abandoned(harness: LedgerHarness) -> None:
    """Its claim took effect and its answer did not come back: an outage is not the request's fault."""
    harness.make_launching()
    for round_ in range(4 * MAX_DELIVERIES):
        harness.advance(SETTINGS.lease_seconds)
        _heartbeat(harness, harness.get_record().worker)
        assert harness.reclaim(f"claim-{round_}", f"worker-{round_ % 2}").code is ResultCode.RUN_TASK


def test_a_new_worker_of_the_same_name_is_not_the_one_that_died(harness: LedgerHarness) -> None:
    harness.make_launching()
    word = ResultCode.RUN_TASK
    for round_ in range(MAX_DELIVERIES):
        harness.advance(SETTINGS.lease_seconds)
        _heartbeat(harness, "worker-1", started_at=harness.clock.now)
        word = harness.reclaim(f"claim-{round_}", "worker-1").code

    assert word is ResultCode.LIST_TASKS


def test_a_stop_of_a_poison_request_revokes_it(harness: LedgerHarness) -> None:
    harness.make_launching()
    _abandon_claims(harness, MAX_DELIVERIES)
    harness.stop()
    harness.advance(ABSENCE_PROVABLE_AFTER)
    harness.reclaim("late")

    harness.ledger.task_absent("job", "late", 1.0)

    assert harness.get_state() is State.REVOKED


def test_what_to_do_is_said_when_nothing_can_be_proved_any_more(harness: LedgerHarness) -> None:
    harness.make_launching()
    harness.advance(HOUR + 1.0)
    harness.reclaim("late")

    assert harness.ledger.task_absent("job", "late", 1.0, "grant ecs:ListTasks").code is ResultCode.ENDED

    assert harness.get_state() is State.UNKNOWN
    assert harness.get_record().reason.endswith("after an hour ECS cannot show it: grant ecs:ListTasks")


def test_deliveries_are_counted_until_one_ends(harness: LedgerHarness) -> None:
    assert [
        harness.ledger.begin_delivery("a"),
        harness.ledger.begin_delivery("a"),
        harness.ledger.begin_delivery("b"),
    ] == [1, 2, 1]

    harness.ledger.end_delivery("a")
    harness.ledger.end_delivery("never held")

    assert [harness.ledger.begin_delivery("a"), harness.ledger.begin_delivery("b")] == [1, 2]


def test_an_expired_request_that_no_worker_came_to_says_so(harness: LedgerHarness) -> None:
    harness.make_queued(expires_at=START + 10.0, queue="reports")
    harness.advance(10.0)

    harness.ledger.claim("job", None)

    assert harness.get_state() is State.EXPIRED
    assert harness.get_record().reason.endswith(
        "no worker received it: check that a worker takes from the queue reports"
    )
