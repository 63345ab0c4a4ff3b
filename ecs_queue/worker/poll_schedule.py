"""How soon a task is polled again: by its age, or hardly ever while ECS's events report its changes."""

from __future__ import annotations

import math
from collections.abc import Callable

from ecs_queue.config import Config
from ecs_queue.ecs.event_queue import VISIBILITY_TIMEOUT
from ecs_queue.ledger.base import Ledger
from ecs_queue.protocol import event_health
from ecs_queue.protocol.event_health import (
    UNKNOWN_EVENT_HEALTH,
    EventFact,
    EventFactKind,
    EventHealth,
    cluster_source,
    queue_of_source,
    queue_source,
)
from ecs_queue.protocol.observation import Observation
from ecs_queue.protocol.polling import FIRST_POLL_DELAY, first_poll_wait, poll_interval
from ecs_queue.protocol.record import Record
from ecs_queue.telemetry import Telemetry

#: How often what is known of the events is read from the ledger. Seconds.
_REFRESH_INTERVAL = 2.0
#: The shortest time between two notes of the same fact about one source by one worker. Seconds.
_NOTE_INTERVAL = 2.0
#: The shortest time between a poll that did not show a task and a drained event queue, for that to be proof. Seconds.
_DRAIN_MARGIN = 2.0 * VISIBILITY_TIMEOUT
#: EventBridge tries to deliver an event for a day: after that no worker waits for it any more. Seconds.
_EVENT_DELIVERY_LIMIT = 86400.0
#: The largest number of polls that are brought forward at once.
_POLL_SOON_BATCH = 5000
#: The shortest time over which polls that were put off are spread. Seconds.
_MIN_SPREAD = 10.0


class PollSchedule:
    """The schedule without events, and the interface of that with events. Thread-safe; times are the ledger's.

    `in_flight` is the number of tasks that all workers follow, as far as it is known.
    """

    def __init__(self) -> None:
        self.in_flight = 0

    def first_poll_delay(self, record: Record, arn: str) -> float:  # noqa: ARG002
        """Return the seconds until the first poll of a task that has just been launched."""
        return FIRST_POLL_DELAY

    def trusted_event_health(self, record: Record) -> EventHealth | None:  # noqa: ARG002
        """Return what is known of the events of the record's task; None unless they are trusted."""
        return None

    def note_poll(self, record: Record, observation: Observation, now: float) -> None:
        """Note what a poll has shown, since an event may have been missing."""

    def may_be_lost(self, record: Record, missing_since: float, now: float) -> bool:  # noqa: ARG002
        """Return whether no event can come any more for a task that ECS does not show."""
        return True


class EventAwareSchedule(PollSchedule):
    """The schedule where the configuration names an event queue. One thread calls `step`.

    Whether events are trusted is decided from the facts that all workers have noted in the ledger
    (protocol/event_health.py), read every two seconds. When a source is not trusted any more, the polls that were put
    off because of it are made soon.
    """

    def __init__(self, ledger: Ledger, config: Config, monotonic: Callable[[], float], telemetry: Telemetry) -> None:
        super().__init__()
        self._ledger = ledger
        self._config = config
        self._monotonic = monotonic
        self._telemetry = telemetry
        self._health_by_source: dict[str, EventHealth] = {}
        self._trusted: dict[str, bool] = {}
        self._clock_offset: float | None = None  # the ledger's clock less ours
        self._noted: dict[tuple[str, EventFactKind], float] = {}

    def step(self) -> float:
        """Read the facts from the ledger; return the seconds until the next time."""
        now = self._ledger.now()
        # The ledger's answer took a while to come: this estimate of its clock is rather behind it than ahead.
        self._clock_offset = now - self._monotonic()
        self._health_by_source = self._ledger.get_event_health()
        for source, known in self._health_by_source.items():
            if known.timely_at or known.late_at:
                self._update_trust(source, known.is_trusted(now, self._drained_at(queue_of_source(source))))
        return _REFRESH_INTERVAL

    def now(self) -> float:
        """Return the ledger's clock as far as it is known without a call: never ahead of it."""
        if self._clock_offset is None:
            self.step()
        return self._monotonic() + (self._clock_offset or 0.0)

    def first_poll_delay(self, record: Record, arn: str) -> float:
        """See `PollSchedule`."""
        if self._clock_offset is None or not self._is_trusted(record, arn):
            return FIRST_POLL_DELAY
        wait = first_poll_wait(self.now())
        return min(wait, record.start_timeout) if record.start_timeout else wait

    def trusted_event_health(self, record: Record) -> EventHealth | None:
        """See `PollSchedule`."""
        if not self._is_trusted(record, record.arn):
            return None
        return self._health_by_source.get(self._source_of(record, record.arn), UNKNOWN_EVENT_HEALTH)

    def note_poll(self, record: Record, observation: Observation, now: float) -> None:
        """See `PollSchedule`."""
        source = self._source_of(record, record.arn)
        if source and event_health.is_event_missed(record, observation, now):
            self.note_fact(source, EventFactKind.MISSED, now)

    def may_be_lost(self, record: Record, missing_since: float, now: float) -> bool:
        """See `PollSchedule`."""
        url = self._config.event_queue_url_for(record.queue)
        if not url or now - missing_since >= _EVENT_DELIVERY_LIMIT:
            return True
        return self._drained_at(queue_source(url)) >= missing_since + _DRAIN_MARGIN

    def note_fact(self, source: str, fact: EventFactKind, at: float) -> None:
        """Write a fact to the ledger, unless this worker has just written the same one."""
        now = self._monotonic()
        if now - self._noted.get((source, fact), -_NOTE_INTERVAL) < _NOTE_INTERVAL:
            return
        self._ledger.record_event_facts([EventFact(source, fact, at)])
        self._noted[source, fact] = now

    def _drained_at(self, source: str) -> float:
        return self._health_by_source.get(source, UNKNOWN_EVENT_HEALTH).drained_at

    def _source_of(self, record: Record, arn: str) -> str:
        """Return the source of the events of the record's task; "" when there is none."""
        url = self._config.event_queue_url_for(record.queue)
        return cluster_source(arn, queue_source(url)) if url else ""

    def _is_trusted(self, record: Record, arn: str) -> bool:
        return self._trusted.get(self._source_of(record, arn), False)

    def _update_trust(self, source: str, is_trusted: bool) -> None:
        if is_trusted is self._trusted.get(source):
            return
        if is_trusted:
            self._telemetry.emit("ecs_events.trusted", source=source)
        else:
            self._telemetry.emit("ecs_events.distrusted", source=source)
            spread = max(_MIN_SPREAD, poll_interval(math.inf, self.in_flight, self._config.describe_tasks_rate))
            while self._ledger.poll_soon(spread, _POLL_SOON_BATCH) == _POLL_SOON_BATCH:
                pass
        self._trusted[source] = is_trusted


def build_poll_schedule(
    ledger: Ledger, config: Config, monotonic: Callable[[], float], telemetry: Telemetry
) -> PollSchedule:
    """Return the schedule for the configuration: with events where it names an event queue."""
    return EventAwareSchedule(ledger, config, monotonic, telemetry) if config.uses_events() else PollSchedule()
