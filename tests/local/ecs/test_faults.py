"""Token buckets and injected faults."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ecs_queue.local.ecs import FaultOptions, Quota
from ecs_queue.local.ecs.faults import ApiThrottle, AwsTokenBucket, Fault, FaultInjector
from tests.fake_clock import FakeClock


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
    one, two = FaultInjector(faults), FaultInjector(faults)
    thrown = [one.next_fault("RunTask") for _ in range(200)]
    assert thrown == [two.next_fault("RunTask") for _ in range(200)]
    assert {Fault.THROTTLE, Fault.CAPACITY, None} == set(thrown)
    other = FaultInjector(FaultOptions(throttle=0.3, capacity=0.3, seed=8))
    assert thrown != [other.next_fault("RunTask") for _ in range(200)]


def test_a_probability_is_met_on_average() -> None:
    dice = FaultInjector(FaultOptions(server_error=0.1, seed=1))
    thrown = sum(dice.next_fault("DescribeTasks") is Fault.SERVER_ERROR for _ in range(10_000))
    assert 900 <= thrown <= 1100


def test_faults_of_a_launch_belong_to_run_task_alone() -> None:
    dice = FaultInjector(FaultOptions(capacity=1.0, start_failure=1.0))
    assert dice.next_fault("RunTask") is Fault.CAPACITY
    assert dice.next_fault("DescribeTasks") is None
    assert dice.next_fault("CreateCluster") is None
