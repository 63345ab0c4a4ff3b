"""From QUEUED to LAUNCHED: the effect of each result of ECS, each message and each configuration."""

from __future__ import annotations

import pytest

from ecs_queue.ecs.clients import Target
from ecs_queue.errors import ConfigError
from ecs_queue.protocol.ecs_results import RunTaskResultKind
from ecs_queue.protocol.record import build_client_token, build_started_by
from ecs_queue.protocol.states import State
from tests.fake_clock import START
from tests.fake_ecs import LostResult
from tests.worker.harness import WorkerHarness, failed_result


@pytest.fixture
def harness() -> WorkerHarness:
    return WorkerHarness()


def test_a_message_is_launched_with_the_token_and_startedby_of_its_launch(harness: WorkerHarness) -> None:
    assert harness.worker.handle_message(harness.new_envelope("a", command=["echo", "hello"]))

    record = harness.record("a")
    (call,) = harness.ecs.run_task_calls
    assert record.state is State.LAUNCHED
    assert record.arn in harness.ecs.tasks
    assert call.client_token == build_client_token("a", record.nonce, 1)
    assert call.started_by == build_started_by("ecs-queue", "a", record.nonce, 1)
    (override,) = call.arguments["overrides"]["containerOverrides"]
    assert override == {"name": "main", "command": ["echo", "hello"]}


def test_the_call_budget_counts_from_before_the_claim(harness: WorkerHarness) -> None:
    harness.worker.handle_message(harness.new_envelope())

    assert harness.ecs.run_task_calls[0].deadline == START + harness.config.call_budget_seconds


def test_the_same_message_twice_is_launched_once(harness: WorkerHarness) -> None:
    body = harness.new_envelope()

    assert harness.worker.handle_message(body)
    assert harness.worker.handle_message(body)

    assert len(harness.ecs.run_task_calls) == 1


@pytest.mark.parametrize(
    ("kind", "state", "launch", "attempt"),
    [
        (RunTaskResultKind.STARTED, State.LAUNCHED, 1, 1),
        (RunTaskResultKind.THROTTLED, State.QUEUED, 1, 1),
        (RunTaskResultKind.NEVER_SENT, State.QUEUED, 2, 1),
        (RunTaskResultKind.UNUSABLE_PROFILE, State.QUEUED, 2, 1),
        (RunTaskResultKind.AMBIGUOUS, State.LAUNCHING, 1, 1),
        (RunTaskResultKind.ANSWERED_5XX, State.LAUNCHING, 1, 1),
        (RunTaskResultKind.CAPACITY, State.QUEUED, 2, 1),
        (RunTaskResultKind.START_FAILURE, State.QUEUED, 2, 2),
        (RunTaskResultKind.PERMANENT, State.FAILED, 1, 1),
        (RunTaskResultKind.CONFLICT, State.LAUNCHING, 1, 1),
    ],
)
def test_each_kind_of_result_leaves_the_record_in_its_state(
    harness: WorkerHarness, kind: RunTaskResultKind, state: State, launch: int, attempt: int
) -> None:
    arn = "arn:aws:ecs:us-east-1:123456789012:task/jobs/1" if kind is RunTaskResultKind.STARTED else None
    harness.ecs.run_task_results.append(failed_result(kind, arn=arn))

    assert harness.worker.handle_message(harness.new_envelope())

    record = harness.record()
    assert (record.state, record.launch, record.attempt) == (state, launch, attempt)


@pytest.mark.parametrize(
    ("kind", "is_dirty"),
    [(RunTaskResultKind.AMBIGUOUS, True), (RunTaskResultKind.ANSWERED_5XX, False)],
    ids=["ambiguous", "answered 5xx"],
)
def test_only_a_call_that_may_still_act_makes_the_record_ambiguous(
    harness: WorkerHarness, kind: RunTaskResultKind, is_dirty: bool
) -> None:
    harness.ecs.run_task_results.append(failed_result(kind))

    harness.worker.handle_message(harness.new_envelope())

    assert harness.record().ambiguous is is_dirty


