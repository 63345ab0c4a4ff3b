"""What Airflow's database says of tasks: whether they still wait for the requests that were made for them.

One query by primary key each. Any database error is raised as it is.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any
from uuid import UUID

from ecs_queue.airflow.tracked_workloads import TrackedWorkload


def find_unprocessed(tracked_workloads: Sequence[TrackedWorkload]) -> set[str]:
    """The ids of requests whose end the scheduler has not taken in: their task still waits for this very request."""
    from airflow.utils.state import TaskInstanceState

    # Not SCHEDULED: a task that a trigger or a sensor's next look has made ready does not wait for this request.
    waiting = {TaskInstanceState.QUEUED, TaskInstanceState.RUNNING, TaskInstanceState.RESTARTING}
    return {
        flight.request_id
        for flight, state, external_id in _query_task_instances(tracked_workloads)
        if state in waiting and (external_id == flight.request_id or flight.id_generated)
    }


def find_obsolete(tracked_workloads: Sequence[TrackedWorkload]) -> set[str]:
    """The ids of requests that no task waits for: it was cleared, marked, skipped, or queued again elsewhere.

    A task that is cleared gets a new id of its own, and the API server knows the old one no more. SCHEDULED counts as
    waiting: that is a task between two halves of a deferral, or one that is about to be queued again.
    """
    from airflow.utils.state import TaskInstanceState

    waiting = {TaskInstanceState.QUEUED, TaskInstanceState.RUNNING, TaskInstanceState.RESTARTING}
    wanted = set()
    for flight, state, external_id in _query_task_instances(tracked_workloads):
        is_its_own = external_id in (None, flight.request_id) or flight.id_generated
        if state == TaskInstanceState.SCHEDULED or (state in waiting and is_its_own):
            wanted.add(flight.request_id)
    return {flight.request_id for flight in tracked_workloads if flight.task_instance_id is not None} - wanted


def _query_task_instances(
    tracked_workloads: Sequence[TrackedWorkload],
) -> Iterator[tuple[TrackedWorkload, Any, str | None]]:
    """(flight, state, external_executor_id) of each flight whose task exists."""
    from airflow.models.taskinstance import TaskInstance
    from airflow.utils.session import create_session
    from sqlalchemy import select

    tasks: dict[UUID, list[TrackedWorkload]] = {}
    for flight in tracked_workloads:
        if flight.task_instance_id is not None:
            tasks.setdefault(UUID(flight.task_instance_id), []).append(flight)
    if not tasks:
        return
    wanted = select(TaskInstance.id, TaskInstance.state, TaskInstance.external_executor_id)
    with create_session() as session:
        rows = session.execute(wanted.where(TaskInstance.id.in_([_to_stored_id(task) for task in tasks]))).all()
    for task, state, external_id in rows:
        for flight in tasks[UUID(str(task))]:
            yield flight, state, external_id


def _to_stored_id(task: UUID) -> str | UUID:
    """Airflow 3.1 keeps the id as text, later versions as a UUID."""
    from airflow.models.taskinstance import TaskInstance

    try:
        is_uuid = TaskInstance.__table__.c.id.type.python_type is UUID
    except NotImplementedError:
        is_uuid = False
    return task if is_uuid else str(task)
