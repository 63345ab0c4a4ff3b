"""What other executors are known to get wrong, one test each; the numbers are those of the list in docs/airflow.md."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable
from typing import Any

import pytest

from ecs_queue.airflow import executor as executor_module
from ecs_queue.core.states import State
from tests.airflow.stage import OrphanTask, Stage, key_of, task, token


def queued(stage: Stage, count: int = 1) -> list[Any]:
    items = [task(f"task{number}") for number in range(count)]
    stage.queue(*items)
    stage.beat()
    stage.events()
    return items


def test_fault_01_a_heartbeat_makes_no_call_for_each_task(stage: Stage) -> None:
    stage.queue(*(task(f"t{number}") for number in range(1000)))
    stage.beat()
    assert len(stage.executor.running) == 1000
    assert stage.ledger.calls.count("put") == 4  # of 250 each
    assert stage.broker.calls.count("publish_requests") == 4
    assert len(stage.ledger.calls) + len(stage.broker.calls) < 12


def test_fault_01_nothing_of_aws_is_imported_for_it(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    import boto3

    def forbidden(*args: object, **kwargs: object) -> None:
        raise AssertionError("the scheduler must not talk to AWS")

    monkeypatch.setattr(boto3.session.Session, "client", forbidden)
    [item] = queued(stage)
    stage.finish(stage.id_of(item))
    stage.beat()
    assert stage.events()[key_of(item)][0] == "success"


def test_fault_02_an_unexpected_error_does_not_end_the_scheduler(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    def explode(*args: object) -> None:
        raise RuntimeError("not foreseen")

    monkeypatch.setattr(stage.executor._returns, "round", explode)
    monkeypatch.setattr(stage.executor._intake, "take", explode)
    item = task()
    stage.queue(item)
    stage.executor.heartbeat()
    assert key_of(item) in stage.executor.queued_tasks


def test_fault_03_a_failure_in_the_middle_discards_no_finished_task(stage: Stage) -> None:
    items = queued(stage, 3)
    ids = [stage.id_of(item) for item in items]
    for request_id in ids:
        stage.finish(request_id, announce=False)
    stage.ledger.down = True
    stage.beat()
    assert stage.events() == {}
    stage.ledger.down = False
    stage.beat()
    assert {state for state, _ in stage.events().values()} == {"success"}


def test_fault_04_a_ledger_that_is_away_during_adoption_raises_nothing_and_resets_nothing(stage: Stage) -> None:
    [item] = queued(stage)
    request_id = stage.id_of(item)
    other = stage.successor()
    other.ledger.down = True
    assert list(other.executor.try_adopt_task_instances([OrphanTask(item, request_id)])) == []
    assert key_of(item) in other.executor.running
    other.ledger.down = False
    other.beat()
    record = other.record(request_id)
    assert record is not None
    assert record.owner == "airflow-8"


def test_fault_05_a_bad_executor_config_fails_that_task_alone_with_the_reason(stage: Stage) -> None:
    bad, good = task("bad", executor_config={"name": "other"}), task("good")
    stage.queue(bad, good)
    stage.beat()
    assert stage.events()[key_of(bad)][0] == "failed"
    [(event, extra)] = stage.event_log()
    assert event == "ecs-queue refused the task"
    assert "name" in extra
    assert stage.executor.running == {key_of(good)}


def test_fault_06_a_request_whose_answer_is_lost_is_sent_again_as_the_same_request(stage: Stage) -> None:
    item = task()
    stage.queue(item)
    stage.ledger.deaf = True
    stage.beat()
    assert key_of(item) in stage.executor.queued_tasks
    stage.ledger.deaf = False
    stage.beat()
    assert key_of(item) in stage.executor.running
    assert len(stage.ledger.inner.page("", 10)[0]) == 1


@pytest.mark.parametrize(("end", "told"), [(State.SUCCESS, "success"), (State.FAILED, "failed")])
def test_fault_07_every_end_is_an_end_also_without_exit_codes(stage: Stage, end: State, told: str) -> None:
    [item] = queued(stage)
    stage.finish(stage.id_of(item), end, exit_code=None)
    stage.beat()
    assert stage.events()[key_of(item)][0] == told
    assert not stage.executor.running


def test_fault_08_a_request_that_is_missing_in_one_look_is_not_made_twice(stage: Stage) -> None:
    [item] = queued(stage)
    request_id = stage.id_of(item)
    stage.launch(request_id)
    stage.beat()
    stage.beat()
    record = stage.record(request_id)
    assert record is not None
    assert (record.launch, record.state) == (1, State.LAUNCHED)


def test_fault_09_a_retry_of_the_write_carries_the_very_same_envelope(stage: Stage) -> None:
    item = task()
    stage.queue(item)
    stage.ledger.deaf = True
    stage.beat()
    first = stage.record(stage.id_of(item))
    stage.ledger.deaf = False
    stage.beat()
    second = stage.record(stage.id_of(item))
    assert first is not None
    assert second is not None
    assert (first.id, first.nonce) == (second.id, second.nonce)


def test_fault_10_an_outage_consumes_no_attempt_however_long_it_lasts(stage: Stage) -> None:
    item = task()
    stage.queue(item)
    stage.ledger.down = True
    for _ in range(50):
        stage.beat()
    assert stage.events() == {}
    stage.ledger.down = False
    stage.beat()
    record = stage.record(stage.id_of(item))
    assert record is not None
    assert record.attempt == 1


def test_fault_11_an_adopted_task_counts_as_running_and_keeps_its_ecs_attempt(stage: Stage) -> None:
    item = task(try_number=5)
    stage.queue(item)
    stage.beat()
    request_id = stage.id_of(item)
    other = stage.successor()
    assert list(other.executor.try_adopt_task_instances([OrphanTask(item, request_id)])) == []
    assert other.executor.running == {key_of(item)}
    record = other.record(request_id)
    assert record is not None
    assert record.attempt == 1


def test_fault_12_a_task_with_an_expired_token_is_not_sent(stage: Stage) -> None:
    item = task(workload_token=token(-5))
    stage.queue(item)
    stage.beat()
    assert stage.broker.inner.requests == []
    assert key_of(item) in stage.executor.queued_tasks  # until Airflow queues it again with a new token


def test_fault_13_end_and_terminate_leave_the_tasks_running(stage: Stage) -> None:
    [item] = queued(stage)
    request_id = stage.id_of(item)
    stage.launch(request_id)
    stage.executor.end()
    stage.executor.terminate()
    record = stage.record(request_id)
    assert record is not None
    assert (record.state, record.stop_by) == (State.LAUNCHED, "")


def test_fault_14_revoking_forgets_the_task_and_stops_its_container(stage: Stage) -> None:
    [item] = queued(stage)
    request_id = stage.id_of(item)
    stage.launch(request_id)
    stage.executor.revoke_task(ti=OrphanTask(item, request_id))
    assert not stage.executor.running
    stage.beat()
    record = stage.record(request_id)
    assert record is not None
    assert record.stop_by == "airflow"
    assert stage.events() == {}


def test_fault_14_the_same_try_queued_again_is_another_request(stage: Stage) -> None:
    [item] = queued(stage)
    old = stage.id_of(item)
    stage.executor.revoke_task(ti=OrphanTask(item, old))
    again = task("task0")
    stage.queue(again)
    stage.beat()
    new = stage.id_of(again)
    assert new != old
    stage.finish(new)
    stage.beat()
    assert {key: state for key, (state, _) in stage.events().items() if state != "queued"} == {key_of(again): "success"}


def test_fault_15_the_reason_reaches_the_event_log(stage: Stage) -> None:
    [item] = queued(stage)
    stage.finish(stage.id_of(item), State.REMOVED, reason="CannotPullContainerError: no such image", exit_code=None)
    stage.beat()
    assert "no such image" in stage.event_log()[0][1]
    assert "no such image" in stage.events()[key_of(item)][1]


def test_fault_16_the_queue_selects_the_profile(stage: Stage) -> None:
    stage.queue(task("big", queue="gpu"), task("small", queue="nowhere"))
    stage.beat()
    assert sorted(message.queue for message in stage.broker.inner.requests) == ["default", "gpu"]


def test_fault_17_executor_config_is_merged_and_keeps_the_container_sign(stage: Stage) -> None:
    config = {"overrides": {"containerOverrides": [{"name": "sidecar", "cpu": 1}, {"name": "main", "cpu": 2}]}}
    stage.queue(task(executor_config=config))
    stage.beat()
    sent = json.loads(stage.broker.inner.requests[0].body)["executor_config"]["overrides"]["containerOverrides"]
    sign = [{"name": "AIRFLOW_IS_EXECUTOR_CONTAINER", "value": "true"}]
    assert sent == [{"name": "sidecar", "cpu": 1}, {"name": "main", "cpu": 2, "environment": sign}]


def test_celery_a_broker_error_fails_no_task(stage: Stage) -> None:
    stage.broker.down = True
    [item] = queued(stage)
    assert key_of(item) in stage.executor.running  # the ledger has it, the workers' sweep finds it
    stage.finish(stage.id_of(item), announce=False)
    stage.beat()
    assert stage.events()[key_of(item)][0] == "success"


def test_celery_adoption_tells_never_sent_from_waiting(stage: Stage) -> None:
    [sent] = queued(stage)
    never = task("never")
    other = stage.successor()
    tis = [OrphanTask(sent, stage.id_of(sent)), OrphanTask(never, "0b9d8b1c-never"), OrphanTask(task("none"), None)]
    assert set(other.executor.try_adopt_task_instances(tis)) == set(tis[1:])
    assert other.executor.running == {key_of(sent)}


def test_celery_what_ended_meanwhile_is_adopted_and_reported(stage: Stage) -> None:
    [item] = queued(stage)
    request_id = stage.id_of(item)
    stage.finish(request_id)
    other = stage.successor()
    assert list(other.executor.try_adopt_task_instances([OrphanTask(item, request_id)])) == []
    other.beat()
    assert other.events()[key_of(item)][0] == "success"


def test_celery_revoking_stops_a_container_that_runs(stage: Stage) -> None:
    [item] = queued(stage)
    request_id = stage.id_of(item)
    stage.launch(request_id)
    stage.executor.revoke_task(ti=OrphanTask(item, request_id))
    stage.beat()
    record = stage.record(request_id)
    assert record is not None
    assert (record.state, record.stop_by) == (State.LAUNCHED, "airflow")  # the worker's next look calls StopTask


def test_adoption_looks_once_for_any_number_of_tasks(stage: Stage) -> None:
    items = queued(stage, 100)
    other = stage.successor()
    other.executor.try_adopt_task_instances([OrphanTask(item, stage.id_of(item)) for item in items])
    assert other.ledger.calls == ["get", "adopt"]


def test_a_change_of_state_from_outside_stops_the_request(stage: Stage) -> None:
    [item] = queued(stage)
    request_id = stage.id_of(item)
    stage.launch(request_id)
    stage.executor.fail(key_of(item))
    stage.beat()
    record = stage.record(request_id)
    assert record is not None
    assert record.stop_by == "airflow"


def test_an_event_that_the_scheduler_dropped_is_told_again_and_then_confirmed(stage: Stage) -> None:
    [item] = queued(stage)
    request_id = stage.id_of(item)
    stage.waiting = {request_id}
    stage.finish(request_id)
    stage.beat()
    assert stage.events()[key_of(item)][0] == "success"
    assert stage.ledger.inner.undelivered("airflow-7", 10)  # not yet: nobody knows whether it was taken in
    stage.beat()
    assert stage.events()[key_of(item)][0] == "success"
    stage.waiting = set()
    stage.beat()
    stage.beat()
    assert stage.events() == {}
    assert stage.ledger.inner.undelivered("airflow-7", 10) == []
    assert len(stage.event_log()) == 1


def test_a_result_that_comes_twice_is_told_once(stage: Stage) -> None:
    [item] = queued(stage)
    request_id = stage.id_of(item)
    ended = stage.finish(request_id)
    stage.beat()
    stage.events()
    from ecs_queue.core import envelope

    stage.broker.inner.publish_results([(ended.owner, envelope.encode(envelope.result_of(ended)))])
    stage.beat()
    assert stage.events() == {}


def test_a_task_that_is_queued_again_after_a_deferral_does_not_hear_of_its_old_container(stage: Stage) -> None:
    [first] = queued(stage)
    old = stage.id_of(first)
    again = task("task0")
    stage.queue(again)
    stage.beat()
    stage.events()
    stage.finish(old)
    stage.beat()
    assert stage.events() == {}
    assert key_of(again) in stage.executor.running


def test_two_schedulers_never_take_each_others_results(stage: Stage) -> None:
    [mine] = queued(stage)
    other = stage.successor()
    other_item = task("other")
    other.queue(other_item)
    other.beat()
    other.events()
    stage.finish(other.id_of(other_item))
    stage.finish(stage.id_of(mine))
    stage.beat()
    other.beat()
    assert list(stage.events()) == [key_of(mine)]
    assert list(other.events()) == [key_of(other_item)]


def test_a_request_that_another_scheduler_has_adopted_is_let_go(stage: Stage) -> None:
    [item] = queued(stage)
    request_id = stage.id_of(item)
    stage.ledger.inner.adopt([request_id], "airflow-8")
    stage.beat()
    assert not stage.executor.running
    assert stage.events() == {}


def test_a_put_that_the_ledger_lost_at_a_failover_is_put_again(stage: Stage) -> None:
    [item] = queued(stage)
    request_id = stage.id_of(item)
    stage.ledger.inner._records.clear()
    stage.beat()
    assert stage.record(request_id) is not None


def test_the_database_being_away_keeps_the_result_and_raises_nothing(stage: Stage) -> None:
    def broken(flights: object) -> set[str]:
        raise OSError("no database")

    [item] = queued(stage)
    stage.executor.unsettled = broken
    stage.finish(stage.id_of(item))
    stage.beat()
    stage.events()
    stage.beat()
    assert stage.ledger.inner.undelivered("airflow-7", 10)


def test_in_an_outage_the_ledger_is_left_alone_between_attempts(stage: Stage) -> None:
    stage.ledger.down = True
    stage.queue(task())
    for _ in range(20):
        stage.executor.heartbeat()
    assert len(stage.ledger.calls) == 1


def test_on_a_real_server_a_heartbeat_of_a_thousand_is_launchable(
    make_stage: Callable[[str], Stage], redis_url: str
) -> None:
    stage = make_stage(redis_url)
    items = [task(f"t{number}") for number in range(1000)]
    stage.queue(*items)
    began = time.process_time()
    stage.executor.heartbeat()
    print(f"heartbeat of 1000: {time.process_time() - began:.3f} s of CPU")
    assert len(stage.executor.running) == 1000
    stage.events()
    request_id = stage.id_of(items[7])
    stage.finish(request_id)
    stage.beat()
    assert stage.events()[key_of(items[7])][0] == "success"


def test_on_a_real_server_that_dies_the_heartbeat_neither_raises_nor_blocks(make_stage: Callable[[str], Stage]) -> None:
    from ecs_queue.local.redis_server import RedisServer

    with RedisServer(appendonly="always") as server:
        stage = make_stage(server.url)
        before, after = task("before"), task("after")
        stage.queue(before)
        stage.beat()
        server.kill()
        stage.queue(after)
        began = time.monotonic()
        stage.beat()
        assert time.monotonic() - began < 1.0
        assert key_of(after) in stage.executor.queued_tasks
        server.start()
        stage.beat()
        assert key_of(after) in stage.executor.running
        stage.close()


def test_on_a_real_server_that_hangs_a_heartbeat_takes_less_than_a_second(make_stage: Callable[[str], Stage]) -> None:
    from ecs_queue.local.redis_server import RedisServer

    with RedisServer() as server:
        stage = make_stage(server.url)
        before, after = task("before"), task("after")
        stage.queue(before)
        stage.beat()
        os.kill(server.pid, signal.SIGSTOP)
        try:
            stage.queue(after)
            began = time.monotonic()
            stage.beat()
            assert time.monotonic() - began < 1.0
            began = time.monotonic()
            stage.executor.heartbeat()  # it is left alone
            assert time.monotonic() - began < 0.1
        finally:
            os.kill(server.pid, signal.SIGCONT)
        stage.beat()
        assert stage.executor.running == {key_of(before), key_of(after)}
        stage.close()


def test_fault_12_an_outage_that_outlives_the_token_launches_nothing(stage: Stage) -> None:
    item = task(workload_token=token(60))
    stage.queue(item)
    stage.ledger.down = True
    stage.beat()
    stage.ledger.down = False
    intake = stage.executor._intake
    intake._clock = lambda: time.time() + 61
    stage.beat()
    assert key_of(item) in stage.executor.queued_tasks
    assert stage.broker.inner.requests == []


def test_constructing_it_needs_no_network_and_no_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW__ECS_QUEUE__BROKER_URL", "nonsense")
    made = executor_module.EcsQueueExecutor(parallelism=4)
    made.end()
    assert made.slots_available == 4


def test_start_says_that_the_ledger_is_away_and_goes_on(stage: Stage) -> None:
    stage.ledger.down = True
    stage.executor.start()
    assert stage.ledger.calls == ["check"]
