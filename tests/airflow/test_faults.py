"""Known faults of other executors, with one or two tests each; the numbers are those in docs/airflow.md."""

from __future__ import annotations

import json
import time

import pytest

from ecs_queue.protocol.states import State
from tests.airflow.harness import AirflowHarness, FakeTaskInstance, make_task_workload, make_token, task_key

pytestmark = pytest.mark.airflow


def test_fault_01_a_heartbeat_makes_no_call_for_each_task(harness: AirflowHarness) -> None:
    harness.queue(*(make_task_workload(f"t{number}") for number in range(1000)))
    harness.heartbeat()
    assert len(harness.executor.running) == 1000
    assert harness.ledger.calls.count("put") == 4  # of 250 each
    assert harness.broker.calls.count("publish_requests") == 4
    assert len(harness.ledger.calls) + len(harness.broker.calls) < 12


def test_fault_01_nothing_of_aws_is_imported_for_it(harness: AirflowHarness, monkeypatch: pytest.MonkeyPatch) -> None:
    import boto3

    def forbidden(*args: object, **kwargs: object) -> None:
        raise AssertionError("the scheduler must not talk to AWS")

    monkeypatch.setattr(boto3.session.Session, "client", forbidden)
    [item] = harness.send_tasks()
    harness.finish_request(harness.request_id_of(item))
    harness.heartbeat()
    assert harness.collect_events()[task_key(item)][0] == "success"


