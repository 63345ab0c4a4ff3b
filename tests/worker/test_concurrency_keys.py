"""Concurrency keys in a worker: what waits for a key, and what goes on beside it."""

from __future__ import annotations

import math
from functools import partial
from typing import Any
from unittest.mock import patch

import pytest

from ecs_queue.errors import UndecodableMessage
from ecs_queue.protocol.ecs_results import RunTaskResultKind
from ecs_queue.protocol.settings import KEY_RETRY_SECONDS
from ecs_queue.protocol.states import State
from ecs_queue.runtask import launch_spec
from ecs_queue.worker.fair_queue import Job, JobKind
from tests.worker.harness import TARGET, FakeDelivery, WorkerHarness, WorkerKilled, failed_result

ONE_PER_KEY = {"AIRFLOW__AWS_ECS_EXECUTOR__MAX_PER_KEY": "1"}


@pytest.fixture
def harness() -> WorkerHarness:
    return WorkerHarness(ONE_PER_KEY)


def submit(harness: WorkerHarness, *ids: str, key: str = "k", **fields: Any) -> None:
    """Deliver the messages of requests with a key."""
    for record_id in ids:
        assert harness.worker.handle_message(harness.new_envelope(record_id, concurrency_key=key, **fields))
        harness.clock.advance(1.0)


def states(harness: WorkerHarness, *ids: str) -> list[State]:
    return [harness.state(record_id) for record_id in ids]


def test_the_next_request_of_a_key_is_launched_when_one_has_ended(harness: WorkerHarness) -> None:
    submit(harness, "a", "b", "c")
    assert states(harness, "a", "b", "c") == [State.LAUNCHED, State.QUEUED, State.QUEUED]
    harness.ecs.finish(harness.record("a").arn)
    harness.advance_in_steps(5)
    assert states(harness, "a", "b", "c") == [State.SUCCESS, State.LAUNCHED, State.QUEUED]
    harness.ecs.finish(harness.record("b").arn)
    harness.advance_in_steps(5)
    assert states(harness, "b", "c") == [State.SUCCESS, State.LAUNCHED]


def test_other_keys_and_requests_without_one_go_on(harness: WorkerHarness) -> None:
    submit(harness, "a", "b")
    submit(harness, "other", key="l")
    assert harness.worker.handle_message(harness.new_envelope("plain"))
    assert states(harness, "a", "b", "other", "plain") == [
        State.LAUNCHED,
        State.QUEUED,
        State.LAUNCHED,
        State.LAUNCHED,
    ]
    assert harness.worker.admission.available("default") == math.inf


def test_what_waits_for_a_key_takes_nothing_of_what_its_queue_may_launch() -> None:
    harness = WorkerHarness({**ONE_PER_KEY, "AIRFLOW__AWS_ECS_EXECUTOR__MAX_IN_FLIGHT": "3"})
    harness.worker.admission.step()
    for index, key in enumerate(("k", "k", "k", "k", "l")):
        delivery = FakeDelivery(harness.new_envelope(f"t{index}", concurrency_key=key))
        run: Any = partial(harness.worker.launcher.handle_message, delivery)
        harness.worker.thread_pool.submit(Job(run, JobKind.MESSAGE, "default"))
    assert harness.state("t4") is State.LAUNCHED
    assert harness.worker.admission.available("default") == 1


def test_it_gives_its_token_back_uses_no_attempt_and_leaves_an_event() -> None:
    rate = {**ONE_PER_KEY, "AIRFLOW__AWS_ECS_EXECUTOR__LAUNCH_RATE": "0.001"}
    harness = WorkerHarness(rate)
    worker = harness.worker
    for record_id, key in (("a", "k"), ("b", "k"), ("c", "l")):
        if record_id == "c":
            harness.clock.advance(1.0)
        delivery = FakeDelivery(harness.new_envelope(record_id, concurrency_key=key))
        run: Any = partial(worker.launcher.handle_message, delivery)
        job = Job(run, JobKind.MESSAGE, "default", rate_limit=worker.context.rate_limit_for("default"))
        worker.thread_pool.submit(job)
        if record_id == "a":
            worker.context.return_launch_token("default", TARGET)  # the only one that there is
    assert states(harness, "a", "b", "c") == [State.LAUNCHED, State.QUEUED, State.LAUNCHED]
    record = harness.record("b")
    assert (record.attempt, record.launch, record.calls) == (1, 1, 0)
    assert worker.emitted("request.waits_for_key") == [{"id": "b", "queue": "default", "concurrency_key": "k"}]


def test_a_request_that_waits_is_neither_poison_nor_tried_over_and_over(harness: WorkerHarness) -> None:
    submit(harness, "a", "b")
    claims = len(harness.worker.emitted("request.waits_for_key"))
    harness.advance_in_steps(KEY_RETRY_SECONDS * 10, 10.0)
    assert 8 <= len(harness.worker.emitted("request.waits_for_key")) - claims <= 10
    assert (harness.state("b"), harness.record("b").abandoned_claims) == (State.QUEUED, 0)
    harness.ecs.finish(harness.record("a").arn)
    harness.advance_in_steps(60)  # a task that has run for long is polled less often
    assert harness.state("b") is State.LAUNCHED


