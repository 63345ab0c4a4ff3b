"""Finds the requests of a task instance: one for each try, the last one where a try had several."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from airflow.models.taskinstance import TaskInstance
from airflow.models.taskinstancehistory import TaskInstanceHistory
from airflow.utils.session import create_session
from sqlalchemy import select
from starlette.requests import Request

from ecs_queue.airflow.page.access import PageAccess
from ecs_queue.airflow.workload_conversion import validate_request_id
from ecs_queue.web.groups import Member, RequestGroup
from ecs_queue.web.rights import Rights

#: What Airflow leaves in the address for a task that is not mapped.
_NO_MAP_INDEX = "{MAP_INDEX}"
_NOT_SENT_STATES = ("", "scheduled", "queued")


@dataclass(frozen=True)
class TaskInstanceName:
    """Names a task instance; `map_index` is -1 for a task that is not mapped."""

    dag_id: str
    task_id: str
    run_id: str
    map_index: int

    def __str__(self) -> str:
        index = "" if self.map_index < 0 else f" [{self.map_index}]"
        return f"{self.dag_id} / {self.task_id}{index} / {self.run_id}"


class TaskInstances:
    """The task instances of Airflow's database, as `GroupFinder`."""

    def __init__(self, access: PageAccess) -> None:
        self._access = access

    @property
    def path(self) -> str:
        """See GroupFinder; `plugin` has the address with Airflow's placeholders."""
        return "/task-instances/{dag_id}/{task_id}/{map_index}/{run_id:path}"

    def find(self, request: Request) -> tuple[RequestGroup | None, Rights]:
        """See GroupFinder. Only the rows of the DAG in the path are read, so its rights decide."""
        name = _parse_name(request.path_params)
        rights = Rights() if name is None else self._access.find_rights(request, name.dag_id)
        if name is None or not rights.look:
            return None, Rights()
        tries = list(_read_tries(name))
        if not tries:
            return None, rights
        state = tries[-1].state
        if state in _NOT_SENT_STATES:
            note = f"Airflow has not sent this task instance to ecs-queue yet: it is {state or 'not scheduled'}."
        else:
            note = f"Airflow knows no request of this try, which is {state}: another executor ran it, or none."
        return RequestGroup("Task instance", str(name), tries, note), rights


def _parse_name(given: dict[str, Any]) -> TaskInstanceName | None:
    text = given["map_index"]
    if text == _NO_MAP_INDEX:
        text = "-1"
    if not (text == "-1" or (text.isascii() and text.isdigit() and len(text) < 10)):
        return None
    return TaskInstanceName(given["dag_id"], given["task_id"], given["run_id"], int(text))


def _read_tries(name: TaskInstanceName) -> Iterator[Member]:
    """Yield the tries, oldest first; none for a task instance that Airflow does not have."""
    with create_session() as session:
        rows = [
            row
            for model in (TaskInstanceHistory, TaskInstance)
            for row in session.execute(
                select(model.try_number, model.state, model.external_executor_id)
                .where(
                    model.dag_id == name.dag_id,
                    model.run_id == name.run_id,
                    model.task_id == name.task_id,
                    model.map_index == name.map_index,
                )
                .order_by(model.try_number)
            )
        ]
    for number, state, external_id in {row[0]: row for row in rows}.values():  # the newest row of a try is right
        label = f"Try {number}" if number else "Not tried"
        yield Member(str(number), label, str(state or ""), validate_request_id(external_id) or "")
