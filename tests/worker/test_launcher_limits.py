"""Conflicts, stops, deadlines and rate limits around a launch."""

from __future__ import annotations

import json
from functools import partial
from typing import Any, ClassVar

import pytest

from ecs_queue.ecs.clients import Target
from ecs_queue.protocol.ecs_results import RunTaskResultKind
from ecs_queue.protocol.record import build_started_by
from ecs_queue.protocol.states import State
from ecs_queue.telemetry import EVENTS
from ecs_queue.worker.fair_queue import Job, JobKind
from tests.worker.harness import TARGET, FakeDelivery, WorkerHarness, failed_result


@pytest.fixture
def harness() -> WorkerHarness:
    return WorkerHarness()


class TestConflicts:
    OURS = "arn:aws:ecs:us-east-1:123456789012:task/jobs/ours"

    def _conflict(self, harness: WorkerHarness, *arns: str) -> None:
        harness.ecs.run_task_results.append(failed_result(RunTaskResultKind.CONFLICT, conflicting_arns=arns))
        harness.worker.handle_message(harness.new_envelope())

    def test_a_task_that_is_ours_is_adopted(self, harness: WorkerHarness) -> None:
        body = harness.put_request()
        harness.ecs.add_task(self.OURS, build_started_by("ecs-queue", "a", harness.record().nonce, 1))
        harness.ecs.run_task_results.append(failed_result(RunTaskResultKind.CONFLICT, conflicting_arns=(self.OURS,)))

        harness.worker.handle_message(body)

        assert (harness.state(), harness.record().arn) == (State.LAUNCHED, self.OURS)

    def test_a_foreign_task_is_a_permanent_error(self, harness: WorkerHarness) -> None:
        harness.ecs.add_task(self.OURS, "another/program")

        self._conflict(harness, self.OURS)

        assert harness.state() is State.FAILED

    @pytest.mark.parametrize("arns", [(), (OURS,)], ids=["none named", "not shown"])
    def test_a_task_that_is_not_shown_leaves_it_ambiguous(self, harness: WorkerHarness, arns: tuple[str, ...]) -> None:
        self._conflict(harness, *arns)

        assert harness.state() is State.LAUNCHING

    def test_one_of_several_that_is_not_shown_may_be_ours(self, harness: WorkerHarness) -> None:
        harness.ecs.add_task(self.OURS, "another/program")

        self._conflict(harness, self.OURS, self.OURS + "2")

        assert harness.state() is State.LAUNCHING


class TestStops:
    def test_a_stop_before_the_launch_ends_it_without_a_call(self, harness: WorkerHarness) -> None:
        body = harness.put_request()
        harness.memory_ledger.stop(["a"], "alice")

        assert harness.worker.handle_message(body)

        assert harness.state() is State.REVOKED
        assert not harness.ecs.run_task_calls

    def test_the_result_of_a_stop_that_came_first_is_published_when_the_request_arrives(
        self, harness: WorkerHarness
    ) -> None:
        harness.memory_ledger.stop(["a"], "alice")

        assert harness.worker.handle_message(harness.new_envelope())

        assert [record.state for record in harness.published_results] == [State.REVOKED]
        assert not harness.ecs.run_task_calls

    def test_a_stop_during_the_call_stops_what_it_started(self, harness: WorkerHarness) -> None:
        harness.ecs.on_run_task = lambda call: harness.memory_ledger.stop(["a"], "alice")
        harness.worker.handle_message(harness.new_envelope())
        assert harness.state() is State.LAUNCHED

        harness.advance_in_steps(3)

        assert harness.state() is State.REVOKED
        assert [arn for arn, _ in harness.ecs.stop_calls] == [harness.record().arn]
        assert not harness.ecs.live_tasks()

    def test_a_stop_during_a_call_that_ecs_refuses_is_revoked(self, harness: WorkerHarness) -> None:
        harness.ecs.on_run_task = lambda call: harness.memory_ledger.stop(["a"], "alice")
        harness.ecs.run_task_results.append(failed_result(RunTaskResultKind.CAPACITY))

        harness.worker.handle_message(harness.new_envelope())

        assert harness.state() is State.REVOKED
        assert harness.published_results == [harness.record()]


