"""Requests that this worker cannot read, look for or follow: each has an end, and a reason that says what to do."""

from __future__ import annotations

import json
from collections.abc import Sequence

import msgspec
import pytest

from ecs_queue.core import envelope
from ecs_queue.core.answers import DescribeAnswer, ReadTrouble, StopAnswer, TroubleKind
from ecs_queue.core.states import State
from ecs_queue.ecs.clients import Target
from tests.launcher.fake_ecs import DENIED, Lost
from tests.launcher.lab import TARGET, Lab

LEASE, HOUR = 30.0, 3600.0
EXPIRED_TOKEN = ReadTrouble(TroubleKind.PROFILE, "ECS: ExpiredTokenException: renew the credentials")


@pytest.fixture
def lab() -> Lab:
    return Lab()


def _change(lab: Lab, record_id: str = "a", **fields: object) -> None:
    """As a newer version would have written it."""
    for name, value in fields.items():
        setattr(lab.memory._records[record_id], name, value)


def _in_doubt(lab: Lab) -> None:
    lab.ecs.answers.append(Lost.AFTER)
    lab.worker.take(lab.body())
    assert lab.state() is State.LAUNCHING


def _newer_plan(lab: Lab) -> str:
    return json.dumps({**json.loads(lab.record().args), "v": 2, "run_task": ["another", "shape"]})


class TestArgumentsOfANewerVersion:
    def test_a_launch_in_doubt_is_looked_for_and_its_task_followed(self, lab: Lab) -> None:
        _in_doubt(lab)
        _change(lab, args=_newer_plan(lab))

        lab.pass_time(20 * 60, step=10)
        assert lab.state() is State.LAUNCHING
        assert "of version 2, this worker knows 1: update the workers" in lab.record().reason
        assert len(lab.ecs.calls) == 1
        lab.pass_time(25 * 60, step=10)

        assert lab.state() is State.LAUNCHED  # from 40 minutes on it only looks

    def test_a_queued_one_waits_for_a_newer_worker_and_expires_with_the_reason(self, lab: Lab) -> None:
        lab.ecs.answers.append(Lost.BEFORE)
        lab.put(expires_in=300.0)
        _change(lab, args='{"v": 2}', target=TARGET.encode())

        lab.pass_time(320, step=5)

        assert lab.state() is State.EXPIRED
        assert "of version 2, this worker knows 1: update the workers" in lab.record().reason
        assert not lab.ecs.calls

    def test_its_task_is_left_to_newer_workers_until_ecs_forgets_it(self, lab: Lab) -> None:
        arn = lab.launched()
        _change(lab, args=_newer_plan(lab))
        lab.ecs.end(arn)
        lab.pass_time(HOUR, step=10)
        assert lab.state() is State.LAUNCHED
        assert "of version 2" in lab.worker.told("describe.trouble")[-1]["reason"]

        lab.ecs.hidden.add(arn)
        lab.pass_time(HOUR, step=10)

        assert lab.state() is State.UNKNOWN


class TestAnEnvelopeOfANewerVersion:
    def test_a_queued_record_waits_for_a_newer_worker_and_expires_with_the_reason(self, lab: Lab) -> None:
        lab.put(expires_in=300.0)
        newer = msgspec.json.decode(lab.record().request)
        _change(lab, request=msgspec.json.encode({**newer, "v": 9}))

        lab.pass_time(320, step=5)

        assert lab.state() is State.EXPIRED
        assert "envelope version 9 is not known here" in lab.record().reason
        assert "update the workers" in lab.record().reason

    def test_a_launch_in_doubt_is_called_again_with_its_frozen_arguments(self, lab: Lab) -> None:
        _in_doubt(lab)
        newer = msgspec.json.decode(lab.record().request)
        _change(lab, request=msgspec.json.encode({**newer, "v": 9}))

        lab.later(LEASE + 1)

        assert lab.state() is State.LAUNCHED
        assert len(lab.ecs.tasks) == 1


