"""Whose trouble it is: a profile that is mended, a worker that is denied, capacity that comes back."""

from __future__ import annotations

from typing import Any

import pytest
from botocore.exceptions import ClientError

from ecs_queue.ecs.classify import classify_exception, classify_failures
from ecs_queue.ecs.clients import Target
from ecs_queue.protocol.ecs_results import RunTaskResult, RunTaskResultKind
from ecs_queue.protocol.states import State
from tests.fake_ecs import LostResult
from tests.worker.harness import TARGET, SteppedWorker, WorkerHarness, failed_result

WRONG = Target("us-east-1", None, None, "prdo")
NO_ROOM = "Capacity is unavailable at this time. Please try again later or in a different availability zone"
NO_PROVIDER = (
    "The specified capacity provider strategy cannot contain a capacity provider that is not associated with the "
    "cluster. Associate the capacity provider with the cluster or specify a valid capacity provider and try again."
)
ROLE = "arn:aws:iam::123456789012:role/chosen"
DENIED = "User: arn:aws:iam::123456789012:user/w is not authorized to perform: ecs:RunTask because {}"


@pytest.fixture
def harness() -> WorkerHarness:
    return WorkerHarness()


def error_result(message: str, code: str = "AccessDeniedException") -> RunTaskResult:
    return classify_exception(ClientError({"Error": {"Code": code, "Message": message}}, "RunTask"), sent=True)


def new_misconfigured_worker(harness: WorkerHarness) -> SteppedWorker:
    worker = harness.new_worker()
    worker.target_for = lambda queue: WRONG
    return worker


@pytest.mark.parametrize(
    "trouble",
    [
        error_result("Cluster not found.", "ClusterNotFoundException"),
        error_result("The security token included in the request is expired", "ExpiredTokenException"),
        error_result(NO_PROVIDER, "InvalidParameterException"),
        failed_result(RunTaskResultKind.UNUSABLE_PROFILE, was_sent=False),
        failed_result(RunTaskResultKind.NEVER_SENT, was_sent=False),
    ],
    ids=["cluster", "credentials", "capacity provider", "unusable", "never connected"],
)
def test_requests_of_a_profile_that_is_mended_are_launched_by_it_and_delay_no_new_one(
    harness: WorkerHarness, trouble: RunTaskResult
) -> None:
    wrong = new_misconfigured_worker(harness)
    for record_id in ("a", "b", "c"):
        harness.ecs.run_task_results.append(trouble)
        wrong.handle_message(harness.new_envelope(record_id))

    harness.advance_in_steps(5)
    assert harness.launch("new")

    records = [harness.record(record_id) for record_id in ("a", "b", "c", "new")]
    assert [record.state for record in records] == [State.LAUNCHED] * 4
    assert {Target.decode(record.target) for record in records} == {TARGET}
    assert [(record.launch, record.attempt) for record in records] == [(2, 1)] * 3 + [(1, 1)]
    assert harness.worker.circuit_breakers.health() == "ok"


def test_an_ambiguous_launch_at_the_old_target_does_not_pause_the_new_one(harness: WorkerHarness) -> None:
    harness.ecs.run_task_results.append(LostResult.NO_EFFECT)
    new_misconfigured_worker(harness).handle_message(harness.new_envelope("old"))
    missing = error_result("Cluster not found.", "ClusterNotFoundException")
    harness.ecs.on_run_task = lambda call: (
        harness.ecs.run_task_results.append(missing) if call.target == WRONG else None
    )

    harness.advance_in_steps(harness.config.lease_seconds + 5)

    old = harness.record("old")
    assert (old.state, old.retired, Target.decode(old.target)) == (State.LAUNCHING, False, WRONG)
    assert "Cluster not found" in old.reason
    assert not harness.worker.circuit_breakers.is_open("default")
    assert harness.launch("new")


@pytest.mark.parametrize(
    "why",
    [
        "no identity-based policy allows the ecs:RunTask action",
        "no permissions boundary allows the ecs:RunTask action",
        "of an explicit deny in a service control policy",
        "no VPC endpoint policy allows the ecs:RunTask action",
    ],
)
def test_a_denied_worker_fails_nothing_says_so_and_others_launch(harness: WorkerHarness, why: str) -> None:
    denied = harness.new_worker()
    ids = [f"t{number}" for number in range(20)]
    for record_id in ids:
        harness.ecs.run_task_results.append(error_result(DENIED.format(why)))
        denied.handle_message(harness.new_envelope(record_id))

    assert "ecs:RunTask" in denied.circuit_breakers.health()
    assert not denied.admission.may_launch("default")
    harness.advance_in_steps(10)

    records = [harness.record(record_id) for record_id in ids]
    assert {record.state for record in records} == {State.LAUNCHED}
    assert {record.attempt for record in records} == {1}
    assert harness.worker.circuit_breakers.health() == "ok"


