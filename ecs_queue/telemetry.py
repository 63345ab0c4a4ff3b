"""The catalogue of events: everything that is worth reporting, with its level, its fields and its log line.

Logs, counters and the journal derive from it; nothing else logs. The fields of an event are ids and facts, never a
command, an environment or a URL: those may hold secrets. `journal_only` fields are for the journal, which redacts
them: an envelope, run_task arguments, the inputs of a decision and the decision.
"""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Callable
from typing import Any

import msgspec

from ecs_queue.error_text import traceback_text
from ecs_queue.protocol.record import Submission

logger = logging.getLogger("ecs_queue")


class EventType(msgspec.Struct, frozen=True):
    """The level and the log line of one type of event.

    Attributes:
        fields: What every event of this type carries.
        message: A format string over `fields`.
        journal_only: What it carries besides, which no log may show.
    """

    level: int
    fields: tuple[str, ...]
    message: str
    journal_only: tuple[str, ...] = ()


#: Below DEBUG: steps that are worth recording, and too many to be read as they pass.
TRACE = 5
_T, _D, _I, _W, _E = TRACE, logging.DEBUG, logging.INFO, logging.WARNING, logging.ERROR


def _event(level: int, fields: str, message: str, journal_only: str = "") -> EventType:
    return EventType(level, tuple(fields.split()), message, tuple(journal_only.split()))


EVENTS: dict[str, EventType] = {
    "worker.started": _event(_I, "worker queues", "worker {worker} started, takes requests of {queues}"),
    "worker.stopping": _event(_I, "worker outstanding", "worker {worker} is stopping, {outstanding} calls in progress"),
    "worker.stopped": _event(_I, "worker", "worker {worker} has stopped"),
    "service.failed": _event(_E, "service reason server", "{service} failed, it tries again: {reason}"),
    "service.retried": _event(_D, "service reason server", "{service} failed again: {reason}"),
    "service.recovered": _event(
        _I, "service seconds failures", "{service} works again after {seconds} s, failures: {failures}"
    ),
    "ledger.item_broken": _event(
        _W, "item reason", "the ledger's item {item} cannot be used and is kept apart: {reason}"
    ),
    "ledger.record_broken": _event(
        _W, "id operation", "{id}: its record cannot be used, so nothing was written ({operation})"
    ),
    "health.degraded": _event(_W, "queue reason", "queue {queue}: {reason}"),
    "check.finding": _event(_I, "reason", "{reason}"),
    "check.warning": _event(_W, "reason", "{reason}"),
    "check.error": _event(_E, "reason", "{reason}"),
    "request.submitted": _event(_D, "id queue owner", "{id} submitted to {queue}", "nonce namespace envelope"),
    "request.received": _event(_D, "id queue", "{id} received from {queue}"),
    "request.waits_for_key": _event(
        _D, "id queue concurrency_key", "{id} waits: in {queue} the key {concurrency_key} is full"
    ),
    "request.dead_lettered": _event(_W, "queue reason bytes", "dead letter from {queue} ({bytes} bytes): {reason}"),
    "launch.lease_expired": _event(
        _D, "id launch", "{id} launch {launch}: lease expired, its call may have had an effect"
    ),
    "launch.called": _event(
        _D, "id launch attempt", "{id} RunTask called (launch {launch}, attempt {attempt})", "launch_spec target"
    ),
    "launch.on_variant": _event(
        _I, "id launch variant reason", "{id} launch {launch} uses variant {variant} of its queue's capacity: {reason}"
    ),
    "capacity.switched": _event(
        _W, "queue variant reason", "queue {queue}: launches use variant {variant} of its capacity: {reason}"
    ),
    "launch.started": _event(_I, "id launch arn queue queued_at", "{id} launched as {arn} (launch {launch})"),
    "launch.assigned": _event(
        _I, "id launch run arn queue queued_at", "{id} given to the runner {run}, {arn} (launch {launch})"
    ),
    "runner.idle": _event(_D, "run pool turn", "the runner {run} has no command, after {turn} commands", "labels"),
    "runner.ended": _event(
        _D, "run pool arn turn closed", "the runner {run} has ended ({closed}) after {turn} commands, {arn}", "task"
    ),
    "runner.end_rejected": _event(
        _W, "id run turn", "{id}: the end that the runner {run} reported is not signed by its queue, and does not count"
    ),
    "runner.silent": _event(_W, "run pool arn", "the idle runner {run} does not answer, stopping {arn}"),
    "launch.no_effect": _event(_I, "id launch reason", "{id} not launched, tried again later: {reason}"),
    "launch.ambiguous": _event(_W, "id launch reason", "{id} launch {launch} is not settled: {reason}"),
    "launch.refused": _event(_W, "id launch kind reason", "{id} launch {launch} refused: {reason}"),
    "launch.task_absent": _event(_I, "id launch code", "{id} launch {launch}: ListTasks shows no task, {code}"),
    "launch.task_found": _event(_I, "id launch arn", "{id} launch {launch}: task found, {arn}"),
    "launch.unwanted": _event(_W, "id launch arn", "{id}: {arn} does not belong to the present launch, stopping it"),
    "launch.claim_lost": _event(_I, "id launch", "{id} launch {launch}: another worker has taken it over"),
    "rate_limit.lowered": _event(_W, "limiter rate", "AWS throttles {limiter}: all workers slow down to {rate}/s"),
    "decision.next_action": _event(
        _T, "id operation code next_action", "{id}: the ledger answered {operation} with {code}, next: {next_action}"
    ),
    "decision.run_task": _event(
        _T,
        "id launch write",
        "{id} launch {launch}: after RunTask {write}",
        "record result backoff draw chosen decision",
    ),
    "decision.conflict": _event(
        _T,
        "id launch write",
        "{id} launch {launch}: after the conflict {write}",
        "call_decision started_by conflicting_arns tasks decision",
    ),
    "decision.list_tasks": _event(
        _T, "id launch write", "{id} launch {launch}: after ListTasks {write}", "result age retry_after decision"
    ),
    "decision.poll": _event(_T, "id arn status", "{id} observed as {status}", "poll_input draw decision"),
    "decision.runner_end": _event(
        _T, "id run ruling", "the retry rules say {ruling} of the end in {run}", "record end backoff draw decision"
    ),
    "decision.missing_task": _event(
        _T, "id arn", "{id}: {arn} counts as lost", "record missing_for grace ecs_reason decision"
    ),
    "circuit.opened": _event(
        _E, "queue reason seconds", "queue {queue}: no launches from this worker for {seconds} s: {reason}"
    ),
    "circuit.closed": _event(_I, "queue", "queue {queue} works again"),
    "task.status_changed": _event(_D, "id arn status", "{id} is {status}"),
    "request.retry_scheduled": _event(_I, "id attempt reason", "{id} will be retried as attempt {attempt}: {reason}"),
    "task.stopping": _event(_I, "id arn by", "{id} is being stopped ({by})"),
    "task.missing": _event(_D, "id arn", "{id}: ECS does not show {arn}"),
    "stop.requested": _event(_D, "id by code", "{id}: {by} requested a stop, {code}"),
    "stop_task.answered": _event(_T, "id arn result", "{id}: StopTask of {arn} returned {result}"),
    "stop_task.failed": _event(_W, "id arn reason", "{id}: StopTask of {arn} failed: {reason}"),
    "describe_tasks.failed": _event(_W, "tasks reason", "{tasks} tasks could not be described: {reason}"),
    "ecs_events.received": _event(_T, "events lag", "received {events} events, the oldest {lag} s after its change"),
    "ecs_events.foreign": _event(_D, "events", "skipped {events} events about tasks of other programs"),
    "ecs_events.skipped": _event(_W, "reason", "skipped an event: {reason}"),
    "ecs_events.receive_failed": _event(
        _W, "reason seconds", "events cannot be received, next try in {seconds} s: {reason}"
    ),
    "ecs_events.trusted": _event(_I, "source", "ECS's events of {source} arrive in time: tasks are rarely polled"),
    "ecs_events.distrusted": _event(
        _W, "source", "ECS's events of {source} are late or missing: tasks are polled as without events"
    ),
    "request.ended": _event(
        _I, "id queue state exit_code stop_code attempts reason", "{id} ended {state} (exit {exit_code}): {reason}"
    ),
    "results.unpublished": _event(_W, "results reason", "results not published ({results}): {reason}"),
    "journal.write_failed": _event(_W, "reason", "the journal cannot be written now: {reason}"),
    "journal.recovered": _event(
        _I, "seconds failures", "the journal can be written again after {seconds} s, failures: {failures}"
    ),
    "otel.export_failed": _event(_W, "what reason", "{what} cannot be exported now: {reason}"),
    "otel.export_recovered": _event(
        _I, "what seconds failures", "{what} are exported again after {seconds} s, failures: {failures}"
    ),
    "journal.events_dropped": _event(_W, "dropped reason", "events are missing in the journal ({dropped}): {reason}"),
}

