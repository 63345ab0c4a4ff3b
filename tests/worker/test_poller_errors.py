"""Following tasks that ECS does not show, or does not show in time."""

from __future__ import annotations

import pytest

from ecs_queue.messages.envelope import decode_request
from ecs_queue.protocol.ecs_results import EcsError
from ecs_queue.protocol.operations import ClaimRequest
from ecs_queue.protocol.states import State
from ecs_queue.runtask.launch_spec import build_queued_task
from ecs_queue.worker.prepared_launch import prepare_launch
from tests.fake_ecs import CLUSTER_NOT_FOUND, DENIED, THROTTLED
from tests.worker.harness import WorkerHarness

GRACE = 600.0


@pytest.fixture
def harness() -> WorkerHarness:
    return WorkerHarness()


class TestMissing:
    def test_inside_the_grace_time_it_writes_nothing(self, harness: WorkerHarness) -> None:
        arn = harness.launch()
        before = harness.record()
        harness.ecs.hidden_arns.add(arn)

        harness.advance_in_steps(GRACE - 20, step=5)

        assert harness.record() == before
        assert not harness.published_results

    def test_beyond_the_grace_time_it_is_unknown_and_never_started_again(self, harness: WorkerHarness) -> None:
        harness.ecs.hidden_arns.add(harness.launch(relaunch="any_failure"))

        harness.advance_in_steps(GRACE + 60, step=5)

        assert harness.state() is State.UNKNOWN
        assert harness.published_results == [harness.record()]
        assert len(harness.ecs.run_task_calls) == 1

    def test_a_task_that_shows_up_in_time_is_followed(self, harness: WorkerHarness) -> None:
        arn = harness.launch()
        harness.ecs.hidden_arns.add(arn)
        harness.advance_in_steps(GRACE / 2, step=5)

        harness.ecs.hidden_arns.clear()
        harness.ecs.finish(arn)
        harness.advance_in_steps(15)

        assert harness.state() is State.SUCCESS

    def test_a_poll_that_missed_it_long_ago_does_not_count_when_others_have_seen_it_since(
        self, harness: WorkerHarness
    ) -> None:
        """This worker's first poll was too early; then another worker followed the task for long."""
        arn = harness.launch()
        harness.ecs.hidden_arns.add(arn)
        harness.advance(1)
        harness.ecs.hidden_arns.clear()
        other, mine = harness.new_worker(), harness.worker
        harness.worker = other
        harness.advance_in_steps(2 * GRACE, step=10)

        harness.worker = mine
        harness.ecs.hidden_arns.add(arn)
        harness.advance_in_steps(60, step=5)

        assert harness.state() is State.LAUNCHED

    def test_a_cluster_that_is_gone_counts_as_missing(self, harness: WorkerHarness) -> None:
        harness.launch()
        harness.ecs.describe_error = CLUSTER_NOT_FOUND

        harness.advance_in_steps(6 * GRACE - 20, step=5)  # bad credentials may look the same, so it gets more time
        assert harness.state() is State.LAUNCHED
        assert harness.worker.circuit_breakers.health() == f"default: {CLUSTER_NOT_FOUND.reason}"
        harness.advance_in_steps(60, step=5)

        assert harness.state() is State.UNKNOWN
        assert CLUSTER_NOT_FOUND.reason in harness.record().reason


class TestReadErrors:
    @pytest.mark.parametrize("error", [THROTTLED, DENIED], ids=["throttled", "denied"])
    def test_a_failed_describe_keeps_everything_as_it_is(self, harness: WorkerHarness, error: EcsError) -> None:
        arn = harness.launch()
        harness.ecs.finish(arn)
        harness.ecs.describe_error = error
        harness.advance_in_steps(2 * GRACE, step=10)
        assert harness.state() is State.LAUNCHED

        harness.ecs.describe_error = None
        harness.advance_in_steps(70, step=1)

        assert harness.state() is State.SUCCESS

    def test_one_bad_arn_does_not_hide_the_others_of_its_batch(self, harness: WorkerHarness) -> None:
        harness.launch_many(20)
        bad = harness.record("t7").arn
        for arn in harness.ecs.tasks:
            harness.ecs.finish(arn)
        harness.ecs.invalid_arns.add(bad)

        harness.advance(1)

        states = {harness.state(f"t{index}") for index in range(20) if index != 7}
        assert states == {State.SUCCESS}
        assert harness.state("t7") is State.LAUNCHED

    def test_a_task_that_cannot_be_read_does_not_hide_the_others(self, harness: WorkerHarness) -> None:
        harness.launch_many(3)
        for arn in harness.ecs.tasks:
            harness.ecs.finish(arn)
        harness.ecs.tasks[harness.record("t1").arn]["containers"] = 5

        harness.advance(1)

        assert [harness.state(f"t{index}") for index in range(3)] == [State.SUCCESS, State.LAUNCHED, State.SUCCESS]
        assert harness.worker.emitted("describe_tasks.failed")

    def test_an_envelope_of_a_newer_version_is_followed_by_an_older_worker(self, harness: WorkerHarness) -> None:
        harness.ecs.finish(harness.launch())
        harness.memory_ledger._records["a"].request = b'{"kind": "request", "v": 99}'
        harness.worker = harness.new_worker()

        harness.advance(5)

        assert harness.state() is State.SUCCESS

    @pytest.mark.parametrize("when", ["before", "after"])
    def test_a_ledger_that_fails_at_the_outcome_loses_nothing(self, harness: WorkerHarness, when: str) -> None:
        harness.ecs.finish(harness.launch())
        harness.clock.advance(1)
        harness.ledger.fail("update_tasks", when)
        with pytest.raises(Exception, match="ledger"):
            harness.worker.poll()

        harness.advance_in_steps(31)

        assert harness.state() is State.SUCCESS


