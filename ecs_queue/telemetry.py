"""THE catalogue of events: everything that is worth telling, its level, its fields and its sentence.

Logs, counters and the journal derive from it; nothing else logs. What an event tells are ids and facts, never a
command, an environment or a URL: those may hold secrets. What it has beside that, `kept`, is for the journal alone,
which redacts it: an envelope, run_task arguments, the inputs of a decision and what was decided.
"""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Callable
from typing import Any

import msgspec

from ecs_queue.protocol.record import Submission

logger = logging.getLogger("ecs_queue")


class EventType(msgspec.Struct, frozen=True):
    """`sentence` is a format string over `fields`, the names every event of this type carries; `kept` names what it
    carries besides, which no log may show."""

    level: int
    fields: tuple[str, ...]
    message: str
    journal_only: tuple[str, ...] = ()


#: Below DEBUG: steps that are worth keeping, and too many to be read as they pass.
TRACE = 5
_T, _D, _I, _W, _E = TRACE, logging.DEBUG, logging.INFO, logging.WARNING, logging.ERROR

EVENTS: dict[str, EventType] = {
    "worker.started": EventType(_I, ("worker", "queues"), "worker {worker} takes from {queues}"),
    "worker.stopping": EventType(_I, ("worker", "outstanding"), "worker {worker} stops, {outstanding} in hand"),
    "worker.stopped": EventType(_I, ("worker",), "worker {worker} has stopped"),
    "service.failed": EventType(_E, ("service", "reason"), "{service} failed and goes on: {reason}"),
    "health.degraded": EventType(_W, ("queue", "reason"), "queue {queue}: {reason}"),
    "request.submitted": EventType(
        _D, ("id", "queue", "owner"), "{id} submitted to {queue}", ("nonce", "namespace", "envelope")
    ),
    "request.received": EventType(_D, ("id", "queue"), "{id} received from {queue}"),
    "request.dead_lettered": EventType(
        _W, ("queue", "reason", "bytes"), "dead letter from {queue} ({bytes} bytes): {reason}"
    ),
    "launch.lease_expired": EventType(_D, ("id", "launch"), "{id} launch {launch} is in doubt and its lease over"),
    "launch.called": EventType(
        _D, ("id", "launch", "attempt"), "{id} RunTask, launch {launch}, attempt {attempt}", ("launch_spec", "target")
    ),
    "launch.started": EventType(_I, ("id", "launch", "arn"), "{id} launched as {arn} (launch {launch})"),
    "launch.no_effect": EventType(_I, ("id", "launch", "reason"), "{id} not launched, tried again later: {reason}"),
    "launch.ambiguous": EventType(_W, ("id", "launch", "reason"), "{id} launch {launch} in doubt: {reason}"),
    "launch.refused": EventType(_W, ("id", "launch", "kind", "reason"), "{id} launch {launch} refused: {reason}"),
    "launch.task_absent": EventType(_I, ("id", "launch", "code"), "{id} launch {launch} listed, no task found: {code}"),
    "launch.task_found": EventType(_I, ("id", "launch", "arn"), "{id} launch {launch} found as {arn}"),
    "launch.unwanted": EventType(_W, ("id", "launch", "arn"), "{id}: {arn} belongs to no present launch, stopping it"),
    "launch.claim_lost": EventType(_I, ("id", "launch"), "{id} launch {launch}: another worker has taken it over"),
    "rate_limit.lowered": EventType(
        _W, ("limiter", "rate"), "AWS throttles {limiter}: all workers slow down to {rate}/s"
    ),
    "decision.next_action": EventType(
        _T,
        ("id", "operation", "code", "next_action"),
        "{id}: the ledger answers {operation} with {code}, next {next_action}",
    ),
    "decision.run_task": EventType(
        _T,
        ("id", "launch", "write"),
        "{id} launch {launch}: after RunTask {write}",
        ("record", "result", "backoff", "draw", "decision"),
    ),
    "decision.conflict": EventType(
        _T,
        ("id", "launch", "write"),
        "{id} launch {launch}: after the conflict {write}",
        ("call_decision", "started_by", "conflicting_arns", "tasks", "decision"),
    ),
    "decision.list_tasks": EventType(
        _T,
        ("id", "launch", "write"),
        "{id} launch {launch}: after ListTasks {write}",
        ("result", "age", "retry_after", "decision"),
    ),
    "decision.poll": EventType(
        _T, ("id", "arn", "status"), "{id} is seen {status}", ("poll_input", "draw", "decision")
    ),
    "decision.missing_task": EventType(
        _T, ("id", "arn"), "{id}: {arn} counts as lost", ("record", "missing_for", "grace", "ecs_reason", "decision")
    ),
    "circuit.opened": EventType(_E, ("queue", "reason", "seconds"), "queue {queue} paused for {seconds} s: {reason}"),
    "circuit.closed": EventType(_I, ("queue",), "queue {queue} works again"),
    "task.status_changed": EventType(_D, ("id", "arn", "status"), "{id} is {status}"),
    "request.retry_scheduled": EventType(_I, ("id", "attempt", "reason"), "{id} goes to attempt {attempt}: {reason}"),
    "task.stopping": EventType(_I, ("id", "arn", "by"), "{id} is being stopped ({by})"),
    "task.missing": EventType(_D, ("id", "arn"), "{id}: ECS does not show {arn}"),
    "stop.requested": EventType(_D, ("id", "by", "code"), "{id}: {by} asks for a stop, {code}"),
    "stop_task.answered": EventType(_T, ("id", "arn", "result"), "{id}: StopTask of {arn}, {result}"),
    "stop_task.failed": EventType(_W, ("id", "arn", "reason"), "{id}: StopTask of {arn} failed: {reason}"),
    "describe_tasks.failed": EventType(_W, ("tasks", "reason"), "{tasks} tasks could not be described: {reason}"),
    "ecs_events.foreign": EventType(_D, ("events",), "{events} events about tasks of others"),
    "ecs_events.skipped": EventType(_W, ("reason",), "an event is passed over: {reason}"),
    "ecs_events.receive_failed": EventType(
        _W, ("reason", "seconds"), "events cannot be read, again in {seconds} s: {reason}"
    ),
    "ecs_events.trusted": EventType(_I, ("source",), "ECS's events of {source} come in time: few polls"),
    "ecs_events.distrusted": EventType(
        _W, ("source",), "ECS's events of {source} come late or not at all: polls as without"
    ),
    "request.ended": EventType(
        _I, ("id", "state", "exit_code", "attempts", "reason"), "{id} ended {state} (exit {exit_code}): {reason}"
    ),
    "results.unpublished": EventType(_W, ("results", "reason"), "{results} results not announced: {reason}"),
    "journal.write_failed": EventType(_W, ("reason",), "the journal is not written for now: {reason}"),
    "journal.events_dropped": EventType(_W, ("dropped", "reason"), "{dropped} events are not in the journal: {reason}"),
}

