"""Takes ECS's events from their queue: the fast way for what polls would find later.

An event decides nothing by having arrived: it goes the way of a poll (`Judge`), and the ledger orders both by ECS's own
version. A message is deleted when the ledger has what it says; a worker that dies before leaves it to another.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from ecs_queue.crash_points import crash_point
from ecs_queue.ecs.clients import EcsClients, Target
from ecs_queue.ecs.event_queue import MAX_BATCH_SIZE, EventMessage, EventQueue, open_event_queue
from ecs_queue.ecs.task_events import TaskEvent, decode_event, newest_event_per_task
from ecs_queue.errors import ConfigError, EventQueueUnavailable, PermanentError, RetryableError, UndecodableMessage
from ecs_queue.protocol.decisions import next_action
from ecs_queue.protocol.event_health import LATE_AFTER, EventFactKind, cluster_of_task, cluster_source, queue_source
from ecs_queue.protocol.operations import ResultCode, TaskUpdate
from ecs_queue.protocol.record import Record
from ecs_queue.protocol.states import State
from ecs_queue.worker.context import WorkerContext
from ecs_queue.worker.poll_schedule import VISIBILITY_TIMEOUT, EventAwareSchedule
from ecs_queue.worker.reconciler import Reconciler
from ecs_queue.worker.service import PeriodicService, Service

#: Threads that read one queue: while one waits for the ledger or a deletion, the other receives.
_LISTENERS_PER_QUEUE = 2
#: Rests after trouble with the queue: doubled from the first to the last. Seconds.
_MIN_RETRY_DELAY, _MAX_RETRY_DELAY = 1.0, 60.0
#: An empty receipt is not followed by another one sooner: with short time-outs it does not wait by itself. Seconds.
_MIN_RECEIVE_INTERVAL = 0.5
#: A receipt that took less than all it could is not followed by another one sooner: the next takes more at once, and a
#: task's changes that come together are one. Seconds.
_PARTIAL_BATCH_INTERVAL = 0.05
#: How often it is told that the queue had nothing left. Seconds.
_DRAINED_NOTE_INTERVAL = 10.0


class EventListener:
    """One reader of one queue. One thread calls `step`."""

    def __init__(
        self,
        context: WorkerContext,
        reconciler: Reconciler,
        poll_schedule: EventAwareSchedule,
        queue: EventQueue,
        source: str,
    ) -> None:
        """`source`: under which name the ledger knows the queue (`queue_source`)."""
        self._context = context
        self._reconciler = reconciler
        self._poll_schedule = poll_schedule
        self._queue = queue
        self._source = source
        self._retry_delay = _MIN_RETRY_DELAY
        self._drained_at = float("-inf")

    def step(self) -> float:
        """Receive, write, delete; how many seconds to rest."""
        began = self._poll_schedule.now()
        try:
            messages = self._queue.receive()
            if not messages:
                self._note_drained(began)
                self._retry_delay = _MIN_RETRY_DELAY
                return max(0.0, _MIN_RECEIVE_INTERVAL - (self._poll_schedule.now() - began))
            crash_point("event_listener.received")
            self._process(messages)
            crash_point("event_listener.deleting")
            self._queue.delete(messages)
        except EventQueueUnavailable as error:
            rest, self._retry_delay = self._retry_delay, min(_MAX_RETRY_DELAY, 2 * self._retry_delay)
            self._context.telemetry.emit("ecs_events.receive_failed", reason=str(error), seconds=round(rest))
            return rest
        self._retry_delay = _MIN_RETRY_DELAY
        return (
            0.0
            if len(messages) >= MAX_BATCH_SIZE
            else max(0.0, _PARTIAL_BATCH_INTERVAL - (self._poll_schedule.now() - began))
        )

    def _note_drained(self, began: float) -> None:
        """As of when the receipt began: whatever was in the queue before has been taken."""
        if began - self._drained_at >= _DRAINED_NOTE_INTERVAL:
            self._poll_schedule.note_fact(self._source, EventFactKind.DRAINED, began)
            self._drained_at = began

    def _process(self, messages: Sequence[EventMessage]) -> None:
        """Bring what the messages say into the ledger; RetryableError when it cannot be reached."""
        events = newest_event_per_task(self._decode(messages))
        if not events:
            return
        ids = list(dict.fromkeys(event.record_id for event in events))
        records = {record.id: record for record in self._context.ledger.get(ids) if record is not None}
        now = self._poll_schedule.now()
        known: list[TaskEvent] = []
        news: list[tuple[TaskEvent, Record, TaskUpdate]] = []
        for event in events:
            record = records.get(event.record_id)
            if record is None or record.nonce != event.nonce:
                continue  # of a request that is forgotten, or of an earlier one with this id
            known.append(event)
            found = self._evaluate(event, record, now)
            if found is not None:
                news.append((event, *found))
        answers = self._context.ledger.update_tasks([outcome for _, _, outcome in news])
        if news:
            crash_point("event_listener.outcomes_written")
        for (_, record, outcome), answer in zip(news, answers, strict=True):
            if answer.code is not ResultCode.STALE:
                self._reconciler.handle_outcome_result(record, outcome, answer)
        written = [
            event for (event, _, _), answer in zip(news, answers, strict=True) if answer.code is not ResultCode.STALE
        ]
        self._note_timeliness(known, written, now)

    def _decode(self, messages: Sequence[EventMessage]) -> list[TaskEvent]:
        events, foreign = [], 0
        for message in messages:
            try:
                event = decode_event(message.body, self._context.config.namespace)
            except UndecodableMessage as error:
                self._context.telemetry.emit("ecs_events.skipped", reason=str(error))
                continue
            if event is None:
                foreign += 1
            else:
                events.append(event)
        if foreign:
            self._context.telemetry.emit("ecs_events.foreign", events=foreign)
        return events

    def _evaluate(self, event: TaskEvent, record: Record, now: float) -> tuple[Record, TaskUpdate] | None:
        """The record as it is by now, and news for the ledger; None: it knows better already, or it is not its task."""
        if not record.target:
            return None  # nothing was launched
        try:
            target = Target.decode(self._context.verifier.encoded_target(record))
            current = self._record_launched(event, record, target, now)
            found = None if current is None else self._reconciler.reconcile_event(target, current, event.task, now)
        except PermanentError:
            return None  # nobody can tell where it was launched
        except RetryableError:
            raise
        except Exception as error:  # noqa: BLE001 - one event that nobody can read must not hide the others
            self._context.telemetry.emit("ecs_events.skipped", reason=f"{event!r}: {type(error).__name__}")
            return None
        return (current, found) if current is not None and isinstance(found, TaskUpdate) else None

    def _record_launched(self, event: TaskEvent, record: Record, target: Target, now: float) -> Record | None:
        """The record with the event's task as its own: "task X exists for launch n" is a fact, whoever brings it."""
        if record.launch != event.launch or not _may_run_on(target, event.arn):
            return None
        if record.state is State.LAUNCHED:
            return record if record.arn == event.arn else None
        if record.state not in (State.QUEUED, State.LAUNCHING):
            return None
        wait = self._context.poll_schedule.first_poll_delay(record, event.arn)
        answer = self._context.ledger.launched(record.id, record.nonce, record.launch, event.arn, wait)
        crash_point("event_listener.launched")
        step = next_action("launched", answer.code)
        self._context.telemetry.emit(
            "decision.next_action", id=record.id, operation="launched", code=answer.code.value, next_action=step.value
        )
        if answer.code not in (ResultCode.OK, ResultCode.UNCHANGED):
            return None
        if answer.code is ResultCode.OK:
            self._context.telemetry.emit("launch.task_found", id=record.id, launch=record.launch, arn=event.arn)
        return msgspec.structs.replace(record, state=State.LAUNCHED, arn=event.arn, launched_at=now)

    def _note_timeliness(self, known: Sequence[TaskEvent], written: Sequence[TaskEvent], now: float) -> None:
        """Old news is a delay; an event that comes again after long, or is told by a poll before, is none."""
        facts = {(event.arn, EventFactKind.TIMELY) for event in known if now - event.happened_at <= LATE_AFTER}
        facts |= {(event.arn, EventFactKind.LATE) for event in written if now - event.happened_at > LATE_AFTER}
        for source, fact in sorted({(cluster_source(arn, self._source), fact) for arn, fact in facts}):
            self._poll_schedule.note_fact(source, fact, now)


