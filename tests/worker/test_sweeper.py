"""Records that no message leads to."""

from __future__ import annotations

import pytest

from ecs_queue.protocol.ecs_results import RunTaskResult, RunTaskResultKind
from ecs_queue.protocol.states import State
from ecs_queue.worker.fair_queue import Job, JobKind
from ecs_queue.worker.sweeper import Sweeper
from tests.worker.harness import WorkerHarness


@pytest.fixture
def harness() -> WorkerHarness:
    return WorkerHarness()


def test_a_request_whose_message_was_lost_is_launched_when_it_has_been_silent(harness: WorkerHarness) -> None:
    harness.put_request()

    harness.advance(harness.config.sweep_after_seconds - 1)
    assert not harness.ecs.run_task_calls
    harness.advance(2)

    assert harness.state() is State.LAUNCHED


def test_while_messages_come_silent_requests_are_left_to_them(harness: WorkerHarness) -> None:
    harness.put_request()
    busy = Sweeper(harness.worker.context, harness.worker.launcher, harness.worker.thread_pool, lambda queue: False)
    harness.clock.advance(60)

    busy.step()

    assert not harness.ecs.run_task_calls


def test_a_due_retry_does_not_wait_for_the_messages(harness: WorkerHarness) -> None:
    harness.ecs.run_task_results.append(RunTaskResult(RunTaskResultKind.CAPACITY))
    harness.worker.handle_message(harness.new_envelope())
    busy = Sweeper(harness.worker.context, harness.worker.launcher, harness.worker.thread_pool, lambda queue: False)
    harness.clock.advance(60)

    busy.step()

    assert harness.state() is State.LAUNCHED


def test_an_expired_request_ends_though_no_worker_ever_takes_it(harness: WorkerHarness) -> None:
    harness.put_request(expires_in=10.0, queue="unserved")

    harness.advance(11)

    assert harness.state() is State.EXPIRED
    assert harness.published_results == [harness.record()]


def test_what_never_finds_capacity_expires_at_the_launch_deadline() -> None:
    harness = WorkerHarness(launch_deadline=60)
    harness.ecs.run_task_results.extend([RunTaskResult(RunTaskResultKind.CAPACITY, reason="no room")] * 100)
    harness.worker.handle_message(harness.new_envelope())

    harness.advance_in_steps(70)

    assert harness.state() is State.EXPIRED
    assert "no room" in harness.record().reason


def test_only_the_queues_of_this_worker_are_launched(harness: WorkerHarness) -> None:
    harness.put_request("other", queue="gpu")

    harness.advance(60)

    assert harness.state("other") is State.QUEUED


def test_no_more_is_popped_than_there_is_room_for(harness: WorkerHarness) -> None:
    for index in range(50):
        harness.put_request(f"t{index}")
    harness.worker.thread_pool.is_full = True
    harness.clock.advance(6)

    for _ in range(10):
        harness.worker.sweep()

    assert harness.worker.thread_pool.waiting_jobs == harness.config.concurrency
    assert len(harness.memory_ledger.lease_unclaimed("default", 100)) == 50 - harness.config.concurrency


def test_retries_get_a_share_of_threads_that_messages_keep_busy(harness: WorkerHarness) -> None:
    harness.ecs.run_task_results.append(RunTaskResult(RunTaskResultKind.CAPACITY))
    harness.worker.handle_message(harness.new_envelope("retry"))
    harness.worker.thread_pool.is_full = True
    for _ in range(harness.config.concurrency):
        harness.worker.thread_pool.submit(Job(lambda: None, JobKind.MESSAGE, "default"))

    harness.clock.advance(60)
    harness.worker.sweep()
    harness.worker.thread_pool.resume()

    assert harness.state("retry") is State.LAUNCHED


def test_an_open_circuit_keeps_its_queue_from_being_swept(harness: WorkerHarness) -> None:
    harness.put_request()
    harness.clock.advance(6)
    harness.worker.circuit_breakers.open("default", "no credentials")

    harness.worker.sweep()

    assert harness.state() is State.QUEUED


def test_records_whose_retention_is_over_are_dropped(harness: WorkerHarness) -> None:
    harness.memory_ledger.stop(["a"], "alice")
    harness.clock.advance(3 * 86400)

    harness.worker.sweep()

    assert "a" not in harness.memory_ledger._records


def test_a_worker_that_stops_starts_nothing_more(harness: WorkerHarness) -> None:
    harness.put_request()
    harness.worker.stopping.set()

    harness.advance(6)

    assert not harness.ecs.run_task_calls
    assert harness.state() is State.QUEUED


def test_it_rests_shortly_after_it_has_found_something_and_longer_else(harness: WorkerHarness) -> None:
    harness.put_request()
    assert harness.worker.sweeper.step() == 0.5
    harness.clock.advance(6)

    assert harness.worker.sweeper.step() == 0.05
