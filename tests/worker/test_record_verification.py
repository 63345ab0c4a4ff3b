"""Unsigned requests are not launched, whichever way they come; sealed ones wait for a worker with the key."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from cryptography.fernet import Fernet

from ecs_queue.ecs.clients import Target
from ecs_queue.messages import envelope
from ecs_queue.messages.keyring import Keyring
from ecs_queue.messages.request import new_request
from ecs_queue.protocol.ecs_results import RunTaskResult, RunTaskResultKind
from ecs_queue.protocol.operations import ClaimRequest
from ecs_queue.protocol.states import State
from ecs_queue.runtask.launch_spec import args_scope, build_submission, decode_launch_spec
from tests.fake_ecs import LostResult
from tests.worker.harness import TARGET, SteppedWorker, WorkerHarness

KEY, OTHER_KEY = "k1:" + "a" * 32, "k2:" + "b" * 32
FERNET, OTHER_FERNET = Fernet.generate_key().decode(), Fernet.generate_key().decode()
LEASE, SETTLE = 30.0, 600.0


@pytest.fixture
def harness() -> WorkerHarness:
    """All keys are set."""
    return WorkerHarness(signing_keys=KEY, encryption_keys=FERNET)


def unsigned(harness: WorkerHarness, **fields: Any) -> bytes:
    """An envelope by a producer without keys."""
    return envelope.encode(new_request(id="a", command=["evil"], now=harness.clock(), accept_seconds=86400.0, **fields))


def dead_letter_reasons(harness: WorkerHarness) -> list[str]:
    return [letter.reason for letter in harness.memory_ledger.list_dead_letters(10)]


def tamper_with_record(harness: WorkerHarness, record_id: str = "a", **fields: Any) -> None:
    """Change the record as an attacker with access to the ledger would."""
    record = harness.memory_ledger._records[record_id]
    for name, value in fields.items():
        setattr(record, name, value)


class TestMessages:
    def test_one_of_ours_is_launched_as_ever(self, harness: WorkerHarness) -> None:
        assert harness.worker.handle_message(harness.new_envelope(command=["echo", "hi"]))

        assert harness.state() is State.LAUNCHED
        (call,) = harness.ecs.run_task_calls
        assert call.arguments["overrides"]["containerOverrides"] == [{"name": "main", "command": ["echo", "hi"]}]

    def test_an_unsigned_one_is_a_dead_letter(self, harness: WorkerHarness) -> None:
        assert harness.worker.handle_message(unsigned(harness))

        assert harness.memory_ledger.get(["a"]) == [None]
        assert "it is not signed" in dead_letter_reasons(harness)[0]
        assert not harness.ecs.run_task_calls

    def test_a_changed_one_is_a_dead_letter(self, harness: WorkerHarness) -> None:
        assert harness.worker.handle_message(harness.new_envelope().replace(b'"id":"a"', b'"id":"b"'))

        assert harness.memory_ledger.get(["a", "b"]) == [None, None]
        assert "its signature (key 'k1') is wrong" in dead_letter_reasons(harness)[0]

    def test_one_of_another_namespace_is_a_dead_letter(self, harness: WorkerHarness) -> None:
        elsewhere = WorkerHarness(signing_keys=KEY, encryption_keys=FERNET, namespace="elsewhere")
        assert harness.worker.handle_message(elsewhere.new_envelope())

        assert "another namespace" in dead_letter_reasons(harness)[0]

    def test_one_that_is_replayed_on_another_queue_is_a_dead_letter(self, harness: WorkerHarness) -> None:
        assert harness.worker.handle_message(harness.new_envelope(queue="admin"))

        assert dead_letter_reasons(harness) == ["it names the queue admin"]

    def test_one_that_is_replayed_as_it_is_runs_once(self, harness: WorkerHarness) -> None:
        body = harness.new_envelope()
        for _ in range(3):
            assert harness.worker.handle_message(body)
        harness.ecs.finish(harness.record().arn)
        harness.advance(2)
        assert harness.worker.handle_message(body)

        assert harness.state() is State.SUCCESS
        assert len(harness.ecs.run_task_calls) == 1

    def test_one_that_is_sealed_is_a_dead_letter_to_a_worker_without_the_key(self, harness: WorkerHarness) -> None:
        assert harness.new_worker(signing_keys=KEY).handle_message(harness.new_envelope())

        assert "no encryption_keys are set here" in dead_letter_reasons(harness)[0]

    def test_the_reason_of_a_dead_letter_shows_no_secret(self, harness: WorkerHarness) -> None:
        harness.worker.handle_message(
            unsigned(harness, executor_config={"environment": [{"name": "A", "value": "hunter2"}]})
        )

        assert "hunter2" not in str(
            [(letter.reason, letter.queue) for letter in harness.memory_ledger.list_dead_letters(10)]
        )
        assert "hunter2" not in repr(harness.worker.events)


class TestAllowedOverrides:
    def test_a_role_of_the_producers_choice_is_refused_for_good(self) -> None:
        """An attacker who writes to the broker bypasses the client's own checks."""
        harness = WorkerHarness()
        body = unsigned(harness, executor_config={"overrides": {"taskRoleArn": "arn:aws:iam::123456789012:role/admin"}})

        assert harness.worker.handle_message(body)

        assert harness.state() is State.FAILED
        assert "overrides.taskRoleArn may not be overridden in the queue 'default'" in harness.record().reason
        assert not harness.ecs.run_task_calls

    def test_what_the_operator_allows_is_sent(self) -> None:
        harness = WorkerHarness(allowed_overrides="taskDefinition")

        assert harness.worker.handle_message(unsigned(harness, executor_config={"taskDefinition": "other:1"}))

        assert harness.ecs.run_task_calls[0].arguments["taskDefinition"] == "other:1"


