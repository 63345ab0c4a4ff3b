"""An executor whose configuration is wrong: the scheduler goes on, tasks wait, and the sentence is where users look."""

from __future__ import annotations

import logging

import pytest

from ecs_queue.airflow import ledger_access
from ecs_queue.airflow.executor import EcsQueueExecutor
from tests.airflow.harness import SETTINGS, AirflowHarness, FakeTaskInstance, make_task_workload

pytestmark = pytest.mark.airflow

MISTAKES = {
    "unknown key": ({"AIRFLOW__ECS_QUEUE__BROKER_ULR": "redis://h/0"}, "did you mean 'broker_url'"),
    "unknown option of the URL": ({"AIRFLOW__ECS_QUEUE__BROKER_URL": "redis://h/0?no_such=1"}, "_url"),
    "bad value": ({"AIRFLOW__AWS_ECS_EXECUTOR__ASSIGN_PUBLIC_IP": "perhaps"}, "assign_public_ip"),
}


@pytest.fixture
def executor(monkeypatch: pytest.MonkeyPatch) -> EcsQueueExecutor:
    """Return an executor of a new scheduler job, not started; its log reaches pytest."""
    for name, text in {**SETTINGS, "AIRFLOW__ECS_QUEUE__BROKER_URL": "memory://"}.items():
        monkeypatch.setenv(name, text)
    executor = EcsQueueExecutor(parallelism=32)
    executor.job_id = 7
    executor._log = logging.getLogger("tests.airflow.misconfigured")
    return executor


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_wrong_configuration_ends_no_scheduler_and_is_said_once_and_to_each_task(
    executor: EcsQueueExecutor, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, mistake: str
) -> None:
    settings, expected = MISTAKES[mistake]
    for name, text in settings.items():
        monkeypatch.setenv(name, text)
    caplog.set_level(logging.WARNING)
    executor.start()
    assert executor.problem is not None
    assert expected in executor.problem
    item = make_task_workload()
    executor.queue_workload(item, session=None)
    orphan = FakeTaskInstance(make_task_workload("orphan"), "11111111-1111-1111-1111-111111111111")
    for _ in range(3):
        executor.heartbeat()
    assert list(executor.try_adopt_task_instances([orphan])) == []
    assert [(log.event, log.extra) for log in executor._task_event_logs] == [
        ("ecs-queue cannot send the task", executor.problem)
    ]
    assert executor.workload_key(item) in executor.airflow_queues()[0]
    executor.revoke_task(ti=item.ti)
    assert not executor.airflow_queues()[0]
    executor.end()
    assert [record.getMessage() for record in caplog.records] == [f"ecs-queue: {executor.problem}"]


def test_a_heartbeat_before_the_start_raises_nothing(
    executor: EcsQueueExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW__ECS_QUEUE__BROKER_ULR", "redis://h/0")
    executor.heartbeat()
    assert "ledger_access" not in executor.__dict__


def test_what_a_library_raises_for_a_setting_ends_no_scheduler_either(
    executor: EcsQueueExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    def open_broker(_config: object) -> None:
        raise TypeError("unexpected keyword argument 'port'")

    monkeypatch.setattr(ledger_access, "open_broker", open_broker)
    executor.start()
    assert executor.problem is not None
    assert "TypeError: unexpected keyword argument 'port'" in executor.problem


def test_a_restart_with_the_corrected_configuration_sends_the_tasks(executor: EcsQueueExecutor) -> None:
    executor.start()
    assert executor.problem is None
    with AirflowHarness.from_executor(executor) as harness:
        [item] = harness.send_tasks()
        assert harness.executor.workload_key(item) in executor.running


def test_a_task_whose_queue_has_no_cluster_is_told_so_once() -> None:
    with AirflowHarness.in_memory() as harness:
        item = make_task_workload(queue="gpu")
        profile = harness.executor.ledger_access.config.profile("gpu")
        object.__setattr__(profile, "cluster", "")
        harness.queue(item)
        harness.heartbeat()
        harness.heartbeat()
        [(event, text)] = harness.take_event_log()
        assert event == "ecs-queue cannot send the task"
        assert "cluster" in text
