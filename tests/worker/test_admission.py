"""Admission: what a worker knows of pauses and limits."""

from __future__ import annotations

import math

from tests.worker.harness import WorkerHarness

LIMITS = {
    "AIRFLOW__AWS_ECS_EXECUTOR__MAX_IN_FLIGHT": "3",
    "AIRFLOW__AWS_ECS_EXECUTOR_GPU__MAX_IN_FLIGHT": "1",
    "AIRFLOW__AWS_ECS_EXECUTOR_FREE__MAX_IN_FLIGHT": "0",
}


class ThreeQueueHarness(WorkerHarness):
    queues = ("default", "gpu", "free")


def test_without_limits_there_is_room_and_the_ledger_counts_nothing() -> None:
    harness = WorkerHarness()
    calls: list[str] = []
    harness.ledger.on_call = lambda operation, when: calls.append(operation)

    harness.worker.admission.step()

    assert harness.worker.admission.available("default") == math.inf
    assert set(calls) == {"list_paused_queues"}


def test_each_queue_has_the_limit_of_its_profile() -> None:
    harness = ThreeQueueHarness(LIMITS)
    harness.launch("a")

    harness.worker.admission.step()

    assert [harness.worker.admission.available(queue) for queue in harness.queues] == [2, 1, math.inf]


def test_the_namespaces_limit_is_every_queues() -> None:
    harness = ThreeQueueHarness(LIMITS, max_in_flight=2)
    harness.launch("a")

    harness.worker.admission.step()

    assert [harness.worker.admission.available(queue) for queue in harness.queues] == [1, 1, 1]


def test_tasks_that_start_use_up_what_may_start_at_a_time() -> None:
    harness = ThreeQueueHarness({**LIMITS, "AIRFLOW__AWS_ECS_EXECUTOR__MAX_STARTING": "2"})
    harness.launch("a")

    harness.worker.admission.step()

    assert [harness.worker.admission.available(queue) for queue in harness.queues] == [1, 1, 2]


def test_a_warm_pool_is_held_back_by_the_claim_alone() -> None:
    """An idle runner may take a request though no further task may start."""
    harness = WorkerHarness(
        {"AIRFLOW__AWS_ECS_EXECUTOR__MAX_STARTING": "1"} | {"AIRFLOW__AWS_ECS_EXECUTOR__WARM_SECONDS": "60"}
    )

    harness.worker.admission.step()

    assert harness.worker.admission.available("default") == math.inf


def test_room_is_used_up_until_the_ledger_is_asked_again() -> None:
    harness = ThreeQueueHarness(LIMITS)
    admission = harness.worker.admission
    admission.step()
    admission.launch_started("gpu")
    assert (admission.may_launch("gpu"), admission.may_launch("default")) == (False, True)

    admission.step()

    assert admission.may_launch("gpu")


def test_there_is_room_again_at_once_for_a_launch_that_is_over() -> None:
    harness = ThreeQueueHarness(LIMITS, max_in_flight=3)
    admission = harness.worker.admission
    admission.step()
    for queue in ("gpu", "default", "free"):
        admission.launch_started(queue)
    assert [admission.available(queue) for queue in harness.queues] == [0, 0, 0]

    admission.launch_over("gpu")

    assert [admission.available(queue) for queue in harness.queues] == [1, 1, 1]


def test_a_claim_that_found_it_full_shuts_it_until_the_ledger_is_asked_again() -> None:
    harness = WorkerHarness()
    admission = harness.worker.admission
    admission.step()

    admission.claim_refused("default")

    assert admission.available("default") == 0
    admission.step()
    assert admission.available("default") == math.inf


def test_a_pause_and_its_end_take_effect_at_the_next_refresh() -> None:
    harness = WorkerHarness()
    admission = harness.worker.admission
    harness.memory_ledger.pause_queues(["default"])
    admission.step()
    assert admission.available("default") == 0

    harness.memory_ledger.resume_queues(["default"])
    admission.step()

    assert admission.may_launch("default")


def test_an_open_circuit_shuts_its_queue() -> None:
    harness = ThreeQueueHarness()
    harness.worker.circuit_breakers.open("gpu", "no credentials")

    assert [harness.worker.admission.may_launch(queue) for queue in harness.queues] == [True, False, True]


def test_what_waits_is_run_when_its_queue_opens() -> None:
    harness = WorkerHarness()
    harness.memory_ledger.pause_queues(["default"])
    harness.put_request()
    harness.worker.admission.step()
    harness.clock.advance(6)
    harness.worker.sweeper.step()
    assert not harness.ecs.run_task_calls
    harness.memory_ledger.resume_queues(["default"])

    harness.worker.admission.step()
    harness.worker.sweeper.step()

    assert len(harness.ecs.run_task_calls) == 1