def test_it_expires_when_its_time_is_over_and_says_what_it_waited_for(harness: WorkerHarness) -> None:
    submit(harness, "a")
    submit(harness, "b", expires_in=60.0)
    harness.advance_in_steps(58)
    assert harness.state("b") is State.QUEUED
    harness.advance_in_steps(5)
    assert harness.state("b") is State.EXPIRED
    assert harness.record("b").reason.endswith("it waited because: max_per_key of its queue is reached for the key k")


def test_a_refused_launch_lets_the_next_one_of_its_key_try(harness: WorkerHarness) -> None:
    harness.ecs.run_task_results.append(failed_result(RunTaskResultKind.PERMANENT))
    submit(harness, "a", "b")
    assert states(harness, "a", "b") == [State.FAILED, State.LAUNCHED]


def test_a_throttled_launch_keeps_its_place_among_those_that_wait(harness: WorkerHarness) -> None:
    harness.ecs.run_task_results.append(failed_result(RunTaskResultKind.THROTTLED))
    submit(harness, "a")
    assert harness.state("a") is State.QUEUED
    submit(harness, "b", "c")
    harness.advance_in_steps(30)
    assert states(harness, "a", "b", "c") == [State.QUEUED, State.LAUNCHED, State.QUEUED]
    harness.ecs.finish(harness.record("b").arn)
    harness.advance_in_steps(10)
    assert states(harness, "a", "b", "c") == [State.LAUNCHED, State.SUCCESS, State.QUEUED]


def test_a_worker_that_dies_between_claim_and_call_leaks_no_slot(harness: WorkerHarness) -> None:
    def die(operation: str, when: str) -> None:
        if (operation, when) == ("put_and_claim", "after"):
            raise WorkerKilled

    harness.ledger.on_call = die
    with pytest.raises(WorkerKilled):
        harness.worker.handle_message(harness.new_envelope("a", concurrency_key="k"))
    harness.ledger.on_call = lambda operation, when: None
    submit(harness, "b")
    assert states(harness, "a", "b") == [State.LAUNCHING, State.QUEUED]

    harness.worker = harness.new_worker()
    harness.advance_in_steps(60)
    assert states(harness, "a", "b") == [State.LAUNCHED, State.QUEUED]
    harness.ecs.finish(harness.record("a").arn)
    harness.advance_in_steps(5)
    assert states(harness, "a", "b") == [State.SUCCESS, State.LAUNCHED]


def test_a_queue_without_a_limit_launches_all_of_a_key() -> None:
    harness = WorkerHarness()
    submit(harness, "a", "b", "c")
    assert states(harness, "a", "b", "c") == [State.LAUNCHED] * 3
    assert harness.record("a").spec_version == launch_spec.POLICY_VERSION  # it holds a slot, of a limit set later


def test_a_worker_with_a_higher_limit_starts_what_waits(harness: WorkerHarness) -> None:
    submit(harness, "a", "b", "c")
    harness.worker = harness.new_worker({"AIRFLOW__AWS_ECS_EXECUTOR__MAX_PER_KEY": "3"})
    harness.advance_in_steps(KEY_RETRY_SECONDS + 5)
    assert states(harness, "a", "b", "c") == [State.LAUNCHED] * 3


def test_a_worker_of_the_version_before_neither_launches_nor_follows_a_request_with_a_key(
    harness: WorkerHarness,
) -> None:
    """It would not look at the key: its launch spec has a version that it does not know."""
    submit(harness, "a")
    assert harness.record("a").spec_version == launch_spec.POLICY_VERSION

    def check_version(version: int) -> None:
        if version > launch_spec.RUNNER_VERSION:
            raise UndecodableMessage(f"version {version} is not known")

    old = harness.new_worker({})
    with patch.object(launch_spec, "_check_version", check_version):
        harness.ecs.finish(harness.record("a").arn)
        for _ in range(20):
            harness.clock.advance(1.0)
            old.sweep()
            old.poll()
    assert harness.state("a") is State.LAUNCHED


def test_a_warm_request_holds_a_slot_of_its_key() -> None:
    harness = WorkerHarness({**ONE_PER_KEY, "AIRFLOW__AWS_ECS_EXECUTOR__WARM_SECONDS": "60"})
    submit(harness, "a", "b")
    assert states(harness, "a", "b") == [State.LAUNCHED, State.QUEUED]
    assert harness.record("a").run
    harness.memory_ledger.stop(["a"], "ann")
    harness.advance_in_steps(5)
    assert states(harness, "a", "b") == [State.REVOKED, State.LAUNCHED]
