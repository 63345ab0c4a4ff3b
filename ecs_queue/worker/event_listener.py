"""Takes ECS's task events from their queue: the fast way to learn what polls would find later.

The order of arrival decides nothing: an event goes through the `Reconciler` as a poll does, and the ledger orders both
by ECS's own version. A message is deleted after the ledger has stored its facts; if a worker dies before that, another
worker receives it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from ecs_queue.crash_points import crash_point
from ecs_queue.ecs.clients import EcsClients, Target
from ecs_queue.ecs.event_queue import MAX_BATCH_SIZE, EventMessage, EventQueue, open_event_queue
from ecs_queue.ecs.task_events import TaskEvent, decode_event, newest_event_per_task
from ecs_queue.errors import (
    ConfigError,
    EventQueueUnavailable,
    MissingRight,
    PermanentError,
    RetryableError,
    UndecodableMessage,
)
from ecs_queue.protocol.event_health import LATE_AFTER, EventFactKind, cluster_of_task, cluster_source, queue_source
from ecs_queue.protocol.operations import ResultCode, TaskUpdate
from ecs_queue.protocol.record import Record, build_client_token
from ecs_queue.protocol.runs import RunPhase
from ecs_queue.protocol.states import State
from ecs_queue.worker.context import WorkerContext
from ecs_queue.worker.poll_schedule import EventAwareSchedule
from ecs_queue.worker.reconciler import Reconciler
from ecs_queue.worker.service import PeriodicService, Service

#: Threads that read one queue: while one waits for the ledger or a deletion, the other receives.
_LISTENERS_PER_QUEUE = 2
#: Time until the next receipt after an error, doubled from the first to the last. Seconds.
_MIN_RETRY_DELAY, _MAX_RETRY_DELAY = 1.0, 60.0
#: The shortest time between empty receipts: with short time-outs SQS does not wait by itself. Seconds.
_MIN_RECEIVE_INTERVAL = 0.5
#: The shortest time after a receipt that brought less than a full batch: the next one takes more at once, and changes
#: of a task that come together count as one. Seconds.
_PARTIAL_BATCH_INTERVAL = 0.05
#: How often the ledger learns that the queue was drained. Seconds.
_DRAINED_NOTE_INTERVAL = 10.0


class EventListener:
    """Reads one event queue. One thread calls `step`."""

    def __init__(
        self,
        context: WorkerContext,
        reconciler: Reconciler,
        poll_schedule: EventAwareSchedule,
        queue: EventQueue,
        source: str,
    ) -> None:
        """`source` is the name of the queue in the ledger (`queue_source`)."""
        self._context = context
        self._reconciler = reconciler
        self._poll_schedule = poll_schedule
        self._queue = queue
        self._source = source
        self._has_runners = any(map(context.is_warm, context.queues))
        self._retry_delay = _MIN_RETRY_DELAY
        self._drained_at = float("-inf")

    def step(self) -> float:
        """Receive events, write them to the ledger and delete them; return the seconds until the next receipt."""
        began = self._poll_schedule.now()
        try:
            messages = self._queue.receive()
            if messages:
                crash_point("event_listener.received")
                self._process(messages)
                crash_point("event_listener.deleting")
                self._queue.delete(messages)
            else:
                self._note_drained(began)
        except EventQueueUnavailable as error:
            delay, self._retry_delay = self._retry_delay, min(_MAX_RETRY_DELAY, 2 * self._retry_delay)
            self._context.telemetry.emit("ecs_events.receive_failed", reason=str(error), seconds=round(delay))
            return delay
        self._retry_delay = _MIN_RETRY_DELAY
        if len(messages) >= MAX_BATCH_SIZE:
            return 0.0
        interval = _PARTIAL_BATCH_INTERVAL if messages else _MIN_RECEIVE_INTERVAL
        return max(0.0, interval - (self._poll_schedule.now() - began))

    def _note_drained(self, began: float) -> None:
        """Note it as of when the receipt began: whatever was in the queue before has been received."""
        if began - self._drained_at >= _DRAINED_NOTE_INTERVAL:
            self._poll_schedule.note_fact(self._source, EventFactKind.DRAINED, began)
            self._drained_at = began

    def _process(self, messages: Sequence[EventMessage]) -> None:
        """Write what the messages say to the ledger; raises RetryableError when it cannot be reached."""
        events = newest_event_per_task(self._decode(messages))
        if not events:
            return
        if self._has_runners:
            events = self._name_served(events)
        ids = list(dict.fromkeys(event.record_id for event in events))
        records = {record.id: record for record in self._context.ledger.get_with_payload(ids) if record}
        now = self._poll_schedule.now()
        lag = round(max(now - event.happened_at for event in events), 3)
        self._context.telemetry.emit("ecs_events.received", events=len(events), lag=lag)
        known: list[TaskEvent] = []
        found: list[tuple[TaskEvent, Record, TaskUpdate]] = []
        for event in events:
            record = records.get(event.record_id)
            if record is None or record.nonce != event.nonce:
                continue  # of a request that is forgotten, or of an earlier one with this id
            known.append(event)
            evaluated = self._evaluate(event, record, now)
            if evaluated is not None:
                found.append((event, *evaluated))
        present = {record.id: record for _, record, _ in found}
        results = self._reconciler.write_updates(present, [update for _, _, update in found])
        if found:
            crash_point("event_listener.updates_written")
        written = []
        for (event, record, update), result in zip(found, results, strict=True):
            if result.code is not ResultCode.STALE:
                self._reconciler.handle_update_result(record, update, result)
                written.append(event)
        self._note_timeliness(known, written, now)

    def _name_served(self, events: Sequence[TaskEvent]) -> list[TaskEvent]:
        """Return the events; the end of a runner's task is that of the launch whose command the runner has now.

        ECS names the launch that started the task, whose request may have ended long ago.
        """
        ends = {
            build_client_token(event.record_id, event.nonce, event.launch): event
            for event in events
            if event.task["lastStatus"] == "STOPPED"
        }
        runs = {run.name: run for run in self._context.ledger.read_runs(list(ends)) if run} if ends else {}
        named = {
            event.arn: msgspec.structs.replace(event, record_id=run.id, nonce=run.nonce, launch=run.launch)
            for name, event in ends.items()
            if (run := runs.get(name)) and run.arn == event.arn and run.phase is not RunPhase.IDLE
        }
        return [named.get(event.arn, event) for event in events]

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
        """Return the present record and its update; None when the event is not its task's, or says nothing new."""
        if not record.target:
            return None  # nothing was launched
        try:
            target = Target.decode(self._context.verifier.encoded_target(record))
            current = self._record_launched(event, record, target, now)
            if current is None:
                return None
            found, _ = self._reconciler.reconcile(target, current, event.task, now)
        except PermanentError:
            return None  # this worker cannot read where it was launched
        except (RetryableError, MissingRight):
            raise
        except Exception as error:  # noqa: BLE001 - one event that cannot be read must not hide the others
            self._context.telemetry.emit("ecs_events.skipped", reason=f"{event!r}: {type(error).__name__}")
            return None
        return (current, found) if isinstance(found, TaskUpdate) else None

    def _record_launched(self, event: TaskEvent, record: Record, target: Target, now: float) -> Record | None:
        """Return the record with the event's task as its own: a task's existence is a fact, whatever its source."""
        context = self._context
        if record.launch != event.launch or not _may_run_on(target, event.arn):
            return None
        if record.state is State.LAUNCHED:
            return record if record.arn == event.arn else None
        if record.state not in (State.QUEUED, State.LAUNCHING):
            return None
        wait = context.poll_schedule.first_poll_delay(record, event.arn)
        result = context.ledger.launched(record.id, record.nonce, record.launch, event.arn, wait)
        crash_point("event_listener.launched")
        context.decide_next_action("launched", record.id, result.code)
        if result.code not in (ResultCode.OK, ResultCode.UNCHANGED):
            return None
        if result.code is ResultCode.OK:
            context.telemetry.emit("launch.task_found", id=record.id, launch=record.launch, arn=event.arn)
        return msgspec.structs.replace(record, state=State.LAUNCHED, arn=event.arn, launched_at=now)

    def _note_timeliness(self, known: Sequence[TaskEvent], written: Sequence[TaskEvent], now: float) -> None:
        """Note timely and late events. Only news can be late: an old event may come again, or after a poll."""
        facts = {(event.arn, EventFactKind.TIMELY) for event in known if now - event.happened_at <= LATE_AFTER}
        facts |= {(event.arn, EventFactKind.LATE) for event in written if now - event.happened_at > LATE_AFTER}
        for source, fact in sorted({(cluster_source(arn, self._source), fact) for arn, fact in facts}):
            self._poll_schedule.note_fact(source, fact, now)


