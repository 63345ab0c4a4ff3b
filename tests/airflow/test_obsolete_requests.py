"""Requests that Airflow no longer waits for, because the task was cleared, marked, or skipped with its DAG run."""

from __future__ import annotations

from typing import Any

import pytest

from ecs_queue.airflow.obsolete_requests import CHECK_INTERVAL_SECONDS, START_REPORT_DELAY_SECONDS
from ecs_queue.airflow.task_instances import TaskStanding
from ecs_queue.protocol.operations import TaskUpdate
from ecs_queue.protocol.states import State
from tests.airflow.harness import AirflowHarness, make_task_workload, task_key

pytestmark = pytest.mark.airflow


def send_task(harness: AirflowHarness, name: str = "task") -> tuple[Any, str]:
    """Send a task; return its workload and the id of its request."""
    item = make_task_workload(name)
    harness.queue(item)
    harness.heartbeat()
    harness.collect_events()
    return item, harness.request_id_of(item)


def run_checks(harness: AirflowHarness, times: int = 2) -> None:
    for _ in range(times):
        harness.clock.advance(CHECK_INTERVAL_SECONDS)
        harness.heartbeat()


def report_running(harness: AirflowHarness, request_id: str) -> None:
    """Launch the request's task and report that its container runs, as a worker does."""
    record = harness.launch_request(request_id)
    update = TaskUpdate(
        id=request_id, launch=1, arn=record.arn, version=2, last_status="RUNNING", wait=1.0, started_at=1.7e9
    )
    harness.ledger.inner.update_tasks([update])


def read_stop(harness: AirflowHarness, request_id: str) -> tuple[State, str]:
    record = harness.record(request_id)
    assert record is not None
    return record.state, record.stop_requested_by


def test_the_waiting_request_of_a_cleared_task_is_withdrawn(harness: AirflowHarness) -> None:
    item, request_id = send_task(harness)
    harness.obsolete = {request_id}
    run_checks(harness)
    harness.heartbeat()
    assert read_stop(harness, request_id) == (State.REVOKED, "airflow")
    assert not harness.executor.running
    assert harness.collect_events() == {}
    [(event, extra)] = harness.take_event_log()
    assert event == "ecs-queue stopped the task"
    assert request_id in extra
    assert task_key(item) not in harness.executor.running


def test_one_check_alone_withdraws_nothing(harness: AirflowHarness) -> None:
    item, request_id = send_task(harness)
    harness.obsolete = {request_id}
    run_checks(harness, 1)
    harness.obsolete = set()
    run_checks(harness, 3)
    assert read_stop(harness, request_id) == (State.QUEUED, "")
    assert harness.executor.running == {task_key(item)}


def test_a_request_that_is_not_obsolete_is_kept(harness: AirflowHarness) -> None:
    _, request_id = send_task(harness)
    run_checks(harness, 5)
    assert read_stop(harness, request_id) == (State.QUEUED, "")


def test_an_obsolete_task_that_waits_for_the_ledger_is_never_sent(harness: AirflowHarness) -> None:
    item = make_task_workload()
    harness.ledger.is_unavailable = True
    harness.queue(item)
    harness.heartbeat()
    harness.obsolete = {str(item.ti.id)}
    run_checks(harness)
    assert not harness.executor.airflow_queues()[0]
    harness.ledger.is_unavailable = False
    run_checks(harness)
    assert harness.broker.inner.requests == []
    assert harness.collect_events() == {}


def test_a_running_container_may_end_itself_and_its_result_is_reported(harness: AirflowHarness) -> None:
    item, request_id = send_task(harness)
    report_running(harness, request_id)
    harness.obsolete = {request_id}
    run_checks(harness, 5)
    assert read_stop(harness, request_id) == (State.LAUNCHED, "")
    harness.finish_request(request_id, State.FAILED)
    harness.heartbeat()
    assert harness.collect_events()[task_key(item)][0] == "failed"


def test_a_container_that_does_not_end_itself_is_stopped(harness: AirflowHarness) -> None:
    item, request_id = send_task(harness)
    report_running(harness, request_id)
    harness.obsolete = {request_id}
    run_checks(harness)
    harness.clock.advance(300)
    run_checks(harness, 2)
    assert read_stop(harness, request_id) == (State.LAUNCHED, "airflow")
    assert harness.executor.running == {task_key(item)}  # until it has ended
    harness.ledger.calls.clear()
    run_checks(harness, 2)
    assert "stop" not in harness.ledger.calls
    harness.finish_request(request_id, State.FAILED, stopped_by_user=True)
    harness.heartbeat()
    assert harness.collect_events()[task_key(item)][0] == "failed"


def test_a_launched_container_that_ecs_does_not_start_is_stopped_after_a_while(harness: AirflowHarness) -> None:
    _, request_id = send_task(harness)
    harness.launch_request(request_id)
    harness.obsolete = {request_id}
    run_checks(harness, 3)
    assert read_stop(harness, request_id) == (
        State.LAUNCHED,
        "",
    )  # the ledger may not know yet that it runs
    harness.clock.advance(START_REPORT_DELAY_SECONDS)
    run_checks(harness)
    harness.heartbeat()
    assert read_stop(harness, request_id) == (State.LAUNCHED, "airflow")
    assert not harness.executor.running


def test_during_a_ledger_outage_it_is_withdrawn_after_the_outage(harness: AirflowHarness) -> None:
    _, request_id = send_task(harness)
    harness.obsolete = {request_id}
    harness.ledger.is_unavailable = True
    run_checks(harness, 3)
    assert read_stop(harness, request_id) == (State.QUEUED, "")
    harness.ledger.is_unavailable = False
    run_checks(harness)
    harness.heartbeat()
    assert read_stop(harness, request_id) == (State.REVOKED, "airflow")


