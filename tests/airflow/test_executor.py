"""The executor's contract with the scheduler: workloads out, results in."""

from __future__ import annotations

import gc
import json
import logging
import uuid
import weakref
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from airflow.executors import workloads
from airflow.executors.base_executor import BaseExecutor
from sqlalchemy import Uuid
from sqlalchemy.dialects import mysql

from ecs_queue.airflow import executor as executor_module
from ecs_queue.config import load_config
from ecs_queue.core import envelope
from ecs_queue.core.states import State
from ecs_queue.ledger import open_ledger
from tests.airflow.stage import SETTINGS, MemoryBroker, OrphanTask, Stage, key_of, task, token


class TestGoingOut:
    def test_a_task_becomes_a_request_under_the_id_that_airflow_assigned(self, stage: Stage) -> None:
        item = task()
        stage.queue(item)
        stage.beat()
        assigned = getattr(item.ti, "external_executor_id", None) or stage.id_of(item)
        record = stage.record(assigned)
        assert record is not None
        assert record.state is State.QUEUED
        assert record.owner == "airflow-7"
        assert record.relaunch == "never_started"
        assert key_of(item) in stage.executor.running
        assert not stage.executor.queued_tasks

    def test_the_request_runs_the_workload_in_a_container_that_knows_what_it_is(self, stage: Stage) -> None:
        item = task()
        stage.queue(item)
        stage.beat()
        body = json.loads(stage.broker.inner.requests[0].body)
        assert body["command"][:4] == ["python", "-m", "airflow.sdk.execution_time.execute_workload", "--json-string"]
        assert json.loads(body["command"][4])["ti"]["id"] == str(item.ti.id)
        assert body["executor_config"] == {"environment": [{"name": "AIRFLOW_IS_EXECUTOR_CONTAINER", "value": "true"}]}

    def test_it_expires_with_its_token(self, stage: Stage) -> None:
        item = task(workload_token=token(300))
        stage.queue(item)
        stage.beat()
        record = stage.record(stage.id_of(item))
        assert record is not None
        assert 290 < record.expires_at - record.created_at < 301

    def test_an_id_that_is_none_is_minted_and_airflow_is_told(self, stage: Stage) -> None:
        item = task(assigned=None)
        stage.queue(item)
        stage.beat()
        minted = stage.id_of(item)
        assert uuid.UUID(minted)
        assert stage.events() == {key_of(item): ("queued", minted)}
        assert key_of(item) in stage.executor.running

    def test_an_id_that_another_request_has_is_replaced_by_a_minted_one(self, stage: Stage) -> None:
        used = str(uuid.uuid4())
        first, second = task("first", assigned=used), task("second", assigned=used)
        if getattr(first.ti, "external_executor_id", None) is None:
            return  # this Airflow assigns none
        stage.queue(first)
        stage.beat()
        stage.queue(second)
        stage.beat()
        assert stage.id_of(second) != used
        assert stage.events() == {key_of(second): ("queued", stage.id_of(second))}

    def test_the_result_is_told_with_its_reason_and_logged_as_a_task_event(self, stage: Stage) -> None:
        item = task()
        stage.queue(item)
        stage.beat()
        stage.events()
        stage.finish(
            stage.id_of(item), State.FAILED, exit_code=3, reason="it broke", stop_code="EssentialContainerExited"
        )
        stage.beat()
        state, info = stage.events()[key_of(item)]
        assert state == "failed"
        assert "it broke" in info
        assert "exit code 3" in info
        [(event, extra)] = stage.event_log()
        assert event == "ecs task failed"
        assert "console.aws.amazon.com/ecs/v2/clusters/jobs/tasks/" in extra
        assert key_of(item) not in stage.executor.running


class TestTheEventLog:
    def test_an_entry_survives_being_taken_off_one_by_one(self, stage: Stage) -> None:
        stage.executor.sync()
        stage.executor.log_task_event(event="e", extra="x", ti_key=key_of(task()))
        entry = weakref.ref(stage.executor._task_event_logs.popleft())
        gc.collect()
        assert entry() is not None  # the scheduler keeps no reference of its own
        stage.executor.sync()
        gc.collect()
        assert entry() is None