def _may_run_on(target: Target, arn: str) -> bool:
    """Whether a task of this ARN can be what was launched at the target."""
    region, _, cluster = cluster_of_task(arn).split("/") if cluster_of_task(arn) else ("", "", "")
    return region == target.region and cluster in ("", target.cluster.rpartition("/")[2])


def find_event_queues(context: WorkerContext, queues: Sequence[str]) -> Mapping[str, Target]:
    """Return the URL of each configured event queue, with a target whose credentials read it."""
    config = context.config
    found: dict[str, Target] = {}
    for name in dict.fromkeys((*queues, *(profile.queue for profile in config.profiles()))):
        url = config.event_queue_url_for(name)
        if url and url not in found:
            try:
                found[url] = context.target_for(name)
            except ConfigError:
                continue  # nothing can be launched with it either: `Worker.check` and the doctor report it
    return found


def build_event_services(context: WorkerContext, reconciler: Reconciler, clients: EcsClients) -> list[Service]:
    """Return the services that read events; none when no event queue is configured."""
    schedule = context.poll_schedule
    if not isinstance(schedule, EventAwareSchedule):
        return []
    services: list[Service] = [PeriodicService("poll-schedule", schedule.step, context.outages)]
    for url, target in find_event_queues(context, context.queues).items():
        queue = open_event_queue(clients, target, url, context.config.read_timeout_seconds)
        for number in range(1, _LISTENERS_PER_QUEUE + 1):
            listener = EventListener(context, reconciler, schedule, queue, queue_source(url))
            services.append(PeriodicService(f"event-listener-{number}", listener.step, context.outages))
    return services