class TestRecords:
    def test_one_whose_message_was_lost_is_launched(self, harness: WorkerHarness) -> None:
        harness.put_request()
        harness.advance(6)

        assert harness.state() is State.LAUNCHED

    @pytest.mark.parametrize("forge", ["unsigned", "another id's", "another submission's"])
    def test_one_with_a_forged_request_ends_and_says_why(self, harness: WorkerHarness, forge: str) -> None:
        harness.put_request()
        body = {
            "unsigned": unsigned(harness),
            "another id's": harness.new_envelope("b"),
            "another submission's": harness.new_envelope(command=["older"]),
        }[forge]
        tamper_with_record(harness, request=body)
        harness.advance(6)

        record = harness.record()
        assert record.state is State.FAILED
        assert record.reason.startswith("not launched: ")
        assert record.attempts == 1
        assert [ended.id for ended in harness.published_results] == ["a"]
        assert not harness.ecs.run_task_calls

    def test_one_that_was_moved_to_another_queue_ends(self, harness: WorkerHarness) -> None:
        """Another queue's profile has other roles."""
        harness.put_request(queue="other")
        record = harness.record()
        harness.memory_ledger._records["a"] = msgspec.structs.replace(record, queue="default")
        harness.worker.launcher.launch_queued(harness.record())

        assert harness.state() is State.FAILED
        assert not harness.ecs.run_task_calls

    def test_a_retry_is_launched_with_arguments_of_its_own(self, harness: WorkerHarness) -> None:
        arn = harness.launch()
        harness.ecs.fail_to_start(arn)
        harness.advance_in_steps(10)

        assert [call.client_token.rsplit(".", 1)[1] for call in harness.ecs.run_task_calls] == ["1", "2"]
        assert harness.record().launch == 2
        assert harness.state() is State.LAUNCHED

    def test_one_that_waits_for_capacity_is_called_again_with_what_was_frozen(self, harness: WorkerHarness) -> None:
        harness.ecs.run_task_results.append(RunTaskResult(RunTaskResultKind.THROTTLED, reason="slow down"))
        assert harness.worker.handle_message(harness.new_envelope())
        frozen = harness.record().args
        assert frozen
        harness.advance_in_steps(10)

        assert harness.state() is State.LAUNCHED
        assert harness.record().args == frozen
        assert harness.ecs.run_task_calls[0].arguments == harness.ecs.run_task_calls[1].arguments

    def test_frozen_arguments_that_were_changed_end_it(self, harness: WorkerHarness) -> None:
        harness.ecs.run_task_results.append(RunTaskResult(RunTaskResultKind.THROTTLED, reason="slow down"))
        harness.worker.handle_message(harness.new_envelope())
        tamper_with_record(
            harness,
            args=json.dumps({"container_name": "main", "max_attempts": 1, "run_task": {"taskDefinition": "evil"}}),
        )
        harness.advance_in_steps(10)

        assert harness.state() is State.FAILED
        assert "not launched: it is not signed" in harness.record().reason
        assert len(harness.ecs.run_task_calls) == 1

    def test_frozen_arguments_of_another_launch_end_it(self, harness: WorkerHarness) -> None:
        harness.worker.handle_message(harness.new_envelope())
        saved = harness.record().args
        harness.ecs.fail_to_start(harness.record().arn)
        harness.ecs.run_task_results.append(RunTaskResult(RunTaskResultKind.THROTTLED, reason="slow down"))
        harness.advance_in_steps(4)
        assert (harness.record().launch, harness.record().args != saved) == (2, True)
        tamper_with_record(harness, args=saved)
        harness.advance_in_steps(10)

        assert harness.state() is State.FAILED

    def test_an_ambiguous_launch_whose_arguments_were_changed_is_searched_for_and_never_called(
        self, harness: WorkerHarness
    ) -> None:
        harness.ecs.run_task_results.append(LostResult.IMMEDIATE)
        harness.worker.handle_message(harness.new_envelope())
        tamper_with_record(harness, args="{}")
        harness.advance_in_steps(120, step=5)

        assert len(harness.ecs.run_task_calls) == 1
        assert harness.state() is State.LAUNCHED, "its task is found by its startedBy"
        harness.ecs.finish(harness.record().arn)
        harness.advance_in_steps(20)
        assert harness.state() is State.SUCCESS

    def test_an_ambiguous_launch_whose_request_was_changed_is_not_called_again_though_its_arguments_are_signed(
        self, harness: WorkerHarness
    ) -> None:
        harness.ecs.run_task_results.append(LostResult.IMMEDIATE)
        harness.worker.handle_message(harness.new_envelope())
        tamper_with_record(harness, request=unsigned(harness))
        harness.advance_in_steps(120, step=5)

        assert len(harness.ecs.run_task_calls) == 1
        assert harness.state() is State.LAUNCHED

    def test_one_whose_worker_died_while_it_wrote_the_dead_letter_still_ends(self, harness: WorkerHarness) -> None:
        """That claim froze neither arguments nor a target."""
        harness.put_request()
        tamper_with_record(harness, request=unsigned(harness))
        harness.memory_ledger.claim("a", ClaimRequest(claim="c", worker="killed", args="", target=""))
        harness.advance_in_steps(LEASE + SETTLE + 400, step=10)

        assert harness.state() is State.FAILED
        assert "not launched: " in harness.record().reason
        assert not harness.ecs.run_task_calls

    def test_when_there_is_none_to_be_found_it_ends_at_the_next_launch(self, harness: WorkerHarness) -> None:
        harness.ecs.run_task_results.append(LostResult.NO_EFFECT)
        harness.worker.handle_message(harness.new_envelope())
        tamper_with_record(harness, args="{}", request=unsigned(harness))
        harness.advance_in_steps(LEASE + SETTLE + 400, step=10)

        assert harness.state() is State.FAILED
        assert "not launched: " in harness.record().reason
        assert len(harness.ecs.run_task_calls) == 1

    def test_a_task_is_followed_where_its_queue_runs_not_where_a_forged_record_says(
        self, harness: WorkerHarness
    ) -> None:
        asked: list[Target] = []
        describe = harness.ecs.describe_tasks
        harness.ecs.describe_tasks = lambda target, arns: asked.append(target) or describe(target, arns)  # type: ignore[func-returns-value, method-assign]
        arn = harness.launch()
        tamper_with_record(
            harness, target=Target("us-east-1", "https://evil.example", "arn:aws:iam::1:role/admin", "jobs").encode()
        )
        harness.ecs.finish(arn)
        harness.advance_in_steps(5)

        assert set(asked) == {TARGET}
        assert harness.state() is State.SUCCESS

    def test_tasks_that_were_launched_before_keys_were_set_are_followed_to_their_end(self) -> None:
        harness = WorkerHarness()
        arn = harness.launch()
        harness.worker = harness.new_worker(signing_keys=KEY, encryption_keys=FERNET)
        harness.ecs.finish(arn)
        harness.advance_in_steps(5)

        assert harness.state() is State.SUCCESS


