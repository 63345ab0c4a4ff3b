"""Resubmits a request: a new request with another id and the requested changes, which names its origin."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import msgspec

from ecs_queue.messages.fields import MAX_ID_LENGTH
from ecs_queue.messages.request import POLICY_FIELDS, TaskRequest
from ecs_queue.runtask.executor_config import normalize_executor_config
from ecs_queue.runtask.merge import merge_run_task

_FIELDS = ("priority", "expires_in", "time_limit", "relaunch")
#: The members of a request that may be changed, beside its queue and its executor_config.
CHANGEABLE_FIELDS = (*_FIELDS, *POLICY_FIELDS, "concurrency_key")
_RESUBMIT_SUFFIX = re.compile(r"-r-[0-9a-f]{8}$")


class ResubmitChanges(msgspec.Struct, frozen=True, kw_only=True):
    """What is to change in the new request.

    Attributes:
        queue: Another queue; "" keeps the queue.
        fields: Members of the request (`CHANGEABLE_FIELDS`).
        overrides: Flat keys of the main container's override, as in an executor_config.
        environment: Variables of the main container.
    """

    queue: str = ""
    fields: Mapping[str, Any] = {}
    overrides: Mapping[str, Any] = {}
    environment: Mapping[str, str] = {}

    def __repr__(self) -> str:
        """Return the names without the values: environments hold secrets."""
        names = sorted({*self.fields, *self.overrides, *self.environment})
        return f"ResubmitChanges(queue={self.queue!r}, names={names})"


def build_resubmit_id(origin_id: str, suffix: str) -> str:
    """Return an id that begins with the first origin's, however often it was resubmitted; `suffix` has 8 hex digits."""
    stem = _RESUBMIT_SUFFIX.sub("", origin_id)
    ending = f"-r-{suffix}"
    return stem[: MAX_ID_LENGTH - len(ending)] + ending


def build_resubmit_line(
    request: TaskRequest, new_id: str, changes: ResubmitChanges, container_name: str | None
) -> dict[str, Any]:
    """Return the task line of the new request; its `expires_in` counts from now again.

    Args:
        request: The request to resubmit.
        new_id: The id of the new request.
        changes: What is to change.
        container_name: The main container of the new request's queue.

    Raises:
        InvalidRequest: A change that run_task does not know.
    """
    return {
        "id": new_id,
        "command": list(request.command),
        "queue": changes.queue or request.queue,
        "executor_config": _build_executor_config(request, changes, container_name),
        **repeated_fields(request),
        **changes.fields,
    }


def repeated_fields(request: TaskRequest) -> dict[str, Any]:
    """Return what a repeated request has of the first one beside its command, queue and executor_config."""
    fields = {name: getattr(request, name) for name in _FIELDS} | request.given_policies()
    if request.labels:
        fields["labels"] = request.labels
    if request.concurrency_key:
        fields["concurrency_key"] = request.concurrency_key
    return fields


def _build_executor_config(
    request: TaskRequest, changes: ResubmitChanges, container_name: str | None
) -> dict[str, Any] | None:
    """Without changes the given spelling stays; a merge needs both in run_task's own form."""
    flat = dict(changes.overrides)
    if changes.environment:
        variables = [{"name": name, "value": value} for name, value in changes.environment.items()]
        flat["environment"] = [*flat.get("environment", ()), *variables]
    if not flat:
        return request.executor_config
    config = normalize_executor_config(request.executor_config, container_name)
    return merge_run_task(config, normalize_executor_config(flat, container_name))
