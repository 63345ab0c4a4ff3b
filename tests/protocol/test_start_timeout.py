"""A task that does not start in time: when it is stopped, and what its end then means."""

from __future__ import annotations

import pytest

from ecs_queue.protocol.decisions import build_task_update, find_stop_cause, waits_for_capacity
from ecs_queue.protocol.observation import STOP_TASK_REASON, observe
from ecs_queue.protocol.polling import poll_deadline
from ecs_queue.protocol.record import STOPPED_BY_EXPIRY, STOPPED_BY_START_TIMEOUT, Record
from ecs_queue.protocol.states import State
from ecs_queue.tasks import EcsTaskState

NOW = 1_700_000_000.0
PENDING = observe({"taskArn": "arn", "lastStatus": "PENDING", "desiredStatus": "RUNNING"}, "main")
BY_START_TIMEOUT = {"stopCode": "UserInitiated", "stoppedReason": STOP_TASK_REASON % STOPPED_BY_START_TIMEOUT}


def stopped(started: bool = False, **container: object) -> dict[str, object]:
    """The task as ECS describes it once it was stopped by its start timeout."""
    task = {"taskArn": "arn", "version": 7, "lastStatus": "STOPPED", "desiredStatus": "STOPPED", **BY_START_TIMEOUT}
    return {**task, **({"startedAt": NOW} if started else {}), "containers": [{"name": "main", **container}]}


def launched(**fields: object) -> Record:
    values: dict[str, object] = {"id": "a", "launched_at": NOW, "start_timeout": 60.0, "state": State.LAUNCHED}
    return Record(**(values | fields))  # type: ignore[arg-type]


@pytest.mark.parametrize(("age", "cause"), [(59.0, ""), (60.0, STOPPED_BY_START_TIMEOUT)])
def test_it_counts_from_the_launch(age: float, cause: str) -> None:
    assert find_stop_cause(launched(), PENDING, NOW + age) == cause


def test_without_one_a_task_may_start_whenever_it_likes() -> None:
    assert find_stop_cause(launched(start_timeout=0.0), PENDING, NOW + 1e6) == ""


@pytest.mark.parametrize("shown", [{"lastStatus": "RUNNING"}, {"lastStatus": "DEACTIVATING", "startedAt": NOW}])
def test_what_has_started_is_not_stopped(shown: dict[str, object]) -> None:
    observation = observe({"taskArn": "arn", "desiredStatus": "RUNNING", **shown}, "main")
    assert find_stop_cause(launched(), observation, NOW + 600) == ""


def test_what_was_seen_to_start_is_not_stopped_though_a_stale_answer_hides_it() -> None:
    assert find_stop_cause(launched(started_at=NOW + 5), PENDING, NOW + 600) == ""


def test_an_expired_request_expires_and_is_not_launched_again() -> None:
    assert find_stop_cause(launched(expires_at=NOW + 30), PENDING, NOW + 600) == STOPPED_BY_EXPIRY


def test_the_task_of_a_runner_is_left_to_its_run() -> None:
    assert find_stop_cause(launched(run="a.n.1"), PENDING, NOW + 600) == ""


def test_a_task_must_be_polled_when_its_time_is_over() -> None:
    assert poll_deadline(launched(), PENDING) == NOW + 60
    assert poll_deadline(launched(expires_at=NOW + 30), PENDING) == NOW + 30
    assert poll_deadline(launched(started_at=NOW + 5), PENDING) is None


def test_the_stopped_task_has_failed_to_start_and_uses_an_attempt() -> None:
    observation = observe(stopped(), "main")

    assert (observation.end_kind, observation.state) == ("start_failure", EcsTaskState.REMOVED)
    assert not waits_for_capacity(observation)
    assert observation.reason == "It had not started within its start_timeout"
    update = build_task_update(launched(), observation, 3, 1.0, 2.0, now=NOW)
    assert (update.may_relaunch, update.counts_attempt, update.stopped_by_user) == (True, True, True)


def test_a_container_that_names_lack_of_capacity_changes_nothing() -> None:
    task = stopped(reason="RESOURCE:MEMORY")
    assert not waits_for_capacity(observe(task, "main"))


@pytest.mark.parametrize("shows_start", [True, False], ids=["startedAt", "exit code"])
@pytest.mark.parametrize(("policy", "may_relaunch"), [("never_started", False), ("interrupted", True)])
def test_one_that_had_started_after_all_was_interrupted(shows_start: bool, policy: str, may_relaunch: bool) -> None:
    observation = observe(stopped(shows_start, exitCode=143), "main")

    assert (observation.end_kind, observation.state) == ("interrupted", EcsTaskState.FAILED)
    update = build_task_update(launched(relaunch=policy), observation, 3, 1.0, 2.0, now=NOW)
    assert update.may_relaunch is may_relaunch
    assert "had started by then" in update.reason


def test_one_that_has_succeeded_after_all_is_a_success() -> None:
    observation = observe(stopped(True, exitCode=0), "main")
    assert (observation.end_kind, observation.state) == ("ran", EcsTaskState.SUCCESS)
