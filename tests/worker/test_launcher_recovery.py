"""Ambiguous launches: called again, searched for and resolved, after every death of a worker and every outage."""

from __future__ import annotations

import pytest

from ecs_queue.errors import LedgerUnavailable
from ecs_queue.protocol.ecs_results import EcsError, EcsErrorKind, RunTaskResult, RunTaskResultKind
from ecs_queue.protocol.states import State
from tests.fake_clock import START
from tests.fake_ecs import CLUSTER_NOT_FOUND, DENIED, THROTTLED, LostResult, RunTaskCall
from tests.worker.harness import WorkerHarness, WorkerKilled

LEASE, SETTLE = 30.0, 600.0


@pytest.fixture
def harness() -> WorkerHarness:
    return WorkerHarness()


def _die_in_call(harness: WorkerHarness, *, effect: bool) -> None:
    """A worker claims request a, calls RunTask and dies; with `effect` the call starts a task."""

    def die(call: RunTaskCall) -> None:
        harness.ecs.on_run_task = lambda call: None
        if effect:
            harness.ecs.run_task(
                call.target,
                call.arguments,
                client_token=call.client_token,
                started_by=call.started_by,
                deadline=call.deadline,
            )
            harness.ecs.run_task_calls.clear()
        raise WorkerKilled

    harness.ecs.on_run_task = die
    with pytest.raises(WorkerKilled):
        harness.worker.handle_message(harness.new_envelope())
    assert harness.state() is State.LAUNCHING


class TestDeadWorker:
    @pytest.mark.parametrize("effect", [True, False], ids=["after the effect", "before the effect"])
    def test_another_calls_again_with_the_same_token_when_the_lease_is_over(
        self, harness: WorkerHarness, effect: bool
    ) -> None:
        _die_in_call(harness, effect=effect)

        harness.advance(LEASE - 1)
        assert not harness.ecs.run_task_calls
        harness.advance(2)

        assert [call.client_token.rsplit(".", 1)[1] for call in harness.ecs.run_task_calls] == ["1"]
        assert len(harness.ecs.tasks) == 1
        assert harness.state() is State.LAUNCHED

    def test_a_late_result_of_a_dead_worker_changes_nothing(self, harness: WorkerHarness) -> None:
        """The first holder's call is refused after another worker has taken over: its claim is lost."""
        _die_in_call(harness, effect=False)
        dead = harness.record()
        harness.advance(LEASE + 1)

        result = harness.memory_ledger.no_effect("a", dead.claim, 1.0, "throttled")

        assert result.code == "claim_lost"
        assert harness.state() is State.LAUNCHED