Sink = Callable[[str, dict[str, Any]], None]


class Telemetry:
    """Where events go. Thread-safe. `sinks` get every event with all its fields, after the log and the counters."""

    def __init__(self, *sinks: Sink) -> None:
        self._sinks = sinks
        self._lock = threading.Lock()
        self._counts: Counter[str] = Counter()

    def add_sink(self, sink: Sink) -> None:
        """From now on this one gets every event, too."""
        with self._lock:
            self._sinks = (*self._sinks, sink)

    def emit(self, name: str, **fields: Any) -> None:
        """Tell one event of the catalogue; its fields must be the catalogue's."""
        kind = EVENTS[name]
        with self._lock:
            self._counts[name] += 1
        if logger.isEnabledFor(kind.level):
            told = {field: fields[field] for field in kind.fields}
            logger.log(kind.level, kind.message.format(**told), extra={"event": name, "fields": told})
        for sink in self._sinks:  # a tuple, replaced by `add_sink`
            try:
                sink(name, fields)
            except Exception:  # telling must never stop what is told of: a launch, the end of a request
                logger.exception("a sink failed at the event %s", name)

    def count(self, name: str) -> int:
        """How often an event was told since the start."""
        with self._lock:
            return self._counts[name]


def emit_request_submitted(telemetry: Telemetry, namespace: str, submission: Submission) -> None:
    """The first event of a request, with its envelope: by whoever made the record."""
    telemetry.emit(
        "request.submitted",
        id=submission.id,
        queue=submission.queue,
        owner=submission.owner,
        nonce=submission.nonce,
        namespace=namespace,
        envelope=submission.request,
    )