Sink = Callable[[str, dict[str, Any]], None]


class Telemetry:
    """Logs and counts events, and hands each with all its fields to the sinks. Thread-safe."""

    def __init__(self, *sinks: Sink) -> None:
        self._sinks = sinks
        self._lock = threading.Lock()
        self._counts: Counter[str] = Counter()

    def add_sink(self, sink: Sink) -> None:
        """Hand every later event to this sink, too."""
        with self._lock:
            self._sinks = (*self._sinks, sink)

    def emit(self, name: str, **fields: Any) -> None:
        """Emit one event of the catalogue, with exactly the fields that its type has."""
        kind = EVENTS[name]
        with self._lock:
            self._counts[name] += 1
        if logger.isEnabledFor(kind.level):
            shown = {field: fields[field] for field in kind.fields}
            logger.log(kind.level, kind.message.format(**shown), extra={"event": name, "fields": shown})
        for sink in self._sinks:  # a tuple, replaced by `add_sink`
            try:
                sink(name, fields)
            except Exception as error:  # noqa: BLE001 - reporting must never stop a launch, or the end of a request
                logger.error("a sink failed at the event %s: %s", name, traceback_text(error))

    def count(self, name: str) -> int:
        """Return how many events of this type were emitted since the start."""
        with self._lock:
            return self._counts[name]


def emit_request_submitted(telemetry: Telemetry, namespace: str, submission: Submission) -> None:
    """Emit the first event of a request, with its envelope. Whichever process creates the record does it."""
    telemetry.emit(
        "request.submitted",
        id=submission.id,
        queue=submission.queue,
        owner=submission.owner,
        nonce=submission.nonce,
        namespace=namespace,
        envelope=submission.request,
    )