class TestAmbiguousCall:
    def test_a_no_after_a_takeover_is_never_taken_as_proof(self, harness: WorkerHarness) -> None:
        _die_in_call(harness, effect=True)
        harness.ecs.run_task_results.append(RunTaskResult(RunTaskResultKind.PERMANENT, reason="denied"))

        harness.advance(LEASE + 1)
        assert (harness.state(), harness.record().retired) == (State.LAUNCHING, True)
        harness.advance_in_steps(60, step=5)

        assert len(harness.ecs.run_task_calls) == 1, "a burnt number is never called again"
        assert harness.ecs.list_calls
        assert harness.state() is State.LAUNCHED

    def test_after_forty_minutes_it_only_lists_tasks(self, harness: WorkerHarness) -> None:
        harness.ecs.run_task_results.extend([LostResult.NO_EFFECT] * 1000)
        harness.worker.handle_message(harness.new_envelope())
        harness.advance_in_steps(41 * 60, step=10)
        calls = len(harness.ecs.run_task_calls)

        harness.advance_in_steps(5 * 60, step=10)

        assert len(harness.ecs.run_task_calls) == calls
        assert harness.ecs.list_calls

    def test_nothing_found_is_proof_only_after_the_settling_time(self, harness: WorkerHarness) -> None:
        _die_in_call(harness, effect=False)
        harness.ecs.run_task_results.append(RunTaskResult(RunTaskResultKind.PERMANENT, reason="denied"))
        harness.advance(LEASE + 1)
        called_at = harness.clock()

        harness.advance_in_steps(SETTLE + LEASE - 1, step=10)
        assert harness.record().launch == 1
        harness.advance_in_steps(120, step=10)

        assert harness.record().launch == 2
        assert harness.record().launched_at > called_at + SETTLE + LEASE

    def test_what_it_finds_is_followed(self, harness: WorkerHarness) -> None:
        harness.ecs.run_task_results.append(LostResult.IMMEDIATE)
        harness.worker.handle_message(harness.new_envelope())
        harness.memory_ledger.stop(["a"], "alice")

        harness.advance_in_steps(60)

        assert harness.ecs.list_calls
        assert len(harness.ecs.run_task_calls) == 1
        assert harness.state() is State.REVOKED
        assert not harness.ecs.live_tasks()

    def test_a_stop_with_nothing_found_is_revoked_when_that_is_proof(self, harness: WorkerHarness) -> None:
        harness.ecs.run_task_results.append(LostResult.NO_EFFECT)
        harness.worker.handle_message(harness.new_envelope())
        harness.memory_ledger.stop(["a"], "alice")

        harness.advance_in_steps(SETTLE, step=10)
        assert harness.state() is State.LAUNCHING
        harness.advance_in_steps(200, step=10)

        assert harness.state() is State.REVOKED
        assert len(harness.ecs.run_task_calls) == 1

    def test_an_expired_one_with_nothing_found_is_expired_when_that_is_proof(self, harness: WorkerHarness) -> None:
        harness.ecs.run_task_results.append(LostResult.NO_EFFECT)
        harness.worker.handle_message(harness.new_envelope(expires_in=10.0))
        harness.clock.advance(11)

        harness.advance_in_steps(SETTLE + LEASE + 120, step=10)

        assert harness.state() is State.EXPIRED
        assert len(harness.ecs.run_task_calls) == 1

    def test_a_list_that_fails_proves_nothing(self, harness: WorkerHarness) -> None:
        harness.ecs.run_task_results.append(LostResult.NO_EFFECT)
        harness.ecs.list_error = THROTTLED
        harness.worker.handle_message(harness.new_envelope())
        harness.memory_ledger.stop(["a"], "alice")

        harness.advance_in_steps(2 * 3600, step=30)

        assert harness.state() is State.LAUNCHING
        assert harness.worker.emitted("launch.ambiguous")[-1]["reason"] == THROTTLED.reason
        assert harness.worker.circuit_breakers.health() == "ok"

    @pytest.mark.parametrize(
        "trouble", [CLUSTER_NOT_FOUND, DENIED], ids=["a cluster that is gone", "ListTasks denied for ever"]
    )
    def test_a_lasting_error_ends_it_unknown_when_nothing_is_proof_any_more(
        self, harness: WorkerHarness, trouble: EcsError
    ) -> None:
        harness.ecs.run_task_results.append(LostResult.NO_EFFECT)
        harness.ecs.list_error = trouble
        harness.worker.handle_message(harness.new_envelope())
        harness.memory_ledger.stop(["a"], "alice")

        harness.advance_in_steps(59 * 60, step=30)
        assert harness.state() is State.LAUNCHING
        harness.advance_in_steps(3 * 60, step=30)

        assert harness.state() is State.UNKNOWN
        assert harness.published_results == [harness.record()]
        assert trouble.reason in harness.record().reason
        assert f"startedBy {harness.config.namespace}/a/{harness.record().nonce}/1" in harness.record().reason
        assert harness.worker.circuit_breakers.health() == f"default: {trouble.reason}"

    def test_a_list_that_ecs_refuses_is_in_health_and_names_the_family_to_search(self, harness: WorkerHarness) -> None:
        harness.ecs.run_task_results.append(LostResult.NO_EFFECT)
        harness.ecs.list_error = EcsError(EcsErrorKind.INVALID, "ListTasks failed: no such filter")
        harness.worker.handle_message(harness.new_envelope())
        harness.memory_ledger.stop(["a"], "alice")

        harness.advance_in_steps(60, step=10)

        assert harness.worker.circuit_breakers.health() == "default: ListTasks failed: no such filter"
        assert set(harness.ecs.listed_families) == {"family"}
        harness.ecs.list_error = None
        harness.advance_in_steps(60, step=10)
        assert harness.worker.circuit_breakers.health() == "ok"

    def test_two_workers_that_take_it_over_at_once_call_once(self, harness: WorkerHarness) -> None:
        _die_in_call(harness, effect=False)
        harness.clock.advance(LEASE + 1)
        (due,) = harness.memory_ledger.lease_due(10)

        for worker in (harness.worker, harness.new_worker()):
            worker.launcher.recover(due, worker.context.run_task_limiter)

        assert len(harness.ecs.run_task_calls) == 1


class TestUnwantedTask:
    def test_a_task_for_a_launch_that_is_over_is_stopped(self, harness: WorkerHarness) -> None:
        """The claim is lost, and the launch ended, while the call was under way for longer than any time-out."""

        def overtaken(call: RunTaskCall) -> None:
            harness.ecs.on_run_task = lambda call: None
            record = harness.record()
            harness.memory_ledger.call_ambiguous("a", record.claim, 0.0, "timed out")
            harness.memory_ledger.stop(["a"], "alice")
            harness.clock.advance(SETTLE + LEASE + 1)
            harness.worker.poll()

        harness.ecs.on_run_task = overtaken
        harness.worker.handle_message(harness.new_envelope())

        assert harness.state() is State.REVOKED
        assert [arn for arn, _ in harness.ecs.stop_calls] == list(harness.ecs.tasks)
        assert not harness.ecs.live_tasks()
        assert harness.worker.emitted("launch.unwanted")


