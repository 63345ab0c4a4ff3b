"""What claims freeze of a queue's launch policies, and what the ledger decides by them."""

from __future__ import annotations

from typing import Any

import pytest

from ecs_queue.protocol.operations import EndRuling, ResultCode
from ecs_queue.protocol.runs import CLOSED_BY_VOID, RunEnd
from ecs_queue.protocol.states import State
from tests.conformance.ledger.harness import LedgerHarness, claim_request, make_submission
from tests.conformance.ledger.runner_harness import end_task, make_idle, settle, start_launch, warm_claim
from tests.fake_clock import START

RULES = '[{"action":"retry"}]'


class TestStartTimeout:
    def test_it_is_that_of_the_first_claim_of_a_launch(self, harness: LedgerHarness) -> None:
        harness.make_queued()
        harness.ledger.claim("job", claim_request(start_timeout=60.0))
        assert harness.get_record().start_timeout == 60.0
        harness.ledger.no_effect("job", "claim-1", 0.0, "throttled")
        harness.ledger.claim("job", claim_request("claim-2", start_timeout=5.0))
        assert harness.get_record().start_timeout == 60.0

    def test_the_next_launch_has_its_own(self, harness: LedgerHarness) -> None:
        harness.make_queued()
        harness.ledger.claim("job", claim_request(start_timeout=60.0))
        record = harness.get_record()
        harness.ledger.launched("job", record.nonce, 1, "arn:1", 1.0)
        ended = harness.update_task(harness.get_record(), end_state=State.REMOVED, may_relaunch=True, max_attempts=3)
        assert ended.code is ResultCode.REQUEUED
        assert harness.get_record().start_timeout == 0.0

    @pytest.mark.parametrize(
        ("max_attempts", "code", "state"),
        [(3, ResultCode.REQUEUED, State.QUEUED), (1, ResultCode.ENDED, State.REMOVED)],
    )
    def test_a_runner_that_has_not_spoken_by_then_is_given_up(
        self, harness: LedgerHarness, max_attempts: int, code: ResultCode, state: State
    ) -> None:
        runner = start_launch(harness, claims={"max_attempts": max_attempts, "start_timeout": 60.0})
        record = harness.get_record()
        harness.ledger.launched("job", record.nonce, 1, "arn:1", 1.0)
        harness.advance(59.0)
        assert settle(harness).code is ResultCode.DESCRIBE_TASK
        harness.advance(1.0)

        assert settle(harness).code is code
        record = harness.get_record()
        assert (record.state, record.reason) == (state, "it had not started within its start_timeout of 60 s")
        [run] = harness.ledger.read_runs([runner.name])
        assert run is not None
        assert (run.closed, run.arn) == (CLOSED_BY_VOID, "arn:1")  # it is kept until its task has ended

    def test_one_that_has_spoken_has_started(self, harness: LedgerHarness) -> None:
        runner = start_launch(harness, claims={"start_timeout": 60.0})
        runner.next()
        record = harness.get_record()
        harness.ledger.launched("job", record.nonce, 1, "arn:1", 1.0)
        harness.advance(600.0)
        assert settle(harness).code is ResultCode.DESCRIBE_TASK
        assert harness.get_state() is State.LAUNCHED

    def test_a_warm_runner_has_started(self, harness: LedgerHarness) -> None:
        make_idle(harness)
        harness.make_queued()
        assert harness.ledger.claim("job", warm_claim(start_timeout=60.0)).code is ResultCode.ASSIGNED
        assert harness.get_record().start_timeout == 0.0


