"""From QUEUED to LAUNCHED: what each answer of ECS, each message and each configuration makes of a request."""

from __future__ import annotations

from typing import Any

import pytest

from ecs_queue.core.answers import Kind, RunAnswer
from ecs_queue.core.record import client_token_of, startedby_of
from ecs_queue.core.states import State
from ecs_queue.ecs.clients import Target
from ecs_queue.errors import ConfigError
from tests.launcher.fake_ecs import Lost
from tests.launcher.lab import START, Lab


@pytest.fixture
def lab() -> Lab:
    return Lab()


def _no(kind: Kind, **fields: Any) -> RunAnswer:
    return RunAnswer(kind, reason=f"ECS said {kind.value}", **fields)


def test_a_message_is_launched_with_the_token_and_startedby_of_its_launch(lab: Lab) -> None:
    assert lab.worker.take(lab.body("a", command=["echo", "hello"]))

    record = lab.record("a")
    (call,) = lab.ecs.calls
    assert record.state is State.LAUNCHED
    assert record.arn in lab.ecs.tasks
    assert call.token == client_token_of("a", record.nonce, 1)
    assert call.started_by == startedby_of("ecs-queue", "a", record.nonce, 1)
    (override,) = call.kwargs["overrides"]["containerOverrides"]
    assert override == {"name": "main", "command": ["echo", "hello"]}
    assert len(lab.worker.parts.in_flight) == 1


def test_the_call_budget_counts_from_before_the_claim(lab: Lab) -> None:
    lab.worker.take(lab.body())

    assert lab.ecs.calls[0].deadline == START + lab.config.call_budget_seconds


def test_the_same_message_twice_is_launched_once(lab: Lab) -> None:
    body = lab.body()

    assert lab.worker.take(body)
    assert lab.worker.take(body)

    assert len(lab.ecs.calls) == 1


@pytest.mark.parametrize(
    ("kind", "state", "launch", "attempt"),
    [
        (Kind.STARTED, State.LAUNCHED, 1, 1),
        (Kind.THROTTLED, State.QUEUED, 1, 1),
        (Kind.NEVER_SENT, State.QUEUED, 1, 1),
        (Kind.PROFILE, State.QUEUED, 1, 1),
        (Kind.AMBIGUOUS, State.LAUNCHING, 1, 1),
        (Kind.ANSWERED_5XX, State.LAUNCHING, 1, 1),
        (Kind.CAPACITY, State.QUEUED, 2, 1),
        (Kind.START_FAILURE, State.QUEUED, 2, 2),
        (Kind.PERMANENT, State.FAILED, 1, 1),
        (Kind.CONFLICT, State.LAUNCHING, 1, 1),
    ],
)
def test_each_kind_of_answer_leaves_the_record_in_its_state(
    lab: Lab, kind: Kind, state: State, launch: int, attempt: int
) -> None:
    arn = "arn:aws:ecs:us-east-1:123456789012:task/jobs/1" if kind is Kind.STARTED else None
    lab.ecs.answers.append(_no(kind, arn=arn))

    assert lab.worker.take(lab.body())

    record = lab.record()
    assert (record.state, record.launch, record.attempt) == (state, launch, attempt)


@pytest.mark.parametrize(
    ("kind", "is_dirty"), [(Kind.AMBIGUOUS, True), (Kind.ANSWERED_5XX, False)], ids=["ambiguous", "answered 5xx"]
)
def test_only_a_call_that_may_still_act_makes_the_record_dirty(lab: Lab, kind: Kind, is_dirty: bool) -> None:
    lab.ecs.answers.append(_no(kind))

    lab.worker.take(lab.body())

    assert lab.record().dirty is is_dirty


@pytest.mark.parametrize("kind", [Kind.THROTTLED, Kind.NEVER_SENT, Kind.PROFILE, Kind.CAPACITY, Kind.START_FAILURE])
def test_what_is_tried_again_waits_at_least_the_base_of_the_backoff(lab: Lab, kind: Kind) -> None:
    lab.ecs.answers.append(_no(kind))

    lab.worker.take(lab.body())

    assert lab.record().not_before >= START + lab.config.retry_base_seconds
    lab.clock.advance(lab.config.retry_base_seconds / 2)
    lab.worker.sweep()
    assert len(lab.ecs.calls) == 1