def callback(**data: Any) -> Any:
    """An ExecuteCallback workload; skips where this Airflow sends none to executors."""
    if not hasattr(workloads, "ExecuteCallback"):
        pytest.skip("this Airflow sends no callbacks to executors")
    from airflow.executors.workloads.callback import CallbackDTO, CallbackFetchMethod

    return workloads.ExecuteCallback(
        callback=CallbackDTO(
            id=str(uuid.uuid4()), fetch_method=CallbackFetchMethod.IMPORT_PATH, data=data or {"path": "a.b"}
        ),
        dag_rel_path="dag.py",
        token=token(),
        bundle_info=workloads.BundleInfo(name="dags"),
        log_path="a.log",
    )


def connection_test() -> Any:
    """A TestConnection workload; skips where this Airflow sends none to executors."""
    if not hasattr(workloads, "TestConnection"):
        pytest.skip("this Airflow sends no connection tests to executors")
    return workloads.TestConnection(
        connection_test_id=uuid.uuid4(), connection_id="db", timeout=60, queue=None, token=token()
    )


class TestCallbacksAndConnectionTests:
    @pytest.mark.parametrize(("end", "told"), [(State.SUCCESS, "success"), (State.FAILED, "failed")])
    def test_a_callback_ends_as_its_container_does(self, stage: Stage, end: State, told: str) -> None:
        item = callback()
        stage.queue(item)
        stage.beat()
        assert stage.executor.running == {stage.executor.key_of(item)}
        assert not stage.executor.queued_callbacks
        body = json.loads(stage.broker.inner.requests[0].body)
        assert body["priority"] == 9
        assert body["command"][1] == "-c"  # Airflow's own program would end with 0 whatever happened
        stage.finish(stage.id_of(item), end)
        stage.beat()
        assert stage.events()[stage.executor.key_of(item)][0] == told
        assert not stage.executor.running

    def test_the_scheduler_finds_a_callback_in_its_database_by_the_key_of_its_event(self, stage: Stage) -> None:
        item = callback()
        stage.queue(item)
        stage.beat()
        stage.finish(stage.id_of(item))
        stage.beat()
        (key,) = stage.executor.get_event_buffer()
        if hasattr(BaseExecutor, "run_workload"):
            key = uuid.UUID(str(key))  # as the scheduler does since Airflow 3.3
        bind = Uuid().dialect_impl(mysql.dialect()).bind_processor(mysql.dialect())
        assert bind is not None
        assert bind(key) == uuid.UUID(item.callback.id).hex

    def test_a_callback_that_an_earlier_scheduler_has_sent_is_taken_over(self, stage: Stage) -> None:
        item = callback()
        stage.queue(item)
        stage.beat()
        later = stage.successor()
        later.queue(item.model_copy(update={"token": token(900)}))
        later.beat()
        assert later.executor.running == {later.executor.key_of(item)}
        stage.finish(item.callback.id)
        later.beat()
        assert later.events()[later.executor.key_of(item)][0] == "success"

    def test_a_connection_test_gives_its_place_back(self, stage: Stage) -> None:
        item = connection_test()
        stage.queue(item)
        stage.beat()
        assert stage.executor.running == {stage.executor.key_of(item)}
        stage.finish(stage.id_of(item))
        stage.beat()
        assert not stage.executor.running

    def test_a_connection_test_that_airflow_gives_up_is_stopped(self, stage: Stage) -> None:
        item = connection_test()
        stage.queue(item)
        stage.beat()
        request_id = stage.id_of(item)
        stage.executor.fail_connection_test(stage.executor.key_of(item))
        stage.beat()
        record = stage.record(request_id)
        assert record is not None
        assert record.state is State.REVOKED


def test_an_idle_sync_asks_about_a_bounded_number_of_tasks(stage: Stage) -> None:
    stage.executor.parallelism = 20_000
    stage.queue(*(task(f"t{number}") for number in range(3000)))
    stage.beat()
    stage.ledger.calls.clear()
    asked: list[int] = []
    real = stage.ledger.inner.get

    def get(ids: list[str]) -> Any:
        asked.append(len(ids))
        return real(ids)

    stage.ledger.inner.get = get
    stage.beat()
    assert sum(asked) <= 200
    assert len(stage.ledger.calls) <= 4
    del stage.ledger.inner.get