class TestRetryRules:
    """The ledger keeps them with the launch; the worker that settles an end applies them."""

    def test_they_are_frozen_with_a_launch_and_the_next_one_has_its_own(self, harness: LedgerHarness) -> None:
        harness.make_queued()
        harness.ledger.claim("job", claim_request(retry_rules=RULES))
        record = harness.get_record()
        assert record.retry_rules == RULES
        harness.ledger.launched("job", record.nonce, 1, "arn:1", 1.0)
        update: dict[str, Any] = {
            "end_state": State.FAILED,
            "may_relaunch": True,
            "max_attempts": 1,
            "counts_attempt": False,
        }
        assert harness.update_task(harness.get_record(), **update).code is ResultCode.REQUEUED
        record = harness.get_record()
        assert (record.retry_rules, record.launch, record.attempt) == ("", 2, 1)

    @pytest.mark.parametrize(
        ("ruling", "max_attempts", "state", "attempt"),
        [
            (EndRuling.RETRY, 3, State.QUEUED, 2),
            (EndRuling.RETRY, 1, State.FAILED, 1),
            (EndRuling.RETRY_UNCOUNTED, 1, State.QUEUED, 1),
            (EndRuling.FAIL, 3, State.FAILED, 1),
        ],
    )
    def test_the_end_that_a_runner_reports_needs_a_ruling(
        self, harness: LedgerHarness, ruling: EndRuling, max_attempts: int, state: State, attempt: int
    ) -> None:
        claims = {"retry_rules": RULES, "max_attempts": max_attempts}
        runner = start_launch(harness, claims=claims, relaunch="any_failure")
        runner.next()
        runner.next(RunEnd(turn=1, exit_code=3))

        assert settle(harness).code is ResultCode.END_UNREAD
        assert harness.get_state() is State.LAUNCHED
        settle(harness, ruling=ruling)
        record = harness.get_record()
        assert (record.state, record.attempt) == (state, attempt)

    @pytest.mark.parametrize("end", [RunEnd(turn=1, exit_code=0), RunEnd(turn=1, exit_code=143, cancelled=True)])
    def test_a_success_and_a_cancelled_command_need_none(self, harness: LedgerHarness, end: RunEnd) -> None:
        runner = start_launch(harness, claims={"retry_rules": RULES})
        runner.next()
        runner.next(end)
        assert settle(harness).code is ResultCode.ENDED

    @pytest.mark.parametrize(("may_relaunch", "state"), [(True, State.QUEUED), (False, State.REMOVED)])
    def test_a_runner_that_never_started_is_ruled_on(
        self, harness: LedgerHarness, may_relaunch: bool, state: State
    ) -> None:
        start_launch(harness, claims={"retry_rules": RULES})
        harness.ledger.launched("job", "nonce-01", 1, "arn:1", 1.0)
        end_task(harness, state=State.REMOVED, may_relaunch=may_relaunch)
        assert harness.get_state() is state

    @pytest.mark.parametrize(("end", "state"), [(State.FAILED, State.QUEUED), (State.REMOVED, State.FAILED)])
    def test_a_command_that_may_have_run_is_never_taken_for_one_that_never_started(
        self, harness: LedgerHarness, end: State, state: State
    ) -> None:
        start_launch(harness, claims={"retry_rules": RULES}).next()
        settle(harness)
        end_task(harness, state=end, may_relaunch=True, counts_attempt=False)
        assert (harness.get_state(), harness.get_record().attempt) == (state, 1)


class TestDelay:
    """A request that was submitted for later is QUEUED, and no claim gets it before."""

    def test_it_is_claimed_when_its_time_has_come_and_not_before(self, harness: LedgerHarness) -> None:
        harness.make_queued(delayed_until=START + 60)
        assert harness.get_state() is State.QUEUED
        harness.advance(59.0)
        assert harness.ledger.claim("job", claim_request()).code is ResultCode.NOT_CLAIMABLE
        assert harness.ledger.lease_due_retries("default", 10) == []
        harness.advance(1.0)
        assert [record.id for record in harness.ledger.lease_due_retries("default", 10)] == ["job"]
        assert harness.ledger.claim("job", claim_request()).code is ResultCode.RUN_TASK

    def test_a_message_that_comes_early_only_stores_it(self, harness: LedgerHarness) -> None:
        submission = make_submission(delayed_until=START + 60)
        stored, claimed = harness.ledger.put_and_claim(submission, claim_request())
        assert (stored.code, claimed.code) == (ResultCode.CREATED, ResultCode.NOT_CLAIMABLE)
        assert harness.ledger.lease_unclaimed("default", 10) == []

    def test_a_time_that_is_over_delays_nothing(self, harness: LedgerHarness) -> None:
        harness.make_queued(delayed_until=START - 60)
        assert harness.get_record().not_before == 0.0
        assert harness.ledger.claim("job", claim_request()).code is ResultCode.RUN_TASK

    def test_it_may_be_stopped_and_expire_meanwhile(self, harness: LedgerHarness) -> None:
        harness.make_queued(delayed_until=START + 60)
        assert harness.stop().code is ResultCode.ENDED
        harness.make_queued("late", delayed_until=START + 60, expires_at=START + 90)
        harness.advance(90.0)
        assert harness.ledger.claim("late", None).code is ResultCode.ENDED
        assert harness.get_state("late") is State.EXPIRED

    def test_it_counts_as_delayed_until_its_time_and_waits_from_then_on(self, harness: LedgerHarness) -> None:
        harness.make_queued("later", delayed_until=START + 60)
        harness.make_queued("stopped", delayed_until=START + 60)
        harness.make_queued("elsewhere", queue="gpu")
        harness.stop("stopped")
        assert harness.ledger.count_delayed(["default", "gpu", "none"]) == {"default": 1, "gpu": 0, "none": 0}
        assert harness.ledger.find_oldest_queued(["default"]) == {}
        harness.advance(60.0)
        assert harness.ledger.count_delayed(["default"]) == {"default": 0}
        assert harness.ledger.find_oldest_queued(["default"]) == {"default": START + 60}
        assert harness.ledger.claim("later", claim_request()).code is ResultCode.RUN_TASK
        assert harness.ledger.find_oldest_queued(["default"]) == {}
