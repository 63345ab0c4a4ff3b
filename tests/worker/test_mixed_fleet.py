"""A worker of the version before warm pools beside new ones: it leaves requests that have a run alone.

It knows launch specs of version 1 only, no runs, and no operation on them. `python -m tests.mixed_fleet` runs one.
"""

from __future__ import annotations

from collections.abc import Callable
from unittest.mock import patch

import pytest

from ecs_queue.errors import UndecodableMessage
from ecs_queue.protocol.runs import RunEnd, Turn
from ecs_queue.protocol.states import State
from ecs_queue.runtask import launch_spec
from tests.fake_ecs import LostResult
from tests.worker.harness import WorkerHarness
from tests.worker.warm_harness import WARM, Runner, settle, start


def _check_old_version(version: int) -> None:
    if version != launch_spec.VERSION:
        raise UndecodableMessage(f"version {version} is not known")


class OldWorker:
    """A worker that knows nothing of runs, in the middle of a roll-out."""

    def __init__(self, harness: WorkerHarness) -> None:
        self._harness = harness
        worker = self.worker = harness.new_worker({})
        worker.poller.run_settler.settle_due = list  # type: ignore[method-assign, assignment]
        worker.poller.run_settler.find_held = lambda records: set()  # type: ignore[method-assign]
        ledger = harness.ledger
        worker.poller.reconciler.write_updates = lambda records, updates: ledger.update_tasks(updates)  # type: ignore[method-assign]

    def live(self, seconds: float) -> None:
        """Time passes, and only this worker works."""
        with patch.object(launch_spec, "_check_version", _check_old_version):
            end = self._harness.clock() + seconds
            while self._harness.clock() < end:
                self._harness.clock.advance(5.0)
                self.worker.sweep()
                self.worker.poll()


@pytest.fixture
def harness() -> WorkerHarness:
    """A warm queue."""
    return WorkerHarness(WARM)


def _running(harness: WorkerHarness, arn: str) -> None:
    harness.ecs.mark_running(arn)


def _stopped(harness: WorkerHarness, arn: str) -> None:
    harness.ecs.finish(arn, exit_code=0)


def _not_shown(harness: WorkerHarness, arn: str) -> None:
    harness.ecs.hidden_arns.add(arn)


@pytest.mark.parametrize("show", [_running, _stopped, _not_shown])
def test_it_neither_ends_nor_stops_what_a_runner_has(
    harness: WorkerHarness, show: Callable[[WorkerHarness, str], None]
) -> None:
    runner = start(harness, time_limit=60.0)
    show(harness, runner.arn)

    OldWorker(harness).live(min(300.0, harness.config.settle_seconds / 2))
    assert harness.state() is State.LAUNCHED
    assert harness.ecs.stop_calls == []

    runner.next(RunEnd(turn=1, exit_code=0))
    settle(harness)
    assert harness.state() is State.SUCCESS


def test_it_calls_nothing_again_for_a_launch_that_starts_a_runner(harness: WorkerHarness) -> None:
    harness.ecs.run_task_results.append(LostResult.IMMEDIATE)
    harness.worker.handle_message(harness.new_envelope())
    assert harness.state() is State.LAUNCHING

    OldWorker(harness).live(120.0)
    assert len(harness.ecs.run_task_calls) == 1
    assert (harness.state(), harness.record().launch) == (State.LAUNCHING, 1)

    runner = Runner(harness)
    assert isinstance(runner.next(), Turn)
    settle(harness)
    runner.next(RunEnd(turn=1, exit_code=0))
    settle(harness)
    assert harness.state() is State.SUCCESS


def test_its_own_launches_get_tasks_of_their_own(harness: WorkerHarness) -> None:
    runner = start(harness)
    runner.next(RunEnd(turn=1, exit_code=0))
    settle(harness)

    old = OldWorker(harness)
    assert old.worker.handle_message(harness.new_envelope("b"))
    assert (harness.record("b").run, harness.record("b").spec_version) == ("", 1)
    assert len(harness.ecs.run_task_calls) == 2