class TestATargetOfANewerVersion:
    def test_a_launch_in_doubt_ends_unknown_when_nothing_is_proof_any_more(self, lab: Lab) -> None:
        _in_doubt(lab)
        _change(lab, target='{"galaxy": "far away"}')

        lab.pass_time(59 * 60, step=10)
        assert lab.state() is State.LAUNCHING
        lab.pass_time(5 * 60, step=10)

        assert lab.state() is State.UNKNOWN
        assert "cannot be read" in lab.record().reason
        assert f"startedBy {lab.config.namespace}/a/{lab.record().nonce}/1" in lab.record().reason
        assert lab.published == [lab.record()]

    def test_a_task_is_left_to_newer_workers_but_a_stop_of_it_does_not_wait_for_one(self, lab: Lab) -> None:
        arn = lab.launched()
        _change(lab, target='{"galaxy": "far away"}')
        lab.pass_time(HOUR, step=10)
        assert lab.state() is State.LAUNCHED

        lab.memory.stop(["a"], "ann")
        lab.pass_time(120, step=5)

        assert lab.state() is State.UNKNOWN
        assert f"Stop {arn} by hand" in lab.record().reason


class TestAProfileThatIsGone:
    def test_its_tasks_are_followed_and_stopped_where_they_were_started(
        self, lab: Lab, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The section was removed, and the queue falls back to another cluster; the target is frozen in the record."""
        seen: set[Target] = set()
        describe, stop = lab.ecs.describe_tasks, lab.ecs.stop_task

        def described(target: Target, arns: Sequence[str]) -> DescribeAnswer:
            seen.add(target)
            return describe(target, arns)

        def stopped(target: Target, arn: str, reason: str) -> StopAnswer:
            seen.add(target)
            return stop(target, arn, reason)

        monkeypatch.setattr(lab.ecs, "describe_tasks", described)
        monkeypatch.setattr(lab.ecs, "stop_task", stopped)
        arn = lab.launched()
        lab.ecs.run(arn)
        lab.worker = lab.new_worker()
        lab.worker.target_for = lambda queue: Target("us-east-1", None, None, "another")

        lab.pass_time(20, step=1)
        lab.memory.stop(["a"], "ann")
        lab.pass_time(20, step=1)

        assert lab.state() is State.REVOKED
        assert seen == {TARGET}

    def test_a_queue_that_no_worker_takes_from_expires_and_says_so(self, lab: Lab) -> None:
        lab.put(queue="removed", expires_in=300.0)

        lab.pass_time(320, step=10)

        assert lab.state() is State.EXPIRED
        assert lab.record().reason.endswith("is one alive that takes from the queue removed?")
        assert lab.published == [lab.record()]


class TestReadsThatSomebodyHasToMend:
    @pytest.mark.parametrize("trouble", [EXPIRED_TOKEN, DENIED], ids=["bad credentials", "denied"])
    def test_health_says_so_until_it_works_and_nothing_is_lost(self, lab: Lab, trouble: ReadTrouble) -> None:
        arn = lab.launched()
        lab.ecs.end(arn)
        lab.ecs.read_trouble = trouble

        lab.pass_time(2 * HOUR, step=20)
        assert lab.state() is State.LAUNCHED
        assert lab.worker.circuits.health() == f"default: {trouble.reason}"
        assert [told["reason"] for told in lab.worker.told("health")] == [trouble.reason]
        assert not lab.worker.circuits.is_open("default")
        lab.ecs.read_trouble = None
        lab.pass_time(90, step=5)

        assert lab.state() is State.SUCCESS
        assert lab.worker.circuits.health() == "ok"

    def test_trouble_that_passes_by_itself_is_no_ill_health(self, lab: Lab) -> None:
        lab.launched()
        lab.ecs.read_trouble = ReadTrouble(TroubleKind.UNAVAILABLE, "a time-out")

        lab.pass_time(60, step=5)

        assert lab.worker.circuits.health() == "ok"


def test_a_request_of_an_unknown_version_is_a_dead_letter_that_names_both(lab: Lab) -> None:
    newer = msgspec.json.decode(lab.body())
    lab.worker.take(msgspec.json.encode({**newer, "v": 7}))

    (letter,) = lab.memory.dead(10)
    assert letter.reason == f"envelope version 7 is not known here, this worker knows {envelope.VERSION}"