@pytest.mark.parametrize("kind", [Kind.THROTTLED, Kind.NEVER_SENT, Kind.CAPACITY])
def test_throttles_unsent_calls_and_lack_of_capacity_consume_no_attempt(lab: Lab, kind: Kind) -> None:
    lab.ecs.answers.extend([_no(kind)] * 10)
    lab.worker.take(lab.body())

    lab.pass_time(900, step=5)

    assert len(lab.ecs.calls) == 11
    assert (lab.state(), lab.record().attempt) == (State.LAUNCHED, 1)


def test_start_failures_consume_attempts_until_the_request_is_removed(lab: Lab) -> None:
    lab.ecs.answers.extend([_no(Kind.START_FAILURE)] * 10)
    lab.worker.take(lab.body())

    lab.pass_time(300)

    record = lab.record()
    assert (record.state, record.attempts, len(lab.ecs.calls)) == (State.REMOVED, 3, 3)
    assert [call.token.rsplit(".", 1)[1] for call in lab.ecs.calls] == ["1", "2", "3"]
    assert lab.published == [record]


def test_a_permanent_no_fails_the_request_with_its_reason(lab: Lab) -> None:
    lab.ecs.answers.append(_no(Kind.PERMANENT))

    assert lab.worker.take(lab.body())

    assert lab.record().reason == "ECS said permanent"
    assert lab.published == [lab.record()]


def test_a_call_with_a_lost_answer_is_made_again_with_the_same_token_and_arguments(lab: Lab) -> None:
    lab.ecs.answers.append(Lost.AFTER)
    lab.worker.take(lab.body())
    assert lab.state() is State.LAUNCHING

    lab.pass_time(30)

    first, second = lab.ecs.calls
    assert (first.token, first.kwargs) == (second.token, second.kwargs)
    assert len(lab.ecs.tasks) == 1
    assert lab.state() is State.LAUNCHED


class TestDeadLetters:
    @pytest.mark.parametrize("body", [b"not json", b"\xff\xfe", b"{}", b'{"kind": "request", "v": 99}', b"[" * 100_000])
    def test_what_is_no_envelope_is_buried_with_its_bytes(self, lab: Lab, body: bytes) -> None:
        assert lab.worker.take(body)

        (letter,) = lab.memory.dead(10)
        assert (letter.body, letter.queue) == (body, "default")
        assert letter.reason

    def test_another_request_under_a_taken_id_is_buried(self, lab: Lab) -> None:
        lab.worker.take(lab.body("a", command=["one"]))

        assert lab.worker.take(lab.body("a", command=["two"]))

        assert "another request" in lab.memory.dead(10)[0].reason
        assert len(lab.ecs.calls) == 1

    def test_a_request_that_names_another_queue_than_it_came_from_is_buried(self, lab: Lab) -> None:
        assert lab.worker.take(lab.body("sneaky", queue="privileged"))

        assert "privileged" in lab.memory.dead(10)[0].reason
        assert lab.memory.get(["sneaky"]) == [None]
        assert not lab.ecs.calls

    def test_a_message_after_its_accept_until_is_buried_and_its_owner_told(self, lab: Lab) -> None:
        body = lab.body("late")
        lab.clock.advance(86401)

        assert lab.worker.take(body)

        assert lab.memory.dead(10)[0].body == body
        (told,) = lab.published
        assert (told.id, told.owner, told.state) == ("late", "me", State.EXPIRED)
        assert lab.memory.get(["late"]) == [None]
        assert not lab.ecs.calls


