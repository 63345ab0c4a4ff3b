"""What a launch would send."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from ecs_queue.config import Profile
from ecs_queue.errors import InvalidRequest, UndecodableMessage
from ecs_queue.messages import envelope
from ecs_queue.messages.request import TaskRequest, new_request
from ecs_queue.protocol.record import Record
from ecs_queue.runtask.launch_spec import (
    LaunchSpec,
    LaunchSpecHeader,
    build_launch_spec,
    build_queued_task,
    build_submission,
    decode_launch_spec,
    launch_spec_header,
)

NOW = 1_800_000_000.0
PROFILE = Profile(
    queue="default",
    cluster="jobs",
    task_definition="family:1",
    container_name="main",
    launch_type="FARGATE",
    subnets=("subnet-1",),
)


def _request(**fields: Any) -> TaskRequest:
    return new_request(id="a", command=["echo", "ü"], now=NOW, accept_seconds=86400.0, **{"owner": "me", **fields})


def test_it_holds_what_run_task_is_called_with_and_what_follows_the_task() -> None:
    spec = build_launch_spec(PROFILE, 3, build_queued_task(_request(), 1, 0.0))

    assert (spec.container_name, spec.max_attempts) == ("main", 3)
    assert spec.run_task["taskDefinition"] == "family:1"
    assert spec.run_task["overrides"]["containerOverrides"] == [{"name": "main", "command": ["echo", "ü"]}]


def test_it_is_the_same_after_it_was_kept_in_the_ledger() -> None:
    spec = build_launch_spec(PROFILE, 3, build_queued_task(_request(executor_config={"cpu": 512}), 1, 0.0))

    assert decode_launch_spec(spec.encode()) == spec
    assert json.loads(spec.encode())["run_task"] == spec.run_task


def test_its_header_is_what_the_claim_stored_and_the_arguments_are_not_read() -> None:
    record = Record(id="a", args="no JSON", container_name="main", max_attempts=3, spec_version=1)

    assert launch_spec_header(record) == LaunchSpecHeader("main", 3)


def test_a_stored_header_of_a_newer_version_is_left_to_newer_workers() -> None:
    with pytest.raises(UndecodableMessage, match="of version 4, this worker knows up to 3"):
        launch_spec_header(Record(id="a", args="{}", container_name="main", max_attempts=3, spec_version=4))


def test_the_header_of_a_record_that_stores_none_is_read_from_its_arguments() -> None:
    spec = LaunchSpec("main", 3, {"overrides": {}})

    assert launch_spec_header(Record(id="a", args=spec.encode())) == LaunchSpecHeader("main", 3)


def test_its_representation_shows_no_payload() -> None:
    assert "hunter2" not in repr(LaunchSpec("main", 3, {"overrides": {"environment": "hunter2"}}))


def test_a_record_without_arguments_has_the_head_of_one_attempt() -> None:
    assert launch_spec_header(Record(id="a")) == LaunchSpecHeader(None, 1)


def test_what_run_task_could_never_take_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="no_such_key"):
        build_launch_spec(PROFILE, 3, build_queued_task(_request(executor_config={"no_such_key": 1}), 1, 0.0))


def test_a_request_becomes_the_reference_apis_queued_task() -> None:
    task = build_queued_task(_request(executor_config={"cpu": 512}, queue="gpu"), 2, NOW)

    assert (task.key, task.command, task.queue) == ("a", ["echo", "ü"], "gpu")
    assert (task.executor_config, task.attempt_number) == ({"cpu": 512}, 2)
    assert task.next_attempt_time == datetime.fromtimestamp(NOW, UTC)


class TestSubmission:
    def _of(self, **fields: Any) -> Any:
        request = _request(**fields)
        return build_submission(request, envelope.encode(request), "nonce", 3600.0)

    def test_without_an_expiry_of_its_own_the_launch_deadline_counts(self) -> None:
        assert self._of().expires_at == NOW + 3600

    def test_its_own_expiry_counts(self) -> None:
        assert self._of(expires_in=60.0).expires_at == NOW + 60

    def test_it_says_what_the_ledger_needs(self) -> None:
        submission = self._of(time_limit=5.0, relaunch="interrupted", queue="gpu")

        assert (submission.id, submission.nonce, submission.owner) == ("a", "nonce", "me")
        assert (submission.queue, submission.relaunch, submission.time_limit) == ("gpu", "interrupted", 5.0)
        assert submission.accept_until == NOW + 86400
        assert envelope.decode_request(submission.request) == _request(
            time_limit=5.0, relaunch="interrupted", queue="gpu"
        )

    def test_its_representation_shows_no_payload(self) -> None:
        assert "echo" not in repr(self._of())
