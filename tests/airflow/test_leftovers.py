"""What Airflow no longer waits for, and does not say so: cleared, marked, skipped with the DAG run."""

from __future__ import annotations

from typing import Any

import pytest

from ecs_queue.airflow.leftovers import LOOK_EVERY, UNSEEN_SECONDS
from ecs_queue.core.protocol import Outcome
from ecs_queue.core.states import State
from tests.airflow.stage import Stage, key_of, task


def sent(stage: Stage, name: str = "task") -> tuple[Any, str]:
    """A task that the ledger has, and its request."""
    item = task(name)
    stage.queue(item)
    stage.beat()
    stage.events()
    return item, stage.id_of(item)


def look(stage: Stage, times: int = 2) -> None:
    for _ in range(times):
        stage.pass_time(LOOK_EVERY)
        stage.beat()


def run(stage: Stage, request_id: str) -> None:
    """A worker's part, up to a container that ECS shows as running."""
    record = stage.launch(request_id)
    seen = Outcome(
        id=request_id, launch=1, arn=record.arn, version=2, last_status="RUNNING", wait=1.0, started_at=1.7e9
    )
    stage.ledger.inner.outcomes([seen])


def stop_of(stage: Stage, request_id: str) -> tuple[State, str]:
    record = stage.record(request_id)
    assert record is not None
    return record.state, record.stop_by


def test_a_task_that_is_cleared_while_its_request_waits_is_taken_back(stage: Stage) -> None:
    item, request_id = sent(stage)
    stage.unwanted = {request_id}
    look(stage)
    stage.beat()
    assert stop_of(stage, request_id) == (State.REVOKED, "airflow")
    assert not stage.executor.running
    assert stage.events() == {}
    [(event, extra)] = stage.event_log()
    assert event == "ecs-queue stopped the task"
    assert request_id in extra
    assert key_of(item) not in stage.executor.running


def test_one_look_alone_takes_nothing_back(stage: Stage) -> None:
    item, request_id = sent(stage)
    stage.unwanted = {request_id}
    look(stage, 1)
    stage.unwanted = set()
    look(stage, 3)
    assert stop_of(stage, request_id) == (State.QUEUED, "")
    assert stage.executor.running == {key_of(item)}


def test_what_is_wanted_is_left_alone(stage: Stage) -> None:
    _, request_id = sent(stage)
    look(stage, 5)
    assert stop_of(stage, request_id) == (State.QUEUED, "")


def test_a_task_that_waits_for_the_ledger_to_come_back_is_not_sent_any_more(stage: Stage) -> None:
    item = task()
    stage.ledger.down = True
    stage.queue(item)
    stage.beat()
    stage.unwanted = {str(item.ti.id)}
    look(stage)
    assert not stage.executor._queues()[0]
    stage.ledger.down = False
    look(stage)
    assert stage.broker.inner.requests == []
    assert stage.events() == {}


def test_a_container_that_runs_is_left_to_end_itself_and_its_end_is_told(stage: Stage) -> None:
    item, request_id = sent(stage)
    run(stage, request_id)
    stage.unwanted = {request_id}
    look(stage, 5)
    assert stop_of(stage, request_id) == (State.LAUNCHED, "")
    stage.finish(request_id, State.FAILED)
    stage.beat()
    assert stage.events()[key_of(item)][0] == "failed"


def test_a_container_that_does_not_end_itself_is_stopped(stage: Stage) -> None:
    item, request_id = sent(stage)
    run(stage, request_id)
    stage.unwanted = {request_id}
    look(stage)
    stage.pass_time(300)
    look(stage, 2)
    assert stop_of(stage, request_id) == (State.LAUNCHED, "airflow")
    assert stage.executor.running == {key_of(item)}  # until it has ended
    stage.ledger.calls.clear()
    look(stage, 2)
    assert "stop" not in stage.ledger.calls
    stage.finish(request_id, State.FAILED, by_user=True)
    stage.beat()
    assert stage.events()[key_of(item)][0] == "failed"


