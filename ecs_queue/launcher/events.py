"""Takes ECS's events from their queue: the fast way for what polls would find later.

An event decides nothing by having arrived: it goes the way of a poll (`Judge`), and the ledger orders both by ECS's own
version. A message is deleted when the ledger has what it says; a worker that dies before leaves it to another.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from ecs_queue.core.decide import next_step
from ecs_queue.core.flow import LATE_AFTER, Fact, cluster_of, queue_source, source_of
from ecs_queue.core.protocol import Outcome, Word
from ecs_queue.core.record import Record
from ecs_queue.core.states import State
from ecs_queue.core.task_event import TaskEvent, decode_event, newest
from ecs_queue.crashpoints import reach
from ecs_queue.ecs.clients import EcsClients, Target
from ecs_queue.ecs.event_queue import BATCH, EventMessage, EventQueue, open_event_queue
from ecs_queue.errors import ConfigError, EventsUnavailable, PermanentError, RetryableError, UndecodableMessage
from ecs_queue.launcher.judge import Judge
from ecs_queue.launcher.pace import VISIBILITY, EventPace
from ecs_queue.launcher.parts import Parts
from ecs_queue.launcher.service import PeriodicService, Service

#: Threads that read one queue: while one waits for the ledger or a deletion, the other receives.
_READERS = 2
#: Rests after trouble with the queue: doubled from the first to the last. Seconds.
_REST, _LONGEST_REST = 1.0, 60.0
#: An empty receipt is not followed by another one sooner: with short time-outs it does not wait by itself. Seconds.
_LEAST_ROUND = 0.5
#: A receipt that took less than all it could is not followed by another one sooner: the next takes more at once, and a
#: task's changes that come together are one. Seconds.
_GATHER = 0.05
#: How often it is told that the queue had nothing left. Seconds.
_DRAINED_EVERY = 10.0


class EventReader:
    """One reader of one queue. One thread calls `step`."""

    def __init__(self, parts: Parts, judge: Judge, pace: EventPace, queue: EventQueue, source: str) -> None:
        """`source`: under which name the ledger knows the queue (`queue_source`)."""
        self._parts = parts
        self._judge = judge
        self._pace = pace
        self._queue = queue
        self._source = source
        self._rest = _REST
        self._drained_at = float("-inf")

    def step(self) -> float:
        """Receive, write, delete; how many seconds to rest."""
        began = self._pace.now()
        try:
            messages = self._queue.receive()
            if not messages:
                self._note_drained(began)
                self._rest = _REST
                return max(0.0, _LEAST_ROUND - (self._pace.now() - began))
            reach("events.received")
            self._take(messages)
            reach("events.deleting")
            self._queue.delete(messages)
        except EventsUnavailable as error:
            rest, self._rest = self._rest, min(_LONGEST_REST, 2 * self._rest)
            self._parts.telemetry.emit("events.trouble", reason=str(error), seconds=round(rest))
            return rest
        self._rest = _REST
        return 0.0 if len(messages) >= BATCH else max(0.0, _GATHER - (self._pace.now() - began))

    def _note_drained(self, began: float) -> None:
        """As of when the receipt began: whatever was in the queue before has been taken."""
        if began - self._drained_at >= _DRAINED_EVERY:
            self._pace.note(self._source, Fact.DRAINED, began)
            self._drained_at = began

    def _take(self, messages: Sequence[EventMessage]) -> None:
        """Bring what the messages say into the ledger; RetryableError when it cannot be reached."""
        events = newest(self._decode(messages))
        if not events:
            return
        ids = list(dict.fromkeys(event.record_id for event in events))
        records = {record.id: record for record in self._parts.ledger.get(ids) if record is not None}
        now = self._pace.now()
        known: list[TaskEvent] = []
        news: list[tuple[TaskEvent, Record, Outcome]] = []
        for event in events:
            record = records.get(event.record_id)
            if record is None or record.nonce != event.nonce:
                continue  # of a request that is forgotten, or of an earlier one with this id
            known.append(event)
            found = self._weigh(event, record, now)
            if found is not None:
                news.append((event, *found))
        answers = self._parts.ledger.outcomes([outcome for _, _, outcome in news])
        if news:
            reach("events.outcome")
        for (_, record, outcome), answer in zip(news, answers, strict=True):
            if answer.word is not Word.STALE:
                self._judge.tell(record, outcome, answer)
        written = [event for (event, _, _), answer in zip(news, answers, strict=True) if answer.word is not Word.STALE]
        self._note_times(known, written, now)

    def _decode(self, messages: Sequence[EventMessage]) -> list[TaskEvent]:
        events, foreign = [], 0
        for message in messages:
            try:
                event = decode_event(message.body, self._parts.config.namespace)
            except UndecodableMessage as error:
                self._parts.telemetry.emit("event.unusable", reason=str(error))
                continue
            if event is None:
                foreign += 1
            else:
                events.append(event)
        if foreign:
            self._parts.telemetry.emit("event.foreign", events=foreign)
        return events

    def _weigh(self, event: TaskEvent, record: Record, now: float) -> tuple[Record, Outcome] | None:
        """The record as it is by now, and news for the ledger; None: it knows better already, or it is not its task."""
        if not record.target:
            return None  # nothing was launched
        try:
            target = Target.decode(self._parts.trust.target_text(record))
            current = self._adopted(event, record, target, now)
            found = None if current is None else self._judge.told(target, current, event.task, now)
        except PermanentError:
            return None  # nobody can tell where it was launched
        except RetryableError:
            raise
        except Exception as error:  # noqa: BLE001 - one event that nobody can read must not hide the others
            self._parts.telemetry.emit("event.unusable", reason=f"{event!r}: {type(error).__name__}")
            return None
        return (current, found) if current is not None and isinstance(found, Outcome) else None

    def _adopted(self, event: TaskEvent, record: Record, target: Target, now: float) -> Record | None:
        """The record with the event's task as its own: "task X exists for launch n" is a fact, whoever brings it."""
        if record.launch != event.launch or not _is_there(target, event.arn):
            return None
        if record.state is State.LAUNCHED:
            return record if record.arn == event.arn else None
        if record.state not in (State.QUEUED, State.LAUNCHING):
            return None
        wait = self._parts.pace.first_look(record, event.arn)
        answer = self._parts.ledger.launched(record.id, record.nonce, record.launch, event.arn, wait)
        reach("events.adopted")
        step = next_step("launched", answer.word)
        self._parts.telemetry.emit(
            "decision.step", id=record.id, operation="launched", word=answer.word.value, step=step.value
        )
        if answer.word not in (Word.OK, Word.SAME):
            return None
        if answer.word is Word.OK:
            self._parts.telemetry.emit("launch.found", id=record.id, launch=record.launch, arn=event.arn)
        return msgspec.structs.replace(record, state=State.LAUNCHED, arn=event.arn, launched_at=now)

    def _note_times(self, known: Sequence[TaskEvent], written: Sequence[TaskEvent], now: float) -> None:
        """Old news is a delay; an event that comes again after long, or is told by a poll before, is none."""
        facts = {(event.arn, Fact.TIMELY) for event in known if now - event.at <= LATE_AFTER}
        facts |= {(event.arn, Fact.LATE) for event in written if now - event.at > LATE_AFTER}
        for source, fact in sorted({(source_of(arn, self._source), fact) for arn, fact in facts}):
            self._pace.note(source, fact, now)