def _may_run_on(target: Target, arn: str) -> bool:
    """Whether a task of this ARN can be what was launched there."""
    region, _, cluster = cluster_of_task(arn).split("/") if cluster_of_task(arn) else ("", "", "")
    return region == target.region and cluster in ("", target.cluster.rpartition("/")[2])


def find_event_queues(context: WorkerContext, queues: Sequence[str]) -> Mapping[str, Target]:
    """The events queues of the configuration, each with a target whose credentials read it."""
    config = context.config
    names = dict.fromkeys((*queues, *(profile.queue for profile in config.profiles())))
    found: dict[str, Target] = {}
    for name in names:
        url = config.event_queue_url_for(name)
        if url and url not in found:
            try:
                found[url] = context.target_for(name)
            except ConfigError:
                continue  # nothing can be launched with it either; `check` and the doctor say so
    return found


def build_event_services(
    context: WorkerContext, reconciler: Reconciler, clients: EcsClients, queues: Sequence[str]
) -> list[Service]:
    """What reads the events; nothing where no events queue is configured."""
    pace = context.poll_schedule
    if not isinstance(pace, EventAwareSchedule):
        return []
    services: list[Service] = [PeriodicService("poll-schedule", pace.step, context.telemetry)]
    for url, target in find_event_queues(context, queues).items():
        queue = open_event_queue(clients, target, url, context.config.read_timeout_seconds, VISIBILITY_TIMEOUT)
        for number in range(1, _LISTENERS_PER_QUEUE + 1):
            reader = EventListener(context, reconciler, pace, queue, queue_source(url))
            services.append(PeriodicService(f"event-listener-{number}", reader.step, context.telemetry))
    return services
