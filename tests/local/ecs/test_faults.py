"""Token buckets and injected faults."""

from __future__ import annotations

import pytest
from botocore.exceptions import ClientError
from hypothesis import given
from hypothesis import strategies as st

from ecs_queue.cli.local_ecs import FAULTS
from ecs_queue.local.ecs import FaultOptions, Quota
from ecs_queue.local.ecs.faults import ApiThrottle, AwsTokenBucket, Fault, FaultInjector
from ecs_queue.local.ecs.options import FAULT_NAMES
from tests.fake_clock import FakeClock
from tests.local.ecs.checked_client import describe_task, run_task, wait_for_status
from tests.local.ecs.conftest import StartEcs


def test_a_token_bucket_grants_its_burst_at_once_and_then_its_rate() -> None:
    clock = FakeClock()
    bucket = AwsTokenBucket(Quota(rate=20, burst=100), clock)
    assert sum(bucket.take() for _ in range(200)) == 100
    clock.advance(1)
    assert sum(bucket.take() for _ in range(200)) == 20
    clock.advance(3600)
    assert sum(bucket.take() for _ in range(200)) == 100


@given(st.lists(st.floats(0, 5), max_size=60))
def test_no_order_of_calls_gets_more_than_burst_plus_rate(pauses: list[float]) -> None:
    clock = FakeClock()
    bucket = AwsTokenBucket(Quota(rate=2, burst=3), clock)
    began = clock.now
    taken = 0
    for pause in pauses:
        clock.advance(pause)
        taken += bucket.take()
        assert taken <= 3 + 2 * (clock.now - began) + 1e-6


def test_without_a_quota_everything_is_allowed() -> None:
    quotas = ApiThrottle(None, None, FakeClock())
    assert all(quotas.allows("RunTask") for _ in range(1000))


def test_the_same_seed_gives_the_same_faults() -> None:
    faults = FaultOptions(throttle=0.3, capacity=0.3, seed=7)
    one, two = FaultInjector(faults, FakeClock()), FaultInjector(faults, FakeClock())
    thrown = [one.next_fault("RunTask") for _ in range(200)]
    assert thrown == [two.next_fault("RunTask") for _ in range(200)]
    assert {Fault.THROTTLE, Fault.CAPACITY, None} == set(thrown)
    other = FaultInjector(FaultOptions(throttle=0.3, capacity=0.3, seed=8), FakeClock())
    assert thrown != [other.next_fault("RunTask") for _ in range(200)]


def test_a_probability_is_met_on_average() -> None:
    dice = FaultInjector(FaultOptions(server_error=0.1, seed=1), FakeClock())
    thrown = sum(dice.next_fault("DescribeTasks") is Fault.SERVER_ERROR for _ in range(10_000))
    assert 900 <= thrown <= 1100


def test_faults_of_a_launch_belong_to_run_task_alone() -> None:
    dice = FaultInjector(FaultOptions(capacity=1.0, start_failure=1.0), FakeClock())
    assert dice.next_fault("RunTask") is Fault.CAPACITY
    assert dice.next_fault("DescribeTasks") is None
    assert dice.next_fault("CreateCluster") is None


def test_faults_end_after_their_time() -> None:
    clock = FakeClock()
    dice = FaultInjector(FaultOptions(capacity=1.0, throttle=1.0, seconds=40), clock)
    clock.advance(39)
    assert dice.next_fault("RunTask") is Fault.THROTTLE
    clock.advance(1)
    assert dice.next_fault("RunTask") is None


def test_every_fault_has_a_name_on_the_command_line() -> None:
    assert FAULTS == FAULT_NAMES == tuple(fault.value for fault in Fault)


@pytest.mark.parametrize(
    ("fault", "message"),
    [("capacity_error", "Tasks provisioning capacity limit exceeded"), ("denied", "not authorized to perform: ecs:")],
)
def test_a_refused_launch_raises_awss_error(start_ecs: StartEcs, fault: str, message: str) -> None:
    server, client = start_ecs(faults=FaultOptions(**{fault: 1.0}))  # type: ignore[arg-type] # a probability
    with pytest.raises(ClientError, match=message):
        client.run_task(cluster="local", taskDefinition="local")
    assert server.stats()["faults"] == {fault: 1}
    server.inject_faults(FaultOptions())
    assert run_task(client)


def test_a_lack_of_capacity_may_stop_a_task_that_was_accepted(start_ecs: StartEcs) -> None:
    _, client = start_ecs(faults=FaultOptions(capacity_stop=1.0))
    arn = run_task(client, "true")
    wait_for_status(client, arn)
    task = describe_task(client, arn)
    assert task["stopCode"] == "TaskFailedToStart"
    assert "Capacity is unavailable" in task["stoppedReason"]
    assert "startedAt" not in task


@pytest.mark.parametrize("member", ["taskRoleArn", "executionRoleArn"])
def test_a_protected_role_cannot_be_passed(start_ecs: StartEcs, member: str) -> None:
    role = "arn:aws:iam::123456789012:role/admin"
    _, client = start_ecs(faults=FaultOptions(protected_roles=(role,)))
    with pytest.raises(ClientError, match=f"iam:PassRole on resource: {role}"):
        client.run_task(cluster="local", taskDefinition="local", overrides={member: role})
    assert run_task(client, overrides={member: role.replace("admin", "task")})


def test_one_caller_may_be_denied(start_ecs: StartEcs) -> None:
    server, client = start_ecs(faults=FaultOptions(denied_access_key_ids=("local",)))  # the test client's
    with pytest.raises(ClientError, match="AccessDeniedException"):
        client.run_task(cluster="local", taskDefinition="local")
    server.inject_faults(FaultOptions(denied_access_key_ids=("another",)))
    assert run_task(client)


def test_an_endpoint_of_one_region_refuses_signatures_for_another(start_ecs: StartEcs) -> None:
    _, client = start_ecs(checks_region=True)
    assert run_task(client)
    _, stranger = start_ecs(checks_region=True, region="eu-west-1")
    with pytest.raises(ClientError, match="InvalidSignatureException"):
        stranger.run_task(cluster="local", taskDefinition="local")