class TestSealedRecords:
    def test_nothing_of_the_payload_is_in_the_record(self, harness: WorkerHarness) -> None:
        config = {"environment": [{"name": "PASSWORD", "value": "hunter2"}]}
        harness.worker.handle_message(
            harness.new_envelope(command=["login", "--as", "admiral"], executor_config=config)
        )

        record = harness.record()
        assert record.state is State.LAUNCHED
        kept = msgspec.json.encode(msgspec.structs.asdict(record) | {"request": record.request.decode()})
        for secret in (b"hunter2", b"PASSWORD", b"admiral", b"login"):
            assert secret not in kept
        assert (
            harness.ecs.run_task_calls[0].arguments["overrides"]["containerOverrides"][0]["environment"]
            == config["environment"]
        )

    def test_it_waits_for_a_worker_that_has_the_key_and_says_so(self, harness: WorkerHarness) -> None:
        harness.put_request()
        keyless, harness.worker = harness.new_worker(signing_keys=KEY), harness.worker
        harness.clock.advance(6)
        keyless.sweep()

        record = harness.record()
        assert (record.state, record.launch) == (State.QUEUED, 1)
        assert "no encryption_keys are set here" in record.reason
        harness.advance(31)
        assert harness.state() is State.LAUNCHED

    def test_without_one_it_expires_and_the_reason_says_why(self) -> None:
        harness = WorkerHarness(encryption_keys=OTHER_FERNET)
        owner = WorkerHarness(encryption_keys=FERNET)
        body = owner.new_envelope(expires_in=60.0)
        keyring = owner.keyring
        _store(harness, body, keyring)
        harness.advance_in_steps(70, step=5)

        assert harness.state() is State.EXPIRED
        assert "none of the encryption_keys here opens it" in harness.record().reason
        assert not harness.ecs.run_task_calls

    def test_an_ambiguous_launch_is_continued_by_a_worker_that_has_the_key(self, harness: WorkerHarness) -> None:
        harness.ecs.run_task_results.append(LostResult.NO_EFFECT)
        harness.worker.handle_message(harness.new_envelope())
        keyless = harness.new_worker(signing_keys=KEY)
        harness.clock.advance(LEASE + 1)
        keyless.poll()
        assert harness.state() is State.LAUNCHING
        harness.advance_in_steps(LEASE + 40, step=5)

        assert harness.state() is State.LAUNCHED
        assert {call.client_token for call in harness.ecs.run_task_calls} == {
            harness.ecs.run_task_calls[0].client_token
        }

    def test_a_task_is_followed_by_workers_without_the_key(self, harness: WorkerHarness) -> None:
        arn = harness.launch()
        harness.ecs.finish(arn)
        harness.worker = harness.new_worker()
        harness.advance_in_steps(5)

        assert harness.state() is State.SUCCESS


