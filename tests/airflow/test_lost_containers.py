"""Containers that are lost before their tasks ran: queued again once, without using one of the task's tries."""

from __future__ import annotations

from typing import Any

import pytest

from ecs_queue.airflow.task_instances import TaskStanding
from ecs_queue.protocol.states import State
from tests.airflow.harness import AirflowHarness, FakeTaskInstance, task_key

pytestmark = pytest.mark.airflow

HOST_LOST: dict[str, Any] = {"exit_code": None, "reason": "Host EC2 (instance i-1) terminated."}
LOSSES: dict[str, dict[str, Any]] = {
    "host": HOST_LOST,
    "Spot": {"exit_code": 143, "stop_code": "SpotInterruption", "reason": "Your Spot Task was interrupted."},
    "no exit code": {
        "exit_code": None,
        "stop_code": "EssentialContainerExited",
        "reason": "Essential container exited",
    },
}


def lose_container(harness: AirflowHarness, item: Any, standing: TaskStanding, **observation: Any) -> str:
    """End the task's request, and let the executor process the result. Return the id of the request."""
    request_id = harness.request_id_of(item)
    harness.standings[request_id] = standing
    harness.finish_request(request_id, State.FAILED, **observation)
    harness.heartbeat()
    return request_id


@pytest.mark.parametrize("loss", LOSSES)
def test_a_task_whose_container_was_lost_before_it_ran_is_queued_again(harness: AirflowHarness, loss: str) -> None:
    [item] = harness.send_tasks()
    harness.clock.advance(60)
    harness.heartbeat()
    lost = lose_container(harness, item, TaskStanding.NOT_STARTED, **LOSSES[loss])
    assert harness.collect_events() == {}
    [(event, text)] = harness.take_event_log()
    assert event == "ecs task lost before it ran"
    assert "the supervisor never reported RUNNING" in text
    assert text.endswith("this uses up none of the task's tries")
    harness.heartbeat()
    again = harness.request_id_of(item)
    assert again != lost
    assert harness.collect_events()[harness.executor.workload_key(item)] == ("queued", again)
    harness.finish_request(again)
    harness.heartbeat()
    assert harness.collect_events()[harness.executor.workload_key(item)][0] == "success"


def test_the_second_loss_uses_one_of_the_tasks_tries(harness: AirflowHarness) -> None:
    [item] = harness.send_tasks()
    lose_container(harness, item, TaskStanding.NOT_STARTED, **HOST_LOST)
    harness.heartbeat()
    harness.collect_events()
    lose_container(harness, item, TaskStanding.NOT_STARTED, **HOST_LOST)
    assert harness.collect_events()[harness.executor.workload_key(item)][0] == "failed"


@pytest.mark.parametrize(
    ("standing", "observation"),
    [
        (TaskStanding.RUNNING, HOST_LOST),
        (TaskStanding.NOT_STARTED, {"exit_code": 1, "stop_code": "EssentialContainerExited"}),
        (TaskStanding.NOT_STARTED, {"exit_code": None, "stop_code": "UserInitiated"}),
    ],
    ids=["the task ran", "the container ended by itself", "a user stopped it"],
)
def test_no_other_end_is_queued_again(
    harness: AirflowHarness, standing: TaskStanding, observation: dict[str, Any]
) -> None:
    [item] = harness.send_tasks()
    lose_container(harness, item, standing, **observation)
    assert harness.collect_events()[harness.executor.workload_key(item)][0] == "failed"


def test_a_task_that_an_earlier_scheduler_sent_is_not_queued_again(harness: AirflowHarness) -> None:
    [item] = harness.send_tasks()
    other = harness.another_scheduler()
    request_id = harness.request_id_of(item)
    assert list(other.executor.try_adopt_task_instances([FakeTaskInstance(item, request_id)])) == []
    lose_container(other, item, TaskStanding.NOT_STARTED, **HOST_LOST)
    assert other.collect_events()[task_key(item)][0] == "failed"
