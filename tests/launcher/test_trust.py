"""What is not signed by us is not launched, whatever way it comes; what is sealed waits for whoever can open it."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from cryptography.fernet import Fernet

from ecs_queue.core import envelope
from ecs_queue.core.answers import Kind, RunAnswer
from ecs_queue.core.keyring import Keyring
from ecs_queue.core.plan import args_scope, decode_plan, submission_of
from ecs_queue.core.protocol import ClaimOffer
from ecs_queue.core.states import State
from ecs_queue.ecs.clients import Target
from tests.launcher.fake_ecs import Lost
from tests.launcher.lab import TARGET, Lab, Worker

KEY, OTHER_KEY = "k1:" + "a" * 32, "k2:" + "b" * 32
FERNET, OTHER_FERNET = Fernet.generate_key().decode(), Fernet.generate_key().decode()
LEASE, SETTLE = 30.0, 600.0


@pytest.fixture
def lab() -> Lab:
    """All keys are set."""
    return Lab(signing_keys=KEY, encryption_keys=FERNET)


def unsigned(lab: Lab, **fields: Any) -> bytes:
    """An envelope of somebody without keys."""
    return envelope.encode(
        envelope.new_request(id="a", command=["evil"], now=lab.clock(), accept_seconds=86400.0, **fields)
    )


def reasons(lab: Lab) -> list[str]:
    return [letter.reason for letter in lab.memory.dead(10)]


def tamper(lab: Lab, record_id: str = "a", **fields: Any) -> None:
    """Somebody writes into the record."""
    record = lab.memory._records[record_id]
    for name, value in fields.items():
        setattr(record, name, value)


class TestMessages:
    def test_one_of_ours_is_launched_as_ever(self, lab: Lab) -> None:
        assert lab.worker.take(lab.body(command=["echo", "hi"]))

        assert lab.state() is State.LAUNCHED
        (call,) = lab.ecs.calls
        assert call.kwargs["overrides"]["containerOverrides"] == [{"name": "main", "command": ["echo", "hi"]}]

    def test_an_unsigned_one_is_a_dead_letter(self, lab: Lab) -> None:
        assert lab.worker.take(unsigned(lab))

        assert lab.memory.get(["a"]) == [None]
        assert "it is not signed" in reasons(lab)[0]
        assert not lab.ecs.calls

    def test_a_changed_one_is_a_dead_letter(self, lab: Lab) -> None:
        assert lab.worker.take(lab.body().replace(b'"id":"a"', b'"id":"b"'))

        assert lab.memory.get(["a", "b"]) == [None, None]
        assert "its signature (key 'k1') is wrong" in reasons(lab)[0]

    def test_one_of_another_namespace_is_a_dead_letter(self, lab: Lab) -> None:
        elsewhere = Lab(signing_keys=KEY, encryption_keys=FERNET, namespace="elsewhere")
        assert lab.worker.take(elsewhere.body())

        assert "another namespace" in reasons(lab)[0]

    def test_one_that_is_replayed_on_another_queue_is_a_dead_letter(self, lab: Lab) -> None:
        assert lab.worker.take(lab.body(queue="admin"))

        assert reasons(lab) == ["it names the queue admin"]

    def test_one_that_is_replayed_as_it_is_runs_once(self, lab: Lab) -> None:
        body = lab.body()
        for _ in range(3):
            assert lab.worker.take(body)
        lab.ecs.end(lab.record().arn)
        lab.later(2)
        assert lab.worker.take(body)

        assert lab.state() is State.SUCCESS
        assert len(lab.ecs.calls) == 1

    def test_one_that_is_sealed_is_a_dead_letter_to_a_worker_without_the_key(self, lab: Lab) -> None:
        assert lab.new_worker(signing_keys=KEY).take(lab.body())

        assert "no encryption_keys are set here" in reasons(lab)[0]

    def test_the_words_of_a_dead_letter_show_no_secret(self, lab: Lab) -> None:
        lab.worker.take(unsigned(lab, executor_config={"environment": [{"name": "A", "value": "hunter2"}]}))

        assert "hunter2" not in str([(letter.reason, letter.queue) for letter in lab.memory.dead(10)])
        assert "hunter2" not in repr(lab.worker.events)


class TestWhatMayBeOverridden:
    def test_a_role_of_the_producers_choice_is_refused_for_good(self) -> None:
        """Whoever writes to the broker does not ask the client's own checks."""
        lab = Lab()
        body = unsigned(lab, executor_config={"overrides": {"taskRoleArn": "arn:aws:iam::123456789012:role/admin"}})

        assert lab.worker.take(body)

        assert lab.state() is State.FAILED
        assert "overrides.taskRoleArn may not be overridden in the queue 'default'" in lab.record().reason
        assert not lab.ecs.calls

    def test_what_the_operator_allows_is_sent(self) -> None:
        lab = Lab(allowed_overrides="taskDefinition")

        assert lab.worker.take(unsigned(lab, executor_config={"taskDefinition": "other:1"}))

        assert lab.ecs.calls[0].kwargs["taskDefinition"] == "other:1"