def test_between_two_looks_a_sync_asks_the_ledger_nothing(stage: Stage) -> None:
    stage.queue(task())
    stage.beat()
    stage.ledger.calls.clear()
    now = stage.executor._returns._clock()
    stage.executor._returns._clock = lambda: now
    for _ in range(20):
        stage.executor.sync()
    assert stage.ledger.calls == []
    stage.beat()
    assert stage.ledger.calls == ["undelivered", "get"]


class EndlessInbox:
    """Has always another result, of a request that nobody here knows."""

    def __init__(self, body: bytes) -> None:
        self.body = body
        self.drained = 0

    def drain(self, timeout: float) -> list[bytes]:
        self.drained += 1
        return [self.body] * 10

    def close(self) -> None:
        return None


def test_a_sync_ends_when_its_time_is_up_however_many_results_there_are(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    item = task()
    stage.queue(item)
    stage.beat()
    ended = stage.finish(stage.id_of(item), announce=False)
    foreign = msgspec.structs.replace(envelope.result_of(ended), id="somebody-elses")
    inbox = EndlessInbox(envelope.encode(foreign))
    monkeypatch.setattr(executor_module, "SYNC_BUDGET", 0.05)
    monkeypatch.setattr(stage.executor.desk, "_inbox", inbox)
    stage.beat()
    assert inbox.drained >= 1
    assert stage.events()[key_of(item)][0] == "success"  # the ledger was still asked


def test_a_queue_without_a_profile_is_mentioned_once(stage: Stage, caplog: pytest.LogCaptureFixture) -> None:
    stage.executor._intake._log = logging.getLogger("tests.intake")
    with caplog.at_level(logging.WARNING, "tests.intake"):
        for number in range(3):
            stage.queue(task(f"t{number}", queue="nowhere"), task(f"g{number}", queue="gpu"))
            stage.beat()
    [record] = caplog.records
    assert "'nowhere'" in record.getMessage()


@pytest.mark.parametrize(("setting", "calls"), [("True", ["check"]), ("False", [])])
def test_start_looks_at_the_ledger_when_it_is_told_to(setting: str, calls: list[str]) -> None:
    environ = {
        "AIRFLOW__ECS_QUEUE__BROKER_URL": "memory://",
        "AIRFLOW__AWS_ECS_EXECUTOR__CHECK_HEALTH_ON_STARTUP": setting,
    }
    config = load_config(environ=SETTINGS | environ)
    with Stage(open_ledger(config), MemoryBroker(), config) as stage:
        stage.executor.start()
        assert stage.ledger.calls == calls


def test_on_a_real_server_two_schedulers_take_their_own_results_and_adopt_each_others_tasks(
    make_stage: Callable[[str, int], Stage], redis_url: str
) -> None:
    first, second = make_stage(redis_url, 7), make_stage(redis_url, 8)
    items = {first: task("first"), second: task("second")}
    ids = {}
    for scheduler, item in items.items():
        scheduler.queue(item)
        scheduler.beat()
        scheduler.events()
        ids[scheduler] = scheduler.id_of(item)
        scheduler.finish(ids[scheduler])
    for scheduler, item in items.items():
        scheduler.beat()
        assert list(scheduler.events()) == [key_of(item)]
    orphan = task("orphan")
    first.queue(orphan)
    first.beat()
    request_id = first.id_of(orphan)
    assert list(second.executor.try_adopt_task_instances([OrphanTask(orphan, request_id)])) == []
    second.finish(request_id)
    second.beat()
    assert second.events()[key_of(orphan)][0] == "success"
    first.events()
    first.beat()
    assert key_of(orphan) not in first.events()


def test_the_state_is_shown_without_secrets(stage: Stage) -> None:
    item = task()
    stage.queue(item)
    stage.beat()
    stage.executor.debug_dump()
    assert item.token not in repr(stage.executor._flights.of_key(key_of(item)))