class TestRequestsThatCannotBeBuilt:
    def test_it_fails_at_once_with_the_reason_and_without_a_call(self, lab: Lab) -> None:
        body = lab.body(executor_config={"no_such_key": 1})

        assert lab.worker.take(body)

        record = lab.record()
        assert record.state is State.FAILED
        assert "no_such_key" in record.reason
        assert lab.published == [record]
        assert not lab.ecs.calls

    def test_it_does_not_pause_the_queue_for_the_others(self) -> None:
        """The profile launches on EC2 and has no subnets; one request asks for Fargate, which needs them."""
        lab = Lab(
            {"AIRFLOW__AWS_ECS_EXECUTOR__LAUNCH_TYPE": "EC2", "AIRFLOW__AWS_ECS_EXECUTOR__SUBNETS": ""},
            allowed_overrides="*",
        )

        assert lab.worker.take(lab.body("fargate", executor_config={"launchType": "FARGATE"}))
        assert lab.worker.take(lab.body("plain"))

        assert lab.state("fargate") is State.FAILED
        assert "subnet" in lab.record("fargate").reason
        assert lab.state("plain") is State.LAUNCHED
        assert not lab.worker.circuits.is_open("default")

    def test_an_error_nobody_thought_of_fails_the_request_too(self, lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
        def broken(*arguments: object) -> None:
            raise ZeroDivisionError("with a secret in it")

        monkeypatch.setattr("ecs_queue.launcher.draft.plan_of", broken)

        assert lab.worker.take(lab.body())

        assert lab.state() is State.FAILED
        assert "ZeroDivisionError" in lab.record().reason
        assert "secret" not in lab.record().reason


class TestUnusableProfiles:
    def test_a_configuration_error_opens_the_circuit_and_the_message_is_given_back(self, lab: Lab) -> None:
        def no_region(queue: str) -> Target:
            raise ConfigError("no region is known")

        lab.worker.target_for = no_region

        assert not lab.worker.take(lab.body())

        assert lab.worker.circuits.is_open("default")
        assert "no region" in lab.worker.circuits.health()
        assert lab.memory.get(["a"]) == [None]
        assert not lab.published

    def test_a_profile_that_cannot_launch_fails_nothing(self) -> None:
        lab = Lab({"AIRFLOW__AWS_ECS_EXECUTOR__SUBNETS": ""})

        assert not lab.worker.take(lab.body())

        assert lab.worker.circuits.is_open("default")
        assert not lab.published

    def test_bad_credentials_open_the_circuit_and_the_request_waits(self, lab: Lab) -> None:
        lab.ecs.answers.append(_no(Kind.PROFILE))

        assert lab.worker.take(lab.body())

        assert lab.worker.circuits.is_open("default")
        assert lab.state() is State.QUEUED
        assert not lab.published

    def test_nothing_is_swept_while_the_circuit_is_open_and_a_call_that_works_closes_it(self, lab: Lab) -> None:
        lab.ecs.answers.append(_no(Kind.PROFILE))
        lab.worker.take(lab.body())

        lab.later(4)
        assert len(lab.ecs.calls) == 1
        lab.later(2)

        assert lab.state() is State.LAUNCHED
        assert lab.worker.circuits.health() == "ok"


class TestFrozenArguments:
    def test_a_retry_of_the_same_launch_ignores_a_changed_configuration(self, lab: Lab) -> None:
        lab.ecs.answers.append(_no(Kind.THROTTLED))
        lab.worker.take(lab.body())
        lab.worker = lab.new_worker({"AIRFLOW__AWS_ECS_EXECUTOR__TASK_DEFINITION": "family:2"})
        lab.worker.target_for = lambda queue: Target("eu-west-1", None, None, "elsewhere")

        lab.pass_time(10)

        first, second = lab.ecs.calls
        assert (first.target, first.kwargs, first.token) == (second.target, second.kwargs, second.token)

    def test_the_next_launch_takes_the_configuration_as_it_is_now(self, lab: Lab) -> None:
        lab.ecs.answers.append(_no(Kind.CAPACITY))
        lab.worker.take(lab.body())
        lab.worker = lab.new_worker({"AIRFLOW__AWS_ECS_EXECUTOR__TASK_DEFINITION": "family:2"})

        lab.pass_time(10)

        assert [call.kwargs["taskDefinition"] for call in lab.ecs.calls] == ["family:1", "family:2"]
