"""Whether ECS's events may be trusted to tell of every change soon, and how often to look at tasks all the same.

Pure. The facts are shared by all workers through the ledger, one `Flow` a source: a queue, or a cluster whose events
come through it, and come or do not come together.
"""

from __future__ import annotations

import hashlib
import math
import zlib
from enum import StrEnum

import msgspec

from ecs_queue.protocol.observation import Observation
from ecs_queue.protocol.record import Record

#: An event, or a poll that finds what no event has told, is late after so long. Seconds.
LATE_AFTER = 15.0
#: After a late or a missing event no event is trusted for so long. Seconds.
DISTRUST_SECONDS = 60.0
#: Without any event for so long, looks become more frequent. Seconds.
SILENT_AFTER = 900.0
#: When nobody has read the queue for so long, no event can come. Seconds.
UNREAD_AFTER = 60.0
#: Seconds between two looks at a task whose events flow, and where there was none lately.
TRUSTED_POLL_INTERVAL, SILENT_POLL_INTERVAL = 300.0, 60.0
#: A new task of which no event has told is looked at after so many seconds, and at most twice as many.
FIRST_POLL_DELAY = 15.0
#: So many tasks may be looked at in one go (ten calls); more of them are spread over the interval.
_TASKS_PER_POLL = 1000


class EventFactKind(StrEnum):
    """What is known of a source of events, each with the time when it was last so."""

    TIMELY = "timely_at"
    """An event was taken soon after what it tells of."""
    LATE = "late_at"
    """An event brought news that was old."""
    MISSED = "missed_at"
    """A poll has found what an event should have told before."""
    DRAINED = "drained_at"
    """The queue of the events had none left (of a queue, not of a cluster)."""


class EventFact(msgspec.Struct, frozen=True):
    """One fact for the ledger. `at`: seconds since the epoch, ledger's clock."""

    source: str
    kind: EventFactKind
    at: float


class EventHealth(msgspec.Struct, frozen=True, kw_only=True):
    """When each fact was last so; 0: never."""

    timely_at: float = 0.0
    late_at: float = 0.0
    missed_at: float = 0.0
    drained_at: float = 0.0

    def is_trusted(self, now: float, queue_drained_at: float) -> bool:
        """Whether events tell of every change soon, as far as anybody knows. `drained`: their queue's."""
        trouble = max(self.late_at, self.missed_at)
        read_at = max(self.timely_at, queue_drained_at)
        return self.timely_at > trouble and now - trouble >= DISTRUST_SECONDS and now - read_at < UNREAD_AFTER


UNKNOWN_EVENT_HEALTH = EventHealth()


def queue_source(url: str) -> str:
    """Under which name the ledger knows an events queue: its URL names an account."""
    return f"queue:{hashlib.sha256(url.encode()).hexdigest()[:12]}"


def cluster_source(arn: str, queue: str) -> str:
    """Under which name the ledger knows the events of a task's cluster that come through a queue (`queue_source`)."""
    return f"{cluster_of_task(arn)}@{queue}"


def queue_of_source(source: str) -> str:
    """The queue through which events of this source come."""
    return source.rpartition("@")[2]


def cluster_of_task(arn: str) -> str:
    """The cluster of a task, as region/account/name; "" for what is no task's ARN."""
    parts = arn.split(":", 5)
    kind, *names = parts[5].split("/") if len(parts) == 6 else ("",)
    if kind != "task" or not names:
        return ""
    cluster = names[0] if len(names) > 1 else ""  # ARNs of the old format name none
    return f"{parts[3]}/{parts[4]}/{cluster}"


def is_event_missed(record: Record, observation: Observation, now: float) -> bool:
    """Whether a poll shows what an event should have told the ledger long since: the start, or the end.

    Other changes of a task carry no time of their own, and prove nothing.
    """
    if observation.version <= record.version:
        return False
    if observation.has_ended:
        return observation.stopped_at is not None and now - observation.stopped_at > LATE_AFTER
    return observation.started_at is not None and not record.started_at and now - observation.started_at > LATE_AFTER


def sparse_poll_wait(record_id: str, event_health: EventHealth, in_flight: int, now: float) -> float:
    """Seconds until the next look at a task whose events are trusted.

    The looks at all tasks fall together, so that each call shows as many of them as it can.
    """
    interval = TRUSTED_POLL_INTERVAL if now - event_health.timely_at < SILENT_AFTER else SILENT_POLL_INTERVAL
    slots = max(1, math.ceil(in_flight / _TASKS_PER_POLL))
    slot = zlib.crc32(record_id.encode()) % slots
    return _seconds_until_next(interval, interval * slot / slots, now)


def trusted_poll_wait(
    record: Record, observation: Observation, event_health: EventHealth, in_flight: int, now: float
) -> float:
    """Seconds until the next look at a task whose events are trusted: rare, but when somebody must look in any case."""
    wait = sparse_poll_wait(record.id, event_health, in_flight, now)
    deadline = poll_deadline(record, observation)
    return wait if deadline is None or deadline <= now else min(wait, deadline - now)


def first_poll_wait(now: float) -> float:
    """Seconds until the first look at a new task whose events are trusted."""
    return FIRST_POLL_DELAY + _seconds_until_next(FIRST_POLL_DELAY, 0.0, now)


def poll_deadline(record: Record, observation: Observation) -> float | None:
    """When somebody must look at the task in any case: it may have to be stopped then."""
    started = observation.started_at or record.started_at
    if started:
        return started + record.time_limit if record.time_limit else None
    return record.expires_at or None


def _seconds_until_next(interval: float, phase: float, now: float) -> float:
    return interval - (now - phase) % interval