class TestExpiry:
    def test_an_expired_request_is_not_launched(self, harness: WorkerHarness) -> None:
        body = harness.put_request(expires_in=10.0)
        harness.clock.advance(11)

        assert harness.worker.handle_message(body)

        assert harness.state() is State.EXPIRED
        assert harness.published_results == [harness.record()]
        assert not harness.ecs.run_task_calls

    def test_the_startup_allowance_counts(self) -> None:
        harness = WorkerHarness(startup_allowance=30)

        harness.worker.handle_message(harness.new_envelope(expires_in=20.0))

        assert harness.state() is State.EXPIRED


def _new_harness_with_spot(**keys: Any) -> WorkerHarness:
    """The queue `spot` runs on Fargate Spot; each quota lets two calls through, one of them for StopTask."""
    strategy = '[{"capacityProvider": "FARGATE_SPOT", "weight": 1}]'
    environ = {"AIRFLOW__AWS_ECS_EXECUTOR_SPOT__CAPACITY_PROVIDER_STRATEGY": strategy}
    harness = WorkerHarness(environ, run_task_rate=1, run_task_burst=2, **keys)
    harness.queues = ("default", "spot")
    harness.worker = harness.new_worker()
    return harness


class TestRateLimits:
    def test_a_message_without_a_launch_gives_its_token_back(self) -> None:
        harness = WorkerHarness(run_task_rate=1, run_task_burst=2)
        body = harness.put_request("a")
        harness.memory_ledger.stop(["a"], "alice")
        assert not harness.worker.context.run_task_limiter.try_acquire(TARGET)
        assert harness.worker.context.run_task_limiter.try_acquire(TARGET)

        harness.worker.handle_message(body)

        assert not harness.worker.context.run_task_limiter.try_acquire(TARGET)

    def test_a_throttle_slows_all_workers_down_and_costs_no_attempt(self) -> None:
        harness = WorkerHarness(run_task_rate=8, run_task_burst=20)
        other = harness.new_worker()
        harness.ecs.run_task_results.append(failed_result(RunTaskResultKind.THROTTLED))

        harness.worker.handle_message(harness.new_envelope())

        record = harness.record()
        assert (record.state, record.attempt, record.launch) == (State.QUEUED, 1, 1)
        assert harness.worker.emitted("rate_limit.lowered") == [{"limiter": "run_task", "rate": 6.0}]
        assert other.context.run_task_limiter.try_acquire(TARGET) == pytest.approx(
            2 / 6, abs=0.01
        )  # one, beside the one for StopTask

    def test_fargate_spot_has_a_bucket_of_its_own(self) -> None:
        harness = _new_harness_with_spot()
        context = harness.worker.context
        on_demand, spot = context.launch_limiter("default"), context.launch_limiter("spot")
        assert on_demand.try_acquire(TARGET) == 0.0
        assert on_demand.try_acquire(TARGET) > 0
        assert spot.try_acquire(TARGET) == spot.try_acquire(TARGET) == 0.0  # it leaves nothing to StopTask
        assert spot.try_acquire(TARGET) > 0
        assert context.launches_on_spot

    def test_a_throttle_on_spot_slows_down_spot_only(self) -> None:
        harness = _new_harness_with_spot()
        harness.ecs.run_task_results.append(failed_result(RunTaskResultKind.THROTTLED))

        harness.worker.launcher.handle_message(FakeDelivery(harness.new_envelope(queue="spot"), "spot"))

        assert harness.worker.emitted("rate_limit.lowered") == [{"limiter": "run_task_spot", "rate": 0.75}]
        assert harness.worker.context.launch_limiter("default").try_acquire(TARGET) == 0.0
        assert harness.worker.context.launch_limiter("spot").try_acquire(TARGET) > 0

    def test_a_request_that_chooses_spot_takes_spots_token_and_gives_the_other_back(self) -> None:
        harness = _new_harness_with_spot(allowed_overrides="*")
        context = harness.worker.context
        assert context.run_task_limiter.try_acquire(TARGET) == 0.0

        config = {"capacityProviderStrategy": [{"capacityProvider": "FARGATE_SPOT", "weight": 1}]}
        harness.worker.handle_message(harness.new_envelope(executor_config=config))

        assert harness.state() is State.LAUNCHED
        assert context.run_task_limiter.try_acquire(TARGET) == 0.0
        assert context.spot_limiter.try_acquire(TARGET) == 0.0
        assert context.spot_limiter.try_acquire(TARGET) > 0

    def test_launches_of_another_account_do_not_wait(self) -> None:
        harness = WorkerHarness(run_task_rate=1, run_task_burst=2)
        there = Target("eu-west-1", None, None, "jobs")
        harness.worker.target_for = lambda queue: there if queue == "there" else TARGET
        for index in range(3):
            for queue in ("default", "there"):
                delivery = FakeDelivery(harness.new_envelope(f"{queue}{index}", queue=queue), queue)
                take: Any = partial(harness.worker.launcher.handle_message, delivery)
                rate_limit = harness.worker.context.rate_limit_for(queue)
                harness.worker.thread_pool.submit(Job(take, JobKind.MESSAGE, queue, rate_limit=rate_limit))

        assert sorted(call.target.region for call in harness.ecs.run_task_calls) == ["eu-west-1", "us-east-1"]


