"""The interface of Airflow 3.4 on an older Airflow: keys are UUIDs, one dict of queues, a set of workload types.

On Airflow 3.4 itself (tried on 3.4.0b2) all the other tests show the same with its own BaseExecutor.
"""

from __future__ import annotations

import enum
import sys
from collections import defaultdict
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.executors.base_executor import BaseExecutor

from ecs_queue.airflow import executor as executor_module
from ecs_queue.airflow import portable_executor
from ecs_queue.protocol.states import State
from tests.airflow.harness import AirflowHarness, FakeTaskInstance, make_task_workload

pytestmark = [
    pytest.mark.airflow,
    pytest.mark.skipif(hasattr(BaseExecutor, "get_task_key"), reason="this Airflow has the interface itself"),
]


class WorkloadType(enum.Enum):
    """The workload types of Airflow 3.4, and one that the executor does not know."""

    EXECUTE_TASK = "ExecuteTask"
    EXECUTE_CALLBACK = "ExecuteCallback"
    TEST_CONNECTION = "TestConnection"
    PARSE_DAG_DEFINITIONS = "ParseDagDefinitions"


class Airflow34Executor(executor_module.EcsQueueExecutor):
    """Replaces the parts of BaseExecutor that differ in Airflow 3.4."""

    supports_task_instance_uuid = True

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        del self.queued_tasks
        self.executor_queues: dict[WorkloadType, dict[Any, Any]] = defaultdict(dict)
        self.logged: list[Any] = []

    def get_task_key(self, ti: Any) -> Any:
        return ti.id

    def queue_workload(self, workload: Any, session: Any) -> None:
        self.executor_queues[WorkloadType.EXECUTE_TASK][workload.ti.id] = workload

    def heartbeat(self) -> None:
        waiting = [workload for queue in self.executor_queues.values() for workload in queue.values()]
        if waiting:
            self._process_workloads(waiting)
        self.sync()

    def change_state(self, key: Any, state: Any, info: Any = None, remove_running: bool = True) -> None:
        if remove_running:
            self._untrack_and_stop(key)
            self.running.discard(key)
        self.event_buffer[key] = state, info

    def success(self, key: Any, info: Any = None) -> None:
        self.change_state(key, "success", info)

    def fail(self, key: Any, info: Any = None) -> None:
        self.change_state(key, "failed", info)

    def log_task_event(self, *, event: str, extra: str, ti_key: Any) -> None:
        self.logged.append((event, ti_key))


@pytest.fixture
def airflow_3_4(monkeypatch: pytest.MonkeyPatch) -> Iterator[AirflowHarness]:
    monkeypatch.setattr("tests.airflow.harness.EcsQueueExecutor", Airflow34Executor)
    with AirflowHarness.in_memory() as harness:
        yield harness


def test_a_task_goes_out_and_its_result_comes_back_under_its_uuid(airflow_3_4: AirflowHarness) -> None:
    item = make_task_workload()
    airflow_3_4.queue(item)
    airflow_3_4.heartbeat()
    assert airflow_3_4.executor.running == {item.ti.id}
    assert not any(airflow_3_4.executor.executor_queues.values())
    airflow_3_4.finish_request(airflow_3_4.request_id_of(item), State.FAILED)
    airflow_3_4.heartbeat()
    assert airflow_3_4.collect_events()[item.ti.id][0] == "failed"
    assert airflow_3_4.executor.logged == [("ecs task failed", item.ti.id)]


def test_a_workload_that_the_ledger_does_not_accept_stays_in_its_queue(airflow_3_4: AirflowHarness) -> None:
    item = make_task_workload()
    airflow_3_4.queue(item)
    airflow_3_4.ledger.is_unavailable = True
    airflow_3_4.heartbeat()
    assert item.ti.id in airflow_3_4.executor.executor_queues[WorkloadType.EXECUTE_TASK]
    airflow_3_4.ledger.is_unavailable = False
    airflow_3_4.heartbeat()
    assert airflow_3_4.executor.running == {item.ti.id}


def test_a_bad_executor_config_fails_its_task_alone(airflow_3_4: AirflowHarness) -> None:
    bad, good = make_task_workload("bad", executor_config={"name": "other"}), make_task_workload("good")
    airflow_3_4.queue(bad, good)
    airflow_3_4.heartbeat()
    assert airflow_3_4.collect_events()[bad.ti.id][0] == "failed"
    assert airflow_3_4.executor.running == {good.ti.id}


def test_revoking_and_adopting_use_the_uuid(airflow_3_4: AirflowHarness) -> None:
    item = make_task_workload()
    airflow_3_4.queue(item)
    airflow_3_4.heartbeat()
    request_id = airflow_3_4.request_id_of(item)
    other = airflow_3_4.another_scheduler()
    orphan = FakeTaskInstance(item, request_id)
    assert list(other.executor.try_adopt_task_instances([orphan])) == []
    assert other.executor.running == {item.ti.id}
    other.executor.revoke_task(ti=orphan)
    other.heartbeat()
    record = other.record(request_id)
    assert record is not None
    assert record.state is State.REVOKED
    assert not other.executor.running


def test_the_kinds_of_workload_are_those_that_are_known_here(monkeypatch: pytest.MonkeyPatch) -> None:
    later = SimpleNamespace(WorkloadType=WorkloadType)
    monkeypatch.setitem(sys.modules, "airflow.executors.workloads.base", later)
    assert portable_executor.find_supported_workload_types() == {
        WorkloadType.EXECUTE_TASK,
        WorkloadType.EXECUTE_CALLBACK,
        WorkloadType.TEST_CONNECTION,
    }
