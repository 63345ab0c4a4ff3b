"""Token buckets and fault dice."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ecs_queue.local.ecs import Faults, Quota
from ecs_queue.local.ecs.limits import Fault, FaultDice, Quotas, TokenBucket
from tests.local.ecs.support import Clock


def test_a_bucket_gives_its_burst_at_once_and_then_its_rate() -> None:
    clock = Clock()
    bucket = TokenBucket(Quota(rate=20, burst=100), clock)
    assert sum(bucket.take() for _ in range(200)) == 100
    clock.now += 1
    assert sum(bucket.take() for _ in range(200)) == 20
    clock.now += 3600
    assert sum(bucket.take() for _ in range(200)) == 100


@given(st.lists(st.floats(0, 5), max_size=60))
def test_no_order_of_calls_gets_more_than_burst_plus_rate(pauses: list[float]) -> None:
    clock = Clock()
    bucket = TokenBucket(Quota(rate=2, burst=3), clock)
    began = clock.now
    taken = 0
    for pause in pauses:
        clock.now += pause
        taken += bucket.take()
        assert taken <= 3 + 2 * (clock.now - began) + 1e-6


def test_without_a_quota_everything_is_allowed() -> None:
    quotas = Quotas(None, None, Clock())
    assert all(quotas.allows("RunTask") for _ in range(1000))


def test_the_same_seed_gives_the_same_faults() -> None:
    faults = Faults(throttle=0.3, capacity=0.3, seed=7)
    one, two = FaultDice(faults), FaultDice(faults)
    thrown = [one.throw("RunTask") for _ in range(200)]
    assert thrown == [two.throw("RunTask") for _ in range(200)]
    assert {Fault.THROTTLE, Fault.CAPACITY, None} == set(thrown)
    other = FaultDice(Faults(throttle=0.3, capacity=0.3, seed=8))
    assert thrown != [other.throw("RunTask") for _ in range(200)]


def test_a_probability_is_met_on_average() -> None:
    dice = FaultDice(Faults(server_error=0.1, seed=1))
    thrown = sum(dice.throw("DescribeTasks") is Fault.SERVER_ERROR for _ in range(10_000))
    assert 900 <= thrown <= 1100


def test_faults_of_a_launch_belong_to_run_task_alone() -> None:
    dice = FaultDice(Faults(capacity=1.0, start_failure=1.0))
    assert dice.throw("RunTask") is Fault.CAPACITY
    assert dice.throw("DescribeTasks") is None
    assert dice.throw("CreateCluster") is None
