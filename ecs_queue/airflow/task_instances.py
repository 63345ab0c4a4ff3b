"""Asks Airflow's database whether tasks still wait for their requests.

Each function makes one query by primary key, `query_standings` at most one more, and raises any database error
unchanged.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator, Sequence
from typing import Any
from uuid import UUID

from ecs_queue.airflow.tracked_workloads import TrackedWorkload

#: The states of a task that waits for its request. Not SCHEDULED: a trigger or a sensor's next poke has made such a
#: task ready, and it no longer waits for its old request.
_WAITING_STATES = ("queued", "running", "restarting")


_ENDED_STATES = ("success", "failed", "skipped", "upstream_failed", "removed")


class TaskStanding(enum.Enum):
    """What a request's result means to its task.

    Attributes:
        NOT_STARTED: The task waits for the result, and nothing in its container has reported that it runs.
        RUNNING: The task waits for the result.
        ENDED: The task's own process has reported its end.
        MOVED_ON: The task was cleared, rescheduled, deferred or retried, or waits for another request.
    """

    NOT_STARTED = "not_started"
    RUNNING = "running"
    ENDED = "ended"
    MOVED_ON = "moved_on"

    @property
    def is_waiting(self) -> bool:
        """Whether the task waits for the result."""
        return self in (TaskStanding.NOT_STARTED, TaskStanding.RUNNING)


def query_standings(tracked_workloads: Sequence[TrackedWorkload]) -> dict[str, TaskStanding]:
    """Return by request id what the result means to the task of each workload that has one."""
    standings = {one.request_id: TaskStanding.MOVED_ON for one in tracked_workloads if one.task_instance_id}
    for tracked, state, external_id in _query_task_instances(tracked_workloads):
        if external_id == tracked.request_id or tracked.id_generated:
            standings[tracked.request_id] = classify_state(state)
    moved_on = [request_id for request_id, standing in standings.items() if standing is TaskStanding.MOVED_ON]
    return standings | dict.fromkeys(_find_restarting(moved_on), TaskStanding.RUNNING)


def classify_state(state: str | None) -> TaskStanding:
    """Return the standing of a task instance in a state of Airflow."""
    if state == "queued":
        return TaskStanding.NOT_STARTED
    if state in _WAITING_STATES:
        return TaskStanding.RUNNING
    return TaskStanding.ENDED if state in _ENDED_STATES else TaskStanding.MOVED_ON


def find_obsolete(tracked_workloads: Sequence[TrackedWorkload]) -> set[str]:
    """Return the ids of the requests that no task waits for: it was cleared, marked, skipped, or queued elsewhere.

    A cleared task gets a new id, so that the database has no task with the old one. A SCHEDULED task keeps its request:
    it is between the two halves of a deferral, or about to be queued again.
    """
    needed = {
        tracked.request_id
        for tracked, state, external_id in _query_task_instances(tracked_workloads)
        if state == "scheduled"
        or (state in _WAITING_STATES and (external_id in (None, tracked.request_id) or tracked.id_generated))
    }
    return {tracked.request_id for tracked in tracked_workloads if tracked.task_instance_id is not None} - needed


def find_other_ids(tracked_workloads: Sequence[TrackedWorkload]) -> dict[str, str | None]:
    """Return what the database has in place of the request id, by request id, for each task where it differs."""
    rows = _query_task_instances(tracked_workloads)
    return {one.request_id: external_id for one, _, external_id in rows if external_id != one.request_id}


def _query_task_instances(
    tracked_workloads: Sequence[TrackedWorkload],
) -> Iterator[tuple[TrackedWorkload, Any, str | None]]:
    """(workload, state, external_executor_id) of each workload whose task exists."""
    from airflow.models.taskinstance import TaskInstance
    from airflow.utils.session import create_session
    from sqlalchemy import select

    tasks: dict[UUID, list[TrackedWorkload]] = {}
    for tracked in tracked_workloads:
        if tracked.task_instance_id is not None:
            tasks.setdefault(UUID(tracked.task_instance_id), []).append(tracked)
    if not tasks:
        return
    columns = select(TaskInstance.id, TaskInstance.state, TaskInstance.external_executor_id)
    with create_session() as session:
        rows = session.execute(columns.where(TaskInstance.id.in_([_to_stored_id(task) for task in tasks]))).all()
    for task, state, external_id in rows:
        for tracked in tasks[UUID(str(task))]:
            yield tracked, state, external_id


def _find_restarting(request_ids: Sequence[str]) -> Sequence[str]:
    """Return those of the requests whose tasks were cleared while they ran.

    Such a task has a new id at once, and waits in RESTARTING for the result of the request that is being stopped.
    """
    from airflow.models.taskinstance import TaskInstance
    from airflow.utils.session import create_session
    from sqlalchemy import select

    if not request_ids:
        return []
    column = TaskInstance.external_executor_id
    query = select(column).where(TaskInstance.state == "restarting", column.in_(request_ids))
    with create_session() as session:
        return [str(found) for found in session.scalars(query)]


def _to_stored_id(task: UUID) -> str | UUID:
    """Airflow 3.1 stores the id as text, later versions as a UUID."""
    from airflow.models.taskinstance import TaskInstance

    try:
        is_uuid = TaskInstance.__table__.c.id.type.python_type is UUID
    except NotImplementedError:
        is_uuid = False
    return task if is_uuid else str(task)
