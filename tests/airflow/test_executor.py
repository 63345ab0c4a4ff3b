"""The executor's contract with the scheduler: workloads out, results in."""

from __future__ import annotations

import gc
import json
import logging
import os
import subprocess
import sys
import uuid
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import msgspec
import pytest
from airflow.executors.base_executor import BaseExecutor
from sqlalchemy import Uuid
from sqlalchemy.dialects import mysql

from ecs_queue.airflow import executor as executor_module
from ecs_queue.config import load_config
from ecs_queue.ledger import open_ledger
from ecs_queue.messages import envelope
from ecs_queue.messages.result import build_result
from ecs_queue.protocol.states import State
from tests.airflow.harness import (
    SETTINGS,
    AirflowHarness,
    FakeTaskInstance,
    MemoryBroker,
    make_callback,
    make_connection_test,
    make_task_workload,
    make_token,
    task_key,
)

DAG_FILE = """
from airflow.sdk import DAG
from airflow.providers.standard.operators.empty import EmptyOperator

with DAG("dag{number}"):
    EmptyOperator(task_id="task", executor="{executor}")
"""

pytestmark = pytest.mark.airflow


def test_the_journal_writes_nothing_during_a_heartbeat(
    harness: AirflowHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its thread would have the GIL whenever the scheduler's thread waits for a server's answer."""
    steps: list[str] = []

    @contextmanager
    def pause_journal() -> Iterator[None]:
        steps.append("paused")
        yield
        steps.append("resumed")

    monkeypatch.setattr(harness.executor.ledger_access, "pause_journal", pause_journal)
    monkeypatch.setattr(harness.executor._submitter, "submit", lambda _: steps.append("submitted"))
    monkeypatch.setattr(harness.executor._result_processor, "run_once", lambda _: steps.append("synced"))
    harness.queue(make_task_workload())
    harness.heartbeat()
    assert steps == ["paused", "submitted", "synced", "resumed"]


class TestSubmission:
    def test_a_request_carries_the_trace_of_its_task(self, harness: AirflowHarness) -> None:
        trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
        item = make_task_workload(context_carrier={"traceparent": trace})
        harness.queue(item)
        harness.heartbeat()
        record_id = getattr(item.ti, "external_executor_id", None) or harness.request_id_of(item)
        (record,) = harness.ledger.inner.get_with_payload([record_id])
        assert record is not None
        assert envelope.decode_request(record.request).traceparent == trace

    def test_a_request_names_its_executor_and_has_no_labels_unless_they_are_configured(
        self, harness: AirflowHarness
    ) -> None:
        item = make_task_workload()
        harness.queue(item)
        harness.heartbeat()
        (record,) = harness.ledger.inner.get([harness.request_id_of(item)])
        assert record is not None
        assert (record.submitted_by, record.labels) == ("EcsQueueExecutor", "")

    def test_a_task_becomes_a_request_under_the_id_that_airflow_assigned(self, harness: AirflowHarness) -> None:
        item = make_task_workload()
        harness.queue(item)
        harness.heartbeat()
        assigned = getattr(item.ti, "external_executor_id", None) or harness.request_id_of(item)
        record = harness.record(assigned)
        assert record is not None
        assert record.state is State.QUEUED
        assert record.owner == "airflow-7"
        assert record.relaunch == "never_started"
        assert task_key(item) in harness.executor.running
        assert not harness.executor.queued_tasks

    def test_the_request_runs_the_workload_in_a_container_that_knows_what_it_is(self, harness: AirflowHarness) -> None:
        item = make_task_workload()
        harness.queue(item)
        harness.heartbeat()
        body = json.loads(harness.broker.inner.requests[0].body)
        assert body["command"][:4] == ["python", "-m", "airflow.sdk.execution_time.execute_workload", "--json-string"]
        assert json.loads(body["command"][4])["ti"]["id"] == str(item.ti.id)
        assert {"name": "AIRFLOW_IS_EXECUTOR_CONTAINER", "value": "true"} in body["executor_config"]["environment"]

    def test_a_dag_that_names_its_executor_is_imported_in_the_container(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        path = "ecs_queue.airflow.executor.EcsQueueExecutor"
        monkeypatch.setenv("AIRFLOW__CORE__EXECUTOR", f"LocalExecutor,cloud:{path}")
        with AirflowHarness.in_memory() as harness:
            harness.send_tasks()
            [message] = harness.broker.inner.requests
        pairs = json.loads(message.body)["executor_config"]["environment"]
        monkeypatch.delenv("AIRFLOW__CORE__EXECUTOR")
        for number, name in enumerate(("cloud", "EcsQueueExecutor", path)):
            (tmp_path / f"dag{number}.py").write_text(DAG_FILE.format(number=number, executor=name))
        bag_module = (
            "airflow.dag_processing.dagbag" if find_spec("airflow.dag_processing.dagbag") else "airflow.models.dagbag"
        )
        program = f"import sys; from {bag_module} import DagBag; bag = DagBag(sys.argv[1]); "
        program += "assert len(bag.dags) == 3, bag.import_errors"
        environ = os.environ | {pair["name"]: pair["value"] for pair in pairs}
        subprocess.run([sys.executable, "-c", program, str(tmp_path)], env=environ, check=True)

    def test_it_expires_with_its_token(self, harness: AirflowHarness) -> None:
        item = make_task_workload(workload_token=make_token(300))
        harness.queue(item)
        harness.heartbeat()
        record = harness.record(harness.request_id_of(item))
        assert record is not None
        assert 290 < record.expires_at - record.created_at < 301

    def test_a_missing_id_is_generated_and_reported_to_airflow(self, harness: AirflowHarness) -> None:
        item = make_task_workload(assigned=None)
        harness.queue(item)
        harness.heartbeat()
        minted = harness.request_id_of(item)
        assert uuid.UUID(minted)
        assert harness.collect_events() == {task_key(item): ("queued", minted)}
        assert task_key(item) in harness.executor.running

    def test_an_id_that_another_request_has_is_replaced_by_a_generated_one(self, harness: AirflowHarness) -> None:
        used = str(uuid.uuid4())
        first, second = make_task_workload("first", assigned=used), make_task_workload("second", assigned=used)
        if getattr(first.ti, "external_executor_id", None) is None:
            return  # this Airflow assigns none
        harness.queue(first)
        harness.heartbeat()
        harness.queue(second)
        harness.heartbeat()
        assert harness.request_id_of(second) != used
        assert harness.collect_events() == {task_key(second): ("queued", harness.request_id_of(second))}

    @pytest.mark.parametrize("make", [make_task_workload, make_callback])
    def test_one_whose_record_is_broken_stays_queued_until_the_record_is_dropped(
        self, harness: AirflowHarness, make: Callable[[], Any]
    ) -> None:
        item, other = make(), make_task_workload("other")
        harness.queue(item, other)
        key = harness.executor.workload_key(item)
        put, broken_ids = harness.ledger.inner.put, list[str]()

        def break_first(submissions: Sequence[Any]) -> Any:
            if not broken_ids:
                broken_ids.append(harness.request_id_of(item))
                harness.ledger.inner._records[broken_ids[0]] = "text"
            return put(submissions)

        harness.ledger.inner.put = break_first
        harness.heartbeat()
        harness.heartbeat()

        assert harness.executor.running == {harness.executor.workload_key(other)}
        held = [extra for event, extra in harness.take_event_log() if "cannot be used" in extra]
        assert len(held) == (make is make_task_workload)  # callbacks have no task log
        (broken,) = harness.ledger.inner.list_broken()
        harness.ledger.inner.drop_broken([broken])
        harness.heartbeat()
        assert key in harness.executor.running

    def test_the_result_is_reported_with_its_reason_and_logged_as_a_task_event(self, harness: AirflowHarness) -> None:
        item = make_task_workload()
        harness.queue(item)
        harness.heartbeat()
        harness.collect_events()
        harness.finish_request(
            harness.request_id_of(item),
            State.FAILED,
            exit_code=3,
            reason="it broke",
            stop_code="EssentialContainerExited",
        )
        harness.heartbeat()
        state, info = harness.collect_events()[task_key(item)]
        assert state == "failed"
        assert "it broke" in info
        assert "exit code 3" in info
        [(event, extra)] = harness.take_event_log()
        assert event == "ecs task failed"
        assert "console.aws.amazon.com/ecs/v2/clusters/jobs/tasks/" in extra
        assert task_key(item) not in harness.executor.running

    def test_with_few_free_slots_the_highest_weights_go_first(self, harness: AirflowHarness) -> None:
        harness.executor.parallelism = 2
        items = {weight: make_task_workload(f"weight{weight}", priority_weight=weight) for weight in (3, 1, 9, 5)}
        harness.queue(*items.values())
        harness.heartbeat()
        assert harness.executor.running == {task_key(items[9]), task_key(items[5])}


class TestEventLog:
    def test_an_entry_survives_being_popped_one_by_one(self, harness: AirflowHarness) -> None:
        harness.executor.sync()
        harness.executor.log_task_event(event="e", extra="x", ti_key=task_key(make_task_workload()))
        entry = weakref.ref(harness.executor._task_event_logs.popleft())
        gc.collect()
        assert entry() is not None  # the scheduler keeps no reference of its own
        harness.executor.sync()
        gc.collect()
        assert entry() is None


class TestCallbacksAndConnectionTests:
    @pytest.mark.parametrize(("state", "reported"), [(State.SUCCESS, "success"), (State.FAILED, "failed")])
    def test_a_callback_ends_as_its_container_does(self, harness: AirflowHarness, state: State, reported: str) -> None:
        item = make_callback()
        harness.queue(item)
        harness.heartbeat()
        assert harness.executor.running == {harness.executor.workload_key(item)}
        assert not harness.executor.queued_callbacks
        body = json.loads(harness.broker.inner.requests[0].body)
        assert body["priority"] == 9
        assert body["command"][1] == "-c"  # Airflow's own program would exit with 0 in any case
        harness.finish_request(harness.request_id_of(item), state)
        harness.heartbeat()
        assert harness.collect_events()[harness.executor.workload_key(item)][0] == reported
        assert not harness.executor.running

    def test_the_scheduler_finds_a_callback_in_its_database_by_the_key_of_its_event(
        self, harness: AirflowHarness
    ) -> None:
        item = make_callback()
        harness.queue(item)
        harness.heartbeat()
        harness.finish_request(harness.request_id_of(item))
        harness.heartbeat()
        (key,) = harness.executor.get_event_buffer()
        if hasattr(BaseExecutor, "run_workload"):
            key = uuid.UUID(str(key))  # as the scheduler does since Airflow 3.3
        bind = Uuid().dialect_impl(mysql.dialect()).bind_processor(mysql.dialect())
        assert bind is not None
        assert bind(key) == uuid.UUID(item.callback.id).hex

    def test_a_callback_that_an_earlier_scheduler_has_sent_is_adopted(self, harness: AirflowHarness) -> None:
        item = make_callback()
        harness.queue(item)
        harness.heartbeat()
        later = harness.another_scheduler()
        later.queue(item.model_copy(update={"token": make_token(900)}))
        later.heartbeat()
        assert later.executor.running == {later.executor.workload_key(item)}
        harness.finish_request(item.callback.id)
        later.heartbeat()
        assert later.collect_events()[later.executor.workload_key(item)][0] == "success"

    def test_a_finished_connection_test_frees_its_slot(self, harness: AirflowHarness) -> None:
        item = make_connection_test()
        harness.queue(item)
        harness.heartbeat()
        assert harness.executor.running == {harness.executor.workload_key(item)}
        harness.finish_request(harness.request_id_of(item))
        harness.heartbeat()
        assert not harness.executor.running

    def test_a_connection_test_that_airflow_gives_up_is_stopped(self, harness: AirflowHarness) -> None:
        item = make_connection_test()
        harness.queue(item)
        harness.heartbeat()
        request_id = harness.request_id_of(item)
        harness.executor.fail_connection_test(harness.executor.workload_key(item))
        harness.heartbeat()
        record = harness.record(request_id)
        assert record is not None
        assert record.state is State.REVOKED


def test_an_idle_sync_checks_a_bounded_number_of_tasks(harness: AirflowHarness) -> None:
    harness.executor.parallelism = 20_000
    harness.queue(*(make_task_workload(f"t{number}") for number in range(3000)))
    harness.heartbeat()
    harness.ledger.calls.clear()
    batch_sizes: list[int] = []
    real = harness.ledger.inner.get

    def get(ids: list[str]) -> Any:
        batch_sizes.append(len(ids))
        return real(ids)

    harness.ledger.inner.get = get
    harness.heartbeat()
    assert sum(batch_sizes) <= 200
    assert len(harness.ledger.calls) <= 4
    del harness.ledger.inner.get


def test_between_two_checks_a_sync_does_not_call_the_ledger(harness: AirflowHarness) -> None:
    harness.queue(make_task_workload())
    harness.heartbeat()
    harness.ledger.calls.clear()
    for _ in range(20):
        harness.executor.sync()
    assert harness.ledger.calls == []
    harness.heartbeat()
    assert harness.ledger.calls == ["list_undelivered", "get"]


class EndlessInbox:
    """Always has more results, of a request that the executor does not know."""

    def __init__(self, body: bytes) -> None:
        self.body = body
        self.drained = 0

    def drain(self, timeout: float) -> list[bytes]:
        self.drained += 1
        return [self.body] * 10

    def close(self) -> None:
        return None


def test_a_sync_ends_when_its_time_is_up_however_many_results_there_are(
    harness: AirflowHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    item = make_task_workload()
    harness.queue(item)
    harness.heartbeat()
    ended = harness.finish_request(harness.request_id_of(item), publish_result=False)
    foreign = msgspec.structs.replace(build_result(ended), id="another-request")
    inbox = EndlessInbox(envelope.encode(foreign))
    monkeypatch.setattr(executor_module, "SYNC_BUDGET_SECONDS", 0.05)
    monkeypatch.setattr(harness.executor.ledger_access, "_result_consumer", inbox)
    harness.heartbeat()
    assert inbox.drained >= 1
    assert harness.collect_events()[task_key(item)][0] == "success"  # the ledger was still read


def test_a_queue_without_a_profile_is_mentioned_once(harness: AirflowHarness, caplog: pytest.LogCaptureFixture) -> None:
    harness.executor._submitter._log = logging.getLogger("tests.submission")
    with caplog.at_level(logging.WARNING, "tests.submission"):
        for number in range(3):
            harness.queue(
                make_task_workload(f"t{number}", queue="nowhere"), make_task_workload(f"g{number}", queue="gpu")
            )
            harness.heartbeat()
    [record] = caplog.records
    assert "'nowhere'" in record.getMessage()


@pytest.mark.parametrize(("setting", "calls"), [("True", ["check_server"]), ("False", [])])
def test_start_checks_the_ledger_when_configured(setting: str, calls: list[str]) -> None:
    environ = {
        "AIRFLOW__ECS_QUEUE__BROKER_URL": "memory://",
        "AIRFLOW__AWS_ECS_EXECUTOR__CHECK_HEALTH_ON_STARTUP": setting,
    }
    config = load_config(environ=SETTINGS | environ)
    with AirflowHarness(open_ledger(config), MemoryBroker(), config) as harness:
        harness.executor.start()
        assert harness.ledger.calls == calls


def test_on_a_real_server_two_schedulers_take_their_own_results_and_adopt_each_others_tasks(
    make_harness: Callable[[str, int], AirflowHarness], redis_url: str
) -> None:
    first, second = make_harness(redis_url, 7), make_harness(redis_url, 8)
    items = {first: make_task_workload("first"), second: make_task_workload("second")}
    ids = {}
    for scheduler, item in items.items():
        scheduler.queue(item)
        scheduler.heartbeat()
        scheduler.collect_events()
        ids[scheduler] = scheduler.request_id_of(item)
        scheduler.finish_request(ids[scheduler])
    for scheduler, item in items.items():
        scheduler.heartbeat()
        assert list(scheduler.collect_events()) == [task_key(item)]
    orphan = make_task_workload("orphan")
    first.queue(orphan)
    first.heartbeat()
    request_id = first.request_id_of(orphan)
    assert list(second.executor.try_adopt_task_instances([FakeTaskInstance(orphan, request_id)])) == []
    second.finish_request(request_id)
    second.heartbeat()
    assert second.collect_events()[task_key(orphan)][0] == "success"
    first.collect_events()
    first.heartbeat()
    assert task_key(orphan) not in first.collect_events()


def test_the_state_is_shown_without_secrets(harness: AirflowHarness) -> None:
    item = make_task_workload()
    harness.queue(item)
    harness.heartbeat()
    harness.executor.debug_dump()
    assert item.token not in repr(harness.executor._tracked_workloads.get_by_key(task_key(item)))
