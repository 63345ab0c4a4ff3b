"""The launcher's decisions."""

from __future__ import annotations

import random
from typing import Any, ClassVar

import pytest

from ecs_queue.core.answers import Kind, RunAnswer
from ecs_queue.core.decide import (
    AfterCall,
    Write,
    after_call,
    is_news,
    lost_outcome,
    may_relaunch,
    must_stop,
    outcome_of,
)
from ecs_queue.core.protocol import RefusalKind
from ecs_queue.core.record import STOPPED_BY_EXPIRY, STOPPED_BY_TIME_LIMIT, Record
from ecs_queue.core.retry import Backoff
from ecs_queue.core.states import State
from ecs_queue.core.verdict import Observation, observe

NOW = 1_800_000_000.0
ARN = "arn:aws:ecs:us-east-1:123456789012:task/jobs/1"


def _after(kind: Kind, calls: int = 1) -> AfterCall:
    answer = RunAnswer(kind, reason="said so")
    return after_call(answer, Record(id="a", calls=calls), Backoff(), random.Random(1))


def _seen(**changes: Any) -> Observation:
    task = {"taskArn": ARN, "lastStatus": "RUNNING", "desiredStatus": "RUNNING", "version": 2, "startedAt": NOW}
    return observe({**task, **changes}, "main")


def _ended(exit_code: int | None = 0, **changes: Any) -> Observation:
    container = {"name": "main"} if exit_code is None else {"name": "main", "exitCode": exit_code}
    ended = {"lastStatus": "STOPPED", "desiredStatus": "STOPPED", "containers": [container], "stoppedAt": NOW + 9}
    return _seen(**{**ended, "stopCode": "EssentialContainerExited", **changes})


class TestAfterACall:
    @pytest.mark.parametrize(
        ("kind", "write"),
        [
            (Kind.STARTED, Write.LAUNCHED),
            (Kind.THROTTLED, Write.NO_EFFECT),
            (Kind.NEVER_SENT, Write.NO_EFFECT),
            (Kind.PROFILE, Write.NO_EFFECT),
            (Kind.AMBIGUOUS, Write.UNSURE),
            (Kind.ANSWERED_5XX, Write.UNSURE),
            (Kind.CAPACITY, Write.REFUSED),
            (Kind.START_FAILURE, Write.REFUSED),
            (Kind.PERMANENT, Write.REFUSED),
            (Kind.CONFLICT, Write.ASK),
        ],
    )
    def test_each_kind_of_answer_has_its_write(self, kind: Kind, write: Write) -> None:
        assert _after(kind).write is write

    def test_every_kind_is_decided(self) -> None:
        assert {_after(kind).write for kind in Kind} == set(Write) - {Write.NONE}

    @pytest.mark.parametrize(
        ("kind", "refusal"),
        [
            (Kind.CAPACITY, RefusalKind.CAPACITY),
            (Kind.START_FAILURE, RefusalKind.START_FAILURE),
            (Kind.PERMANENT, RefusalKind.PERMANENT),
        ],
    )
    def test_a_refusal_says_what_it_costs(self, kind: Kind, refusal: RefusalKind) -> None:
        assert _after(kind).refusal is refusal

    def test_only_an_answered_server_error_is_known_to_be_over(self) -> None:
        assert [kind for kind in Kind if _after(kind).answered] == [Kind.ANSWERED_5XX]

    def test_only_an_unusable_profile_opens_the_circuit(self) -> None:
        assert [kind for kind in Kind if _after(kind).opens_circuit] == [Kind.PROFILE]

    @pytest.mark.parametrize("kind", [kind for kind in Kind if kind is not Kind.STARTED])
    def test_all_others_wait_at_least_the_base_and_tell_the_reason(self, kind: Kind) -> None:
        decision = _after(kind)

        assert decision.wait >= Backoff().base
        assert decision.reason == "said so"

    def test_the_wait_grows_with_the_calls_of_the_launch(self) -> None:
        assert _after(Kind.THROTTLED, calls=1).wait <= 4
        assert max(_after(Kind.THROTTLED, calls=10).wait for _ in range(5)) > 4


class TestNews:
    def test_a_higher_version_is_news_and_no_other_one(self) -> None:
        record = Record(id="a", version=2, last_status="PENDING")

        assert [is_news(record, _seen(version=version)) for version in (1, 2, 3)] == [False, False, True]

    def test_without_a_version_a_change_is_news(self) -> None:
        record = Record(id="a", last_status="RUNNING", started_at=NOW)

        assert not is_news(record, _seen(version=0))
        assert is_news(record, _seen(version=0, lastStatus="DEACTIVATING"))
        assert is_news(record, _ended(version=0))
        assert is_news(Record(id="a", last_status="RUNNING"), _seen(version=0))


