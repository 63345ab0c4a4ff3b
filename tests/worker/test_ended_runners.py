"""The ends of runners that left while they were idle: journalled from what ECS shows, and their runs dropped."""

from __future__ import annotations

from typing import Any

import pytest

from ecs_queue.ecs.gateway import DESCRIBE_BATCH_SIZE
from ecs_queue.protocol.ecs_results import EcsError, EcsErrorKind, StopTaskResult
from ecs_queue.protocol.runs import RunEnd
from ecs_queue.worker import ended_runners
from ecs_queue.worker.ended_runners import EndedRunners
from ecs_queue.worker.silent_runners import SilentRunners
from tests.fake_ecs import INVALID_ARN
from tests.worker.harness import WorkerHarness
from tests.worker.warm_harness import WARM, Runner, settle, start


@pytest.fixture
def harness() -> WorkerHarness:
    """A warm queue."""
    return WorkerHarness(WARM)


def leave(harness: WorkerHarness, record_id: str = "a", *, stops: bool = True, **fields: object) -> Runner:
    """A runner that has left after its command; its task has stopped, unless it still does."""
    runner = start(harness, record_id, **fields)
    end = RunEnd(turn=1, exit_code=0)
    runner.next(end)
    settle(harness)
    assert harness.memory_ledger.leave(runner.options.run, "boot", runner.arn, end)
    harness.ecs.mark_running(runner.arn)
    if stops:
        harness.ecs.finish(runner.arn)
    harness.ecs.describe_calls.clear()
    return runner


def round_of(harness: WorkerHarness, runners: EndedRunners) -> float:
    """One round, a minute after the last one."""
    harness.clock.advance(60.0)
    return runners.step()


def ended(harness: WorkerHarness) -> list[dict[str, Any]]:
    return harness.worker.emitted("runner.ended")


def test_the_end_of_a_runner_is_journalled_once_with_what_it_cost(harness: WorkerHarness) -> None:
    runner = leave(harness, executor_config={"cpu": 512})
    harness.ecs.tasks[runner.arn] |= {"cpu": "512", "memory": "1024", "overrides": {"secret": "x"}}
    runners = EndedRunners(harness.worker.context)
    assert runners.step() == 60.0

    (event,) = ended(harness)
    assert (event["run"], event["arn"], event["turn"], event["closed"]) == (runner.options.run, runner.arn, 1, "left")
    assert {"cpu", "memory", "startedAt", "stoppedAt", "lastStatus"} <= event["task"].keys()
    assert "overrides" not in event["task"]
    assert harness.ledger.read_runs([runner.options.run]) == [None]
    runners.step()
    assert len(ended(harness)) == len(harness.ecs.describe_calls) == 1


def test_its_command_is_journalled_with_its_labels(harness: WorkerHarness) -> None:
    leave(harness, labels={"team": "data"})
    assert [event["labels"] for event in harness.worker.emitted("runner.idle")] == ['{"team":"data"}']


def test_a_task_that_still_stops_is_asked_about_again(harness: WorkerHarness) -> None:
    runner = leave(harness, stops=False)
    runners = EndedRunners(harness.worker.context)
    runners.step()
    assert not ended(harness)
    harness.ecs.finish(runner.arn)
    round_of(harness, runners)
    assert len(ended(harness)) == 1


def test_runners_that_may_get_a_command_are_not_asked_about(harness: WorkerHarness) -> None:
    idle = start(harness)
    idle.next(RunEnd(turn=1, exit_code=0))
    settle(harness)
    EndedRunners(harness.worker.context).step()
    assert harness.ecs.describe_calls == []
    assert harness.ledger.read_runs([idle.options.run]) != [None]


def test_a_task_that_ecs_knows_no_more_is_given_up_after_the_grace_time(harness: WorkerHarness) -> None:
    runner = leave(harness)
    harness.ecs.hidden_arns.add(runner.arn)
    runners = EndedRunners(harness.worker.context)
    runners.step()
    assert harness.ledger.read_runs([runner.options.run]) != [None], "it may not be visible yet"
    harness.clock.advance(harness.config.settle_seconds)
    round_of(harness, runners)
    assert harness.ledger.read_runs([runner.options.run]) == [None]
    assert not ended(harness)


def test_the_task_of_another_launch_is_not_journalled(harness: WorkerHarness) -> None:
    """A runner's process says which task it is; who holds its secret could name another one."""
    runner = leave(harness)
    harness.ecs.tasks[runner.arn]["startedBy"] = "another/launch/x/1"
    EndedRunners(harness.worker.context).step()
    assert not ended(harness)
    assert harness.ledger.read_runs([runner.options.run]) == [None]


