"""The same request again: a new one, with another id and what is to be changed, that names its origin."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import msgspec

from ecs_queue.messages.envelope import TaskRequest
from ecs_queue.runtask.executor_config import normalize_executor_config
from ecs_queue.runtask.merge import merge_run_task

#: Members of a request that may be changed, beside the queue and what stands in its executor_config.
CHANGEABLE_FIELDS = ("priority", "expires_in", "time_limit", "relaunch")
_RESUBMIT_SUFFIX = re.compile(r"-r-[0-9a-f]{8}$")
_MAX_ID_LENGTH = 48


class ResubmitChanges(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be otherwise. `members`: of the request (`MEMBERS`); `overrides`: flat keys of the main container's
    override, as in an executor_config; `environment`: variables of the main container."""

    queue: str = ""
    fields: Mapping[str, Any] = {}
    overrides: Mapping[str, Any] = {}
    environment: Mapping[str, str] = {}

    def __repr__(self) -> str:
        """Without the values: environments hold secrets."""
        names = sorted({*self.fields, *self.overrides, *self.environment})
        return f"Changes(queue={self.queue!r}, names={names})"


def build_resubmit_id(origin_id: str, suffix: str) -> str:
    """An id that begins with the origin's, however often it was repeated. `suffix`: 8 hexadecimal digits."""
    stem = _RESUBMIT_SUFFIX.sub("", origin_id)
    ending = f"-r-{suffix}"
    return stem[: _MAX_ID_LENGTH - len(ending)] + ending


def build_resubmit_line(
    request: TaskRequest, new_id: str, changes: ResubmitChanges, container_name: str | None
) -> dict[str, Any]:
    """The task line of the new request. `container_name`: the main container of the queue it goes to.

    `expires_in` counts from now again. InvalidRequest: a change that run_task does not know.
    """
    return {
        "id": new_id,
        "command": list(request.command),
        "queue": changes.queue or request.queue,
        "executor_config": _build_executor_config(request, changes, container_name),
        **{name: getattr(request, name) for name in CHANGEABLE_FIELDS},
        **changes.fields,
    }


def _build_executor_config(
    request: TaskRequest, changes: ResubmitChanges, container_name: str | None
) -> dict[str, Any] | None:
    """Unchanged it stays as it was spelled; a change needs both in run_task's own form."""
    flat = dict(changes.overrides)
    if changes.environment:
        given = [{"name": name, "value": value} for name, value in changes.environment.items()]
        flat["environment"] = [*flat.get("environment", ()), *given]
    if not flat:
        return request.executor_config
    asked = normalize_executor_config(request.executor_config, container_name)
    return merge_run_task(asked, normalize_executor_config(flat, container_name))