@pytest.mark.parametrize(
    ("executor_config", "state"),
    [
        ({"overrides": {"taskRoleArn": ROLE}}, State.FAILED),
        ({"overrides": {"executionRoleArn": ROLE}}, State.FAILED),
        ({"overrides": {"taskRoleArn": f"{ROLE}2", "executionRoleArn": "arn:aws:iam::1:role/x"}}, State.FAILED),
        ({"overrides": {"taskRoleArn": "arn:aws:iam::1:role/x"}}, State.QUEUED),
        ({}, State.QUEUED),
    ],
)
@pytest.mark.parametrize("keys", [{}, {"encryption_keys": "A" * 43 + "="}], ids=["plain", "sealed"])
def test_only_a_role_that_the_request_chose_fails_it(
    executor_config: dict[str, Any], state: State, keys: dict[str, Any]
) -> None:
    harness = WorkerHarness(allowed_overrides="*", **keys)
    resource = f"{ROLE}2" if "2" in str(executor_config) else ROLE
    message = f"User: w is not authorized to perform: iam:PassRole on resource: {resource}"
    harness.ecs.run_task_results.append(error_result(message))
    harness.worker.handle_message(harness.new_envelope(executor_config=executor_config))
    assert harness.state() is state
    assert harness.worker.circuit_breakers.is_open("default") is (state is State.QUEUED)


def test_a_capacity_provider_that_the_request_chose_fails_it_alone() -> None:
    harness = WorkerHarness(allowed_overrides="*")
    spot = {"capacityProviderStrategy": [{"capacityProvider": "FARGATE_SPOT"}]}
    harness.ecs.run_task_results.append(error_result(NO_PROVIDER, "InvalidParameterException"))
    harness.worker.handle_message(harness.new_envelope(executor_config=spot))

    assert (harness.state(), harness.worker.circuit_breakers.health()) == (State.FAILED, "ok")


def test_an_endpoint_that_cannot_be_reached_pauses_the_queue_and_is_tried_again(harness: WorkerHarness) -> None:
    refused = failed_result(RunTaskResultKind.NEVER_SENT, was_sent=False, error_code="EndpointConnectionError")
    too_late = failed_result(RunTaskResultKind.NEVER_SENT, was_sent=False, error_code="CallBudgetExceeded")
    breakers = harness.worker.circuit_breakers
    for number, trouble in enumerate([refused, too_late, refused, too_late]):
        harness.ecs.run_task_results.append(trouble)
        harness.worker.handle_message(harness.new_envelope(f"t{number}"))
    assert breakers.health() == "ok"

    harness.ecs.run_task_results.append(refused)
    harness.worker.handle_message(harness.new_envelope("t4"))
    assert breakers.is_open("default")
    assert "never_sent" in breakers.health()

    harness.advance_in_steps(60)
    assert {harness.record(f"t{number}").state for number in range(5)} == {State.LAUNCHED}
    assert breakers.health() == "ok"
    harness.ecs.run_task_results += [refused, refused]
    harness.launch("t5")
    assert breakers.health() == "ok"  # counted anew


def stop_for_no_room(harness: WorkerHarness, place: str) -> None:
    for task in harness.ecs.live_tasks():
        texts = {"stoppedReason": NO_ROOM} if place == "stop" else {"stoppedReason": "Task failed to start"}
        container = {"name": "main", "reason": NO_ROOM} if place == "container" else {"name": "main"}
        stopped = {"lastStatus": "STOPPED", "desiredStatus": "STOPPED", "stopCode": "TaskFailedToStart"}
        harness.ecs._update_task(task["taskArn"], **stopped, **texts, containers=[container])


@pytest.mark.parametrize("channel", ["error", "failure", "stop", "container"])
def test_forty_seconds_without_capacity_end_in_success_with_one_attempt(harness: WorkerHarness, channel: str) -> None:
    refusal = {
        "error": error_result(NO_ROOM, "ClientException"),
        "failure": classify_failures([{"reason": NO_ROOM}]),
    }.get(channel)
    until = harness.clock() + 40
    body = harness.new_envelope()
    harness.ecs.on_run_task = lambda call: (
        harness.ecs.run_task_results.append(refusal) if refusal and harness.clock() < until else None
    )
    harness.worker.handle_message(body)
    while harness.clock() < until:
        if channel in ("stop", "container"):
            stop_for_no_room(harness, channel)
        harness.advance(1)
    harness.advance_in_steps(90)
    harness.ecs.finish(harness.record().arn)
    harness.advance_in_steps(30)

    record = harness.record()
    assert (record.state, record.attempts) == (State.SUCCESS, 1)
    assert record.launch > 3