class TestQueueLimits:
    ONE: ClassVar = {"AIRFLOW__AWS_ECS_EXECUTOR_GPU__MAX_IN_FLIGHT": "1"}

    def test_a_full_queue_lets_the_rest_wait_and_others_go_on(self) -> None:
        harness = WorkerHarness(self.ONE)
        harness.queues = ("default", "gpu")
        worker = harness.new_worker(self.ONE)
        for name in ("a", "b"):
            assert worker.launcher.handle_message(FakeDelivery(harness.new_envelope(name, queue="gpu"), "gpu"))
        assert worker.launcher.handle_message(FakeDelivery(harness.new_envelope("other")))

        assert [harness.state(name) for name in ("a", "b", "other")] == [State.LAUNCHED, State.QUEUED, State.LAUNCHED]
        assert worker.admission.available("gpu") == 0
        assert worker.admission.available("default") > 0

    def test_a_full_queue_is_asked_for_nothing_until_there_is_room(self) -> None:
        harness = WorkerHarness(self.ONE)
        harness.queues = ("default", "gpu")
        worker = harness.new_worker(self.ONE)
        worker.launcher.handle_message(FakeDelivery(harness.new_envelope("a", queue="gpu"), "gpu"))
        for index in range(20):
            harness.put_request(f"b{index}", queue="gpu")
        claims: list[str] = []
        harness.ledger.on_call = lambda operation, when: claims.append(operation) if operation == "claim" else None

        for _ in range(50):
            harness.clock.advance(1)
            worker.sweep()
        assert claims == []
        harness.ecs.finish(harness.record("a").arn)
        worker.poll()
        worker.sweep()

        launched = [index for index in range(20) if harness.state(f"b{index}") is State.LAUNCHED]
        assert len(launched) == 1


class TestPause:
    def test_requests_of_a_paused_queue_wait_and_expire(self, harness: WorkerHarness) -> None:
        harness.memory_ledger.pause_queues(["default"])
        assert harness.worker.handle_message(harness.new_envelope("a"))
        assert harness.worker.handle_message(harness.new_envelope("b", expires_in=30.0))

        harness.advance_in_steps(60)
        assert (harness.state("a"), harness.state("b")) == (State.QUEUED, State.EXPIRED)
        assert not harness.ecs.run_task_calls
        harness.memory_ledger.resume_queues(["default"])
        harness.advance_in_steps(35)

        assert harness.state("a") is State.LAUNCHED

    def test_tasks_in_flight_are_followed_on(self, harness: WorkerHarness) -> None:
        arn = harness.launch()
        harness.memory_ledger.pause_queues(["default"])
        harness.ecs.finish(arn)

        harness.advance_in_steps(5)

        assert harness.state() is State.SUCCESS