def test_fault_02_an_unexpected_error_does_not_end_the_scheduler(
    harness: AirflowHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    def explode(*args: object) -> None:
        raise RuntimeError("not foreseen")

    monkeypatch.setattr(harness.executor._result_processor, "run_once", explode)
    monkeypatch.setattr(harness.executor._submitter, "submit", explode)
    item = make_task_workload()
    harness.queue(item)
    harness.executor.heartbeat()
    assert task_key(item) in harness.executor.queued_tasks


def test_fault_03_a_failure_in_the_middle_discards_no_finished_task(harness: AirflowHarness) -> None:
    items = harness.send_tasks(3)
    ids = [harness.request_id_of(item) for item in items]
    for request_id in ids:
        harness.finish_request(request_id, publish_result=False)
    harness.ledger.is_unavailable = True
    harness.heartbeat()
    assert harness.collect_events() == {}
    harness.ledger.is_unavailable = False
    harness.heartbeat()
    assert {state for state, _ in harness.collect_events().values()} == {"success"}


def test_fault_04_an_unavailable_ledger_during_adoption_raises_nothing_and_resets_nothing(
    harness: AirflowHarness,
) -> None:
    [item] = harness.send_tasks()
    request_id = harness.request_id_of(item)
    other = harness.another_scheduler()
    other.ledger.is_unavailable = True
    assert list(other.executor.try_adopt_task_instances([FakeTaskInstance(item, request_id)])) == []
    assert task_key(item) in other.executor.running
    other.ledger.is_unavailable = False
    other.heartbeat()
    record = other.record(request_id)
    assert record is not None
    assert record.owner == "airflow-8"


def test_fault_05_a_bad_executor_config_fails_that_task_alone_with_the_reason(harness: AirflowHarness) -> None:
    bad, good = make_task_workload("bad", executor_config={"name": "other"}), make_task_workload("good")
    harness.queue(bad, good)
    harness.heartbeat()
    assert harness.collect_events()[task_key(bad)][0] == "failed"
    [(event, extra)] = harness.take_event_log()
    assert event == "ecs-queue rejected the task"
    assert "name" in extra
    assert harness.executor.running == {task_key(good)}


def test_fault_06_a_request_whose_answer_is_lost_is_sent_again_as_the_same_request(harness: AirflowHarness) -> None:
    item = make_task_workload()
    harness.queue(item)
    harness.ledger.loses_answers = True
    harness.heartbeat()
    assert task_key(item) in harness.executor.queued_tasks
    harness.ledger.loses_answers = False
    harness.heartbeat()
    assert task_key(item) in harness.executor.running
    assert len(harness.ledger.inner.list_records("", 10)[0]) == 1


@pytest.mark.parametrize(("end", "event"), [(State.SUCCESS, "success"), (State.FAILED, "failed")])
def test_fault_07_every_end_is_an_end_also_without_exit_codes(harness: AirflowHarness, end: State, event: str) -> None:
    [item] = harness.send_tasks()
    harness.finish_request(harness.request_id_of(item), end, exit_code=None)
    harness.heartbeat()
    assert harness.collect_events()[task_key(item)][0] == event
    assert not harness.executor.running


def test_fault_08_a_request_that_is_missing_in_one_check_is_not_submitted_twice(harness: AirflowHarness) -> None:
    [item] = harness.send_tasks()
    request_id = harness.request_id_of(item)
    harness.launch_request(request_id)
    harness.heartbeat()
    harness.heartbeat()
    record = harness.record(request_id)
    assert record is not None
    assert (record.launch, record.state) == (1, State.LAUNCHED)


def test_fault_09_a_retry_of_the_write_carries_the_very_same_envelope(harness: AirflowHarness) -> None:
    item = make_task_workload()
    harness.queue(item)
    harness.ledger.loses_answers = True
    harness.heartbeat()
    first = harness.record(harness.request_id_of(item))
    harness.ledger.loses_answers = False
    harness.heartbeat()
    second = harness.record(harness.request_id_of(item))
    assert first is not None
    assert second is not None
    assert (first.id, first.nonce) == (second.id, second.nonce)


def test_fault_10_an_outage_consumes_no_attempt_however_long_it_lasts(harness: AirflowHarness) -> None:
    item = make_task_workload()
    harness.queue(item)
    harness.ledger.is_unavailable = True
    for _ in range(50):
        harness.heartbeat()
    assert harness.collect_events() == {}
    harness.ledger.is_unavailable = False
    harness.heartbeat()
    record = harness.record(harness.request_id_of(item))
    assert record is not None
    assert record.attempt == 1


def test_fault_11_an_adopted_task_counts_as_running_and_keeps_its_ecs_attempt(harness: AirflowHarness) -> None:
    item = make_task_workload(try_number=5)
    harness.queue(item)
    harness.heartbeat()
    request_id = harness.request_id_of(item)
    other = harness.another_scheduler()
    assert list(other.executor.try_adopt_task_instances([FakeTaskInstance(item, request_id)])) == []
    assert other.executor.running == {task_key(item)}
    record = other.record(request_id)
    assert record is not None
    assert record.attempt == 1


def test_fault_12_a_task_with_an_expired_token_is_not_sent(harness: AirflowHarness) -> None:
    item = make_task_workload(workload_token=make_token(-5))
    harness.queue(item)
    harness.heartbeat()
    assert harness.broker.inner.requests == []
    assert task_key(item) in harness.executor.queued_tasks  # until Airflow queues it again with a new token


def test_fault_13_end_and_terminate_leave_the_tasks_running(harness: AirflowHarness) -> None:
    [item] = harness.send_tasks()
    request_id = harness.request_id_of(item)
    harness.launch_request(request_id)
    harness.executor.end()
    harness.executor.terminate()
    record = harness.record(request_id)
    assert record is not None
    assert (record.state, record.stop_requested_by) == (State.LAUNCHED, "")


def test_fault_14_revoking_forgets_the_task_and_stops_its_container(harness: AirflowHarness) -> None:
    [item] = harness.send_tasks()
    request_id = harness.request_id_of(item)
    harness.launch_request(request_id)
    harness.executor.revoke_task(ti=FakeTaskInstance(item, request_id))
    assert not harness.executor.running
    harness.heartbeat()
    record = harness.record(request_id)
    assert record is not None
    assert record.stop_requested_by == "airflow"
    assert harness.collect_events() == {}


def test_fault_14_the_same_try_queued_again_is_another_request(harness: AirflowHarness) -> None:
    [item] = harness.send_tasks()
    old = harness.request_id_of(item)
    harness.executor.revoke_task(ti=FakeTaskInstance(item, old))
    again = make_task_workload("task0")
    harness.queue(again)
    harness.heartbeat()
    new = harness.request_id_of(again)
    assert new != old
    harness.finish_request(new)
    harness.heartbeat()
    assert {key: state for key, (state, _) in harness.collect_events().items() if state != "queued"} == {
        task_key(again): "success"
    }


def test_fault_15_the_reason_reaches_the_event_log(harness: AirflowHarness) -> None:
    [item] = harness.send_tasks()
    harness.finish_request(
        harness.request_id_of(item), State.REMOVED, reason="CannotPullContainerError: no such image", exit_code=None
    )
    harness.heartbeat()
    assert "no such image" in harness.take_event_log()[0][1]
    assert "no such image" in harness.collect_events()[task_key(item)][1]


def test_fault_16_the_queue_selects_the_profile(harness: AirflowHarness) -> None:
    harness.queue(make_task_workload("big", queue="gpu"), make_task_workload("small", queue="nowhere"))
    harness.heartbeat()
    assert sorted(message.queue for message in harness.broker.inner.requests) == ["default", "gpu"]


def test_fault_17_executor_config_is_merged_and_keeps_the_container_marker(harness: AirflowHarness) -> None:
    config = {"overrides": {"containerOverrides": [{"name": "sidecar"}, {"name": "main", "cpu": 2}]}}
    harness.queue(make_task_workload(executor_config=config))
    harness.heartbeat()
    sent = json.loads(harness.broker.inner.requests[0].body)["executor_config"]["overrides"]["containerOverrides"]
    environment = sent[1].pop("environment")
    assert {"name": "AIRFLOW_IS_EXECUTOR_CONTAINER", "value": "true"} in environment
    assert sent == [{"name": "sidecar"}, {"name": "main", "cpu": 2}]


def test_celery_a_broker_error_fails_no_task(harness: AirflowHarness) -> None:
    harness.broker.is_unavailable = True
    [item] = harness.send_tasks()
    assert task_key(item) in harness.executor.running  # the ledger has it, the workers' sweep finds it
    harness.finish_request(harness.request_id_of(item), publish_result=False)
    harness.heartbeat()
    assert harness.collect_events()[task_key(item)][0] == "success"


def test_celery_adoption_tells_never_sent_from_waiting(harness: AirflowHarness) -> None:
    [sent] = harness.send_tasks()
    never = make_task_workload("never")
    other = harness.another_scheduler()
    tis = [
        FakeTaskInstance(sent, harness.request_id_of(sent)),
        FakeTaskInstance(never, "0b9d8b1c-never"),
        FakeTaskInstance(make_task_workload("none"), None),
    ]
    assert set(other.executor.try_adopt_task_instances(tis)) == set(tis[1:])
    assert other.executor.running == {task_key(sent)}


def test_celery_what_ended_meanwhile_is_adopted_and_reported(harness: AirflowHarness) -> None:
    [item] = harness.send_tasks()
    request_id = harness.request_id_of(item)
    harness.finish_request(request_id)
    other = harness.another_scheduler()
    assert list(other.executor.try_adopt_task_instances([FakeTaskInstance(item, request_id)])) == []
    other.heartbeat()
    assert other.collect_events()[task_key(item)][0] == "success"


def test_celery_revoking_stops_a_container_that_runs(harness: AirflowHarness) -> None:
    [item] = harness.send_tasks()
    request_id = harness.request_id_of(item)
    harness.launch_request(request_id)
    harness.executor.revoke_task(ti=FakeTaskInstance(item, request_id))
    harness.heartbeat()
    record = harness.record(request_id)
    assert record is not None
    assert (record.state, record.stop_requested_by) == (
        State.LAUNCHED,
        "airflow",
    )  # the worker calls StopTask when it next polls the task


def test_fault_12_an_outage_that_outlives_the_token_launches_nothing(harness: AirflowHarness) -> None:
    item = make_task_workload(workload_token=make_token(60))
    harness.queue(item)
    harness.ledger.is_unavailable = True
    harness.heartbeat()
    harness.ledger.is_unavailable = False
    harness.executor._submitter._clock = lambda: time.time() + 61
    harness.heartbeat()
    assert task_key(item) in harness.executor.queued_tasks
    assert harness.broker.inner.requests == []
