"""The launcher's decisions."""

from __future__ import annotations

import random
from typing import Any, ClassVar

import pytest

from ecs_queue.protocol.decisions import (
    CallDecision,
    LedgerWrite,
    build_lost_update,
    build_task_update,
    decide_call,
    find_stop_cause,
    is_new_observation,
    may_relaunch,
)
from ecs_queue.protocol.ecs_results import RunTaskResult, RunTaskResultKind
from ecs_queue.protocol.observation import Observation, observe
from ecs_queue.protocol.operations import RefusalKind
from ecs_queue.protocol.record import STOPPED_BY_EXPIRY, STOPPED_BY_TIME_LIMIT, Record
from ecs_queue.protocol.retry import Backoff
from ecs_queue.protocol.states import State

NOW = 1_800_000_000.0
ARN = "arn:aws:ecs:us-east-1:123456789012:task/jobs/1"


def _decide(kind: RunTaskResultKind, calls: int = 1) -> CallDecision:
    result = RunTaskResult(kind, reason="said so")
    return decide_call(result, Record(id="a", calls=calls), Backoff(2.0, 60.0), random.Random(1))


def _observed(**changes: Any) -> Observation:
    task = {"taskArn": ARN, "lastStatus": "RUNNING", "desiredStatus": "RUNNING", "version": 2, "startedAt": NOW}
    return observe({**task, **changes}, "main")


def _observed_end(exit_code: int | None = 0, **changes: Any) -> Observation:
    container = {"name": "main"} if exit_code is None else {"name": "main", "exitCode": exit_code}
    ended = {"lastStatus": "STOPPED", "desiredStatus": "STOPPED", "containers": [container], "stoppedAt": NOW + 9}
    return _observed(**{**ended, "stopCode": "EssentialContainerExited", **changes})


class TestDecideCall:
    @pytest.mark.parametrize(
        ("kind", "write"),
        [
            (RunTaskResultKind.STARTED, LedgerWrite.LAUNCHED),
            (RunTaskResultKind.THROTTLED, LedgerWrite.NO_EFFECT),
            (RunTaskResultKind.NEVER_SENT, LedgerWrite.REFUSED),
            (RunTaskResultKind.UNUSABLE_PROFILE, LedgerWrite.REFUSED),
            (RunTaskResultKind.AMBIGUOUS, LedgerWrite.CALL_AMBIGUOUS),
            (RunTaskResultKind.ANSWERED_5XX, LedgerWrite.CALL_AMBIGUOUS),
            (RunTaskResultKind.CAPACITY, LedgerWrite.REFUSED),
            (RunTaskResultKind.START_FAILURE, LedgerWrite.REFUSED),
            (RunTaskResultKind.PERMANENT, LedgerWrite.REFUSED),
            (RunTaskResultKind.CONFLICT, LedgerWrite.DESCRIBE_CONFLICT),
        ],
    )
    def test_each_kind_of_result_has_its_write(self, kind: RunTaskResultKind, write: LedgerWrite) -> None:
        assert _decide(kind).write is write

    def test_every_kind_is_decided(self) -> None:
        assert {_decide(kind).write for kind in RunTaskResultKind} == set(LedgerWrite) - {LedgerWrite.TASK_ABSENT}

    @pytest.mark.parametrize(
        ("kind", "refusal"),
        [
            (RunTaskResultKind.CAPACITY, RefusalKind.CAPACITY),
            (RunTaskResultKind.NEVER_SENT, RefusalKind.GIVEN_BACK),
            (RunTaskResultKind.UNUSABLE_PROFILE, RefusalKind.GIVEN_BACK),
            (RunTaskResultKind.START_FAILURE, RefusalKind.START_FAILURE),
            (RunTaskResultKind.PERMANENT, RefusalKind.PERMANENT),
        ],
    )
    def test_a_refusal_says_what_it_costs(self, kind: RunTaskResultKind, refusal: RefusalKind) -> None:
        assert _decide(kind).refusal_kind is refusal

    def test_only_a_call_that_ended_with_a_server_error_is_completed(self) -> None:
        assert [kind for kind in RunTaskResultKind if _decide(kind).call_completed] == [RunTaskResultKind.ANSWERED_5XX]

    def test_only_an_unusable_profile_opens_the_circuit(self) -> None:
        assert [kind for kind in RunTaskResultKind if _decide(kind).opens_circuit] == [
            RunTaskResultKind.UNUSABLE_PROFILE
        ]

    @pytest.mark.parametrize("kind", [kind for kind in RunTaskResultKind if kind is not RunTaskResultKind.STARTED])
    def test_all_others_wait_at_least_the_base_and_keep_the_reason(self, kind: RunTaskResultKind) -> None:
        decision = _decide(kind)

        assert decision.wait >= Backoff(2.0, 60.0).base
        assert decision.reason == "said so"

    def test_the_wait_grows_with_the_calls_of_the_launch(self) -> None:
        assert _decide(RunTaskResultKind.THROTTLED, calls=1).wait <= 4
        assert max(_decide(RunTaskResultKind.THROTTLED, calls=10).wait for _ in range(5)) > 4

    @pytest.mark.parametrize(
        ("kind", "longest"),
        [
            (RunTaskResultKind.NEVER_SENT, 32.0),
            (RunTaskResultKind.UNUSABLE_PROFILE, 4.0),
            (RunTaskResultKind.CAPACITY, 60.0),
        ],
    )
    def test_what_a_mended_profile_mends_is_tried_again_within_a_minute(
        self, kind: RunTaskResultKind, longest: float
    ) -> None:
        class Latest:
            def uniform(self, a: float, b: float, /) -> float:
                return b

        decision = decide_call(RunTaskResult(kind), Record(id="a", calls=20), Backoff(2.0, 60.0), Latest())

        assert decision.wait == longest


