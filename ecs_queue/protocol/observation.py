"""What a description of an ECS task means: it runs, or it has ended and how.

The description is a task as DescribeTasks returns it, or the `detail` of an ECS task state change event; both write
times differently. What an end consumes (an attempt, a relaunch) is decided elsewhere.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from ecs_queue.protocol.aws_causes import Cause, Channel
from ecs_queue.protocol.aws_reasons import find_cause
from ecs_queue.protocol.record import STOPPED_BY_START_TIMEOUT
from ecs_queue.tasks import STOPPED_STATUSES, EcsExecutorTask, EcsTaskState, container_exit_code

EndKind = Literal["ran", "start_failure", "interrupted", "stopped"]

#: The reason that a worker gives StopTask, which ECS shows as the stoppedReason. Arguments: who asked for the stop.
STOP_TASK_REASON = "ecs-queue: stopped by %s"

#: The exit codes of a container that ECS stops: by SIGTERM, then by SIGKILL.
_SIGTERM_EXIT_CODE = 128 + 15
_SIGNAL_EXIT_CODES = frozenset({_SIGTERM_EXIT_CODE, 128 + 9})
#: The end of the year 9999. Seconds since the epoch.
_MAX_TIME = 253_402_300_799
#: The longest reason, in characters: a stoppedReason may hold the whole response of a registry.
_MAX_REASON_CHARACTERS = 1000


#: Why a container was not started, although Docker leaves exit code 127 or 128 on it.
_START_CAUSES = frozenset(Cause) - {Cause.INTERRUPTED}
_START_TIMEOUT_REASON = STOP_TASK_REASON % STOPPED_BY_START_TIMEOUT


@dataclass(frozen=True, slots=True)
class Observation:
    """What one description of a task says. Times are seconds since the epoch.

    Attributes:
        version: Orders the descriptions of one task; a higher one is newer. 0: ECS gave none.
        state: QUEUED or RUNNING before the task has ended, one of the others afterwards.
        exit_code: That of the main container; without a container name, the first one that is not 0.
        reason: ECS's reason with the containers' own; "" if nothing failed.
        end_kind: None until the task has ended, then one of:
            "ran": the container ran to its own end, `state` says how.
            "start_failure": no program of the user's ran; `state` is REMOVED.
            "interrupted": its host was lost, and it did not exit with 0.
            "stopped": StopTask ended it; `state` and `exit_code` are still those of its exit. A task that its start
                timeout stopped is a "start_failure", or "interrupted" if its program had started after all.
        cause: Of a "start_failure": why no program was started.
        reasons: Of a task that has ended: the task's own reason as ECS gives it, and those of its containers.
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
    cause: Cause | None = None
    reasons: tuple[str, ...] = ()


def observe(task: Mapping[str, Any], container_name: str | None) -> Observation:
    """Return what this description of a task says. Never raises for absent keys.

    The container `container_name` decides, whatever its sidecars did; without a name all containers do. An ended task
    of which ECS shows only ARN and statuses is FAILED, because it may have run.
    """
    view = EcsExecutorTask.from_boto(task)
    if container_name:
        view.containers = [container for container in view.containers if container.get("name") == container_name]
    has_ended = view.last_status in STOPPED_STATUSES
    exit_code = _exit_code(view.containers)
    end_kind = _end_kind(task, view, exit_code) if has_ended else None
    cause, advice = _find_start_failure_cause(task) if end_kind == "start_failure" else (None, "")
    reason = _build_reason(task, view.containers, end_kind)
    return Observation(
        arn=view.task_arn,
        version=int(task.get("version") or 0),
        last_status=view.last_status,
        desired_status=view.desired_status,
        has_ended=has_ended,
        state=_task_state(view, end_kind, exit_code),
        exit_code=None if end_kind == "start_failure" else exit_code,
        stop_code=task.get("stopCode") or None,
        reason=f"{reason.rstrip('. ')}. {advice}" if advice else reason,
        started_at=parse_timestamp(task.get("startedAt")),
        stopped_at=parse_timestamp(task.get("stoppedAt")),
        end_kind=end_kind,
        cause=cause,
        reasons=_find_reasons(task) if has_ended else (),
    )


def _find_reasons(task: Mapping[str, Any]) -> tuple[str, ...]:
    texts = (task.get("stoppedReason"), *(container.get("reason") for container in task.get("containers") or ()))
    return tuple(dict.fromkeys(str(text)[:_MAX_REASON_CHARACTERS] for text in texts if text))


def parse_timestamp(value: object) -> float | None:
    """Return the epoch seconds of a datetime (boto3), a number (AWS's JSON) or ISO 8601 text (events).

    None for anything else, and for a time before 1970 or after the year 9999, which no record can hold.
    """
    if isinstance(value, str):
        try:
            value = datetime.datetime.fromisoformat(value)
        except ValueError:
            return None
    if isinstance(value, datetime.datetime):
        aware = value if value.tzinfo else value.replace(tzinfo=datetime.UTC)
        value = aware.timestamp()
    return float(value) if isinstance(value, int | float) and 0 <= value <= _MAX_TIME else None


def _exit_code(containers: Sequence[Mapping[str, Any]]) -> int | None:
    """The first exit code that is not 0; 0 if all containers exited with 0; else None."""
    codes = [container_exit_code(container) for container in containers]
    failed = next((code for code in codes if code), None)
    if failed is not None:
        return failed
    return 0 if codes and None not in codes else None


