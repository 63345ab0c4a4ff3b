"""Checks which of a worker's calls IAM allows, by making each for an object that does not exist."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from ecs_queue.config import Profile
from ecs_queue.doctor.aws_call import call_aws
from ecs_queue.ecs.clients import Target
from ecs_queue.findings import Finding, Reporter
from ecs_queue.protocol.ecs_results import EcsErrorKind

POLICY_ADVICE = "grant it as in conf/iam-worker-policy.json"
#: No task definition has this revision: IAM authorizes the call, and then ECS refuses it.
_NONEXISTENT_REVISION = 2_147_483_647
#: No task has this id: ids are random.
_NONEXISTENT_TASK_ID = "0" * 32


def check_permissions(reporter: Reporter, profile: Profile, target: Target, ecs: Any) -> Iterator[Finding]:
    """Make each call of a worker for an object that does not exist: IAM authorizes it before ECS refuses it."""
    family = str(profile.task_definition or profile.run_task_kwargs.get("taskDefinition")).rsplit("/", 1)[-1]
    nothing = f"{family.partition(':')[0]}:{_NONEXISTENT_REVISION}"
    calls: dict[str, Callable[[], Any]] = {
        "ecs:RunTask": lambda: ecs.run_task(cluster=target.cluster, taskDefinition=nothing, count=1),
        "ecs:DescribeTasks": lambda: ecs.describe_tasks(cluster=target.cluster, tasks=[_NONEXISTENT_TASK_ID]),
        "ecs:ListTasks": lambda: ecs.list_tasks(cluster=target.cluster, startedBy="ecs-queue/doctor"),
        "ecs:StopTask": lambda: ecs.stop_task(
            cluster=target.cluster, task=_NONEXISTENT_TASK_ID, reason="ecs-queue doctor"
        ),
    }
    if profile.tag_labels or profile.run_task_kwargs.get("tags"):
        tags = [{"key": "ecs-queue", "value": "doctor"}]
        calls["ecs:TagResource"] = lambda: ecs.run_task(
            cluster=target.cluster, taskDefinition=nothing, count=1, tags=tags
        )
    granted, unknown = [], []
    for action, call in calls.items():
        _, reason, error_kind = call_aws(call)
        if error_kind is EcsErrorKind.DENIED:
            yield reporter.error("aws.permissions", f"{action} is denied: {reason}", POLICY_ADVICE)
        elif error_kind in (EcsErrorKind.UNAVAILABLE, EcsErrorKind.THROTTLED, EcsErrorKind.UNUSABLE_PROFILE):
            unknown.append(f"{action}: {reason}")
        else:
            granted.append(action)
    for text in unknown:
        yield reporter.info("aws.permissions", text, "run the doctor again")
    if granted:
        yield reporter.ok("aws.permissions", f"allowed: {', '.join(granted)}")


def pass_role_finding(reporter: Reporter) -> Finding:
    """Return that a permission is left which only a launch tests."""
    return reporter.info("aws.permissions", "iam:PassRole is only tested by a real launch", "add --canary")