class TestIsNewObservation:
    def test_of_the_same_status_only_a_higher_version_is_new(self) -> None:
        record = Record(id="a", version=2, last_status="RUNNING", started_at=NOW)

        assert [is_new_observation(record, _observed(version=version)) for version in (1, 2, 3)] == [False, False, True]

    def test_at_an_equal_version_a_later_status_is_new(self) -> None:
        record = Record(id="a", version=2, last_status="RUNNING", started_at=NOW)
        statuses = ("PENDING", "RUNNING", "DEPROVISIONING", "STOPPED", "DELETED")

        news = [is_new_observation(record, _observed(version=2, lastStatus=status)) for status in statuses]

        assert news == [False, False, True, True, True]

    @pytest.mark.parametrize("version", [0, 1, 2, 3])
    def test_an_end_is_new_whatever_its_version(self, version: int) -> None:
        assert is_new_observation(Record(id="a", version=2, last_status="RUNNING"), _observed_end(version=version))

    def test_without_a_version_a_change_is_new(self) -> None:
        record = Record(id="a", last_status="RUNNING", started_at=NOW)

        assert not is_new_observation(record, _observed(version=0))
        assert is_new_observation(record, _observed(version=0, lastStatus="DEACTIVATING"))
        assert is_new_observation(record, _observed_end(version=0))
        assert is_new_observation(Record(id="a", last_status="RUNNING"), _observed(version=0))


class TestBuildTaskUpdate:
    def test_a_running_task_has_no_end_state_and_the_wait_of_the_next_poll(self) -> None:
        update = build_task_update(
            Record(id="a", launch=4, arn=ARN), _observed(), 3, wait=5.0, relaunch_wait=9.0, now=NOW
        )

        assert (update.id, update.launch, update.arn, update.version) == ("a", 4, ARN, 2)
        assert (update.end_state, update.wait, update.may_relaunch, update.started_at) == (None, 5.0, False, NOW)

    def test_an_ended_one_has_its_facts_and_the_wait_of_the_next_launch(self) -> None:
        update = build_task_update(Record(id="a", arn=ARN), _observed_end(3), 3, wait=5.0, relaunch_wait=9.0, now=NOW)

        assert (update.end_state, update.exit_code, update.wait) == (State.FAILED, 3, 9.0)
        assert (update.stop_code, update.finished_at) == ("EssentialContainerExited", NOW + 9)
        assert update.max_attempts == 3

    def test_a_stop_by_a_user_is_in_the_update(self) -> None:
        assert build_task_update(
            Record(id="a"), _observed_end(143, stopCode="UserInitiated"), 3, 1.0, 1.0, now=NOW
        ).stopped_by_user
        assert not build_task_update(Record(id="a"), _observed_end(143), 3, 1.0, 1.0, now=NOW).stopped_by_user

    def test_a_lost_task_is_unknown_and_loses_against_any_newer_fact(self) -> None:
        update = build_lost_update(Record(id="a", launch=2, arn=ARN, version=7), "not seen for long")

        assert (update.end_state, update.may_relaunch, update.version) == (State.UNKNOWN, False, 7)
        assert build_lost_update(Record(id="a"), "").version == 0


