"""ECS's task state change events, as EventBridge puts them into a queue."""

from __future__ import annotations

import re
from typing import Any

import msgspec

from ecs_queue.errors import UndecodableMessage
from ecs_queue.protocol.observation import parse_timestamp
from ecs_queue.protocol.task_order import compare_observations

EVENT_SOURCE = "aws.ecs"
EVENT_DETAIL_TYPE = "ECS Task State Change"

_STARTED_BY_PATTERN = re.compile(r"([A-Za-z0-9_-]{1,32})/([A-Za-z0-9_-]{1,48})/([A-Za-z0-9_-]+)/([0-9]{1,6})")


class TaskEvent(msgspec.Struct, frozen=True):
    """One event about one launch of a request.

    Attributes:
        version: ECS's own version of the task; 0 from an endpoint that gives none.
        happened_at: Seconds since the epoch by AWS's clock.
        task: As DescribeTasks shows it, but with times in ISO 8601.
    """

    record_id: str
    nonce: str
    launch: int
    arn: str
    version: int
    happened_at: float
    task: dict[str, Any]

    def __repr__(self) -> str:
        """Show no task: its overrides hold commands and environments."""
        return f"TaskEvent(id={self.record_id!r}, launch={self.launch}, version={self.version})"


class _EventBridgeMessage(msgspec.Struct):
    source: str
    detail_type: str = msgspec.field(name="detail-type")
    time: str = ""
    detail: dict[str, Any] = {}


def decode_event(body: bytes | str, namespace: str) -> TaskEvent | None:
    """Return the event in a message of the queue.

    Returns:
        None for a foreign event: of another kind, or about a task that this namespace did not start.

    Raises:
        UndecodableMessage: it is no event of EventBridge, or one about a task that cannot be read. Its text never
            quotes the message.
    """
    try:
        envelope = msgspec.json.decode(body, type=_EventBridgeMessage)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise UndecodableMessage(f"it is no event of EventBridge ({type(error).__name__})") from None
    if envelope.source != EVENT_SOURCE or envelope.detail_type != EVENT_DETAIL_TYPE:
        return None
    detail = envelope.detail
    match = _STARTED_BY_PATTERN.fullmatch(str(detail.get("startedBy") or ""))
    if match is None or match[1] != namespace:
        return None
    arn, version, status = detail.get("taskArn"), detail.get("version") or 0, detail.get("lastStatus")
    if not (isinstance(arn, str) and isinstance(version, int) and isinstance(status, str)) or version < 0:
        raise UndecodableMessage("it is a task's event without taskArn or lastStatus, or its version is no number")
    at = parse_timestamp(detail.get("updatedAt")) or parse_timestamp(envelope.time) or 0.0
    return TaskEvent(match[2], match[3], int(match[4]), arn, version, at, detail)


def newest_event_per_task(events: list[TaskEvent]) -> list[TaskEvent]:
    """Keep only each task's latest event: it contains what the others do. Of two ends, that with more exit codes."""
    found: dict[str, TaskEvent] = {}
    for event in events:
        known = found.get(event.arn)
        if known is None or _is_later(event, known):
            found[event.arn] = event
    return list(found.values())


def _is_later(event: TaskEvent, known: TaskEvent) -> bool:
    order = compare_observations(event.version, event.task["lastStatus"], known.version, known.task["lastStatus"])
    return order > 0 or (order == 0 and _count_exit_codes(event) > _count_exit_codes(known))


def _count_exit_codes(event: TaskEvent) -> int:
    containers = event.task.get("containers") or ()
    return sum(isinstance(container, dict) and container.get("exitCode") is not None for container in containers)