class TestOutcome:
    def test_a_running_task_has_no_end_and_the_wait_of_the_next_look(self) -> None:
        outcome = outcome_of(Record(id="a", launch=4, arn=ARN), _seen(), 3, wait=5.0, retry_wait=9.0)

        assert (outcome.id, outcome.launch, outcome.arn, outcome.version) == ("a", 4, ARN, 2)
        assert (outcome.end, outcome.wait, outcome.retry, outcome.started_at) == (None, 5.0, False, NOW)

    def test_an_ended_one_has_its_facts_and_the_wait_of_the_next_launch(self) -> None:
        outcome = outcome_of(Record(id="a", arn=ARN), _ended(3), 3, wait=5.0, retry_wait=9.0)

        assert (outcome.end, outcome.exit_code, outcome.wait) == (State.FAILED, 3, 9.0)
        assert (outcome.stop_code, outcome.finished_at) == ("EssentialContainerExited", NOW + 9)
        assert outcome.max_attempts == 3

    def test_a_stop_by_hand_is_said(self) -> None:
        assert outcome_of(Record(id="a"), _ended(143, stopCode="UserInitiated"), 3, 1.0, 1.0).by_user
        assert not outcome_of(Record(id="a"), _ended(143), 3, 1.0, 1.0).by_user

    def test_a_lost_task_is_unknown_and_loses_against_any_newer_word(self) -> None:
        outcome = lost_outcome(Record(id="a", launch=2, arn=ARN, version=7), "not seen for long")

        assert (outcome.end, outcome.retry, outcome.version) == (State.UNKNOWN, False, 8)
        assert lost_outcome(Record(id="a"), "").version == 0


START_FAILURE = _ended(None, stopCode="TaskFailedToStart", startedAt=None)
INTERRUPTED = _ended(137, stopCode="SpotInterruption")
STOPPED = _ended(143, stopCode="UserInitiated")


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        ("never_started", [True, False, False, False, False]),
        ("interrupted", [True, True, False, False, False]),
        ("any_failure", [True, True, True, False, False]),
    ],
)
def test_only_what_the_policy_calls_safe_is_relaunched(policy: str, expected: list[bool]) -> None:
    ends = [START_FAILURE, INTERRUPTED, _ended(1), _ended(0), STOPPED]

    assert [may_relaunch(policy, seen) for seen in ends] == expected


class TestMustStop:
    PROVISIONING: ClassVar[dict[str, Any]] = {"lastStatus": "PROVISIONING", "startedAt": None}

    def test_a_marked_stop_is_carried_out(self) -> None:
        assert must_stop(Record(id="a", stop_by="alice"), _seen(), NOW) == "alice"

    @pytest.mark.parametrize("seen", [_ended(), _seen(desiredStatus="STOPPED")], ids=["ended", "stopping"])
    def test_what_stops_already_is_not_stopped_again(self, seen: Observation) -> None:
        record = Record(id="a", stop_by="alice", time_limit=1.0, expires_at=1.0)

        assert must_stop(record, seen, NOW + 100) == ""

    @pytest.mark.parametrize(("ran", "expected"), [(59.0, ""), (60.0, STOPPED_BY_TIME_LIMIT)])
    def test_the_time_limit_counts_from_the_start(self, ran: float, expected: str) -> None:
        assert must_stop(Record(id="a", time_limit=60.0), _seen(), NOW + ran) == expected

    def test_the_time_limit_counts_though_the_start_was_seen_only_before(self) -> None:
        record = Record(id="a", time_limit=60.0, started_at=NOW)

        assert must_stop(record, _seen(startedAt=None), NOW + 60) == STOPPED_BY_TIME_LIMIT

    @pytest.mark.parametrize(("late", "expected"), [(-1.0, ""), (0.0, STOPPED_BY_EXPIRY)])
    def test_what_has_not_started_at_its_deadline_is_stopped(self, late: float, expected: str) -> None:
        assert must_stop(Record(id="a", expires_at=NOW), _seen(**self.PROVISIONING), NOW + late) == expected

    @pytest.mark.parametrize("seen", [_seen(), _seen(startedAt=None), _seen(lastStatus="DEACTIVATING")])
    def test_what_runs_at_its_deadline_goes_on(self, seen: Observation) -> None:
        assert must_stop(Record(id="a", expires_at=NOW), seen, NOW + 1) == ""