def test_the_target_of_a_run_is_not_followed(harness: WorkerHarness) -> None:
    runner = leave(harness)
    harness.memory_ledger._runs[runner.options.run].target = '{"cluster":"forged","region":"x"}'
    EndedRunners(harness.worker.context).step()
    assert harness.ecs.describe_calls == []


def test_an_arn_that_ecs_rejects_does_not_hide_the_other_ends(harness: WorkerHarness) -> None:
    bad, good = leave(harness, "bad"), leave(harness, "good", executor_config={"cpu": 512})
    harness.ecs.invalid_arns.add(bad.arn)
    EndedRunners(harness.worker.context).step()
    assert [event["arn"] for event in ended(harness)] == [good.arn]
    assert harness.ledger.read_runs([bad.options.run]) == [None]
    assert INVALID_ARN.kind is EcsErrorKind.INVALID


def test_an_error_ends_the_round_and_the_next_one_repeats_it(harness: WorkerHarness) -> None:
    leave(harness)
    harness.ecs.describe_error = EcsError(EcsErrorKind.DENIED, "no")
    runners = EndedRunners(harness.worker.context)
    assert runners.step() == 60.0
    assert [event["reason"] for event in harness.worker.emitted("describe_tasks.failed")] == ["no"]
    harness.ecs.describe_error = None
    round_of(harness, runners)
    assert len(ended(harness)) == 1


def test_a_round_has_a_bounded_number_of_calls(harness: WorkerHarness, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ended_runners, "_MAX_CALLS", 2)
    monkeypatch.setattr(ended_runners, "DESCRIBE_BATCH_SIZE", 1)
    for number in range(3):
        leave(harness, f"r{number}", executor_config={"cpu": 256 + number})
    runners = EndedRunners(harness.worker.context)
    assert runners.step() == 30.0
    assert len(ended(harness)) == 2
    assert round_of(harness, runners) == 60.0
    assert len(ended(harness)) == 3
    assert DESCRIBE_BATCH_SIZE == 100


def test_the_end_that_the_poll_of_a_request_showed_needs_no_call(harness: WorkerHarness) -> None:
    runner = start(harness)
    harness.ecs.mark_running(runner.arn)
    harness.ecs.finish(runner.arn, exit_code=1)
    harness.advance_in_steps(60)
    assert harness.ledger.read_runs([runner.options.run]) != [None]
    harness.ecs.describe_calls.clear()
    EndedRunners(harness.worker.context).step()
    assert harness.ecs.describe_calls == []
    assert harness.ledger.read_runs([runner.options.run]) == [None]


def test_a_round_is_that_of_all_workers(harness: WorkerHarness) -> None:
    leave(harness, stops=False)
    EndedRunners(harness.worker.context).step()
    assert EndedRunners(harness.worker.context).step() == pytest.approx(30.0)
    assert len(harness.ecs.describe_calls) == 1


def silence(harness: WorkerHarness) -> Runner:
    """An idle runner that does not call any more, whose task runs."""
    runner = start(harness)
    runner.next(RunEnd(turn=1, exit_code=0))
    settle(harness)
    harness.ecs.mark_running(runner.arn)
    harness.clock.advance(harness.config.runner_lost_seconds + 1)
    return runner


def test_a_silent_runner_is_stopped_once_and_its_end_journalled(harness: WorkerHarness) -> None:
    runner = silence(harness)
    harness.ecs.stop_task_results.append(StopTaskResult())  # the order is taken, and the task still runs
    silent, ends = SilentRunners(harness.worker.context), EndedRunners(harness.worker.context)
    silent.step()
    ends.step()
    silent.step()
    assert [arn for arn, _ in harness.ecs.stop_calls] == [runner.arn]
    assert harness.ledger.read_runs([runner.options.run]) != [None]

    harness.clock.advance(601.0)
    silent.step()
    ends.step()
    assert len(harness.ecs.stop_calls) == 2
    assert [event["closed"] for event in ended(harness)] == ["silent"]
    assert harness.ledger.read_runs([runner.options.run]) == [None]


def test_a_silent_runner_whose_task_ecs_knows_no_more_is_dropped(harness: WorkerHarness) -> None:
    runner = silence(harness)
    gone = StopTaskResult(error=EcsError(EcsErrorKind.TASK_NOT_FOUND, "not found"))
    harness.ecs.stop_task_results.append(gone)
    SilentRunners(harness.worker.context).step()
    assert harness.ledger.read_runs([runner.options.run]) == [None]
