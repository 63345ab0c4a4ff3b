"""Labels that become tags of the task."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from ecs_queue.config import Profile
from ecs_queue.errors import InvalidRequest
from ecs_queue.messages import envelope
from ecs_queue.messages.request import TaskRequest, new_request
from ecs_queue.runtask.launch_spec import build_launch_spec, build_queued_task, build_submission, pool_of
from ecs_queue.runtask.resubmit import ResubmitChanges, build_resubmit_line

PROFILE = Profile(
    queue="default",
    cluster="jobs",
    task_definition="family:1",
    container_name="main",
    launch_type="FARGATE",
    subnets=("subnet-1",),
    allowed_overrides=("*",),
)
LABELS = {"team": "data", "dag_id": "etl", "run_id": "r1"}


def request(**fields: Any) -> TaskRequest:
    return new_request(id="a", command=["true"], now=1.8e9, accept_seconds=86400.0, **fields)


def tags(profile: Profile, **fields: Any) -> dict[str, str] | None:
    made = request(**{"labels": LABELS, **fields})
    spec = build_launch_spec(profile, 1, build_queued_task(made, 1, 0.0), made.labels)
    found = spec.run_task.get("tags")
    return None if found is None else {tag["key"]: tag["value"] for tag in found}


def test_without_the_profiles_word_nothing_of_the_labels_is_launched() -> None:
    assert tags(PROFILE) is None
    made = request(labels=LABELS)
    spec = build_launch_spec(PROFILE, 1, build_queued_task(made, 1, 0.0), made.labels)
    assert spec == build_launch_spec(PROFILE, 1, build_queued_task(request(), 1, 0.0))


def test_the_profile_names_the_labels_that_become_tags() -> None:
    assert tags(replace(PROFILE, tag_labels=("team", "cost_center"))) == {"team": "data"}
    assert tags(replace(PROFILE, tag_labels=("*",))) == LABELS
    assert tags(replace(PROFILE, tag_labels=("*",)), labels=None) is None


def test_a_tag_that_is_set_already_is_not_replaced_by_a_label() -> None:
    """IAM conditions may depend on the profile's tags."""
    fixed = replace(PROFILE, tag_labels=("*",), run_task_kwargs={"tags": [{"key": "team", "value": "ops"}]})
    assert tags(fixed) == {**LABELS, "team": "ops"}
    config = {"tags": [{"key": "dag_id", "value": "mine"}]}
    assert tags(fixed, executor_config=config) == {**LABELS, "team": "ops", "dag_id": "mine"}


def test_more_tags_than_ecs_accepts_are_refused() -> None:
    full = replace(
        PROFILE, tag_labels=("*",), run_task_kwargs={"tags": [{"key": f"k{n}", "value": ""} for n in range(48)]}
    )
    with pytest.raises(InvalidRequest, match="there are 51 tags, and ECS accepts 50"):
        tags(full)
    assert len(tags(replace(full, tag_labels=("team", "dag_id"))) or ()) == 50


def test_requests_with_other_tags_have_other_runners() -> None:
    """A runner's task has the tags of the request that it was started for."""

    def pool(profile: Profile, team: str) -> str:
        made = request(labels={"team": team})
        return pool_of(build_launch_spec(profile, 1, build_queued_task(made, 1, 0.0), made.labels), "q", "", "")

    tagged = replace(PROFILE, tag_labels=("team",))
    assert pool(PROFILE, "a") == pool(PROFILE, "b")
    assert pool(tagged, "a") == pool(tagged, "a") != pool(tagged, "b")


def test_the_ledger_gets_the_labels_and_who_submitted_and_a_retry_has_the_labels() -> None:
    made = request(labels=LABELS, submitted_by="ann")
    submission = build_submission(made, envelope.encode(made), "nonce", 60.0)
    assert submission.labels == '{"dag_id":"etl","run_id":"r1","team":"data"}'
    assert submission.submitted_by == "ann"
    line = build_resubmit_line(made, "b", ResubmitChanges(), "main")
    assert (line["labels"], "submitted_by" in line) == (LABELS, False)
