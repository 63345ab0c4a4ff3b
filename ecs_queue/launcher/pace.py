"""How soon a task is looked at again: by its age, or hardly ever while ECS's events tell of it."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Protocol

from ecs_queue.config import Config
from ecs_queue.core import flow
from ecs_queue.core.flow import NO_FLOW, Fact, Flow, Note, queue_of, queue_source, source_of
from ecs_queue.core.record import Record
from ecs_queue.core.verdict import Observation, poll_interval
from ecs_queue.ledger.base import Ledger
from ecs_queue.telemetry import Telemetry

#: Seconds until the first look at a new task without events.
FIRST_LOOK = 1.0
#: How often the ledger is asked what is known of the events. Seconds.
_EVERY = 2.0
#: The same fact about one source is written at most so often by one worker. Seconds.
_NOTE_EVERY = 2.0
#: For so long after its receipt a message is hidden from other readers. Seconds.
VISIBILITY = 30
#: What lies between a look that did not show a task, and the events queue's being empty, for it to be proof. Seconds.
_DRAIN_SLACK = 2.0 * VISIBILITY
#: EventBridge tries to deliver an event for a day: after that nobody waits for one any more. Seconds.
_GIVEN_UP = 86400.0
#: No worker sees more tasks hastened at once.
_HASTENED_AT_ONCE = 5000
#: Until the looks are all made that were put off, at the soonest. Seconds.
_LEAST_SPREAD = 10.0


class Pace(Protocol):
    """Thread-safe. Times are the ledger's; `in_flight`: how many tasks all workers follow, as far as it is known."""

    in_flight: int

    def first_look(self, record: Record, arn: str) -> float:
        """Seconds until the first look at a task that has just been launched."""
        ...

    def trusted_flow(self, record: Record) -> Flow | None:
        """What is known of the events of the record's task, while they are trusted."""
        ...

    def polled(self, record: Record, seen: Observation, now: float) -> None:
        """What a poll has shown; an event may have been missing."""
        ...

    def may_be_lost(self, record: Record, missing_since: float, now: float) -> bool:
        """Whether no event can tell any more of a task that ECS does not show."""
        ...


class PollPace:
    """Without events."""

    def __init__(self) -> None:
        self.in_flight = 0

    def first_look(self, record: Record, arn: str) -> float:  # noqa: ARG002
        """See `Pace`."""
        return FIRST_LOOK

    def trusted_flow(self, record: Record) -> Flow | None:  # noqa: ARG002
        """See `Pace`."""
        return None

    def polled(self, record: Record, seen: Observation, now: float) -> None:
        """See `Pace`."""

    def may_be_lost(self, record: Record, missing_since: float, now: float) -> bool:  # noqa: ARG002
        """See `Pace`."""
        return True


class EventPace(PollPace):
    """With events, where the configuration names a queue for them. One thread calls `step`.

    Whether events are trusted is decided from what all workers have noted in the ledger (core/flow.py), read every
    two seconds. When a source is not trusted any more, the looks that were put off because of it are made soon.
    """

    def __init__(self, ledger: Ledger, config: Config, monotonic: Callable[[], float], telemetry: Telemetry) -> None:
        super().__init__()
        self._ledger = ledger
        self._config = config
        self._monotonic = monotonic
        self._telemetry = telemetry
        self._flows: dict[str, Flow] = {}
        self._trusted: dict[str, bool] = {}
        self._ahead: float | None = None  # the ledger's clock less ours
        self._noted: dict[tuple[str, Fact], float] = {}

    def step(self) -> float:
        """Ask the ledger; how many seconds to rest."""
        now = self._ledger.now()
        # The answer was on its way for a while: our idea of the ledger's clock is rather behind it than ahead.
        self._ahead = now - self._monotonic()
        self._flows = self._ledger.event_flows()
        for source, known in self._flows.items():
            if known.timely or known.late:
                drained = self._flows.get(queue_of(source), NO_FLOW).drained
                self._weigh(source, known.is_trusted(now, drained))
        return _EVERY

    def now(self) -> float:
        """The ledger's clock, as far as it is known without asking: never ahead of it."""
        if self._ahead is None:
            self.step()
        return self._monotonic() + (self._ahead or 0.0)

    def first_look(self, record: Record, arn: str) -> float:
        """See `Pace`."""
        if self._ahead is None or not self._is_trusted(record, arn):
            return FIRST_LOOK
        return flow.first_look(self.now())

    def trusted_flow(self, record: Record) -> Flow | None:
        """See `Pace`."""
        if not self._is_trusted(record, record.arn):
            return None
        return self._flows.get(self._source(record, record.arn), NO_FLOW)

    def polled(self, record: Record, seen: Observation, now: float) -> None:
        """See `Pace`."""
        source = self._source(record, record.arn)
        if source and flow.is_missed(record, seen, now):
            self.note(source, Fact.MISSED, now)

    def may_be_lost(self, record: Record, missing_since: float, now: float) -> bool:
        """See `Pace`."""
        url = self._config.event_queue_of(record.queue)
        if not url or now - missing_since >= _GIVEN_UP:
            return True
        return self._flows.get(queue_source(url), NO_FLOW).drained >= missing_since + _DRAIN_SLACK

    def note(self, source: str, fact: Fact, at: float) -> None:
        """Tell the ledger; the same fact not again for a while."""
        now = self._monotonic()
        if now - self._noted.get((source, fact), -_NOTE_EVERY) < _NOTE_EVERY:
            return
        self._ledger.note_events([Note(source, fact, at)])
        self._noted[source, fact] = now

    def _source(self, record: Record, arn: str) -> str:
        """Where events of the record's task come from; "": from nowhere."""
        url = self._config.event_queue_of(record.queue)
        return source_of(arn, queue_source(url)) if url else ""

    def _is_trusted(self, record: Record, arn: str) -> bool:
        return self._trusted.get(self._source(record, arn), False)

    def _weigh(self, source: str, is_trusted: bool) -> None:
        was = self._trusted.get(source)
        if is_trusted is was:
            return
        if is_trusted:
            self._telemetry.emit("events.trusted", source=source)
        else:
            self._telemetry.emit("events.doubted", source=source)
            spread = max(_LEAST_SPREAD, poll_interval(math.inf, self.in_flight, self._config.describe_tasks_rate))
            while self._ledger.hasten(spread, _HASTENED_AT_ONCE) == _HASTENED_AT_ONCE:
                pass
        self._trusted[source] = is_trusted


def make_pace(ledger: Ledger, config: Config, monotonic: Callable[[], float], telemetry: Telemetry) -> Pace:
    """As the configuration wants it."""
    if config.has_events():
        return EventPace(ledger, config, monotonic, telemetry)
    return PollPace()