def _end_kind(task: Mapping[str, Any], view: EcsExecutorTask, exit_code: int | None) -> EndKind:
    stop_code = task.get("stopCode")
    has_timed_out = _has_start_timed_out(task)
    if stop_code == "UserInitiated" and not has_timed_out:
        return "stopped"
    never_started = stop_code == "TaskFailedToStart" or not view.started_at
    if never_started and not _may_have_run(view.containers) and not _has_statuses_only(task):
        return "start_failure"
    cause, _ = find_cause(Channel.STOP, view.stopped_reason or "", str(stop_code or ""))
    return "interrupted" if (cause is Cause.INTERRUPTED or has_timed_out) and exit_code != 0 else "ran"


def _has_start_timed_out(task: Mapping[str, Any]) -> bool:
    """Whether a worker called StopTask for it by its start timeout: ECS shows the reason that the call gave."""
    return task.get("stopCode") == "UserInitiated" and task.get("stoppedReason") == _START_TIMEOUT_REASON


def _find_start_failure_cause(task: Mapping[str, Any]) -> tuple[Cause, str]:
    """Return why no program was started, and what to do: what AWS says of the task, else of any of its containers."""
    if _has_start_timed_out(task):
        return Cause.START_FAILURE, ""
    texts = [task.get("stoppedReason"), *(container.get("reason") for container in task.get("containers") or ())]
    given = [("", str(task.get("stopCode") or "")), *((str(text), "") for text in texts if text)]
    found = (find_cause(Channel.STOP, text, code) for text, code in given)
    return next(((cause, advice) for cause, advice in found if cause is not None), (Cause.START_FAILURE, ""))


def _may_have_run(containers: Sequence[Mapping[str, Any]]) -> bool:
    """Whether an exit code proves that a program of the user was started."""
    return any(
        container_exit_code(container) is not None
        and find_cause(Channel.STOP, str(container.get("reason") or ""))[0] not in _START_CAUSES
        for container in containers
    )


def _has_statuses_only(task: Mapping[str, Any]) -> bool:
    """Whether only ARN and statuses are shown, as RunTask returns for the token of a task that has stopped."""
    return not any(key in task for key in ("containers", "stopCode", "stoppedReason", "startedAt"))


def _task_state(view: EcsExecutorTask, end_kind: EndKind | None, exit_code: int | None) -> EcsTaskState:
    if end_kind is None:
        is_running = view.last_status == "RUNNING" or bool(view.started_at)
        return EcsTaskState.RUNNING if is_running else EcsTaskState.QUEUED
    if end_kind == "start_failure":
        return EcsTaskState.REMOVED
    if exit_code or (exit_code is None and end_kind != "stopped"):
        return EcsTaskState.FAILED
    return EcsTaskState.SUCCESS if exit_code == 0 else view.get_task_state()


_DEFAULT_REASONS: dict[EndKind | None, str] = {
    None: "",
    "ran": "The task stopped, ECS gives no reason",
    "start_failure": "The task never started, ECS gives no reason",
    "interrupted": "The host of the task was lost",
    "stopped": "The task was stopped with StopTask",
}


#: Whether it never started -> why it ended.
_START_TIMEOUT_TEXTS = {
    True: "It had not started within its start_timeout",
    False: "It was stopped by its start_timeout, but had started by then",
}


def _build_reason(task: Mapping[str, Any], containers: Sequence[Mapping[str, Any]], end_kind: EndKind | None) -> str:
    """ECS's reason and, of an ended task, the containers' own: first those that ended it, then the deciding ones."""
    reason = str(task.get("stoppedReason") or _DEFAULT_REASONS[end_kind])
    if _has_start_timed_out(task):
        reason = _START_TIMEOUT_TEXTS[end_kind == "start_failure"]
    details: list[str] = []
    if end_kind is not None:
        others = [other for other in task.get("containers") or () if other not in containers]
        details += _describe_containers(_find_causes(task, containers, others, end_kind), reason)
        details += _describe_containers(containers, reason)
        if all(container_exit_code(container) is None for container in containers):
            details += [each for each in _describe_containers(others, reason) if each not in details]
            if end_kind == "ran":
                details.append("no exit code")
    return (f"{reason} ({'; '.join(details)})" if details else reason)[:_MAX_REASON_CHARACTERS]


def _find_causes(
    task: Mapping[str, Any],
    containers: Sequence[Mapping[str, Any]],
    others: Sequence[Mapping[str, Any]],
    end_kind: EndKind,
) -> Sequence[Mapping[str, Any]]:
    """The other containers that ended the task: ECS stops the rest when an essential container ends.

    A container with a reason of its own is one. Without any, and if a signal ended the deciding container although
    StopTask was not called, it is one that no signal ended: with an error, else (after SIGTERM) with 0.
    """
    codes = {container_exit_code(container) for container in containers}
    if end_kind != "ran" or not codes - {0, None} or any(container.get("reason") for container in containers):
        return ()
    if with_reason := [other for other in others if other.get("reason")]:
        return with_reason
    if task.get("stopCode") != "EssentialContainerExited" or not codes <= _SIGNAL_EXIT_CODES:
        return ()
    ended = [(other, container_exit_code(other)) for other in others]
    failed = [other for other, code in ended if code and code not in _SIGNAL_EXIT_CODES]
    return failed or [other for other, code in ended if code == 0 and _SIGTERM_EXIT_CODE in codes]


def _describe_containers(containers: Sequence[Mapping[str, Any]], stopped_reason: str) -> Iterator[str]:
    """E.g. "container main: OutOfMemoryError: ..., exit 137"; nothing for a container without reason and exit code."""
    for container in containers:
        reason, code = str(container.get("reason") or ""), container_exit_code(container)
        details = [] if not reason or reason in stopped_reason else [reason]
        if code is not None:
            details.append(f"exit {code}")
        if details:
            yield f"container {container.get('name') or '?'}: {', '.join(details)}"
