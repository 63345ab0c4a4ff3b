"""The reference API's types: a queued task, a task as ECS shows it, and a collection of tasks in flight.

docs/architecture.md says where the workers use them.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from ecs_queue.payload_repr import PayloadRepr

CommandType = list[str]
ExecutorConfigFunctionType = Callable[[CommandType], dict[str, Any]]
ExecutorConfigType = dict[str, Any]

#: The statuses of an ended task; ECS may show DELETED in place of STOPPED.
STOPPED_STATUSES = frozenset({"STOPPED", "DELETED"})
#: The key of a container's exit code in boto3's spelling and in the upstream executor's.
_EXIT_CODE_KEYS = ("exitCode", "exit_code")


class EcsTaskState(StrEnum):
    """The state of an ECS task. Each member is equal to, and prints as, Airflow's string."""

    QUEUED = "queued"
    RUNNING = "running"
    REMOVED = "removed"
    FAILED = "failed"
    SUCCESS = "success"


@dataclass(slots=True, repr=False)
class EcsQueuedTask(PayloadRepr):
    """Represents an ECS task that is queued. The task will be run in the next heartbeat.

    `key` may be anything hashable: Airflow's TaskInstanceKey, a request's id. `attempt_number` starts at 1.
    """

    key: Hashable
    command: CommandType
    queue: str
    executor_config: ExecutorConfigType
    attempt_number: int
    next_attempt_time: datetime.datetime


@dataclass(slots=True, repr=False)
class EcsTaskInfo(PayloadRepr):
    """Contains information about a currently running ECS task."""

    cmd: CommandType
    queue: str
    config: ExecutorConfigType


def container_exit_code(container: Mapping[str, Any]) -> int | None:
    """Return the exit code of one container in either spelling; None if it has none (yet)."""
    for key in _EXIT_CODE_KEYS:
        code = container.get(key)
        if code is not None:
            return int(code)
    return None


@dataclass(slots=True, eq=False, repr=False)
class EcsExecutorTask:
    """Data Transfer Object for an ECS Task.

    `containers` is a list of dictionaries, in boto3's spelling (`exitCode`) or the upstream executor's (`exit_code`).
    """

    task_arn: str
    last_status: str
    desired_status: str
    containers: Sequence[Mapping[str, Any]]
    started_at: Any | None = None
    stopped_reason: str | None = None
    external_executor_id: str | None = None

    @classmethod
    def from_boto(cls, task: Mapping[str, Any]) -> EcsExecutorTask:
        """Return the task that RunTask or DescribeTasks returned, or that the `detail` of an ECS event shows.

        Absent keys become empty: RunTask returns an old task with ARN and statuses only.
        """
        return cls(
            task_arn=task.get("taskArn") or "",
            last_status=task.get("lastStatus") or "",
            desired_status=task.get("desiredStatus") or "",
            containers=task.get("containers") or [],
            started_at=task.get("startedAt"),
            stopped_reason=task.get("stoppedReason"),
            external_executor_id=task.get("externalExecutorId"),
        )

    def get_task_state(self) -> EcsTaskState:
        """Determine the state of an ECS task based on its status and other relevant attributes.

        It can return one of the following statuses:
            QUEUED - Task is being provisioned.
            RUNNING - Task is launched on ECS.
            REMOVED - Task provisioning has failed for some reason. See `stopped_reason`.
            FAILED - Task is completed and at least one container has failed.
            SUCCESS - Task is completed and all containers have succeeded.

        A task to be stopped that never started is REMOVED, whatever its exit codes. A task that has ended is never
        QUEUED or RUNNING. Without exit codes (host lost) it is FAILED when it had started; a task without containers
        has not succeeded. docs/architecture.md lists where upstream's answer differs.
        """
        if self.last_status == "RUNNING":
            return EcsTaskState.RUNNING
        ended = self.last_status in STOPPED_STATUSES
        if not ended and self.desired_status == "RUNNING":
            return EcsTaskState.QUEUED
        if not ended and self.desired_status != "STOPPED":
            return EcsTaskState.RUNNING
        if not self.started_at and self.desired_status == "STOPPED":
            return EcsTaskState.REMOVED
        codes = [container_exit_code(container) for container in self.containers]
        if codes and None not in codes:
            return EcsTaskState.FAILED if any(codes) else EcsTaskState.SUCCESS
        if not self.started_at:
            return EcsTaskState.REMOVED
        return EcsTaskState.FAILED if ended else EcsTaskState.RUNNING

    def __repr__(self) -> str:
        """Return a string representation of the ECS task."""
        return f"({self.task_arn}, {self.last_status}->{self.desired_status}, {self.get_task_state()})"