START_FAILURE = _observed_end(None, stopCode="TaskFailedToStart", startedAt=None)
INTERRUPTED = _observed_end(137, stopCode="SpotInterruption")
STOPPED = _observed_end(143, stopCode="UserInitiated")


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        ("never_started", [True, False, False, False, False]),
        ("interrupted", [True, True, False, False, False]),
        ("any_failure", [True, True, True, False, False]),
    ],
)
def test_only_what_the_policy_calls_safe_is_relaunched(policy: str, expected: list[bool]) -> None:
    ends = [START_FAILURE, INTERRUPTED, _observed_end(1), _observed_end(0), STOPPED]

    assert [may_relaunch(policy, observation) for observation in ends] == expected


@pytest.mark.parametrize(("policy", "expected"), [("any_failure", True), ("interrupted", False)])
def test_a_runner_that_has_reported_no_end_has_failed_whatever_its_exit_code(policy: str, expected: bool) -> None:
    record = Record(id="a", launch=1, arn="arn", run="a.n.1", relaunch=policy)
    update = build_task_update(record, _observed_end(0), 3, 5.0, 1.0, now=NOW)
    assert update.may_relaunch is expected


class TestFindStopCause:
    PROVISIONING: ClassVar[dict[str, Any]] = {"lastStatus": "PROVISIONING", "startedAt": None}

    def test_a_marked_stop_is_carried_out(self) -> None:
        assert find_stop_cause(Record(id="a", stop_requested_by="alice"), _observed(), NOW) == "alice"

    @pytest.mark.parametrize(
        "observation", [_observed_end(), _observed(desiredStatus="STOPPED")], ids=["ended", "stopping"]
    )
    def test_what_stops_already_is_not_stopped_again(self, observation: Observation) -> None:
        record = Record(id="a", stop_requested_by="alice", time_limit=1.0, expires_at=1.0)

        assert find_stop_cause(record, observation, NOW + 100) == ""

    @pytest.mark.parametrize(("ran", "expected"), [(59.0, ""), (60.0, STOPPED_BY_TIME_LIMIT)])
    def test_the_time_limit_counts_from_the_start(self, ran: float, expected: str) -> None:
        assert find_stop_cause(Record(id="a", time_limit=60.0), _observed(), NOW + ran) == expected

    def test_the_time_limit_counts_though_the_start_was_seen_only_before(self) -> None:
        record = Record(id="a", time_limit=60.0, started_at=NOW)

        assert find_stop_cause(record, _observed(startedAt=None), NOW + 60) == STOPPED_BY_TIME_LIMIT

    @pytest.mark.parametrize(("late", "expected"), [(-1.0, ""), (0.0, STOPPED_BY_EXPIRY)])
    def test_what_has_not_started_at_its_deadline_is_stopped(self, late: float, expected: str) -> None:
        assert find_stop_cause(Record(id="a", expires_at=NOW), _observed(**self.PROVISIONING), NOW + late) == expected

    @pytest.mark.parametrize(
        "observation", [_observed(), _observed(startedAt=None), _observed(lastStatus="DEACTIVATING")]
    )
    def test_what_runs_at_its_deadline_continues(self, observation: Observation) -> None:
        assert find_stop_cause(Record(id="a", expires_at=NOW), observation, NOW + 1) == ""