class TestRotation:
    def run(self, first: SteppedWorker, then: SteppedWorker, harness: WorkerHarness) -> State:
        """A launch that the first worker leaves ambiguous and the second one finishes."""
        harness.ecs.run_task_results.append(RunTaskResult(RunTaskResultKind.THROTTLED, reason="slow down"))
        assert first.handle_message(harness.new_envelope())
        assert not harness.memory_ledger.list_dead_letters(10)
        harness.worker = then
        harness.advance_in_steps(10)
        return harness.state()

    def test_of_signing_keys(self) -> None:
        harness = WorkerHarness(signing_keys=KEY)
        both = harness.new_worker(signing_keys=f"{OTHER_KEY},{KEY}")
        new = harness.new_worker(signing_keys=OTHER_KEY)

        assert self.run(both, both, harness) is State.LAUNCHED
        assert new.handle_message(harness.new_envelope("late"))
        assert "the unknown key 'k1'" in dead_letter_reasons(harness)[0]

    def test_of_encryption_keys(self) -> None:
        harness = WorkerHarness(encryption_keys=FERNET)
        both = harness.new_worker(encryption_keys=f"{OTHER_FERNET},{FERNET}")
        assert self.run(harness.worker, both, harness) is State.LAUNCHED

        again = WorkerHarness(encryption_keys=FERNET)
        assert self.run(again.new_worker(encryption_keys=f"{OTHER_FERNET},{FERNET}"), again.worker, again) is (
            State.QUEUED
        ), "what was sealed with the new key waits for a worker that knows it"


def test_what_is_frozen_says_for_which_launch(harness: WorkerHarness) -> None:
    harness.launch()
    record = harness.record()

    scope = args_scope("a", record.nonce, 1, record.target)
    assert decode_launch_spec(record.args, harness.keyring, scope).run_task["cluster"] == "jobs"


def test_a_second_equal_submission_does_not_freeze_arguments_for_the_first(
    harness: WorkerHarness,
) -> None:
    """Its message finds a record of another nonce; the record is launched by its own message, or by the sweep."""
    harness.put_request()
    harness.clock.advance(1)
    assert harness.worker.handle_message(harness.new_envelope())
    assert harness.state() is State.QUEUED
    harness.advance(6)

    assert harness.state() is State.LAUNCHED
    assert not harness.memory_ledger.list_dead_letters(10)


def _store(harness: WorkerHarness, body: bytes, keyring: Keyring) -> None:
    request = envelope.decode_request(body, keyring)
    nonce = envelope.compute_nonce(harness.config.namespace, body)
    harness.memory_ledger.put([build_submission(request, body, nonce, harness.config.launch_deadline)])
