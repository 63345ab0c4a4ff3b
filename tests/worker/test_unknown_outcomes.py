"""Requests that this worker cannot read, search for or follow: each ends, with a reason that says what to do."""

from __future__ import annotations

import json
from collections.abc import Sequence

import msgspec
import pytest

from ecs_queue.ecs.clients import Target
from ecs_queue.messages.request import POLICY_VERSION, VERSION
from ecs_queue.protocol.ecs_results import DescribeTasksResult, EcsError, EcsErrorKind, StopTaskResult
from ecs_queue.protocol.states import State
from ecs_queue.runtask import launch_spec
from tests.fake_ecs import DENIED, LostResult
from tests.worker.harness import TARGET, WorkerHarness

LEASE, HOUR = 30.0, 3600.0
UNKNOWN_ENVELOPE_VERSION = POLICY_VERSION + 1
UNKNOWN_SPEC_VERSION = launch_spec.POLICY_VERSION + 1
UNKNOWN_SPEC_REASON = (
    f"of version {UNKNOWN_SPEC_VERSION}, this worker knows up to {launch_spec.POLICY_VERSION}: update the workers"
)
EXPIRED_TOKEN = EcsError(EcsErrorKind.UNUSABLE_PROFILE, "ECS: ExpiredTokenException: renew the credentials")


@pytest.fixture
def harness() -> WorkerHarness:
    return WorkerHarness()


def _update_record(harness: WorkerHarness, record_id: str = "a", **fields: object) -> None:
    """As a newer version would have written it."""
    for name, value in fields.items():
        setattr(harness.memory_ledger._records[record_id], name, value)


def _make_ambiguous(harness: WorkerHarness) -> None:
    harness.ecs.run_task_results.append(LostResult.IMMEDIATE)
    harness.worker.handle_message(harness.new_envelope())
    assert harness.state() is State.LAUNCHING


def _newer_launch_spec(harness: WorkerHarness) -> str:
    return json.dumps(
        {**json.loads(harness.record().args), "v": UNKNOWN_SPEC_VERSION, "run_task": ["another", "shape"]}
    )


class TestNewerArguments:
    def test_the_task_of_an_ambiguous_launch_is_found_and_followed(self, harness: WorkerHarness) -> None:
        _make_ambiguous(harness)
        _update_record(harness, args=_newer_launch_spec(harness))

        harness.advance_in_steps(20 * 60, step=10)
        assert harness.state() is State.LAUNCHING
        assert UNKNOWN_SPEC_REASON in harness.record().reason
        assert len(harness.ecs.run_task_calls) == 1
        harness.advance_in_steps(25 * 60, step=10)

        assert harness.state() is State.LAUNCHED  # from 40 minutes on it only looks

    def test_a_queued_one_waits_for_a_newer_worker_and_expires_with_the_reason(self, harness: WorkerHarness) -> None:
        harness.ecs.run_task_results.append(LostResult.NO_EFFECT)
        harness.put_request(expires_in=300.0)
        _update_record(harness, args=json.dumps({"v": UNKNOWN_SPEC_VERSION}), target=TARGET.encode())

        harness.advance_in_steps(320, step=5)

        assert harness.state() is State.EXPIRED
        assert UNKNOWN_SPEC_REASON in harness.record().reason
        assert not harness.ecs.run_task_calls

    @pytest.mark.parametrize("spec_version", [UNKNOWN_SPEC_VERSION, 0], ids=["stored", "not-stored"])
    def test_its_task_is_left_to_newer_workers_until_ecs_forgets_it(
        self, harness: WorkerHarness, spec_version: int
    ) -> None:
        arn = harness.launch()
        _update_record(harness, args=_newer_launch_spec(harness), spec_version=spec_version)
        harness.ecs.finish(arn)
        harness.advance_in_steps(HOUR, step=10)
        assert harness.state() is State.LAUNCHED
        assert f"of version {UNKNOWN_SPEC_VERSION}" in harness.worker.emitted("describe_tasks.failed")[-1]["reason"]

        harness.ecs.hidden_arns.add(arn)
        harness.advance_in_steps(HOUR, step=10)

        assert harness.state() is State.UNKNOWN


class TestNewerEnvelope:
    def test_a_queued_record_waits_for_a_newer_worker_and_expires_with_the_reason(self, harness: WorkerHarness) -> None:
        harness.put_request(expires_in=300.0)
        newer = msgspec.json.decode(harness.record().request)
        _update_record(harness, request=msgspec.json.encode({**newer, "v": UNKNOWN_ENVELOPE_VERSION}))

        harness.advance_in_steps(320, step=5)

        assert harness.state() is State.EXPIRED
        assert f"envelope version {UNKNOWN_ENVELOPE_VERSION} is unknown" in harness.record().reason
        assert "update the workers" in harness.record().reason

    def test_an_ambiguous_launch_is_called_again_with_its_frozen_arguments(self, harness: WorkerHarness) -> None:
        _make_ambiguous(harness)
        newer = msgspec.json.decode(harness.record().request)
        _update_record(harness, request=msgspec.json.encode({**newer, "v": UNKNOWN_ENVELOPE_VERSION}))

        harness.advance(LEASE + 1)

        assert harness.state() is State.LAUNCHED
        assert len(harness.ecs.tasks) == 1