def _is_there(target: Target, arn: str) -> bool:
    """Whether a task of this ARN can be what was launched there."""
    region, _, cluster = cluster_of(arn).split("/") if cluster_of(arn) else ("", "", "")
    return region == target.region and cluster in ("", target.cluster.rpartition("/")[2])


def event_queues(parts: Parts, queues: Sequence[str]) -> Mapping[str, Target]:
    """The events queues of the configuration, each with a target whose credentials read it."""
    config = parts.config
    names = dict.fromkeys((*queues, *(profile.queue for profile in config.profiles())))
    found: dict[str, Target] = {}
    for name in names:
        url = config.event_queue_of(name)
        if url and url not in found:
            try:
                found[url] = parts.target_for(name)
            except ConfigError:
                continue  # nothing can be launched with it either; `check` and the doctor say so
    return found


def event_services(parts: Parts, judge: Judge, clients: EcsClients, queues: Sequence[str]) -> list[Service]:
    """What reads the events; nothing where no events queue is configured."""
    pace = parts.pace
    if not isinstance(pace, EventPace):
        return []
    services: list[Service] = [PeriodicService("pace", pace.step, parts.telemetry)]
    for url, target in event_queues(parts, queues).items():
        queue = open_event_queue(clients, target, url, parts.config.read_timeout_seconds, VISIBILITY)
        for number in range(1, _READERS + 1):
            reader = EventReader(parts, judge, pace, queue, queue_source(url))
            services.append(PeriodicService(f"events-{number}", reader.step, parts.telemetry))
    return services
