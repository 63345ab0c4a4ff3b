"""What one look at an ECS task means: running, or ended and how.

Works on a task as DescribeTasks shows it and on the `detail` of an ECS task state change event; they differ
in how they write times. What a verdict costs (an attempt, a relaunch) is decided elsewhere.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from ecs_queue.tasks import STOPPED_STATUSES, EcsExecutorTask, EcsTaskState, container_exit_code

EndKind = Literal["ran", "start_failure", "interrupted", "stopped"]

#: AWS's stopCodes for a host that went away under the task.
_INTERRUPTION_STOP_CODES = frozenset({"SpotInterruption", "TerminationNotice", "InfrastructureHealth"})
_HOST_LOST_REASON = re.compile(
    r"host EC2\b.*\b(?:stopped|terminated)|spot task was interrupted"
    r"|maintenance on the underlying infrastructure",
    re.IGNORECASE | re.DOTALL,
)
#: Docker leaves exit code 127 or 128 on a container that it could not start: nothing of the user's ran.
_NEVER_STARTED_REASON = re.compile(r"\s*Cannot(?:Start|Create|Pull)\w*Error", re.IGNORECASE)

#: The longest reason, in characters: a stoppedReason may hold a whole registry's answer.
_MAX_REASON_CHARACTERS = 1000


@dataclass(frozen=True, slots=True)
class Observation:
    """One look at a task.

    `version` orders looks at the same task, a higher one is newer (0: ECS gave none). `state` is never QUEUED
    or RUNNING once `ended`, and always one of them before. `exit_code` is the main container's (without a
    name: the first one that is not 0). `stop_code` and `reason` are ECS's words, `reason` with the
    container's ("" while nothing went wrong). Times are seconds since the epoch.

    `end` is None until the task has ended, then: "ran" (the container ran to its own end, `state` says how),
    "start_failure" (no program of the user's ran; `state` REMOVED), "interrupted" (its host went away, and it
    did not exit with 0), "stopped" (StopTask; `state` and `exit_code` still tell the real exit).
    """

    arn: str
    version: int
    last_status: str
    desired_status: str
    has_ended: bool
    state: EcsTaskState
    exit_code: int | None
    stop_code: str | None
    reason: str
    started_at: float | None
    stopped_at: float | None
    end_kind: EndKind | None


def observe(task: Mapping[str, Any], container_name: str | None) -> Observation:
    """What this description of a task says. Never raises for absent keys.

    The container `container_name` decides, whatever its sidecars did; without a name all containers do. An
    ended task of which ECS shows only ARN and statuses is FAILED, for nobody can say that it never ran.
    """
    seen = EcsExecutorTask.from_boto(task)
    seen.containers = _deciding_containers(seen.containers, container_name)
    ended = seen.last_status in STOPPED_STATUSES
    exit_code = _exit_code(seen.containers)
    started_at = parse_timestamp(task.get("startedAt"))
    end = _end_kind(task, seen, exit_code) if ended else None
    return Observation(
        arn=seen.task_arn,
        version=int(task.get("version") or 0),
        last_status=seen.last_status,
        desired_status=seen.desired_status,
        has_ended=ended,
        state=_task_state(seen, end, exit_code),
        exit_code=None if end == "start_failure" else exit_code,
        stop_code=task.get("stopCode") or None,
        reason=_build_reason(task, seen.containers, end),
        started_at=started_at,
        stopped_at=parse_timestamp(task.get("stoppedAt")),
        end_kind=end,
    )


def parse_timestamp(value: object) -> float | None:
    """A time as boto3 (datetime), AWS's JSON (number) or an event (ISO 8601) gives it; None for all else."""
    if isinstance(value, str):
        try:
            value = datetime.datetime.fromisoformat(value)
        except ValueError:
            return None
    if isinstance(value, datetime.datetime):
        aware = value if value.tzinfo else value.replace(tzinfo=datetime.UTC)
        return aware.timestamp()
    return float(value) if isinstance(value, int | float) else None