def test_max_in_flight_lets_the_rest_wait_until_there_is_room() -> None:
    harness = WorkerHarness(max_in_flight=1)
    arn = harness.launch("a")
    assert harness.worker.handle_message(harness.new_envelope("b"))
    assert harness.state("b") is State.QUEUED

    harness.ecs.finish(arn)
    harness.advance_in_steps(5)

    assert (harness.state("a"), harness.state("b")) == (State.SUCCESS, State.LAUNCHED)


class TestLaunchRate:
    RATE: ClassVar = {
        "AIRFLOW__AWS_ECS_EXECUTOR_GPU__LAUNCH_RATE": "0.5",
        "AIRFLOW__AWS_ECS_EXECUTOR_GPU__LAUNCH_BURST": "2",
    }

    def submit(self, harness: WorkerHarness, worker: Any, record_id: str, queue: str) -> None:
        delivery = FakeDelivery(harness.new_envelope(record_id, queue=queue), queue)
        take: Any = partial(worker.launcher.handle_message, delivery)
        job = Job(take, JobKind.MESSAGE, queue, rate_limit=worker.context.rate_limit_for(queue))
        worker.thread_pool.submit(job)

    def test_it_is_shared_by_all_workers_and_holds_no_other_queue_up(self) -> None:
        harness = WorkerHarness(self.RATE)
        workers = [harness.new_worker(self.RATE) for _ in range(2)]
        for index in range(4):
            self.submit(harness, workers[index % 2], f"gpu{index}", "gpu")
            self.submit(harness, workers[index % 2], f"free{index}", "default")

        assert len(harness.ecs.run_task_calls) == 4 + 2

    def test_a_launch_that_makes_no_call_gives_its_tokens_back(self) -> None:
        harness = WorkerHarness(self.RATE)
        worker = harness.new_worker(self.RATE)
        harness.memory_ledger.pause_queues(["gpu"])
        for index in range(2):
            self.submit(harness, worker, f"a{index}", "gpu")
        harness.memory_ledger.resume_queues(["gpu"])
        assert not harness.ecs.run_task_calls
        worker.admission.step()

        for index in range(3):
            self.submit(harness, worker, f"b{index}", "gpu")

        assert len(harness.ecs.run_task_calls) == 2

    def test_a_throttle_of_the_account_leaves_the_queues_rate_as_it_is(self) -> None:
        harness = WorkerHarness(self.RATE)
        worker = harness.new_worker(self.RATE)
        limiter = worker.context.launch_limiter("gpu")
        limiter.report_throttled(TARGET)

        assert harness.memory_ledger.take_tokens("launch_rate:gpu", 2, 0.5, 2)[0] == 2


def test_max_starting_lets_the_rest_wait_until_a_task_runs() -> None:
    harness = WorkerHarness({"AIRFLOW__AWS_ECS_EXECUTOR__MAX_STARTING": "1"})
    arn = harness.launch("a")
    assert harness.worker.handle_message(harness.new_envelope("b"))
    harness.advance_in_steps(5)
    assert (harness.state("a"), harness.state("b")) == (State.LAUNCHED, State.QUEUED)
    assert harness.record("b").reason == "max_starting of its queue is reached"

    harness.ecs.mark_running(arn)
    harness.advance_in_steps(5)

    assert (harness.state("a"), harness.state("b")) == (State.LAUNCHED, State.LAUNCHED)


def test_no_event_shows_the_command_or_the_environment(harness: WorkerHarness) -> None:
    secret = "hunter2"
    config = {"environment": [{"name": "PASSWORD", "value": secret}]}
    harness.ecs.run_task_results.extend(
        [failed_result(RunTaskResultKind.CAPACITY), failed_result(RunTaskResultKind.START_FAILURE)]
    )

    harness.worker.handle_message(harness.new_envelope(command=["psql", secret], executor_config=config))
    harness.advance_in_steps(60)

    logged = [(name, {field: fields[field] for field in EVENTS[name].fields}) for name, fields in harness.worker.events]
    assert len(logged) >= 6
    assert secret not in json.dumps(logged)
