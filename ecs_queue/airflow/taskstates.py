"""What Airflow's database says of tasks whose end was reported."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from ecs_queue.airflow.flights import Flight


def unsettled(flights: Sequence[Flight]) -> set[str]:
    """The ids of requests whose end the scheduler has not taken in: their task still waits for this very request.

    One query by primary key. Any database error is raised as it is.
    """
    from airflow.models.taskinstance import TaskInstance
    from airflow.utils.session import create_session
    from airflow.utils.state import TaskInstanceState
    from sqlalchemy import select

    tasks = {UUID(flight.task): flight for flight in flights if flight.task is not None}
    # Not SCHEDULED: a task that a trigger or a sensor's next look has made ready does not wait for this request.
    waiting = {TaskInstanceState.QUEUED, TaskInstanceState.RUNNING, TaskInstanceState.RESTARTING}
    wanted = select(TaskInstance.id, TaskInstance.state, TaskInstance.external_executor_id)
    with create_session() as session:
        rows = session.execute(wanted.where(TaskInstance.id.in_([_as_stored(task) for task in tasks]))).all()
    found = set()
    for task, state, external_id in rows:
        flight = tasks[UUID(str(task))]
        if state in waiting and (external_id == flight.id or flight.minted):
            found.add(flight.id)
    return found


def _as_stored(task: UUID) -> str | UUID:
    """Airflow 3.1 keeps the id as text, later versions as a UUID."""
    from airflow.models.taskinstance import TaskInstance

    try:
        is_uuid = TaskInstance.__table__.c.id.type.python_type is UUID
    except NotImplementedError:
        is_uuid = False
    return task if is_uuid else str(task)
