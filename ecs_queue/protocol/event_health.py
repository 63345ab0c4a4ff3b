"""The health of event sources: whether ECS's events report every change of a task soon.

The rules are pure. All workers share the facts through the ledger, one `EventHealth` a source. A source is a queue, or
a cluster whose events come through that queue: all events of one cluster come, or none.
"""

from __future__ import annotations

import hashlib
from enum import StrEnum

import msgspec

from ecs_queue.protocol.observation import Observation
from ecs_queue.protocol.record import Record
from ecs_queue.protocol.task_order import compare_observations

#: Seconds after which an event is late, and after which a poll should find no change that no event reported.
LATE_AFTER = 15.0
#: Seconds for which a source is not trusted after a late or a missed event.
DISTRUST_SECONDS = 60.0
#: Seconds after the last read of the queue from which its events are not trusted: nothing reads them.
UNREAD_AFTER = 60.0


class EventFactKind(StrEnum):
    """A fact about an event source, stored with the time when it was last true."""

    TIMELY = "timely_at"
    """An event arrived soon after the change that it reports."""
    LATE = "late_at"
    """An event reported a change that was old."""
    MISSED = "missed_at"
    """A poll found a change that an event should have reported before."""
    DRAINED = "drained_at"
    """The event queue was empty (a fact about a queue, not about a cluster)."""


class EventFact(msgspec.Struct, frozen=True):
    """One fact for the ledger. `at` is seconds since the epoch by the ledger's clock."""

    source: str
    kind: EventFactKind
    at: float


class EventHealth(msgspec.Struct, frozen=True, kw_only=True):
    """When each fact was last true; 0 means never."""

    timely_at: float = 0.0
    late_at: float = 0.0
    missed_at: float = 0.0
    drained_at: float = 0.0

    def is_trusted(self, now: float, queue_drained_at: float) -> bool:
        """Return whether the source's events report every change soon, as far as is known.

        Args:
            now: The ledger's clock.
            queue_drained_at: When the queue of these events was last empty.
        """
        failed_at = max(self.late_at, self.missed_at)
        read_at = max(self.timely_at, queue_drained_at)
        return self.timely_at > failed_at and now - failed_at >= DISTRUST_SECONDS and now - read_at < UNREAD_AFTER


UNKNOWN_EVENT_HEALTH = EventHealth()


def queue_source(url: str) -> str:
    """Return the source name of an event queue: a hash, because the URL names an account."""
    return f"queue:{hashlib.sha256(url.encode()).hexdigest()[:12]}"


def cluster_source(arn: str, queue: str) -> str:
    """Return the source name of the events of a task's cluster that come through a queue (`queue_source`)."""
    return f"{cluster_of_task(arn)}@{queue}"


def queue_of_source(source: str) -> str:
    """Return the queue source through which the events of a cluster source come."""
    return source.rpartition("@")[2]


def cluster_of_task(arn: str) -> str:
    """Return the cluster of a task as region/account/name; "" if `arn` is not a task's ARN."""
    parts = arn.split(":", 5)
    kind, *names = parts[5].split("/") if len(parts) == 6 else ("",)
    if kind != "task" or not names:
        return ""
    cluster = names[0] if len(names) > 1 else ""  # ARNs of the old format name none
    return f"{parts[3]}/{parts[4]}/{cluster}"


def is_event_missed(record: Record, observation: Observation, now: float) -> bool:
    """Return whether a poll shows a start or an end that an event should have reported before.

    Other changes of a task carry no time of their own and prove nothing.
    """
    order = compare_observations(observation.version, observation.last_status, record.version, record.last_status)
    if order < 0:
        return False
    if observation.has_ended:
        return order > 0 and observation.stopped_at is not None and now - observation.stopped_at > LATE_AFTER
    return observation.started_at is not None and not record.started_at and now - observation.started_at > LATE_AFTER