class TestNewerTarget:
    def test_an_ambiguous_launch_ends_unknown_when_nothing_is_proof_any_more(self, harness: WorkerHarness) -> None:
        _make_ambiguous(harness)
        _update_record(harness, target='{"galaxy": "far away"}')

        harness.advance_in_steps(59 * 60, step=10)
        assert harness.state() is State.LAUNCHING
        harness.advance_in_steps(5 * 60, step=10)

        assert harness.state() is State.UNKNOWN
        assert "cannot be read" in harness.record().reason
        assert f"startedBy {harness.config.namespace}/a/{harness.record().nonce}/1" in harness.record().reason
        assert harness.published_results == [harness.record()]

    def test_a_task_is_left_to_newer_workers_but_a_stop_of_it_does_not_wait_for_one(
        self, harness: WorkerHarness
    ) -> None:
        arn = harness.launch()
        _update_record(harness, target='{"galaxy": "far away"}')
        harness.advance_in_steps(HOUR, step=10)
        assert harness.state() is State.LAUNCHED

        harness.memory_ledger.stop(["a"], "ann")
        harness.advance_in_steps(120, step=5)

        assert harness.state() is State.UNKNOWN
        assert f"Stop {arn} by hand" in harness.record().reason


class TestRemovedProfile:
    def test_its_tasks_are_followed_and_stopped_where_they_were_started(
        self, harness: WorkerHarness, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The section was removed, and the queue falls back to another cluster; the target is frozen in the record."""
        seen: set[Target] = set()
        describe, stop = harness.ecs.describe_tasks, harness.ecs.stop_task

        def described(target: Target, arns: Sequence[str]) -> DescribeTasksResult:
            seen.add(target)
            return describe(target, arns)

        def stopped(target: Target, arn: str, reason: str) -> StopTaskResult:
            seen.add(target)
            return stop(target, arn, reason)

        monkeypatch.setattr(harness.ecs, "describe_tasks", described)
        monkeypatch.setattr(harness.ecs, "stop_task", stopped)
        arn = harness.launch()
        harness.ecs.mark_running(arn)
        harness.worker = harness.new_worker()
        harness.worker.target_for = lambda queue: Target("us-east-1", None, None, "another")

        harness.advance_in_steps(20, step=1)
        harness.memory_ledger.stop(["a"], "ann")
        harness.advance_in_steps(20, step=1)

        assert harness.state() is State.REVOKED
        assert seen == {TARGET}

    def test_a_queue_that_no_worker_takes_from_expires_and_says_so(self, harness: WorkerHarness) -> None:
        harness.put_request(queue="removed", expires_in=300.0)

        harness.advance_in_steps(320, step=10)

        assert harness.state() is State.EXPIRED
        assert harness.record().reason.endswith("check that a worker takes from the queue removed")
        assert harness.published_results == [harness.record()]


class TestPersistentReadErrors:
    @pytest.mark.parametrize("error", [EXPIRED_TOKEN, DENIED], ids=["bad credentials", "denied"])
    def test_health_says_so_until_it_works_and_nothing_is_lost(self, harness: WorkerHarness, error: EcsError) -> None:
        arn = harness.launch()
        harness.ecs.finish(arn)
        harness.ecs.describe_error = error

        harness.advance_in_steps(2 * HOUR, step=20)
        assert harness.state() is State.LAUNCHED
        assert harness.worker.circuit_breakers.health() == f"default: {error.reason}"
        assert [fields["reason"] for fields in harness.worker.emitted("health.degraded")] == [error.reason]
        assert not harness.worker.circuit_breakers.is_open("default")
        harness.ecs.describe_error = None
        harness.advance_in_steps(90, step=5)

        assert harness.state() is State.SUCCESS
        assert harness.worker.circuit_breakers.health() == "ok"

    def test_reads_without_an_answer_are_ill_health_from_the_third_in_a_row_until_one_works(
        self, harness: WorkerHarness
    ) -> None:
        harness.launch()
        harness.ecs.describe_error = EcsError(EcsErrorKind.UNAVAILABLE, "a time-out")

        while len(harness.worker.emitted("describe_tasks.failed")) < 2:
            harness.advance(1)
        assert harness.worker.circuit_breakers.health() == "ok"
        harness.advance_in_steps(60, step=5)
        assert harness.worker.circuit_breakers.health() == "default: a time-out"
        assert len(harness.worker.emitted("health.degraded")) == 1
        harness.ecs.describe_error = None
        harness.advance_in_steps(90, step=5)

        assert harness.worker.circuit_breakers.health() == "ok"


def test_a_request_of_an_unknown_version_is_a_dead_letter_that_names_both(harness: WorkerHarness) -> None:
    newer = msgspec.json.decode(harness.new_envelope())
    harness.worker.handle_message(msgspec.json.encode({**newer, "v": UNKNOWN_ENVELOPE_VERSION}))

    (letter,) = harness.memory_ledger.list_dead_letters(10)
    known = f"{VERSION} to {POLICY_VERSION}"
    assert letter.reason == f"envelope version {UNKNOWN_ENVELOPE_VERSION} is unknown, this worker knows {known}"