@pytest.mark.parametrize("when", ["before", "after"])
class TestFailingLedger:
    """The message is not acknowledged, and the request ends right when the ledger is back, with one ECS task."""

    def _inject_failure(self, harness: WorkerHarness, operation: str, when: str) -> None:
        body = harness.new_envelope()
        harness.ledger.fail(operation, when)
        with pytest.raises(LedgerUnavailable):
            harness.worker.handle_message(body)
        harness.worker = harness.new_worker()
        assert harness.worker.handle_message(body)

    def _assert_succeeds(self, harness: WorkerHarness) -> None:
        harness.advance_in_steps(LEASE + 70)
        (task,) = harness.ecs.tasks
        harness.ecs.finish(task)
        harness.advance_in_steps(60)
        assert harness.state() is State.SUCCESS
        assert harness.published_results == [harness.record()]

    def test_at_the_admission(self, harness: WorkerHarness, when: str) -> None:
        self._inject_failure(harness, "put_and_claim", when)
        self._assert_succeeds(harness)

    def test_when_it_writes_that_it_was_launched(self, harness: WorkerHarness, when: str) -> None:
        self._inject_failure(harness, "launched", when)
        self._assert_succeeds(harness)

    @pytest.mark.parametrize(
        ("operation", "result"),
        [
            ("no_effect", RunTaskResult(RunTaskResultKind.THROTTLED)),
            ("call_ambiguous", LostResult.IMMEDIATE),
            ("call_ambiguous", LostResult.NO_EFFECT),
            ("refused", RunTaskResult(RunTaskResultKind.CAPACITY)),
            ("refused", RunTaskResult(RunTaskResultKind.START_FAILURE)),
        ],
    )
    def test_when_it_writes_that_it_was_not_launched(
        self, harness: WorkerHarness, operation: str, result: RunTaskResult | LostResult, when: str
    ) -> None:
        harness.ecs.run_task_results.append(result)
        self._inject_failure(harness, operation, when)
        self._assert_succeeds(harness)

    def test_when_it_writes_that_it_never_can_be_launched(self, harness: WorkerHarness, when: str) -> None:
        body = harness.new_envelope(executor_config={"no_such_key": 1})
        harness.ledger.fail("refused", when)
        with pytest.raises(LedgerUnavailable):
            harness.worker.handle_message(body)

        assert harness.new_worker().handle_message(body)
        harness.advance_in_steps(SETTLE + 3 * LEASE + 60, step=5)

        assert harness.state() is State.FAILED
        assert not harness.ecs.run_task_calls

    def test_when_a_dead_letter_is_stored(self, harness: WorkerHarness, when: str) -> None:
        harness.ledger.fail("add_dead_letter", when)
        with pytest.raises(LedgerUnavailable):
            harness.worker.handle_message(b"not json")

        assert harness.worker.handle_message(b"not json")

        assert {letter.body for letter in harness.memory_ledger.list_dead_letters(10)} == {b"not json"}

    def test_at_the_takeover(self, harness: WorkerHarness, when: str) -> None:
        _die_in_call(harness, effect=True)
        harness.clock.advance(LEASE + 1)
        harness.ledger.fail("reclaim", when)
        harness.worker.poll()
        assert harness.state() is State.LAUNCHING

        harness.advance_in_steps(2 * LEASE + 5)

        assert harness.state() is State.LAUNCHED
        assert len(harness.ecs.tasks) == 1

    def test_at_the_claim_of_a_retry(self, harness: WorkerHarness, when: str) -> None:
        harness.ecs.run_task_results.append(RunTaskResult(RunTaskResultKind.CAPACITY))
        harness.worker.handle_message(harness.new_envelope())
        harness.ledger.fail("claim", when)
        harness.advance(5)

        harness.advance_in_steps(2 * LEASE + 5)

        assert harness.state() is State.LAUNCHED
        assert len(harness.ecs.tasks) == 1


def test_a_worker_that_stops_leaves_an_ambiguous_launch_to_others(harness: WorkerHarness) -> None:
    _die_in_call(harness, effect=True)
    harness.worker.stopping.set()
    harness.advance(LEASE + 1)
    assert harness.state() is State.LAUNCHING

    harness.worker = harness.new_worker()
    harness.advance(LEASE + 1)

    assert harness.state() is State.LAUNCHED
    assert harness.clock() == START + 2 * (LEASE + 1)
