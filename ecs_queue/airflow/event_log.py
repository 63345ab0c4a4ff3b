"""Texts for Airflow's users about a result: one line for the scheduler, all details for the task's event log. Pure."""

from __future__ import annotations

import re

from ecs_queue.messages.result import TaskResult
from ecs_queue.protocol.aws_causes import Cause, Channel
from ecs_queue.protocol.aws_reasons import find_cause
from ecs_queue.protocol.states import State

_CONSOLE_HOSTS = {
    "aws": "console.aws.amazon.com",
    "aws-cn": "console.amazonaws.cn",
    "aws-us-gov": "console.amazonaws-us-gov.com",
}
_TASK_ARN = re.compile(r"[^:]*:([^:]*):[^:]*:([^:]*):[^:]*:task/([^/]*)/(.+)")
_STATE_EXPLANATIONS: dict[str, str] = {
    State.REMOVED: "it never started, and its attempts are used up",
    State.REVOKED: "it was stopped on request",
    State.EXPIRED: "it did not start before its token expired ([scheduler] task_queued_timeout), so it could no longer "
    "have called the API server",
    State.UNKNOWN: "ECS no longer knows the task, and no worker saw how it ended",
}
#: The ends of a request whose container was started.
_CONTAINER_STATES = (State.SUCCESS, State.FAILED)
_NEVER_RAN_NOTE = "the supervisor never reported RUNNING, so no code of the task ran"
_NEVER_RAN_ADVICE = (
    "see the container's log, and check that it reaches the API server ([core] execution_api_server_url in the image)"
)
_NO_TRY_NOTE = "this uses up none of the task's tries"
_REQUEUE_NOTE = f"Airflow queues it again with a new token, and {_NO_TRY_NOTE}"
# The kinds of entries in a task's event log.
EVENT_SUCCESS = "ecs task finished"
EVENT_FAILURE = "ecs task failed"
EVENT_HELD = "ecs-queue cannot send the task"
EVENT_REJECTED = "ecs-queue rejected the task"
EVENT_EXPIRED = "ecs task did not start"
EVENT_REQUEUED = "ecs task lost before it ran"
EVENT_STOPPED = "ecs-queue stopped the task"


def format_info(result: TaskResult, *, never_ran: bool = False) -> str:
    """Return one line: what happened and why.

    Args:
        never_ran: Airflow's program in the container has not reported that the task runs.
    """
    has_no_report = never_ran and result.state in _CONTAINER_STATES
    parts = [
        f"ecs-queue {result.state}",
        _STATE_EXPLANATIONS.get(result.state),
        result.reason,
        _NEVER_RAN_NOTE if has_no_report else None,
        _NEVER_RAN_ADVICE if has_no_report and result.exit_code is not None else None,
        None if result.exit_code is None else f"exit code {result.exit_code}",
        result.stop_code and f"stop code {result.stop_code}",
        result.task_arn,
    ]
    return "; ".join(part for part in parts if part)


def format_event(result: TaskResult, *, never_ran: bool = False) -> tuple[str, str]:
    """Return the kind and the text of the entry in the task's event log."""
    parts = [format_info(result, never_ran=never_ran), f"request {result.id}", f"attempts {result.attempts}"]
    link = build_console_link(result.task_arn)
    return (EVENT_SUCCESS if result.succeeded else EVENT_FAILURE), "; ".join([*parts, link] if link else parts)


def format_expiry_event(result: TaskResult) -> tuple[str, str]:
    """Return the kind and the text of the entry for a task that did not start in time."""
    return EVENT_EXPIRED, f"{format_event(result)[1]}; {_REQUEUE_NOTE}"


def format_requeue_event(result: TaskResult) -> tuple[str, str]:
    """Return the kind and the text of the entry for a task that is queued again after the loss of its container."""
    return EVENT_REQUEUED, f"{format_event(result, never_ran=True)[1]}; it is queued again, and {_NO_TRY_NOTE}"


def was_container_lost(result: TaskResult) -> bool:
    """Return whether the container was lost: its host was, or ECS knows no exit code. StopTask loses no container."""
    if result.state != State.FAILED or result.stop_code == "UserInitiated":
        return False
    cause, _ = find_cause(Channel.STOP, result.reason, result.stop_code or "")
    return result.exit_code is None or cause is Cause.INTERRUPTED


def format_withdrawal_event(request_id: str) -> tuple[str, str]:
    """Return the kind and the text of the entry for a request that Airflow no longer waits for."""
    return EVENT_STOPPED, (
        "the task was cleared, marked or skipped before its container ran, so the container is not started; "
        f"request {request_id}"
    )


def build_console_link(task_arn: str | None) -> str | None:
    """Return the URL of the task's page in the ECS console; None for an old ARN, which does not name the cluster."""
    match = _TASK_ARN.fullmatch(task_arn or "")
    if match is None or match[1] not in _CONSOLE_HOSTS:
        return None
    partition, region, cluster, task = match.groups()
    return f"https://{region}.{_CONSOLE_HOSTS[partition]}/ecs/v2/clusters/{cluster}/tasks/{task}?region={region}"
