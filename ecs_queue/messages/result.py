"""`TaskResult`: how one request ended, as a message has it, and how it is made of a record."""

from __future__ import annotations

from datetime import UTC, datetime
from math import isnan
from typing import Any

import msgspec

from ecs_queue.messages.fields import TaskId, Timestamp
from ecs_queue.messages.request import VERSION
from ecs_queue.protocol.record import Record
from ecs_queue.protocol.states import State

#: The times that a datetime can have. Seconds since the epoch.
_FIRST_SECOND = datetime.min.replace(tzinfo=UTC).timestamp()
_LAST_SECOND = datetime.max.replace(tzinfo=UTC, microsecond=0).timestamp()


class TaskResult(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", tag="result"):
    """How one request ended. Delivered at least once: deduplicate by (`id`, `nonce`).

    `attempts` counts the attempts that were made: 0 if nothing was launched. `exit_code` is the main container's.
    """

    v: int
    id: TaskId
    nonce: str
    state: str
    queue: str
    owner: str
    exit_code: int | None
    task_arn: str | None
    attempts: int
    reason: str
    stop_code: str | None
    queued_at: Timestamp | None
    launched_at: Timestamp | None
    started_at: Timestamp | None
    finished_at: Timestamp | None

    @property
    def succeeded(self) -> bool:
        """Return whether the container ran and ended with exit code 0."""
        return self.state == State.SUCCESS

    def to_result_line(self) -> dict[str, Any]:
        """Return the result line of the CLI: ready for JSON, with times as RFC 3339 strings."""
        built: dict[str, Any] = msgspec.to_builtins(self)
        return {name: built[name] for name in RESULT_LINE_FIELDS}


#: The members of a result line, in order.
RESULT_LINE_FIELDS = tuple(
    name for name in TaskResult.__struct_fields__ if name not in ("v", "nonce", "queue", "owner")
)


def build_result(record: Record) -> TaskResult:
    """Return the result of a terminal record."""
    return TaskResult(
        v=VERSION,
        id=record.id,
        nonce=record.nonce,
        state=str(record.state.value),
        queue=record.queue,
        owner=record.owner,
        exit_code=record.exit_code,
        task_arn=record.arn or None,
        attempts=record.attempts,
        reason=record.reason,
        stop_code=record.stop_code or None,
        queued_at=to_datetime(record.created_at),
        launched_at=to_datetime(record.launched_at),
        started_at=to_datetime(record.started_at),
        finished_at=to_datetime(record.finished_at),
    )


def to_datetime(epoch_seconds: float | None) -> datetime | None:
    """Return epoch seconds as an aware UTC datetime, to the millisecond; None and 0 mean never.

    Never raises: a time beyond the years 1 and 9999, such as one in milliseconds, becomes the nearest one within them.
    """
    if not epoch_seconds or isnan(epoch_seconds):
        return None
    return datetime.fromtimestamp(round(min(max(epoch_seconds, _FIRST_SECOND), _LAST_SECOND), 3), UTC)
