"""What a launch would send, rendered from a request and its queue's profile, frozen in the ledger at the claim."""

from __future__ import annotations

from typing import Any

import msgspec

from ecs_queue.core.envelope import TaskRequest, moment
from ecs_queue.core.record import Submission
from ecs_queue.core.run_task_kwargs import RunTaskProfile, render_run_task_kwargs
from ecs_queue.core.tasks import EcsQueuedTask


class Plan(msgspec.Struct, frozen=True):
    """`container` decides how the task ended; `max_attempts` as configured when it was launched."""

    container: str | None
    max_attempts: int
    run_task: dict[str, Any]

    def __repr__(self) -> str:
        """Without the arguments: commands and environments hold secrets."""
        return f"Plan(container={self.container!r}, max_attempts={self.max_attempts})"

    def encode(self) -> str:
        """JSON, as the record's `args`."""
        return msgspec.json.encode(self).decode()


class PlanHead(msgspec.Struct, frozen=True):
    """A `Plan` without the arguments: what following a task needs, read without building the rest."""

    container: str | None = None
    max_attempts: int = 1


def plan_of(profile: RunTaskProfile, max_attempts: int, task: EcsQueuedTask) -> Plan:
    """The plan of one launch; InvalidRequest when run_task could never take it."""
    return Plan(profile.container_name, max_attempts, render_run_task_kwargs(profile, task))


def decode_plan(args: str) -> Plan:
    """The plan that a record's `args` hold."""
    return msgspec.json.decode(args, type=Plan)


def decode_head(args: str) -> PlanHead:
    """The head of the plan that a record's `args` hold."""
    return msgspec.json.decode(args, type=PlanHead) if args else PlanHead()


def queued_task(request: TaskRequest, attempt: int, next_attempt_time: float) -> EcsQueuedTask:
    """The reference API's record of a task that is about to be launched."""
    return EcsQueuedTask(
        key=request.id,
        command=request.command,
        queue=request.queue,
        executor_config=request.executor_config or {},
        attempt_number=attempt,
        next_attempt_time=moment(next_attempt_time),  # type: ignore[arg-type]
    )


def submission_of(request: TaskRequest, body: bytes, nonce: str, launch_deadline: float) -> Submission:
    """What the ledger needs of an envelope. Without an `expires_at` of its own the launch deadline counts."""
    return Submission(
        id=request.id,
        nonce=nonce,
        digest=request.digest(),
        queue=request.queue,
        owner=request.owner,
        relaunch=request.relaunch,
        body=body,
        accept_until=request.accept_until,
        expires_at=request.expires_at or request.submitted_at + launch_deadline,
        time_limit=request.time_limit or 0.0,
    )
