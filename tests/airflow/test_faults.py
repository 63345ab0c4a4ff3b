"""Known faults of other executors, with one or two tests each; the numbers are those in docs/airflow.md."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable
from typing import Any

import pytest

from ecs_queue.airflow import executor as executor_module
from ecs_queue.protocol.states import State
from tests.airflow.harness import AirflowHarness, FakeTaskInstance, make_task_workload, make_token, task_key

pytestmark = pytest.mark.airflow


def queue_tasks(harness: AirflowHarness, count: int = 1) -> list[Any]:
    items = [make_task_workload(f"task{number}") for number in range(count)]
    harness.queue(*items)
    harness.heartbeat()
    harness.collect_events()
    return items


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
    [item] = queue_tasks(harness)
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
    items = queue_tasks(harness, 3)
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
    [item] = queue_tasks(harness)
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
    [item] = queue_tasks(harness)
    harness.finish_request(harness.request_id_of(item), end, exit_code=None)
    harness.heartbeat()
    assert harness.collect_events()[task_key(item)][0] == event
    assert not harness.executor.running


def test_fault_08_a_request_that_is_missing_in_one_check_is_not_submitted_twice(harness: AirflowHarness) -> None:
    [item] = queue_tasks(harness)
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
    [item] = queue_tasks(harness)
    request_id = harness.request_id_of(item)
    harness.launch_request(request_id)
    harness.executor.end()
    harness.executor.terminate()
    record = harness.record(request_id)
    assert record is not None
    assert (record.state, record.stop_requested_by) == (State.LAUNCHED, "")


def test_fault_14_revoking_forgets_the_task_and_stops_its_container(harness: AirflowHarness) -> None:
    [item] = queue_tasks(harness)
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
    [item] = queue_tasks(harness)
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
    [item] = queue_tasks(harness)
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
    config = {"overrides": {"containerOverrides": [{"name": "sidecar", "cpu": 1}, {"name": "main", "cpu": 2}]}}
    harness.queue(make_task_workload(executor_config=config))
    harness.heartbeat()
    sent = json.loads(harness.broker.inner.requests[0].body)["executor_config"]["overrides"]["containerOverrides"]
    sign = [{"name": "AIRFLOW_IS_EXECUTOR_CONTAINER", "value": "true"}]
    assert sent == [{"name": "sidecar", "cpu": 1}, {"name": "main", "cpu": 2, "environment": sign}]


def test_celery_a_broker_error_fails_no_task(harness: AirflowHarness) -> None:
    harness.broker.is_unavailable = True
    [item] = queue_tasks(harness)
    assert task_key(item) in harness.executor.running  # the ledger has it, the workers' sweep finds it
    harness.finish_request(harness.request_id_of(item), publish_result=False)
    harness.heartbeat()
    assert harness.collect_events()[task_key(item)][0] == "success"


def test_celery_adoption_tells_never_sent_from_waiting(harness: AirflowHarness) -> None:
    [sent] = queue_tasks(harness)
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
    [item] = queue_tasks(harness)
    request_id = harness.request_id_of(item)
    harness.finish_request(request_id)
    other = harness.another_scheduler()
    assert list(other.executor.try_adopt_task_instances([FakeTaskInstance(item, request_id)])) == []
    other.heartbeat()
    assert other.collect_events()[task_key(item)][0] == "success"


def test_celery_revoking_stops_a_container_that_runs(harness: AirflowHarness) -> None:
    [item] = queue_tasks(harness)
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


def test_adoption_reads_the_ledger_once_for_any_number_of_tasks(harness: AirflowHarness) -> None:
    items = queue_tasks(harness, 100)
    other = harness.another_scheduler()
    other.executor.try_adopt_task_instances([FakeTaskInstance(item, harness.request_id_of(item)) for item in items])
    assert other.ledger.calls == ["get", "adopt"]


def test_a_change_of_state_from_outside_stops_the_request(harness: AirflowHarness) -> None:
    [item] = queue_tasks(harness)
    request_id = harness.request_id_of(item)
    harness.launch_request(request_id)
    harness.executor.fail(task_key(item))
    harness.heartbeat()
    record = harness.record(request_id)
    assert record is not None
    assert record.stop_requested_by == "airflow"


def test_an_event_that_the_scheduler_dropped_is_reported_again_and_then_confirmed(harness: AirflowHarness) -> None:
    [item] = queue_tasks(harness)
    request_id = harness.request_id_of(item)
    harness.unprocessed = {request_id}
    harness.finish_request(request_id)
    harness.heartbeat()
    assert harness.collect_events()[task_key(item)][0] == "success"
    assert harness.ledger.inner.list_undelivered("airflow-7", 10)  # the scheduler may not have processed it
    harness.heartbeat()
    assert harness.collect_events()[task_key(item)][0] == "success"
    harness.unprocessed = set()
    harness.heartbeat()
    harness.heartbeat()
    assert harness.collect_events() == {}
    assert harness.ledger.inner.list_undelivered("airflow-7", 10) == []
    assert len(harness.take_event_log()) == 1


def test_a_result_that_arrives_twice_is_reported_once(harness: AirflowHarness) -> None:
    [item] = queue_tasks(harness)
    request_id = harness.request_id_of(item)
    ended = harness.finish_request(request_id)
    harness.heartbeat()
    harness.collect_events()
    from ecs_queue.messages import envelope

    harness.broker.inner.publish_results([(ended.owner, envelope.encode(envelope.build_result(ended)))])
    harness.heartbeat()
    assert harness.collect_events() == {}


def test_a_task_that_is_queued_again_after_a_deferral_ignores_its_old_container(
    harness: AirflowHarness,
) -> None:
    [first] = queue_tasks(harness)
    old = harness.request_id_of(first)
    again = make_task_workload("task0")
    harness.queue(again)
    harness.heartbeat()
    harness.collect_events()
    harness.finish_request(old)
    harness.heartbeat()
    assert harness.collect_events() == {}
    assert task_key(again) in harness.executor.running


def test_two_schedulers_never_take_each_others_results(harness: AirflowHarness) -> None:
    [mine] = queue_tasks(harness)
    other = harness.another_scheduler()
    other_item = make_task_workload("other")
    other.queue(other_item)
    other.heartbeat()
    other.collect_events()
    harness.finish_request(other.request_id_of(other_item))
    harness.finish_request(harness.request_id_of(mine))
    harness.heartbeat()
    other.heartbeat()
    assert list(harness.collect_events()) == [task_key(mine)]
    assert list(other.collect_events()) == [task_key(other_item)]


def test_a_request_that_another_scheduler_has_adopted_is_dropped(harness: AirflowHarness) -> None:
    [item] = queue_tasks(harness)
    request_id = harness.request_id_of(item)
    harness.ledger.inner.adopt([request_id], "airflow-8")
    harness.heartbeat()
    assert not harness.executor.running
    assert harness.collect_events() == {}


def test_a_put_that_the_ledger_lost_at_a_failover_is_put_again(harness: AirflowHarness) -> None:
    [item] = queue_tasks(harness)
    request_id = harness.request_id_of(item)
    harness.ledger.inner._records.clear()
    harness.heartbeat()
    assert harness.record(request_id) is not None


def test_an_unavailable_database_keeps_the_result_and_raises_nothing(harness: AirflowHarness) -> None:
    def broken(tracked_workloads: object) -> set[str]:
        raise OSError("no database")

    [item] = queue_tasks(harness)
    harness.executor._result_processor._find_unprocessed = broken
    harness.finish_request(harness.request_id_of(item))
    harness.heartbeat()
    harness.collect_events()
    harness.heartbeat()
    assert harness.ledger.inner.list_undelivered("airflow-7", 10)


def test_in_an_outage_the_ledger_is_not_called_between_attempts(harness: AirflowHarness) -> None:
    harness.ledger.is_unavailable = True
    harness.queue(make_task_workload())
    for _ in range(20):
        harness.executor.heartbeat()
    assert len(harness.ledger.calls) == 1


def test_on_a_real_server_a_heartbeat_of_a_thousand_is_launchable(
    make_harness: Callable[[str], AirflowHarness], redis_url: str
) -> None:
    harness = make_harness(redis_url)
    items = [make_task_workload(f"t{number}") for number in range(1000)]
    harness.queue(*items)
    started = time.process_time()
    harness.executor.heartbeat()
    print(f"heartbeat of 1000: {time.process_time() - started:.3f} s of CPU")
    assert len(harness.executor.running) == 1000
    harness.collect_events()
    request_id = harness.request_id_of(items[7])
    harness.finish_request(request_id)
    harness.heartbeat()
    assert harness.collect_events()[task_key(items[7])][0] == "success"


def test_on_a_real_server_that_dies_the_heartbeat_neither_raises_nor_blocks(
    make_harness: Callable[[str], AirflowHarness],
) -> None:
    from ecs_queue.local.redis_server import RedisServer

    with RedisServer(appendonly="always") as server:
        harness = make_harness(server.url)
        before, after = make_task_workload("before"), make_task_workload("after")
        harness.queue(before)
        harness.heartbeat()
        server.kill()
        harness.queue(after)
        started = time.monotonic()
        harness.heartbeat()
        assert time.monotonic() - started < 1.0
        assert task_key(after) in harness.executor.queued_tasks
        server.start()
        harness.heartbeat()
        assert task_key(after) in harness.executor.running
        harness.close()


def test_on_a_real_server_that_hangs_a_heartbeat_takes_less_than_a_second(
    make_harness: Callable[[str], AirflowHarness],
) -> None:
    from ecs_queue.local.redis_server import RedisServer

    with RedisServer() as server:
        harness = make_harness(server.url)
        before, after = make_task_workload("before"), make_task_workload("after")
        harness.queue(before)
        harness.heartbeat()
        os.kill(server.pid, signal.SIGSTOP)
        try:
            harness.queue(after)
            started = time.monotonic()
            harness.heartbeat()
            assert time.monotonic() - started < 1.0
            started = time.monotonic()
            harness.executor.heartbeat()  # it makes no call
            assert time.monotonic() - started < 0.1
        finally:
            os.kill(server.pid, signal.SIGCONT)
        harness.heartbeat()
        assert harness.executor.running == {task_key(before), task_key(after)}
        harness.close()


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


def test_constructing_it_needs_no_network_and_no_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW__ECS_QUEUE__BROKER_URL", "nonsense")
    executor = executor_module.EcsQueueExecutor(parallelism=4)
    executor.end()
    assert executor.slots_available == 4


def test_start_reports_an_unavailable_ledger_and_goes_on(harness: AirflowHarness) -> None:
    harness.ledger.is_unavailable = True
    harness.executor.start()
    assert harness.ledger.calls == ["check_server"]