class TestRecords:
    def test_one_whose_message_was_lost_is_launched(self, lab: Lab) -> None:
        lab.put()
        lab.later(6)

        assert lab.state() is State.LAUNCHED

    @pytest.mark.parametrize("forge", ["unsigned", "another id's", "another submission's"])
    def test_one_with_a_forged_request_ends_and_says_why(self, lab: Lab, forge: str) -> None:
        lab.put()
        body = {
            "unsigned": unsigned(lab),
            "another id's": lab.body("b"),
            "another submission's": lab.body(command=["older"]),
        }[forge]
        tamper(lab, request=body)
        lab.later(6)

        record = lab.record()
        assert record.state is State.FAILED
        assert record.reason.startswith("not launched: ")
        assert record.attempts == 1
        assert [ended.id for ended in lab.published] == ["a"]
        assert not lab.ecs.calls

    def test_one_that_was_moved_to_another_queue_ends(self, lab: Lab) -> None:
        """Another queue's profile has other roles."""
        lab.put(queue="other")
        record = lab.record()
        lab.memory._records["a"] = msgspec.structs.replace(record, queue="default")
        lab.worker.launcher.retry(lab.record())

        assert lab.state() is State.FAILED
        assert not lab.ecs.calls

    def test_a_retry_is_launched_with_arguments_of_its_own(self, lab: Lab) -> None:
        arn = lab.launched()
        lab.ecs.fail_to_start(arn)
        lab.pass_time(10)

        assert [call.token.rsplit(".", 1)[1] for call in lab.ecs.calls] == ["1", "2"]
        assert lab.record().launch == 2
        assert lab.state() is State.LAUNCHED

    def test_one_that_waits_for_capacity_is_called_again_with_what_was_frozen(self, lab: Lab) -> None:
        lab.ecs.answers.append(RunAnswer(Kind.THROTTLED, reason="slow down"))
        assert lab.worker.take(lab.body())
        frozen = lab.record().args
        assert frozen
        lab.pass_time(10)

        assert lab.state() is State.LAUNCHED
        assert lab.record().args == frozen
        assert lab.ecs.calls[0].kwargs == lab.ecs.calls[1].kwargs

    def test_frozen_arguments_that_were_changed_end_it(self, lab: Lab) -> None:
        lab.ecs.answers.append(RunAnswer(Kind.THROTTLED, reason="slow down"))
        lab.worker.take(lab.body())
        tamper(lab, args=json.dumps({"container": "main", "max_attempts": 1, "run_task": {"taskDefinition": "evil"}}))
        lab.pass_time(10)

        assert lab.state() is State.FAILED
        assert "not launched: it is not signed" in lab.record().reason
        assert len(lab.ecs.calls) == 1

    def test_frozen_arguments_of_another_launch_end_it(self, lab: Lab) -> None:
        lab.worker.take(lab.body())
        saved = lab.record().args
        lab.ecs.fail_to_start(lab.record().arn)
        lab.ecs.answers.append(RunAnswer(Kind.THROTTLED, reason="slow down"))
        lab.pass_time(4)
        assert (lab.record().launch, lab.record().args != saved) == (2, True)
        tamper(lab, args=saved)
        lab.pass_time(10)

        assert lab.state() is State.FAILED

    def test_a_launch_in_doubt_whose_arguments_were_changed_is_looked_for_and_never_called(self, lab: Lab) -> None:
        lab.ecs.answers.append(Lost.AFTER)
        lab.worker.take(lab.body())
        tamper(lab, args="{}")
        lab.pass_time(120, step=5)

        assert len(lab.ecs.calls) == 1
        assert lab.state() is State.LAUNCHED, "its task is found by its startedBy"
        lab.ecs.end(lab.record().arn)
        lab.pass_time(20)
        assert lab.state() is State.SUCCESS

    def test_a_launch_in_doubt_whose_request_was_changed_is_not_called_again_though_its_arguments_are_signed(
        self, lab: Lab
    ) -> None:
        lab.ecs.answers.append(Lost.AFTER)
        lab.worker.take(lab.body())
        tamper(lab, request=unsigned(lab))
        lab.pass_time(120, step=5)

        assert len(lab.ecs.calls) == 1
        assert lab.state() is State.LAUNCHED

    def test_one_whose_worker_died_while_it_set_it_aside_ends_all_the_same(self, lab: Lab) -> None:
        """That claim froze neither arguments nor a target."""
        lab.put()
        tamper(lab, request=unsigned(lab))
        lab.memory.claim("a", ClaimOffer(claim="c", worker="killed", args="", target=""))
        lab.pass_time(LEASE + SETTLE + 400, step=10)

        assert lab.state() is State.FAILED
        assert "not launched: " in lab.record().reason
        assert not lab.ecs.calls

    def test_when_there_is_none_to_be_found_it_ends_at_the_next_launch(self, lab: Lab) -> None:
        lab.ecs.answers.append(Lost.BEFORE)
        lab.worker.take(lab.body())
        tamper(lab, args="{}", request=unsigned(lab))
        lab.pass_time(LEASE + SETTLE + 400, step=10)

        assert lab.state() is State.FAILED
        assert "not launched: " in lab.record().reason
        assert len(lab.ecs.calls) == 1

    def test_a_task_is_followed_where_its_queue_runs_not_where_a_forged_record_says(self, lab: Lab) -> None:
        asked: list[Target] = []
        describe = lab.ecs.describe_tasks
        lab.ecs.describe_tasks = lambda target, arns: asked.append(target) or describe(target, arns)  # type: ignore[func-returns-value, method-assign]
        arn = lab.launched()
        tamper(lab, target=Target("us-east-1", "https://evil.example", "arn:aws:iam::1:role/admin", "jobs").encode())
        lab.ecs.end(arn)
        lab.pass_time(5)

        assert set(asked) == {TARGET}
        assert lab.state() is State.SUCCESS

    def test_tasks_that_were_launched_before_keys_were_set_are_followed_to_their_end(self) -> None:
        lab = Lab()
        arn = lab.launched()
        lab.worker = lab.new_worker(signing_keys=KEY, encryption_keys=FERNET)
        lab.ecs.end(arn)
        lab.pass_time(5)

        assert lab.state() is State.SUCCESS