def test_many_requests_are_checked_in_batches_and_all_in_turn(harness: AirflowHarness) -> None:
    batch_sizes: list[int] = []
    ids: set[str] = set()

    def find_obsolete(tracked_workloads: Any) -> set[str]:
        batch_sizes.append(len(tracked_workloads))
        ids.update(tracked.request_id for tracked in tracked_workloads)
        return set()

    harness.executor._obsolete_request_stopper._find_obsolete = find_obsolete
    harness.queue(*(make_task_workload(f"t{number}") for number in range(1000)))
    harness.heartbeat()
    run_checks(harness, 5)
    assert max(batch_sizes) <= 300
    assert len(ids) == 1000


def test_an_unavailable_database_withdraws_nothing_and_raises_nothing(harness: AirflowHarness) -> None:
    def broken(tracked_workloads: Any) -> set[str]:
        raise OSError("no database")

    _, request_id = send_task(harness)
    harness.executor._obsolete_request_stopper._find_obsolete = broken
    run_checks(harness, 3)
    assert read_stop(harness, request_id) == (State.QUEUED, "")


class TestExpiry:
    """The token expires while the task is queued: Airflow queues the task again without using up a try."""

    def expire_task(self, harness: AirflowHarness) -> tuple[Any, str]:
        item, request_id = send_task(harness)
        harness.unprocessed = {request_id}
        harness.launch_request(request_id)
        harness.finish_request(request_id, State.EXPIRED, exit_code=None)
        harness.heartbeat()
        return item, request_id

    def test_it_fails_no_task_and_explains_why_in_the_event_log(self, harness: AirflowHarness) -> None:
        self.expire_task(harness)
        assert harness.collect_events() == {}
        assert not harness.executor.running
        [(event, extra)] = harness.take_event_log()
        assert event == "ecs task did not start"
        assert "task_queued_timeout" in extra
        assert "none of the task's tries" in extra

    def test_it_is_confirmed_when_airflow_has_queued_the_task_again(self, harness: AirflowHarness) -> None:
        item, request_id = self.expire_task(harness)
        harness.heartbeat()
        assert harness.ledger.inner.list_undelivered("airflow-7", 10)
        harness.unprocessed = set()
        again = make_task_workload(item.ti.task_id, id=item.ti.id)
        harness.queue(again)
        harness.heartbeat()
        events = harness.collect_events()
        harness.heartbeat()
        harness.heartbeat()
        events |= harness.collect_events()
        assert harness.ledger.inner.list_undelivered("airflow-7", 10) == []
        assert harness.executor.running == {task_key(again)}
        assert harness.request_id_of(again) != request_id
        assert "failed" not in {state for state, _ in events.values()}

    def test_a_task_that_airflow_never_queues_again_is_failed_in_the_end(self, harness: AirflowHarness) -> None:
        item, _ = self.expire_task(harness)
        harness.clock.advance(600 + 2 * 120 - 5)
        harness.heartbeat()
        assert harness.collect_events() == {}
        harness.clock.advance(10)
        harness.heartbeat()
        state, info = harness.collect_events()[task_key(item)]
        assert state == "failed"
        assert "EXPIRED" in info

    def test_the_next_scheduler_withholds_it_too(self, harness: AirflowHarness) -> None:
        from tests.airflow.harness import FakeTaskInstance

        item, request_id = self.expire_task(harness)
        other = harness.another_scheduler()
        other.unprocessed = {request_id}
        assert list(other.executor.try_adopt_task_instances([FakeTaskInstance(item, request_id)])) == []
        other.heartbeat()
        assert other.collect_events() == {}
        assert not other.executor.running


@pytest.mark.parametrize("state", [State.FAILED, State.REMOVED, State.REVOKED, State.UNKNOWN])
def test_every_other_result_is_reported_at_once(harness: AirflowHarness, state: State) -> None:
    item, request_id = send_task(harness)
    harness.launch_request(request_id)
    harness.finish_request(request_id, state, exit_code=None)
    harness.heartbeat()
    assert harness.collect_events()[task_key(item)][0] == "failed"


def send_without_id(harness: AirflowHarness, **fields: Any) -> str:
    item = make_task_workload(assigned=None, **fields)
    harness.queue(item)
    harness.heartbeat()
    harness.collect_events()
    return harness.request_id_of(item)


def check_ids(harness: AirflowHarness, stored: dict[str, str | None]) -> list[tuple[str, Any]]:
    harness.other_ids = stored
    run_checks(harness, 1)
    return list(harness.collect_events().values())


def test_a_generated_id_that_the_database_does_not_show_is_reported_until_it_does(harness: AirflowHarness) -> None:
    request_id = send_without_id(harness)
    for _ in range(2):
        assert check_ids(harness, {request_id: None}) == [("queued", request_id)]
    assert check_ids(harness, {}) == []
    assert check_ids(harness, {request_id: None}) == []


def test_a_generated_id_that_another_scheduler_has_stored_is_left_alone(harness: AirflowHarness) -> None:
    request_id = send_without_id(harness)
    assert check_ids(harness, {request_id: "another"}) == []


def test_the_id_of_a_task_that_was_queued_again_replaces_the_lost_one(harness: AirflowHarness) -> None:
    lost = send_without_id(harness)
    harness.standings[lost] = TaskStanding.NOT_STARTED
    harness.finish_request(lost, State.FAILED, exit_code=None)
    harness.heartbeat()
    harness.heartbeat()
    [again] = [tracked.request_id for tracked in harness.executor._tracked_workloads]
    harness.collect_events()
    assert check_ids(harness, {again: lost}) == [("queued", again)]