def test_a_launched_container_that_ecs_does_not_start_is_stopped_after_a_while(stage: Stage) -> None:
    _, request_id = sent(stage)
    stage.launch(request_id)
    stage.unwanted = {request_id}
    look(stage, 3)
    assert stop_of(stage, request_id) == (State.LAUNCHED, "")  # it may run, and nobody has seen it yet
    stage.pass_time(UNSEEN_SECONDS)
    look(stage)
    stage.beat()
    assert stop_of(stage, request_id) == (State.LAUNCHED, "airflow")
    assert not stage.executor.running


def test_without_the_ledger_it_is_taken_back_when_it_is_here_again(stage: Stage) -> None:
    _, request_id = sent(stage)
    stage.unwanted = {request_id}
    stage.ledger.down = True
    look(stage, 3)
    assert stop_of(stage, request_id) == (State.QUEUED, "")
    stage.ledger.down = False
    look(stage)
    stage.beat()
    assert stop_of(stage, request_id) == (State.REVOKED, "airflow")


def test_many_are_looked_at_a_few_at_a_time_and_all_in_turn(stage: Stage) -> None:
    asked: list[int] = []
    names: set[str] = set()

    def unwanted(flights: Any) -> set[str]:
        asked.append(len(flights))
        names.update(flight.id for flight in flights)
        return set()

    stage.executor.unwanted = unwanted
    stage.queue(*(task(f"t{number}") for number in range(1000)))
    stage.beat()
    look(stage, 5)
    assert max(asked) <= 300
    assert len(names) == 1000


def test_a_database_that_is_away_takes_nothing_back_and_raises_nothing(stage: Stage) -> None:
    def broken(flights: Any) -> set[str]:
        raise OSError("no database")

    _, request_id = sent(stage)
    stage.executor.unwanted = broken
    look(stage, 3)
    assert stop_of(stage, request_id) == (State.QUEUED, "")


class TestExpiry:
    """A token that expired while the task was queued: Airflow queues it again, without using up a try."""

    def expired(self, stage: Stage) -> tuple[Any, str]:
        item, request_id = sent(stage)
        stage.waiting = {request_id}
        stage.launch(request_id)
        stage.finish(request_id, State.EXPIRED, exit_code=None)
        stage.beat()
        return item, request_id

    def test_it_fails_no_task_and_says_why_in_the_event_log(self, stage: Stage) -> None:
        self.expired(stage)
        assert stage.events() == {}
        assert not stage.executor.running
        [(event, extra)] = stage.event_log()
        assert event == "ecs task did not start"
        assert "task_queued_timeout" in extra
        assert "none of the task's tries" in extra

    def test_it_is_confirmed_when_airflow_has_queued_the_task_again(self, stage: Stage) -> None:
        item, request_id = self.expired(stage)
        stage.beat()
        assert stage.ledger.inner.undelivered("airflow-7", 10)
        stage.waiting = set()
        again = task(item.ti.task_id)
        stage.queue(again)
        stage.beat()
        told = stage.events()
        stage.beat()
        stage.beat()
        told |= stage.events()
        assert stage.ledger.inner.undelivered("airflow-7", 10) == []
        assert stage.executor.running == {key_of(again)}
        assert stage.id_of(again) != request_id
        assert "failed" not in {state for state, _ in told.values()}

    def test_a_task_that_airflow_never_queues_again_is_failed_in_the_end(self, stage: Stage) -> None:
        item, _ = self.expired(stage)
        stage.pass_time(600 + 2 * 120 - 5)
        stage.beat()
        assert stage.events() == {}
        stage.pass_time(10)
        stage.beat()
        state, info = stage.events()[key_of(item)]
        assert state == "failed"
        assert "EXPIRED" in info

    def test_the_next_scheduler_holds_it_as_well(self, stage: Stage) -> None:
        from tests.airflow.stage import OrphanTask

        item, request_id = self.expired(stage)
        other = stage.successor()
        other.waiting = {request_id}
        assert list(other.executor.try_adopt_task_instances([OrphanTask(item, request_id)])) == []
        other.beat()
        assert other.events() == {}
        assert not other.executor.running


@pytest.mark.parametrize("state", [State.FAILED, State.REMOVED, State.REVOKED, State.UNKNOWN])
def test_every_other_end_is_told_at_once(stage: Stage, state: State) -> None:
    item, request_id = sent(stage)
    stage.launch(request_id)
    stage.finish(request_id, state, exit_code=None)
    stage.beat()
    assert stage.events()[key_of(item)][0] == "failed"