class TestSealedRecords:
    def test_nothing_of_the_payload_is_in_the_record(self, lab: Lab) -> None:
        config = {"environment": [{"name": "PASSWORD", "value": "hunter2"}]}
        lab.worker.take(lab.body(command=["login", "--as", "admiral"], executor_config=config))

        record = lab.record()
        assert record.state is State.LAUNCHED
        kept = msgspec.json.encode(msgspec.structs.asdict(record) | {"request": record.request.decode()})
        for secret in (b"hunter2", b"PASSWORD", b"admiral", b"login"):
            assert secret not in kept
        assert lab.ecs.calls[0].kwargs["overrides"]["containerOverrides"][0]["environment"] == config["environment"]

    def test_it_waits_for_a_worker_that_has_the_key_and_says_so(self, lab: Lab) -> None:
        lab.put()
        keyless, lab.worker = lab.new_worker(signing_keys=KEY), lab.worker
        lab.clock.advance(6)
        keyless.sweep()

        record = lab.record()
        assert (record.state, record.launch) == (State.QUEUED, 1)
        assert "no encryption_keys are set here" in record.reason
        lab.later(31)
        assert lab.state() is State.LAUNCHED

    def test_without_one_it_expires_and_the_reason_says_why(self) -> None:
        lab = Lab(encryption_keys=OTHER_FERNET)
        owner = Lab(encryption_keys=FERNET)
        body = owner.body(expires_in=60.0)
        keyring = owner.keyring
        _store(lab, body, keyring)
        lab.pass_time(70, step=5)

        assert lab.state() is State.EXPIRED
        assert "none of the encryption_keys here opens it" in lab.record().reason
        assert not lab.ecs.calls

    def test_a_launch_in_doubt_is_taken_further_by_whoever_has_the_key(self, lab: Lab) -> None:
        lab.ecs.answers.append(Lost.BEFORE)
        lab.worker.take(lab.body())
        keyless = lab.new_worker(signing_keys=KEY)
        lab.clock.advance(LEASE + 1)
        keyless.track()
        assert lab.state() is State.LAUNCHING
        lab.pass_time(LEASE + 40, step=5)

        assert lab.state() is State.LAUNCHED
        assert {call.token for call in lab.ecs.calls} == {lab.ecs.calls[0].token}

    def test_a_task_is_followed_by_workers_without_the_key(self, lab: Lab) -> None:
        arn = lab.launched()
        lab.ecs.end(arn)
        lab.worker = lab.new_worker()
        lab.pass_time(5)

        assert lab.state() is State.SUCCESS


