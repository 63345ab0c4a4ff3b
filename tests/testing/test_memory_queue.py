"""The queue in memory, as a user's own tests use it."""

from __future__ import annotations

import asyncio
import concurrent.futures
import math
import time
from typing import Any

import pytest

from ecs_queue import AsyncEcsQueue
from ecs_queue.errors import ResultTimeout, UsageError
from ecs_queue.protocol.states import State
from ecs_queue.testing import (
    Capacity,
    Exit,
    Interruption,
    MemoryQueue,
    NothingEnds,
    Outcome,
    StartFailure,
    Task,
    Throttle,
    run_command,
)
from ecs_queue.testing.plugin import eager_ecs_queue, ecs_clock, ecs_queue

__all__ = ["eager_ecs_queue", "ecs_clock", "ecs_queue"]  # fixtures


def _first(outcome: Outcome, then: Outcome = 0) -> MemoryQueue:
    return MemoryQueue(lambda task: outcome if task.launch == 1 else then)


def test_a_task_ends_as_the_function_says_and_waiting_lets_time_pass() -> None:
    seen: list[Task] = []

    def end(task: Task) -> Exit:
        seen.append(task)
        return Exit(3, after=600)

    with MemoryQueue(end) as queue:
        before, started = queue.clock.now, time.monotonic()
        result = queue.submit(["run", "bad"], id="a", environment={"DAY": "mon"}, cpu=256).result()

        assert (result.id, result.state, result.exit_code) == ("a", "FAILED", 3)
        assert 600 <= queue.clock.now - before < 700
        assert time.monotonic() - started < 30
        (task,) = queue.launched
        assert (task.id, task.command, task.environment) == ("a", ["run", "bad"], {"DAY": "mon"})
        assert "bad" not in repr(task)


@pytest.mark.parametrize(
    ("outcome", "relaunch", "end", "attempts"),
    [
        (StartFailure(), "never_started", State.SUCCESS, 2),
        (Interruption(after=5), "never_started", State.FAILED, 1),
        (Interruption(after=5), "interrupted", State.SUCCESS, 2),
        (Exit(1), "interrupted", State.FAILED, 1),
        (Exit(1), "any_failure", State.SUCCESS, 2),
    ],
)
def test_the_relaunch_policy_is_the_real_one(outcome: Outcome, relaunch: str, end: State, attempts: int) -> None:
    with _first(outcome) as queue:
        (handle,) = queue.submit_many([{"command": ["run"], "relaunch": relaunch}])

        assert (handle.result().state, handle.result().attempts) == (end, attempts)


@pytest.mark.parametrize("refusal", [Capacity(), Throttle()])
def test_what_is_refused_is_launched_later_and_uses_no_attempt(refusal: Outcome) -> None:
    outcomes: list[Outcome] = [refusal, refusal, 0]
    with MemoryQueue(lambda task: outcomes.pop(0)) as queue:
        result = queue.submit(["run"]).result()

        assert (result.state, result.attempts, outcomes) == ("SUCCESS", 1, [])


def test_a_task_that_never_starts_is_removed() -> None:
    with MemoryQueue(lambda task: StartFailure("CannotPullContainerError: gone")) as queue:
        result = queue.submit(["run"]).result()

        assert (result.state, result.reason) == ("REMOVED", "CannotPullContainerError: gone")


def test_deadlines_are_of_the_tests_clock() -> None:
    with MemoryQueue(lambda task: Exit(after=1e6)) as queue:
        limited = queue.submit(["run"], time_limit=30)
        queue.pause("later")
        late = queue.submit(["run"], queue="later", expires_in="2m")

        assert limited.result().exit_code == 143
        assert late.result().state == "EXPIRED"


def test_a_timeout_is_of_the_tests_clock_and_a_request_that_never_ends_is_named() -> None:
    with MemoryQueue(lambda task: Exit(after=100)) as queue:
        handle = queue.submit(["run"], id="slow")
        with pytest.raises(ResultTimeout):
            handle.result(10)
        assert handle.running()
        assert handle.result(100).succeeded

        queue.end_with(lambda task: Exit(after=1e9))
        queue.submit(["run"], id="stuck")
        queue.pause("etl")
        with pytest.raises(NothingEnds, match="stuck is LAUNCHED; paused: etl"):
            queue.run()


def test_a_batch_is_waited_for_by_the_tests_clock() -> None:
    with MemoryQueue(lambda task: Exit(after=100)) as queue:
        batch = queue.submit_many([{"command": ["run"]}] * 3)

        assert not batch.wait(10)
        with pytest.raises(ResultTimeout, match="3 of 3 requests"):
            batch.results(10)
        with pytest.raises(ResultTimeout, match="request-1 is LAUNCHED"):
            batch[0].result(10)
        assert all(result.succeeded for result in batch.results())


