"""An endpoint whose tasks keep one version, or have none: each channel still brings every request to its end."""

from __future__ import annotations

import pytest

from ecs_queue.protocol.ecs_results import RunTaskResultKind
from ecs_queue.protocol.states import State
from tests.worker.event_listener_harness import EventListenerHarness
from tests.worker.harness import WorkerHarness, failed_result

VERSIONS = pytest.mark.parametrize("version", [0, 1])


def _freeze_versions(harness: WorkerHarness, version: int) -> None:
    harness.ecs.first_version, harness.ecs.version_step = version, 0


def _check_end(harness: WorkerHarness) -> None:
    record = harness.record()
    assert (record.state, record.exit_code, record.attempts) == (State.FAILED, 3, 1)
    assert harness.published_results == [record]


@VERSIONS
def test_by_poll(version: int) -> None:
    harness = WorkerHarness()
    _freeze_versions(harness, version)
    arn = harness.launch()
    harness.advance(1)
    harness.ecs.mark_running(arn)
    harness.advance(1.1)
    assert harness.record().last_status == "RUNNING"
    harness.ecs.finish(arn, exit_code=3)
    harness.advance(1.1)
    _check_end(harness)


@VERSIONS
def test_by_event(version: int) -> None:
    harness = EventListenerHarness()
    _freeze_versions(harness, version)
    arn = harness.launch()
    harness.ecs.mark_running(arn)
    harness.deliver_events()
    assert harness.record().last_status == "RUNNING"
    harness.ecs.finish(arn, exit_code=3)
    harness.deliver_events()
    _check_end(harness)
    assert harness.ecs.describe_calls == []


@VERSIONS
def test_by_conflict(version: int) -> None:
    """The task that a conflict names runs when it is adopted, and ends later."""
    harness = WorkerHarness()
    _freeze_versions(harness, version)
    body = harness.put_request()
    arn = "arn:aws:ecs:us-east-1:123456789012:task/jobs/ours"

    def start(call: object) -> None:
        harness.ecs.add_task(arn, call.started_by)  # type: ignore[attr-defined]
        harness.ecs.mark_running(arn)

    harness.ecs.on_run_task = start
    harness.ecs.run_task_results.append(failed_result(RunTaskResultKind.CONFLICT, conflicting_arns=(arn,)))
    assert harness.worker.handle_message(body)
    harness.advance(1)
    assert (harness.record().arn, harness.record().last_status) == (arn, "RUNNING")
    harness.ecs.finish(arn, exit_code=3)
    harness.advance(1.1)
    _check_end(harness)


@VERSIONS
def test_an_event_that_comes_after_a_later_poll_changes_nothing(version: int) -> None:
    harness = EventListenerHarness()
    _freeze_versions(harness, version)
    arn = harness.launch()
    harness.ecs._update_task(arn, lastStatus="PENDING")
    harness.ecs.mark_running(arn)
    harness.is_listening = False
    harness.advance(1)
    before = harness.record()
    assert before.last_status == "RUNNING"
    harness.deliver_events()
    assert harness.record() == before


@VERSIONS
def test_a_task_that_ecs_has_forgotten_ends_unknown(version: int) -> None:
    harness = WorkerHarness()
    _freeze_versions(harness, version)
    arn = harness.launch()
    harness.ecs.mark_running(arn)
    harness.advance(1)
    harness.ecs.hidden_arns.add(arn)
    harness.advance_in_steps(700, 10)
    assert harness.state() is State.UNKNOWN
