"""Exports the spans of attempts and requests when they end, by the worker that ends them (docs/tracing.md)."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import msgspec

from ecs_queue.error_text import typed_error_text
from ecs_queue.monitoring.spans import (
    AttemptEnd,
    RequestSpan,
    Submitted,
    Trace,
    build_attempt_spans,
    build_request_span,
)
from ecs_queue.protocol.decisions import LedgerWrite
from ecs_queue.protocol.operations import RefusalKind, ResultCode, TaskUpdate
from ecs_queue.protocol.record import Record
from ecs_queue.protocol.runs import Run, RunPhase
from ecs_queue.protocol.states import State
from ecs_queue.telemetry import Telemetry

#: The most ends that wait for the ledger's answer, as in `WorkerCounters`; beyond, the oldest are forgotten.
_MAX_PENDING = 10_000
#: The largest difference of a worker's clock to the ledger's that passes for the time until an end was seen. Seconds.
_MAX_RESULT_SECONDS = 60.0


class SpanSink(Protocol):
    """Where spans go: `monitoring.otel_traces.SpanExport`."""

    def is_sampled(self, submitted: Submitted, queue: str) -> bool:
        """Return whether the request's trace is recorded."""
        ...

    def export(self, trace: Trace, spans: Sequence[RequestSpan]) -> None:
        """Queue spans; does not wait."""
        ...


class Tracing:
    """Exports nothing, and hands a caller's trace on to the container. A worker without `otel_traces` has it."""

    def container_traceparent(self, submitted: Submitted, launch: int, queue: str) -> str:
        """Return the TRACEPARENT for the container of a launch; "" for none."""
        del launch, queue
        return submitted.traceparent

    def end_request(self, record: Record) -> None:
        """Note that a record has ended."""

    def end_runner_attempt(self, record: Record, run: Run | None) -> None:
        """Note that a record waits for its next launch, after a command that `run` had ended."""