class TestBatches:
    def test_a_hundred_tasks_a_call(self, harness: WorkerHarness) -> None:
        harness.launch_many(250)

        harness.advance(1)

        assert [len(batch) for batch in harness.ecs.describe_calls] == [100, 100, 50]

    def test_the_describe_rate_limit_is_kept_and_the_rest_polled_later(self) -> None:
        harness = WorkerHarness(describe_tasks_rate=1, describe_tasks_burst=1)
        harness.launch_many(500)
        for arn in harness.ecs.tasks:
            harness.ecs.finish(arn)

        harness.advance(1)
        assert len(harness.ecs.describe_calls) == 1
        harness.advance_in_steps(20)

        assert len(harness.ecs.describe_calls) <= 22
        assert {harness.state(f"t{index}") for index in range(500)} == {State.SUCCESS}

    def test_finding_an_invalid_arn_keeps_the_rate_limit_too(self) -> None:
        harness = WorkerHarness(describe_tasks_rate=1, describe_tasks_burst=3)
        harness.launch_many(100)
        harness.ecs.invalid_arns.add(harness.record("t7").arn)

        harness.advance(1)

        assert len(harness.ecs.describe_calls) == 3

    def test_tasks_of_different_clusters_are_asked_for_apart(self, harness: WorkerHarness) -> None:
        harness.launch("here")
        from ecs_queue.ecs.clients import Target

        harness.worker.target_for = lambda queue: Target("eu-west-1", None, "arn:aws:iam::1:role/r", "there")
        harness.launch("there")

        harness.advance(1)

        assert sorted(len(batch) for batch in harness.ecs.describe_calls) == [1, 1]

    def test_ambiguous_launches_beyond_the_capacity_come_again_soon_and_pile_up_nowhere(
        self, harness: WorkerHarness
    ) -> None:
        """After an outage of ECS there are many of them."""
        for index in range(50):
            harness.put_request(f"d{index}")
            claim_request = _claim_request(harness, f"d{index}")
            harness.memory_ledger.claim(f"d{index}", claim_request)
            harness.memory_ledger.call_ambiguous(f"d{index}", claim_request.claim, 0.0, "a time-out")
        harness.worker.thread_pool.is_full = True

        harness.advance_in_steps(200, step=5)
        assert harness.worker.thread_pool.waiting_jobs == harness.config.concurrency
        harness.worker.thread_pool.resume()
        harness.advance_in_steps(60, step=1)

        assert {harness.state(f"d{index}") for index in range(50)} == {State.LAUNCHED}
        assert len(harness.ecs.tasks) == 50


def _claim_request(harness: WorkerHarness, record_id: str) -> ClaimRequest:
    request = decode_request(harness.record(record_id).request)
    prepared = prepare_launch(harness.worker.context, build_queued_task(request, 1, 0.0), "", 1, request)
    assert prepared is not None
    return prepared.build_claim_request(harness.worker.context)


class TestForgetting:
    def test_what_other_workers_follow_is_forgotten_even_while_there_is_always_something_due(
        self, harness: WorkerHarness
    ) -> None:
        harness.launch_many(50)
        harness.ecs.hidden_arns.update(list(harness.ecs.tasks)[:10])
        harness.advance(1)
        for index in range(50):
            harness.memory_ledger.stop([f"t{index}"], "x")
        mine, harness.worker = harness.worker, harness.new_worker()
        harness.ecs.hidden_arns.clear()
        harness.advance_in_steps(30)
        assert {harness.state(f"t{index}") for index in range(50)} == {State.REVOKED}

        harness.worker = mine
        harness.launch("busy")
        harness.advance_in_steps(2 * GRACE, step=1)

        assert len(mine.poller._missing) == 0
        assert not mine.poller._task_stopper._next_stop_at
