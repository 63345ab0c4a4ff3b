"""The attributes of spans, by OpenTelemetry's semantic conventions: ids and facts, never a command or an environment.

docs/tracing.md has the table; a test compares it with `ATTRIBUTES`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ecs_queue.protocol.record import Record

Attributes = dict[str, str | int]

SYSTEM = "ecs_queue"
#: Each attribute, and what its value is.
ATTRIBUTES = {
    "messaging.system": "`ecs_queue`",
    "messaging.operation.name": "`submit`, `process` or `receive`",
    "messaging.operation.type": "`send`, `process` or `receive`",
    "messaging.destination.name": "the queue",
    "messaging.message.id": "the request's id",
    "ecs_queue.state": "the request's terminal state",
    "ecs_queue.attempts": "the attempts that were made",
    "ecs_queue.attempt": "which attempt it is, from 1",
    "ecs_queue.launch": "the launch number of the [protocol](protocol.md)",
    "ecs_queue.runner": "the runner of a [warm pool](warm-pools.md) that ran the command",
    "ecs_queue.stop_code": "ECS's stop code",
    "process.exit.code": "the main container's exit code",
    "aws.ecs.task.arn": "the task",
    "aws.ecs.cluster.arn": "its cluster",
    "aws.ecs.task.family": "the family of its task definition",
    "aws.ecs.task.revision": "the revision of its task definition",
    "aws.ecs.launchtype": "`fargate` or `ec2`",
    "cloud.provider": "`aws`",
    "cloud.platform": "`aws_ecs`",
    "cloud.region": "the task's Region",
    "cloud.account.id": "the account that the task runs in",
    "cloud.availability_zone": "where it was placed",
    "error.type": "of a span that failed: ECS's stop code, or the state in which request or attempt ended",
}


def message_attributes(operation: str, kind: str, queue: str, record_id: str) -> Attributes:
    """Return those of a span that sends, processes or receives the request as a message."""
    return {
        "messaging.system": SYSTEM,
        "messaging.operation.name": operation,
        "messaging.operation.type": kind,
        "messaging.destination.name": queue,
        "messaging.message.id": record_id,
    }


def request_attributes(record: Record) -> Attributes:
    """Return those of the span of a request that has ended."""
    found: Attributes = {
        **message_attributes("process", "process", record.queue, record.id),
        "ecs_queue.state": str(record.state.value),
        "ecs_queue.attempts": record.attempts,
        **exit_attributes(record.exit_code),
    }
    if record.stop_code:
        found["ecs_queue.stop_code"] = record.stop_code
    return found


def exit_attributes(exit_code: int | None) -> Attributes:
    """Return the exit code, if there is one."""
    return {} if exit_code is None else {"process.exit.code": exit_code}


def attempt_attributes(record: Record) -> Attributes:
    """Return those of every span of an attempt."""
    found: Attributes = {
        "messaging.message.id": record.id,
        "ecs_queue.attempt": record.attempt,
        "ecs_queue.launch": record.launch,
    }
    return found | {"aws.ecs.task.arn": record.arn} if record.arn else found


def run_attributes(record: Record, task: Mapping[str, Any] | None, exit_code: int | None) -> Attributes:
    """Return those that only the span `run` has besides; `task` as ECS shows it, if it was seen.

    Attributes are most of what a span costs.
    """
    found = {**exit_attributes(exit_code), **_place_attributes(record.arn)}
    if record.run:
        found["ecs_queue.runner"] = record.run
    return found if task is None else found | _described_attributes(task)


def _place_attributes(arn: str) -> Attributes:
    """What a task's ARN says: arn:aws:ecs:REGION:ACCOUNT:task/CLUSTER/ID."""
    found: Attributes = {"cloud.provider": "aws", "cloud.platform": "aws_ecs"}
    _, _, _, region, account, *_ = (*arn.split(":", 5), "", "", "", "", "")
    named = {"cloud.region": region, "cloud.account.id": account}
    return found | {name: value for name, value in named.items() if value}


def _described_attributes(task: Mapping[str, Any]) -> Attributes:
    """What DescribeTasks and events say of the task."""
    family, _, revision = str(task.get("taskDefinitionArn") or "").rpartition("/")[2].partition(":")
    named = {
        "aws.ecs.cluster.arn": task.get("clusterArn"),
        "aws.ecs.task.family": family,
        "aws.ecs.task.revision": revision,
        "aws.ecs.launchtype": str(task.get("launchType") or "").lower(),
        "cloud.availability_zone": task.get("availabilityZone"),
    }
    return {name: str(value) for name, value in named.items() if value}
