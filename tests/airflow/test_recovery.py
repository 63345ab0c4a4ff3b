"""Adoption, repeated reports, fail-overs and outages: what the executor recovers from."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable

import pytest

from ecs_queue.airflow import executor as executor_module
from ecs_queue.airflow.task_instances import TaskStanding
from ecs_queue.local.redis_server import RedisServer
from ecs_queue.messages import envelope
from ecs_queue.messages.result import build_result
from ecs_queue.protocol.states import State
from tests.airflow.harness import AirflowHarness, FakeTaskInstance, make_task_workload, task_key

pytestmark = pytest.mark.airflow


def test_adoption_reads_the_ledger_once_for_any_number_of_tasks(harness: AirflowHarness) -> None:
    items = harness.send_tasks(100)
    other = harness.another_scheduler()
    other.executor.try_adopt_task_instances([FakeTaskInstance(item, harness.request_id_of(item)) for item in items])
    assert other.ledger.calls == ["get", "adopt"]


def test_a_change_of_state_from_outside_stops_the_request(harness: AirflowHarness) -> None:
    [item] = harness.send_tasks()
    request_id = harness.request_id_of(item)
    harness.launch_request(request_id)
    harness.executor.fail(task_key(item))
    harness.heartbeat()
    record = harness.record(request_id)
    assert record is not None
    assert record.stop_requested_by == "airflow"


def test_an_event_that_the_scheduler_dropped_is_reported_again_and_then_confirmed(harness: AirflowHarness) -> None:
    [item] = harness.send_tasks()
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
    [item] = harness.send_tasks()
    request_id = harness.request_id_of(item)
    ended = harness.finish_request(request_id)
    harness.heartbeat()
    harness.collect_events()
    harness.broker.inner.publish_results([(ended.owner, envelope.encode(build_result(ended)))])
    harness.heartbeat()
    assert harness.collect_events() == {}


def test_a_task_that_is_queued_again_after_a_deferral_ignores_its_old_container(
    harness: AirflowHarness,
) -> None:
    [first] = harness.send_tasks()
    old = harness.request_id_of(first)
    again = make_task_workload("task0", id=first.ti.id)
    harness.queue(again)
    harness.heartbeat()
    harness.collect_events()
    harness.finish_request(old)
    harness.heartbeat()
    assert harness.collect_events() == {}
    assert task_key(again) in harness.executor.running


def test_two_schedulers_never_take_each_others_results(harness: AirflowHarness) -> None:
    [mine] = harness.send_tasks()
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
    [item] = harness.send_tasks()
    request_id = harness.request_id_of(item)
    harness.ledger.inner.adopt([request_id], "airflow-8")
    harness.heartbeat()
    assert not harness.executor.running
    assert harness.collect_events() == {}


def test_a_put_that_the_ledger_lost_at_a_failover_is_put_again(harness: AirflowHarness) -> None:
    [item] = harness.send_tasks()
    request_id = harness.request_id_of(item)
    harness.ledger.inner._records.clear()
    harness.heartbeat()
    assert harness.record(request_id) is not None


def test_an_unavailable_database_keeps_the_result_and_raises_nothing(harness: AirflowHarness) -> None:
    [item] = harness.send_tasks()
    _break_database(harness)
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


def test_constructing_it_needs_no_network_and_no_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW__ECS_QUEUE__BROKER_URL", "nonsense")
    executor = executor_module.EcsQueueExecutor(parallelism=4)
    executor.end()
    assert executor.slots_available == 4


def test_start_reports_an_unavailable_ledger_and_goes_on(harness: AirflowHarness) -> None:
    harness.ledger.is_unavailable = True
    harness.executor.start()
    assert harness.ledger.calls == ["check_server"]


@pytest.mark.parametrize("state", [State.SUCCESS, State.FAILED])
def test_a_late_result_of_a_task_that_has_moved_on_is_confirmed_and_not_reported(
    harness: AirflowHarness, state: State
) -> None:
    """As of a sensor that waits for its next poke: the scheduler would take it for a task that was killed."""
    [item] = harness.send_tasks()
    request_id = harness.request_id_of(item)
    harness.standings[request_id] = TaskStanding.MOVED_ON
    harness.finish_request(request_id, state)
    harness.heartbeat()
    harness.heartbeat()
    assert harness.collect_events() == {}
    assert task_key(item) not in harness.executor.running
    assert harness.ledger.inner.list_undelivered("airflow-7", 10) == []
    [(_, extra)] = harness.take_event_log()
    assert request_id in extra


def test_a_result_is_reported_only_after_the_database_says_that_its_task_waits(harness: AirflowHarness) -> None:
    [item] = harness.send_tasks()
    _break_database(harness)
    harness.finish_request(harness.request_id_of(item))
    harness.heartbeat()
    assert harness.collect_events() == {}
    harness.executor._result_processor._query_standings = harness._query_standings
    harness.heartbeat()
    assert harness.collect_events()[task_key(item)][0] == "success"


def test_a_container_that_ended_before_its_task_ran_is_reported_with_that(harness: AirflowHarness) -> None:
    [item] = harness.send_tasks()
    request_id = harness.request_id_of(item)
    harness.standings[request_id] = TaskStanding.NOT_STARTED
    harness.finish_request(request_id, State.FAILED)
    harness.heartbeat()
    state, info = harness.collect_events()[task_key(item)]
    assert state == "failed"
    assert "the supervisor never reported RUNNING" in info
    assert "the supervisor never reported RUNNING" in harness.take_event_log()[0][1]


def _break_database(harness: AirflowHarness) -> None:
    """Let the result processor find no database, as after a fail-over."""

    def query(tracked_workloads: object) -> dict[str, TaskStanding]:
        raise OSError("no database")

    harness.executor._result_processor._query_standings = query