def test_a_timeout_of_many_is_that_of_all_results_together() -> None:
    with MemoryQueue(lambda task: Exit(after=6.0 * int(task.id))) as queue:
        handles = [queue.submit(["run"], id=str(number)) for number in (1, 2, 3)]
        start = queue.clock.now
        completed = queue.as_completed(handles, timeout=13)

        assert [next(completed).id, next(completed).id] == ["1", "2"]
        with pytest.raises(ResultTimeout):
            next(completed)
        assert queue.clock.now == pytest.approx(start + 13)


def test_a_delay_of_any_length_is_waited_for() -> None:
    with MemoryQueue() as queue:
        start = queue.clock.now
        soon = queue.submit(["run"], delay=10)
        handle = queue.submit(["run"], delay="30d", expires_in=10)

        assert soon.result().succeeded
        assert start + 10 <= queue.clock.now < start + 20
        assert handle.result().succeeded
        queue.submit(["run"], delay="30d")
        queue.run()
        assert queue.clock.now >= start + 60 * 86400


def test_steps_and_time_are_the_tests_own() -> None:
    with MemoryQueue(lambda task: Exit(after=60)) as queue:
        handle = queue.submit(["run"])
        assert handle.state() is State.QUEUED
        queue.step()
        assert handle.state() is State.LAUNCHED
        queue.advance(59)
        assert not handle.done()
        queue.advance(10)
        assert handle.done()


def test_a_stop_before_the_launch_and_one_of_a_running_task() -> None:
    with MemoryQueue(lambda task: Exit(after=1e6)) as queue:
        early = queue.submit(["run"])
        assert early.cancel()
        running = queue.submit(["run"])
        queue.step()
        assert not running.cancel()

        assert (early.result().state, early.result().attempts) == ("REVOKED", 0)
        assert (running.result().exit_code, len(queue.launched)) == (143, 1)


def test_requests_with_a_higher_priority_are_launched_first() -> None:
    with MemoryQueue() as queue:
        queue.submit_many({"command": ["run"], "id": f"p{priority}", "priority": priority} for priority in (0, 9, 5))
        queue.run()

        assert [task.id for task in queue.launched] == ["p9", "p5", "p0"]


def test_a_launch_rate_is_kept() -> None:
    launched_at: list[float] = []

    def end(task: Task) -> int:
        launched_at.append(queue.clock())
        return 0

    environ = {"AIRFLOW__AWS_ECS_EXECUTOR_ETL__LAUNCH_RATE": "0.01", "AIRFLOW__AWS_ECS_EXECUTOR_ETL__LAUNCH_BURST": "2"}
    with MemoryQueue(end, environ=environ) as queue:
        start = queue.clock()
        queue.submit_many([{"command": ["true"], "queue": "etl"} for _ in range(4)]).wait()

    assert [moment - start for moment in launched_at] == pytest.approx([0, 0, 100, 200], abs=0.01)


@pytest.mark.parametrize("limit", ["MAX_IN_FLIGHT", "MAX_STARTING"])
def test_what_waits_for_a_limit_is_launched_in_the_order_of_priorities(limit: str) -> None:
    with MemoryQueue(environ={f"AIRFLOW__AWS_ECS_EXECUTOR_ETL__{limit}": "1"}) as queue:
        for name, priority in (("low", 0), ("first", 3), ("high", 9), ("second", 3)):
            queue.submit(["true"], id=name, queue="etl", priority=priority)
        queue.run()

        assert [task.id for task in queue.launched] == ["high", "first", "second", "low"]


def test_the_next_request_of_a_key_is_launched_when_the_one_before_has_ended() -> None:
    launched_at: list[float] = []

    def end(task: Task) -> Exit:
        launched_at.append(queue.clock())
        return Exit(after=3600)

    with MemoryQueue(end, environ={"AIRFLOW__AWS_ECS_EXECUTOR_ETL__MAX_PER_KEY": "1"}) as queue:
        start = queue.clock()
        queue.submit_many([{"command": ["true"], "queue": "etl", "concurrency_key": "k"} for _ in range(3)]).wait()

    assert [moment - start for moment in launched_at] == [0, 3600, 7200]


def test_a_task_that_starts_too_late_is_stopped_and_launched_again() -> None:
    def end(task: Task) -> Exit:
        return Exit(after=60, starts_after=600 if task.launch == 1 else 30)

    with MemoryQueue(end) as queue:
        result = queue.submit(["true"], start_timeout=120).result()

        assert (result.state, result.attempts) == ("SUCCESS", 2)
        assert result.started_at is not None
        assert result.finished_at is not None
        assert (result.finished_at - result.started_at).total_seconds() == 60
        stuck = queue.submit(["true"], start_timeout=20).result()

    assert (stuck.state, stuck.attempts, stuck.exit_code) == ("REMOVED", 3, None)
    assert stuck.reason == "It had not started within its start_timeout"


