"""ECS's task state change events, as EventBridge puts them into a queue."""

from __future__ import annotations

import re
from typing import Annotated, Any

import msgspec

from ecs_queue.error_text import error_text
from ecs_queue.errors import UndecodableMessage
from ecs_queue.payload_repr import PayloadRepr
from ecs_queue.protocol.observation import parse_timestamp
from ecs_queue.protocol.settings import MAX_STORED_NUMBER
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


class _EventBridgeMessage(PayloadRepr, msgspec.Struct):
    source: str
    detail_type: str = msgspec.field(name="detail-type")
    time: str = ""
    detail: dict[str, Any] = {}


class _Container(PayloadRepr, msgspec.Struct):
    name: str | None = None
    exit_code: Annotated[int, msgspec.Meta(ge=-(2**31), lt=2**31)] | None = msgspec.field(name="exitCode", default=None)
    reason: str | None = None


class _Task(PayloadRepr, msgspec.Struct, rename="camel"):
    """The members that decide what becomes of a record, and that it stores: of other types or sizes they break it."""

    task_arn: str
    last_status: str
    desired_status: str | None = None
    version: Annotated[int, msgspec.Meta(ge=0, lt=int(MAX_STORED_NUMBER))] | None = None
    containers: list[_Container] | None = None
    stop_code: str | None = None
    stopped_reason: str | None = None

    def __repr__(self) -> str:
        """Show no reasons: they may quote the program of a command."""
        return f"_Task(task_arn={self.task_arn!r}, last_status={self.last_status!r})"


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
    except (msgspec.DecodeError, ValueError, RecursionError) as error:  # bad UTF-8 is a ValueError
        raise UndecodableMessage(f"it is no event of EventBridge ({type(error).__name__})") from None
    if envelope.source != EVENT_SOURCE or envelope.detail_type != EVENT_DETAIL_TYPE:
        return None
    detail = envelope.detail
    match = _STARTED_BY_PATTERN.fullmatch(str(detail.get("startedBy") or ""))
    if match is None or match[1] != namespace:
        return None
    try:
        task = msgspec.convert(detail, _Task)
    except msgspec.ValidationError as error:
        raise UndecodableMessage(f"it is the event of a task that cannot be read ({error_text(error)})") from None
    at = parse_timestamp(detail.get("updatedAt")) or parse_timestamp(envelope.time) or 0.0
    return TaskEvent(match[2], match[3], int(match[4]), task.task_arn, task.version or 0, at, detail)


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
    return sum(container.get("exitCode") is not None for container in containers)