def _deciding_containers(
    containers: Sequence[Mapping[str, Any]], container_name: str | None
) -> Sequence[Mapping[str, Any]]:
    if not container_name:
        return containers
    return [container for container in containers if container.get("name") == container_name]


def _exit_code(containers: Sequence[Mapping[str, Any]]) -> int | None:
    """The first exit code that is not 0; 0 when all exited with 0; None when one has none and none failed."""
    codes = [container_exit_code(container) for container in containers]
    failed = next((code for code in codes if code), None)
    if failed is not None:
        return failed
    return 0 if codes and None not in codes else None


def _end_kind(task: Mapping[str, Any], task_view: EcsExecutorTask, exit_code: int | None) -> EndKind:
    stop_code = task.get("stopCode")
    if stop_code == "UserInitiated":
        return "stopped"
    never_started = stop_code == "TaskFailedToStart" or not task_view.started_at
    if never_started and not _may_have_run(task_view.containers) and not _has_statuses_only(task):
        return "start_failure"
    interrupted = stop_code in _INTERRUPTION_STOP_CODES or _HOST_LOST_REASON.search(task_view.stopped_reason or "")
    return "interrupted" if interrupted and exit_code != 0 else "ran"


def _may_have_run(containers: Sequence[Mapping[str, Any]]) -> bool:
    """Whether an exit code proves that a program of the user's was started."""
    return any(
        container_exit_code(container) is not None and not _NEVER_STARTED_REASON.match(container.get("reason") or "")
        for container in containers
    )


def _has_statuses_only(task: Mapping[str, Any]) -> bool:
    """Whether it has only ARN and statuses, as RunTask answers to the token of a task that has stopped."""
    return not any(key in task for key in ("containers", "stopCode", "stoppedReason", "startedAt"))


def _task_state(task_view: EcsExecutorTask, end: EndKind | None, exit_code: int | None) -> EcsTaskState:
    if end is None:
        up = task_view.last_status == "RUNNING" or bool(task_view.started_at)
        return EcsTaskState.RUNNING if up else EcsTaskState.QUEUED
    if end == "start_failure":
        return EcsTaskState.REMOVED
    if exit_code is None and end != "stopped":
        return EcsTaskState.FAILED
    return EcsTaskState.FAILED if exit_code else task_view.get_task_state()


_DEFAULT_REASONS: dict[EndKind | None, str] = {
    None: "",
    "ran": "The task stopped, ECS gives no reason",
    "start_failure": "The task never started, ECS gives no reason",
    "interrupted": "The host of the task went away",
    "stopped": "The task was stopped with StopTask",
}


def _build_reason(task: Mapping[str, Any], containers: Sequence[Mapping[str, Any]], end: EndKind | None) -> str:
    """ECS's reason and, once it has ended, what the deciding containers say (else all of them)."""
    said = str(task.get("stoppedReason") or _DEFAULT_REASONS[end])
    if end is None:
        return said[:_MAX_REASON_CHARACTERS]
    told = [words for container in containers if (words := _describe_container(container, said))]
    if all(container_exit_code(container) is None for container in containers):
        others = [other for other in task.get("containers") or () if other not in containers]
        told += [words for other in others if (words := _describe_container(other, said))]
        if end == "ran":
            told.append("no exit code")
    return (f"{said} ({'; '.join(told)})" if told else said)[:_MAX_REASON_CHARACTERS]


def _describe_container(container: Mapping[str, Any], stopped_reason: str) -> str:
    """E.g. "container main: OutOfMemoryError: ..., exit 137"; "" for a container with nothing to say."""
    reason = str(container.get("reason") or "")
    code = container_exit_code(container)
    words = [] if not reason or reason in stopped_reason else [reason]
    if code is not None:
        words.append(f"exit {code}")
    return f"container {container.get('name') or '?'}: {', '.join(words)}" if words else ""
