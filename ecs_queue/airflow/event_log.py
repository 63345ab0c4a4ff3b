"""What Airflow's users are told of a result: one line as info, the whole as a task event. Pure."""

from __future__ import annotations

from ecs_queue.messages.envelope import TaskResult
from ecs_queue.protocol.states import State

_CONSOLE_HOSTS = {
    "aws": "console.aws.amazon.com",
    "aws-cn": "console.amazonaws.cn",
    "aws-us-gov": "console.amazonaws-us-gov.com",
}
_STATE_EXPLANATIONS = {
    State.REMOVED: "it never started, and the attempts are used up",
    State.REVOKED: "it was stopped on request",
    State.EXPIRED: "it did not start before its token expired ([scheduler] task_queued_timeout), so it could not "
    "have talked to the API server any more",
    State.UNKNOWN: "ECS no longer knows the task, and nobody saw its end",
}
_REQUEUE_NOTE = "Airflow queues it again with a new token, and it uses up none of the task's tries"
#: The kind of the entry in a task's event log.
EVENT_SUCCESS = "ecs task finished"
EVENT_FAILURE = "ecs task failed"
EVENT_REJECTED = "ecs-queue rejected the task"
EVENT_EXPIRED = "ecs task did not start"
EVENT_STOPPED = "ecs-queue stopped the task"


def format_info(result: TaskResult) -> str:
    """One line: what happened and why."""
    parts = [f"ecs-queue {result.state}"]
    meaning = _STATE_EXPLANATIONS.get(State(result.state)) if result.state in set(State) else None
    parts += [part for part in (meaning, result.reason) if part]
    if result.exit_code is not None:
        parts.append(f"exit code {result.exit_code}")
    if result.stop_code:
        parts.append(f"stop code {result.stop_code}")
    if result.task_arn:
        parts.append(result.task_arn)
    return "; ".join(parts)


def format_event(result: TaskResult) -> tuple[str, str]:
    """The kind and the text of the entry in the task's event log."""
    lines = [format_info(result), f"request {result.id}", f"attempts {result.attempts}"]
    link = build_console_link(result.task_arn)
    if link:
        lines.append(link)
    return (EVENT_SUCCESS if result.succeeded else EVENT_FAILURE), "; ".join(lines)


def format_expiry_event(result: TaskResult) -> tuple[str, str]:
    """The kind and the text of the entry for a task that did not start in time."""
    return EVENT_EXPIRED, f"{format_event(result)[1]}; {_REQUEUE_NOTE}"


def format_withdrawal(request_id: str) -> str:
    """The text of the entry for a request that nobody waits for any more."""
    return (
        "the task was cleared, marked or skipped before its container ran, so the container is not started; "
        f"request {request_id}"
    )


def build_console_link(task_arn: str | None) -> str | None:
    """The task's page in the ECS console; None for an ARN of the old form, which names no cluster."""
    parts = (task_arn or "").split(":", 5)
    if len(parts) != 6:
        return None
    _, partition, _, region, _, resource = parts
    kind, _, rest = resource.partition("/")
    cluster, _, task = rest.partition("/")
    console = _CONSOLE_HOSTS.get(partition)
    if kind != "task" or not task or console is None:
        return None
    return f"https://{region}.{console}/ecs/v2/clusters/{cluster}/tasks/{task}?region={region}"