@pytest.mark.parametrize(
    "kind",
    [
        RunTaskResultKind.THROTTLED,
        RunTaskResultKind.NEVER_SENT,
        RunTaskResultKind.UNUSABLE_PROFILE,
        RunTaskResultKind.CAPACITY,
        RunTaskResultKind.START_FAILURE,
    ],
)
def test_what_is_tried_again_waits_at_least_the_base_of_the_backoff(
    harness: WorkerHarness, kind: RunTaskResultKind
) -> None:
    harness.ecs.run_task_results.append(failed_result(kind))

    harness.worker.handle_message(harness.new_envelope())

    assert harness.record().not_before >= START + harness.config.retry_base_seconds
    harness.clock.advance(harness.config.retry_base_seconds / 2)
    harness.worker.sweep()
    assert len(harness.ecs.run_task_calls) == 1


@pytest.mark.parametrize(
    "kind", [RunTaskResultKind.THROTTLED, RunTaskResultKind.NEVER_SENT, RunTaskResultKind.CAPACITY]
)
def test_throttles_unsent_calls_and_lack_of_capacity_consume_no_attempt(
    harness: WorkerHarness, kind: RunTaskResultKind
) -> None:
    harness.ecs.run_task_results.extend([failed_result(kind)] * 10)
    harness.worker.handle_message(harness.new_envelope())

    harness.advance_in_steps(900, step=5)

    assert len(harness.ecs.run_task_calls) == 11
    assert (harness.state(), harness.record().attempt) == (State.LAUNCHED, 1)


def test_start_failures_consume_attempts_until_the_request_is_removed(harness: WorkerHarness) -> None:
    harness.ecs.run_task_results.extend([failed_result(RunTaskResultKind.START_FAILURE)] * 10)
    harness.worker.handle_message(harness.new_envelope())

    harness.advance_in_steps(300)

    record = harness.record()
    assert (record.state, record.attempts, len(harness.ecs.run_task_calls)) == (State.REMOVED, 3, 3)
    assert [call.client_token.rsplit(".", 1)[1] for call in harness.ecs.run_task_calls] == ["1", "2", "3"]
    assert harness.published_results == [record]


def test_a_permanent_no_fails_the_request_with_its_reason(harness: WorkerHarness) -> None:
    harness.ecs.run_task_results.append(failed_result(RunTaskResultKind.PERMANENT))

    assert harness.worker.handle_message(harness.new_envelope())

    assert harness.record().reason == "ECS returned permanent"
    assert harness.published_results == [harness.record()]


def test_a_call_with_a_lost_result_is_made_again_with_the_same_token_and_arguments(harness: WorkerHarness) -> None:
    harness.ecs.run_task_results.append(LostResult.IMMEDIATE)
    harness.worker.handle_message(harness.new_envelope())
    assert harness.state() is State.LAUNCHING

    harness.advance_in_steps(30)

    first, second = harness.ecs.run_task_calls
    assert (first.client_token, first.arguments) == (second.client_token, second.arguments)
    assert len(harness.ecs.tasks) == 1
    assert harness.state() is State.LAUNCHED