class EcsTaskCollection:
    """A five-way dictionary between Airflow task ids, Airflow cmds, ECS ARNs, and ECS task objects.

    Every look-up is a dictionary access; only the lists that `get_all_...` return are copies. A missing key or ARN
    raises a `KeyError` that holds it. Not safe for several threads without a lock.
    """

    __slots__ = ("arn_to_key", "key_to_arn", "key_to_failure_counts", "key_to_task_info", "tasks")

    def __init__(self) -> None:
        self.key_to_arn: dict[Hashable, str] = {}
        self.arn_to_key: dict[str, Hashable] = {}
        self.tasks: dict[str, EcsExecutorTask] = {}
        self.key_to_failure_counts: dict[Hashable, int] = {}
        self.key_to_task_info: dict[Hashable, EcsTaskInfo] = {}

    def add_task(
        self,
        task: EcsExecutorTask,
        airflow_task_key: Hashable,
        queue: str,
        airflow_cmd: CommandType,
        exec_config: ExecutorConfigType,
        attempt_number: int,
    ) -> None:
        """Add a task to the collection. An existing key is moved to the new task, an existing ARN to the new key."""
        arn = task.task_arn
        if self.key_to_arn.get(airflow_task_key, arn) != arn:
            self.pop_by_key(airflow_task_key)
        if arn in self.arn_to_key and self.arn_to_key[arn] != airflow_task_key:
            self.pop_by_key(self.arn_to_key[arn])
        self.tasks[arn] = task
        self.key_to_arn[airflow_task_key] = arn
        self.arn_to_key[arn] = airflow_task_key
        self.key_to_task_info[airflow_task_key] = EcsTaskInfo(airflow_cmd, queue, exec_config)
        self.key_to_failure_counts[airflow_task_key] = attempt_number

    def update_task(self, task: EcsExecutorTask) -> None:
        """Update the state of the given task based on task ARN. KeyError for an ARN that was never added."""
        if task.task_arn not in self.tasks:
            raise KeyError(task.task_arn)
        self.tasks[task.task_arn] = task

    def task_by_key(self, task_key: Hashable) -> EcsExecutorTask:
        """Get a task by Airflow Instance Key."""
        return self.tasks[self.key_to_arn[task_key]]

    def task_by_arn(self, arn: str) -> EcsExecutorTask:
        """Get a task by AWS ARN."""
        return self.tasks[arn]

    def pop_by_key(self, task_key: Hashable) -> EcsExecutorTask:
        """Delete task from collection based off of Airflow Task Instance Key, and return it."""
        arn = self.key_to_arn.pop(task_key)
        del self.arn_to_key[arn]
        del self.key_to_task_info[task_key]
        del self.key_to_failure_counts[task_key]
        return self.tasks.pop(arn)

    def get_all_arns(self) -> list[str]:
        """Get all AWS ARNs in collection, in the order in which they were added."""
        return list(self.key_to_arn.values())

    def get_all_task_keys(self) -> list[Hashable]:
        """Get all Airflow Task Keys in collection, in the order in which they were added."""
        return list(self.key_to_arn)

    def failure_count_by_key(self, task_key: Hashable) -> int:
        """Get the number of times a task has failed given an Airflow Task Key."""
        return self.key_to_failure_counts[task_key]

    def increment_failure_count(self, task_key: Hashable) -> None:
        """Increment the failure counter given an Airflow Task Key."""
        self.key_to_failure_counts[task_key] += 1

    def info_by_key(self, task_key: Hashable) -> EcsTaskInfo:
        """Get the Airflow Command given an Airflow task key."""
        return self.key_to_task_info[task_key]

    def __getitem__(self, value: str) -> EcsExecutorTask:
        """Get a task by AWS ARN."""
        return self.task_by_arn(value)

    def __len__(self) -> int:
        """Determine the number of tasks in collection."""
        return len(self.tasks)
