"""How soon a task is looked at again: by its age, or hardly ever while ECS's events tell of it."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Protocol

from ecs_queue.config import Config
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

#: How often the ledger is asked what is known of the events. Seconds.
_REFRESH_INTERVAL = 2.0
#: The same fact about one source is written at most so often by one worker. Seconds.
_NOTE_INTERVAL = 2.0
#: For so long after its receipt a message is hidden from other readers. Seconds.
VISIBILITY_TIMEOUT = 30
#: What lies between a look that did not show a task, and the events queue's being empty, for it to be proof. Seconds.
_DRAIN_MARGIN = 2.0 * VISIBILITY_TIMEOUT
#: EventBridge tries to deliver an event for a day: after that nobody waits for one any more. Seconds.
_EVENT_DELIVERY_LIMIT = 86400.0
#: No worker sees more tasks hastened at once.
_POLL_SOON_BATCH = 5000
#: Until the looks are all made that were put off, at the soonest. Seconds.
_MIN_SPREAD = 10.0


class PollSchedule(Protocol):
    """Thread-safe. Times are the ledger's; `in_flight`: how many tasks all workers follow, as far as it is known."""

    in_flight: int

    def first_poll_delay(self, record: Record, arn: str) -> float:
        """Seconds until the first look at a task that has just been launched."""
        ...

    def trusted_event_health(self, record: Record) -> EventHealth | None:
        """What is known of the events of the record's task, while they are trusted."""
        ...

    def note_poll(self, record: Record, observation: Observation, now: float) -> None:
        """What a poll has shown; an event may have been missing."""
        ...

    def may_be_lost(self, record: Record, missing_since: float, now: float) -> bool:
        """Whether no event can tell any more of a task that ECS does not show."""
        ...


class PollOnlySchedule:
    """Without events."""

    def __init__(self) -> None:
        self.in_flight = 0

    def first_poll_delay(self, record: Record, arn: str) -> float:  # noqa: ARG002
        """See `Pace`."""
        return FIRST_POLL_DELAY

    def trusted_event_health(self, record: Record) -> EventHealth | None:  # noqa: ARG002
        """See `Pace`."""
        return None

    def note_poll(self, record: Record, observation: Observation, now: float) -> None:
        """See `Pace`."""

    def may_be_lost(self, record: Record, missing_since: float, now: float) -> bool:  # noqa: ARG002
        """See `Pace`."""
        return True


class EventAwareSchedule(PollOnlySchedule):
    """With events, where the configuration names a queue for them. One thread calls `step`.

    Whether events are trusted is decided from what all workers have noted in the ledger (protocol/event_health.py),
    read every two seconds. When a source is not trusted any more, the polls put off because of it are made soon.
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
        """Ask the ledger; how many seconds to rest."""
        now = self._ledger.now()
        # The answer was on its way for a while: our idea of the ledger's clock is rather behind it than ahead.
        self._clock_offset = now - self._monotonic()
        self._health_by_source = self._ledger.get_event_health()
        for source, known in self._health_by_source.items():
            if known.timely_at or known.late_at:
                drained = self._health_by_source.get(queue_of_source(source), UNKNOWN_EVENT_HEALTH).drained_at
                self._update_trust(source, known.is_trusted(now, drained))
        return _REFRESH_INTERVAL

    def now(self) -> float:
        """The ledger's clock, as far as it is known without asking: never ahead of it."""
        if self._clock_offset is None:
            self.step()
        return self._monotonic() + (self._clock_offset or 0.0)

    def first_poll_delay(self, record: Record, arn: str) -> float:
        """See `Pace`."""
        if self._clock_offset is None or not self._is_trusted(record, arn):
            return FIRST_POLL_DELAY
        return first_poll_wait(self.now())

    def trusted_event_health(self, record: Record) -> EventHealth | None:
        """See `Pace`."""
        if not self._is_trusted(record, record.arn):
            return None
        return self._health_by_source.get(self._source_of(record, record.arn), UNKNOWN_EVENT_HEALTH)

    def note_poll(self, record: Record, observation: Observation, now: float) -> None:
        """See `Pace`."""
        source = self._source_of(record, record.arn)
        if source and event_health.is_event_missed(record, observation, now):
            self.note_fact(source, EventFactKind.MISSED, now)

    def may_be_lost(self, record: Record, missing_since: float, now: float) -> bool:
        """See `Pace`."""
        url = self._config.event_queue_url_for(record.queue)
        if not url or now - missing_since >= _EVENT_DELIVERY_LIMIT:
            return True
        return (
            self._health_by_source.get(queue_source(url), UNKNOWN_EVENT_HEALTH).drained_at
            >= missing_since + _DRAIN_MARGIN
        )

    def note_fact(self, source: str, fact: EventFactKind, at: float) -> None:
        """Tell the ledger; the same fact not again for a while."""
        now = self._monotonic()
        if now - self._noted.get((source, fact), -_NOTE_INTERVAL) < _NOTE_INTERVAL:
            return
        self._ledger.record_event_facts([EventFact(source, fact, at)])
        self._noted[source, fact] = now

    def _source_of(self, record: Record, arn: str) -> str:
        """Where events of the record's task come from; "": from nowhere."""
        url = self._config.event_queue_url_for(record.queue)
        return cluster_source(arn, queue_source(url)) if url else ""

    def _is_trusted(self, record: Record, arn: str) -> bool:
        return self._trusted.get(self._source_of(record, arn), False)

    def _update_trust(self, source: str, is_trusted: bool) -> None:
        was = self._trusted.get(source)
        if is_trusted is was:
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
    """As the configuration wants it."""
    if config.uses_events():
        return EventAwareSchedule(ledger, config, monotonic, telemetry)
    return PollOnlySchedule()