class TestDeadLetters:
    @pytest.mark.parametrize("body", [b"not json", b"\xff\xfe", b"{}", b'{"kind": "request", "v": 99}', b"[" * 100_000])
    def test_what_is_no_envelope_is_a_dead_letter_with_its_bytes(self, harness: WorkerHarness, body: bytes) -> None:
        assert harness.worker.handle_message(body)

        (letter,) = harness.memory_ledger.list_dead_letters(10)
        assert (letter.body, letter.queue) == (body, "default")
        assert letter.reason

    def test_another_request_under_a_taken_id_is_a_dead_letter(self, harness: WorkerHarness) -> None:
        harness.worker.handle_message(harness.new_envelope("a", command=["one"]))

        assert harness.worker.handle_message(harness.new_envelope("a", command=["two"]))

        assert "another request" in harness.memory_ledger.list_dead_letters(10)[0].reason
        assert len(harness.ecs.run_task_calls) == 1

    def test_a_request_that_names_another_queue_than_it_came_from_is_a_dead_letter(
        self, harness: WorkerHarness
    ) -> None:
        assert harness.worker.handle_message(harness.new_envelope("sneaky", queue="privileged"))

        assert "privileged" in harness.memory_ledger.list_dead_letters(10)[0].reason
        assert harness.memory_ledger.get(["sneaky"]) == [None]
        assert not harness.ecs.run_task_calls

    def test_a_message_after_its_accept_until_is_a_dead_letter_and_its_owner_gets_a_result(
        self, harness: WorkerHarness
    ) -> None:
        body = harness.new_envelope("late")
        harness.clock.advance(86401)

        assert harness.worker.handle_message(body)

        assert harness.memory_ledger.list_dead_letters(10)[0].body == body
        (published,) = harness.published_results
        assert (published.id, published.owner, published.state) == ("late", "me", State.EXPIRED)
        assert harness.memory_ledger.get(["late"]) == [None]
        assert not harness.ecs.run_task_calls


class TestTraces:
    TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"

    def _environment(self, harness: WorkerHarness, number: int = -1) -> dict[str, str]:
        (container,) = harness.ecs.run_task_calls[number].arguments["overrides"]["containerOverrides"]
        return {variable["name"]: variable["value"] for variable in container.get("environment", ())}

    def test_the_container_continues_the_trace_of_the_caller_at_every_attempt(self, harness: WorkerHarness) -> None:
        config = {"environment": [{"name": "A", "value": "b"}]}
        harness.launch(executor_config=config, traceparent=self.TRACE, relaunch="interrupted")
        harness.ecs.interrupt(harness.record().arn)
        harness.advance_in_steps(20)

        assert len(harness.ecs.run_task_calls) == 2
        for number in range(2):
            assert self._environment(harness, number) == {"A": "b", "TRACEPARENT": self.TRACE}

    def test_a_variable_of_the_requests_own_stays(self, harness: WorkerHarness) -> None:
        config = {"environment": [{"name": "TRACEPARENT", "value": "mine"}]}
        harness.launch(executor_config=config, traceparent=self.TRACE)

        assert self._environment(harness) == {"TRACEPARENT": "mine"}

    def test_a_request_that_leaves_no_room_for_it_is_launched_without_it(self, harness: WorkerHarness) -> None:
        harness.launch(command=["x" * 8100], traceparent=self.TRACE)

        assert harness.state() is State.LAUNCHED
        assert self._environment(harness) == {}

    def test_it_needs_no_right_to_override_the_environment(self) -> None:
        harness = WorkerHarness(allowed_overrides="none")
        harness.launch(traceparent=self.TRACE)

        assert self._environment(harness) == {"TRACEPARENT": self.TRACE}