class OtelTracing(Tracing):
    """Exports spans. Thread-safe. A failing sampler or exporter prevents neither a launch nor the end of a request."""

    def __init__(self, namespace: str, sink: SpanSink, clock: Callable[[], float], telemetry: Telemetry) -> None:
        """Become a sink of the telemetry; `clock` returns seconds since the epoch."""
        self._namespace = namespace
        self._sink = sink
        self._clock = clock
        self._lock = threading.Lock()
        self._pending: dict[str, tuple[Record, AttemptEnd]] = {}
        self._handlers = {
            "decision.poll": self._on_poll,
            "decision.run_task": self._on_run_task,
            "decision.next_action": self._on_next_action,
            "request.retry_scheduled": self._on_retry,
        }
        self._telemetry = telemetry
        telemetry.add_sink(self._record_event)

    def container_traceparent(self, submitted: Submitted, launch: int, queue: str) -> str:
        """See `Tracing`: the span `run` is the container's parent, if it will be exported."""
        if self._is_sampled(submitted, queue):
            return submitted.run_traceparent(launch, is_sampled=True)
        return submitted.traceparent or submitted.run_traceparent(launch, is_sampled=False)

    def end_request(self, record: Record) -> None:
        """See `Tracing`: exports the last attempt and the request."""
        before, pending = self._take(record.id) or (None, None)
        if not record.nonce:
            return  # a stop of a request that has not arrived
        end = _end_of(record, self._clock())
        if before is not None and pending is not None and _is_same_launch(before, record):
            end = msgspec.structs.replace(end, task=pending.task, seen_at=pending.seen_at)
        self._export(record, lambda: self._last_spans(record, end))

    def end_runner_attempt(self, record: Record, run: Run | None) -> None:
        """See `Tracing`."""
        if run is None or run.phase is not RunPhase.ENDED:
            return
        self._take(record.id)  # what ECS showed of the runner's task meanwhile: the ledger did not take it
        before = msgspec.structs.replace(
            record,
            launch=run.launch,
            attempt=record.attempt - 1,
            run=run.name,
            arn=run.arn,
            # Since when it waited is known of the first launch only: the record has the next one's.
            created_at=record.created_at if run.launch == 1 else 0.0,
            requeued_at=0.0,
            launched_at=run.assigned_at,
            started_at=run.fetched_at,
        )
        end = AttemptEnd(state=State.FAILED, at=run.ended_at, seen_at=record.requeued_at, exit_code=run.exit_code)
        self._export_attempt(before, end)

    def _record_event(self, name: str, fields: Mapping[str, Any]) -> None:
        """Note what the spans of an attempt need."""
        handler = self._handlers.get(name)
        if handler is not None:
            handler(fields)

    def _on_poll(self, fields: Mapping[str, Any]) -> None:
        poll_input, update = fields["poll_input"], fields["decision"].update
        if update is not None and update.end_state is not None:
            task = None if poll_input.record.run else poll_input.task
            self._keep(poll_input.record, _end_by(update, task, poll_input.now))

    def _on_run_task(self, fields: Mapping[str, Any]) -> None:
        decision, record = fields["decision"], fields["record"]
        if decision.write is LedgerWrite.REFUSED and decision.refusal_kind is RefusalKind.START_FAILURE:
            now = self._clock()
            self._keep(record, AttemptEnd(state=State.REMOVED, at=now, seen_at=now))

    def _on_next_action(self, fields: Mapping[str, Any]) -> None:
        if fields["operation"] == "write" and fields["code"] == ResultCode.REQUEUED:
            self._on_retry(fields)

    def _on_retry(self, fields: Mapping[str, Any]) -> None:
        found = self._take(fields["id"])
        if found is not None:
            self._export_attempt(*found)

    def _keep(self, record: Record, end: AttemptEnd) -> None:
        with self._lock:
            if len(self._pending) >= _MAX_PENDING:
                self._pending.pop(next(iter(self._pending)))
            self._pending[record.id] = (record, end)

    def _take(self, record_id: str) -> tuple[Record, AttemptEnd] | None:
        with self._lock:
            return self._pending.pop(record_id, None)

    def _export_attempt(self, record: Record, end: AttemptEnd) -> None:
        self._export(record, lambda: build_attempt_spans(self._namespace, record, end))

    def _last_spans(self, record: Record, end: AttemptEnd) -> list[RequestSpan]:
        attempt = build_attempt_spans(self._namespace, record, end)
        return [*attempt, build_request_span(self._namespace, record, end)]

    def _export(self, record: Record, build: Callable[[], Sequence[RequestSpan]]) -> None:
        submitted = Submitted.of(self._namespace, record)
        if not self._is_sampled(submitted, record.queue):
            return
        try:
            self._sink.export(submitted.trace(), build())
        except Exception as error:  # noqa: BLE001 - span processors may be anyone's
            self._report(typed_error_text(error))

    def _is_sampled(self, submitted: Submitted, queue: str) -> bool:
        try:
            return self._sink.is_sampled(submitted, queue)
        except Exception as error:  # noqa: BLE001 - a sampler may be anyone's
            self._report(typed_error_text(error))
            return False

    def _report(self, reason: str) -> None:
        self._telemetry.emit("otel.export_failed", what="spans", reason=reason)


def _is_same_launch(before: Record, record: Record) -> bool:
    return (before.nonce, before.launch, before.arn) == (record.nonce, record.launch, record.arn)


def _end_of(record: Record, now: float) -> AttemptEnd:
    """How a terminal record ended. The clocks of worker and ledger may differ: then the result took no time."""
    seen_at = now if 0 <= now - record.finished_at <= _MAX_RESULT_SECONDS else record.finished_at
    return AttemptEnd(
        state=record.state,
        at=record.finished_at,
        seen_at=seen_at,
        exit_code=record.exit_code,
        stop_code=record.stop_code,
    )


def _end_by(update: TaskUpdate, task: Mapping[str, Any] | None, now: float) -> AttemptEnd:
    """How the task of an update ended, which the ledger has not taken over yet."""
    return AttemptEnd(
        state=update.end_state or State.FAILED,
        at=update.finished_at or now,
        seen_at=now,
        task=task,
        exit_code=update.exit_code,
        stop_code=update.stop_code,
    )