class TestRotation:
    def run(self, first: Worker, then: Worker, lab: Lab) -> State:
        """A launch that the first worker leaves in doubt and the second one finishes."""
        lab.ecs.answers.append(RunAnswer(Kind.THROTTLED, reason="slow down"))
        assert first.take(lab.body())
        assert not lab.memory.dead(10)
        lab.worker = then
        lab.pass_time(10)
        return lab.state()

    def test_of_signing_keys(self) -> None:
        lab = Lab(signing_keys=KEY)
        both = lab.new_worker(signing_keys=f"{OTHER_KEY},{KEY}")
        new = lab.new_worker(signing_keys=OTHER_KEY)

        assert self.run(both, both, lab) is State.LAUNCHED
        assert new.take(lab.body("late"))
        assert "'k1', which is not known here" in reasons(lab)[0]

    def test_of_encryption_keys(self) -> None:
        lab = Lab(encryption_keys=FERNET)
        both = lab.new_worker(encryption_keys=f"{OTHER_FERNET},{FERNET}")
        assert self.run(lab.worker, both, lab) is State.LAUNCHED

        again = Lab(encryption_keys=FERNET)
        assert self.run(again.new_worker(encryption_keys=f"{OTHER_FERNET},{FERNET}"), again.worker, again) is (
            State.QUEUED
        ), "what was sealed with the new key waits for a worker that knows it"


def test_what_is_frozen_says_for_which_launch(lab: Lab) -> None:
    lab.launched()
    record = lab.record()

    scope = args_scope("a", record.nonce, 1, record.target)
    assert decode_plan(record.args, lab.keyring, scope).run_task["cluster"] == "jobs"


def test_a_second_submission_with_the_same_words_does_not_freeze_arguments_for_the_first(lab: Lab) -> None:
    """Its message finds a record of another nonce; the record is launched by its own message, or by the sweep."""
    lab.put()
    lab.clock.advance(1)
    assert lab.worker.take(lab.body())
    assert lab.state() is State.QUEUED
    lab.later(6)

    assert lab.state() is State.LAUNCHED
    assert not lab.memory.dead(10)


def _store(lab: Lab, body: bytes, keyring: Keyring) -> None:
    request = envelope.decode_request(body, keyring)
    nonce = envelope.nonce_of(lab.config.namespace, body)
    lab.memory.put([submission_of(request, body, nonce, lab.config.launch_deadline)])