class TestInvalidRequests:
    def test_it_fails_at_once_with_the_reason_and_without_a_call(self, harness: WorkerHarness) -> None:
        body = harness.new_envelope(executor_config={"no_such_key": 1})

        assert harness.worker.handle_message(body)

        record = harness.record()
        assert record.state is State.FAILED
        assert "no_such_key" in record.reason
        assert harness.published_results == [record]
        assert not harness.ecs.run_task_calls

    def test_it_does_not_pause_the_queue_for_the_others(self) -> None:
        """The profile launches on EC2 and has no subnets; one request asks for Fargate, which needs them."""
        harness = WorkerHarness(
            {"AIRFLOW__AWS_ECS_EXECUTOR__LAUNCH_TYPE": "EC2", "AIRFLOW__AWS_ECS_EXECUTOR__SUBNETS": ""},
            allowed_overrides="*",
        )

        assert harness.worker.handle_message(harness.new_envelope("fargate", executor_config={"launchType": "FARGATE"}))
        assert harness.worker.handle_message(harness.new_envelope("plain"))

        assert harness.state("fargate") is State.FAILED
        assert "subnet" in harness.record("fargate").reason
        assert harness.state("plain") is State.LAUNCHED
        assert not harness.worker.circuit_breakers.is_open("default")

    def test_an_unexpected_error_fails_the_request_too(
        self, harness: WorkerHarness, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def broken(*arguments: object) -> None:
            raise ZeroDivisionError("with a secret in it")

        monkeypatch.setattr("ecs_queue.worker.prepared_launch.build_launch_spec", broken)

        assert harness.worker.handle_message(harness.new_envelope())

        assert harness.state() is State.FAILED
        assert "ZeroDivisionError" in harness.record().reason
        assert "secret" not in harness.record().reason


class TestUnusableProfiles:
    def test_a_configuration_error_opens_the_circuit_and_the_message_is_released(self, harness: WorkerHarness) -> None:
        def no_region(queue: str) -> Target:
            raise ConfigError("no region is known")

        harness.worker.target_for = no_region

        assert not harness.worker.handle_message(harness.new_envelope())

        assert harness.worker.circuit_breakers.is_open("default")
        assert "no region" in harness.worker.circuit_breakers.health()
        assert harness.memory_ledger.get(["a"]) == [None]
        assert not harness.published_results

    def test_a_profile_that_cannot_launch_fails_nothing(self) -> None:
        harness = WorkerHarness({"AIRFLOW__AWS_ECS_EXECUTOR__SUBNETS": ""})

        assert not harness.worker.handle_message(harness.new_envelope())

        assert harness.worker.circuit_breakers.is_open("default")
        assert not harness.published_results

    def test_bad_credentials_open_the_circuit_and_the_request_waits(self, harness: WorkerHarness) -> None:
        harness.ecs.run_task_results.append(failed_result(RunTaskResultKind.UNUSABLE_PROFILE))

        assert harness.worker.handle_message(harness.new_envelope())

        assert harness.worker.circuit_breakers.is_open("default")
        assert harness.state() is State.QUEUED
        assert not harness.published_results

    def test_nothing_is_swept_while_the_circuit_is_open_and_a_call_that_works_closes_it(
        self, harness: WorkerHarness
    ) -> None:
        harness.ecs.run_task_results.append(failed_result(RunTaskResultKind.UNUSABLE_PROFILE))
        harness.worker.handle_message(harness.new_envelope())

        harness.advance(4)
        assert len(harness.ecs.run_task_calls) == 1
        harness.advance(2)

        assert harness.state() is State.LAUNCHED
        assert harness.worker.circuit_breakers.health() == "ok"


class TestFrozenArguments:
    def test_a_retry_of_the_same_launch_ignores_a_changed_configuration(self, harness: WorkerHarness) -> None:
        harness.ecs.run_task_results.append(failed_result(RunTaskResultKind.THROTTLED))
        harness.worker.handle_message(harness.new_envelope())
        harness.worker = harness.new_worker({"AIRFLOW__AWS_ECS_EXECUTOR__TASK_DEFINITION": "family:2"})
        harness.worker.target_for = lambda queue: Target("eu-west-1", None, None, "elsewhere")

        harness.advance_in_steps(10)

        first, second = harness.ecs.run_task_calls
        assert (first.target, first.arguments, first.client_token) == (
            second.target,
            second.arguments,
            second.client_token,
        )

    def test_the_next_launch_takes_the_configuration_as_it_is_now(self, harness: WorkerHarness) -> None:
        harness.ecs.run_task_results.append(failed_result(RunTaskResultKind.CAPACITY))
        harness.worker.handle_message(harness.new_envelope())
        harness.worker = harness.new_worker({"AIRFLOW__AWS_ECS_EXECUTOR__TASK_DEFINITION": "family:2"})

        harness.advance_in_steps(10)

        assert [call.arguments["taskDefinition"] for call in harness.ecs.run_task_calls] == ["family:1", "family:2"]