def test_a_task_holds_its_slot_of_max_starting_until_it_runs() -> None:
    launched_at: list[float] = []

    def end(task: Task) -> Exit:
        launched_at.append(queue.clock())
        return Exit(after=3600, starts_after=30)

    with MemoryQueue(end, environ={"AIRFLOW__AWS_ECS_EXECUTOR_ETL__MAX_STARTING": "2"}) as queue:
        start = queue.clock()
        queue.submit_many([{"command": ["true"], "queue": "etl"} for _ in range(4)]).wait()

    assert [moment - start for moment in launched_at] == [0, 0, 30, 30]


def test_the_messages_of_a_paused_queue_stay_in_the_broker() -> None:
    with MemoryQueue() as queue:
        queue.pause("default")
        batch = queue.submit_many([{"command": ["true"]} for _ in range(3)])
        queue.advance(60)
        assert (queue.backlog("default"), queue.launched) == (3, [])

        queue.resume("default")

        assert batch.wait()
        assert [task.id for task in queue.launched] == [handle.id for handle in batch]


def test_a_queue_falls_back_to_other_capacity_as_its_profile_says() -> None:
    section = "AIRFLOW__AWS_ECS_EXECUTOR__"
    environ = {
        f"{section}CAPACITY_PROVIDER_STRATEGY": '[{"capacityProvider": "FARGATE_SPOT"}]',
        f"{section}CAPACITY_FALLBACK": '[{"launch_type": "EC2", "cluster": "spare"}]',
    }

    def end(task: Task) -> Outcome:
        return 0 if task.run_task.get("launchType") == "EC2" else Capacity()

    with MemoryQueue(end, environ=environ) as queue:
        batch = queue.submit_many([{"command": ["true"]}] * 5)
        assert {result.state for result in batch.results()} == {State.SUCCESS}
        assert {task.run_task["cluster"] for task in queue.launched} == {"spare"}


def test_commands_are_run_on_this_machine() -> None:
    with MemoryQueue(run_command) as queue:
        handle = queue.submit(["sh", "-c", 'exit "$CODE"'], environment={"CODE": "7"})
        killed = queue.submit(["sh", "-c", "kill -9 $$"])

        assert (handle.result().exit_code, killed.result().exit_code) == (7, 137)


def test_a_command_that_cannot_be_started_never_starts() -> None:
    with MemoryQueue(run_command) as queue:
        result = queue.submit(["/nonexistent/program"]).result()
    assert (result.state, result.attempts) == (State.REMOVED, 3)
    assert "CannotStartContainerError" in result.reason


@pytest.mark.parametrize(
    "outcome", [None, True, "0", Exit(256), Exit(-1), Exit(after=-1.0), Exit(after=math.inf), Interruption(math.nan)]
)
def test_what_is_no_outcome_is_said_so(outcome: Any) -> None:
    with MemoryQueue(lambda task: outcome) as queue, pytest.raises(UsageError, match="the function of a MemoryQueue"):
        queue.submit(["true"]).result()


def test_an_eager_queue_serves_code_that_waits_in_its_own_way() -> None:
    with MemoryQueue(eager=True) as queue:
        handles = queue.submit_many([{"command": ["run"]}] * 3)
        assert not concurrent.futures.wait(handles, 0).not_done

    async def submit_one() -> str:
        async with AsyncEcsQueue(MemoryQueue(eager=True)) as queue:
            return (await (await queue.submit(["run"]))).state

    assert asyncio.run(submit_one()) == "SUCCESS"


def test_another_worker_cannot_be_started_on_it() -> None:
    with MemoryQueue() as queue, pytest.raises(UsageError, match="its own worker"):
        queue._broker.consume_requests(["default"], 1, lambda delivery: None, lambda *element: None)


def test_the_fixtures_share_a_clock(ecs_queue: MemoryQueue, eager_ecs_queue: MemoryQueue) -> None:
    ecs_queue.end_with(lambda task: Exit(after=50))
    before = eager_ecs_queue.clock.now

    ecs_queue.submit(["run"]).result()

    assert eager_ecs_queue.clock.now >= before + 50
    assert eager_ecs_queue.submit(["run"]).done()


def test_a_users_test_file_with_the_fixtures_passes(pytester: pytest.Pytester) -> None:
    pytester.makeconftest('pytest_plugins = ["ecs_queue.testing.plugin"]')
    pytester.makepyfile(
        """
        def test_the_job_fails(ecs_queue):
            ecs_queue.end_with(lambda task: 3)
            assert ecs_queue.submit(["run"]).result().exit_code == 3
        """
    )

    pytester.runpytest_inprocess("-p", "no:cacheprovider").assert_outcomes(passed=1)
