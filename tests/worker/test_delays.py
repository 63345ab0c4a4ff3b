"""Requests that are submitted for later."""

from __future__ import annotations

from ecs_queue.protocol.states import State
from tests.worker.harness import WorkerHarness


def test_a_delayed_request_is_launched_when_its_time_has_come() -> None:
    harness = WorkerHarness()
    harness.put_request(delay=60.0)
    harness.advance_in_steps(58)
    assert harness.state() is State.QUEUED
    harness.advance_in_steps(3)
    assert harness.state() is State.LAUNCHED


def test_a_message_of_another_program_makes_a_record_that_waits() -> None:
    harness = WorkerHarness()
    assert harness.worker.handle_message(harness.new_envelope(delay=60.0))
    assert (harness.state(), harness.ecs.run_task_calls) == (State.QUEUED, [])
    harness.advance_in_steps(61)
    assert harness.state() is State.LAUNCHED


def test_its_deadlines_count_from_then() -> None:
    harness = WorkerHarness(launch_deadline=100)
    harness.put_request("own", delay=60.0, expires_in=10.0)
    harness.put_request("default", delay=60.0)
    assert harness.record("own").expires_at == harness.clock() + 70
    assert harness.record("default").expires_at == harness.clock() + 160


def test_the_deadlines_of_a_time_that_is_over_count_from_the_submission() -> None:
    harness = WorkerHarness(launch_deadline=100)
    past = harness.clock() - 3600
    harness.put_request("own", not_before=past, expires_in=10.0)
    harness.put_request("default", not_before=past)
    assert harness.record("own").expires_at == harness.clock() + 10
    assert harness.record("default").expires_at == harness.clock() + 100
