"""The spans of a request: which there are, their ids, times and attributes. Pure, and without OpenTelemetry.

Workers keep no state of their own, so every id is a hash of what the ledger knows: any process can name the parent of a
span that another one exports, and a span that is exported twice is the same span.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from enum import StrEnum
from typing import Any

import msgspec

from ecs_queue.messages.fields import is_traceparent
from ecs_queue.monitoring.span_attributes import attempt_attributes, request_attributes, run_attributes
from ecs_queue.payload_repr import PayloadRepr
from ecs_queue.protocol.phases import build_phases, phase_starts
from ecs_queue.protocol.record import Record
from ecs_queue.protocol.states import State

#: The flag of a trace that is recorded. https://www.w3.org/TR/trace-context/#sampled-flag
SAMPLED = 1
#: The spans of one attempt in their order, as a timeline has its phases, and what each shows.
ATTEMPT_SPANS = {
    "wait": "In the queue, from the submission or the end of the attempt before, until RunTask is called.",
    "launch": "From the first RunTask call of the launch until its task is recorded.",
    "provisioning": "Until ECS begins to pull the image, or the container runs; of a runner, until it has the command.",
    "pull": "The pull of the image.",
    "start": "From the pulled image to the running container, where that takes 10 ms or more.",
    "run": "The container, or the command that a runner runs. The container's own spans are its children.",
    "stop": "From the stop request, or the end of the command, to STOPPED, where that takes 10 ms or more.",
    "result": "From the task's end, by ECS's clock, until a worker has recorded it.",
}
_SPAN_NAMES = {"provision": "provisioning"}
_FAILED_STATES = frozenset({State.FAILED, State.REMOVED, State.EXPIRED, State.UNKNOWN})


class SpanKind(StrEnum):
    """OpenTelemetry's kinds of the spans that workers export."""

    INTERNAL = "internal"
    CONSUMER = "consumer"


class RequestSpan(msgspec.Struct, frozen=True, kw_only=True):
    """One span.

    Attributes:
        span_id: Not 0; 64 bits.
        parent_id: That of its parent in the same trace; 0: the trace's root.
        start, end: Seconds since the epoch.
        error_type: `error.type`; "" if it did not fail.
    """

    name: str
    kind: SpanKind
    span_id: int
    parent_id: int
    start: float
    end: float
    attributes: Mapping[str, str | int]
    error_type: str = ""


class Trace(msgspec.Struct, frozen=True):
    """The trace that a request belongs to: its caller's, or one of its own with `parent_id` 0."""

    trace_id: int
    parent_id: int
    flags: int


def parse_traceparent(traceparent: str) -> Trace | None:
    """Return the caller's trace; None when it has none, by W3C's words."""
    if not is_traceparent(traceparent):
        return None
    trace_id, parent_id, flags = (int(part, 16) for part in traceparent.split("-")[1:])
    return Trace(trace_id, parent_id, flags) if trace_id and parent_id else None


class Submitted(msgspec.Struct, frozen=True):
    """What identifies a submitted request, and the traceparent that it came with; "" for none."""

    namespace: str
    id: str
    nonce: str
    traceparent: str = ""

    @classmethod
    def of(cls, namespace: str, record: Record) -> Submitted:
        """Return what a record says."""
        return cls(namespace, record.id, record.nonce, record.traceparent)

    def trace(self) -> Trace:
        """Return the trace. One of the request's own counts as sampled: the sampler has not been asked."""
        return parse_traceparent(self.traceparent) or Trace(self._hash("trace", 16), 0, SAMPLED)

    def request_span_id(self) -> int:
        """Return the id of the span of the whole request, the parent of all others."""
        return self._hash("request", 8)

    def span_id(self, launch: int, name: str) -> int:
        """Return the id of one span of a launch."""
        return self._hash(f"{launch}.{name}", 8)

    def run_traceparent(self, launch: int, *, is_sampled: bool) -> str:
        """Return the traceparent for what the container of this launch exports: its parent is the span `run`."""
        trace = self.trace()
        flags = trace.flags | SAMPLED if is_sampled else trace.flags & ~SAMPLED
        return f"00-{trace.trace_id:032x}-{self.span_id(launch, 'run'):016x}-{flags:02x}"

    def _hash(self, name: str, size: int) -> int:
        text = "\n".join((self.namespace, self.id, self.nonce, name))
        return int.from_bytes(hashlib.sha256(text.encode()).digest()[:size]) or 1


class AttemptEnd(PayloadRepr, msgspec.Struct, frozen=True, kw_only=True):
    """How an attempt ended.

    Attributes:
        task: As ECS shows it; None when it was not seen, or is a runner's, which serves others too.
        state: SUCCESS, and REVOKED for a stop, are no errors.
        stop_code: ECS's; "" for none.
        at: The end of task or command, in seconds since the epoch by the clock of ECS or the ledger.
        seen_at: When a worker has seen it.
    """

    state: State
    at: float
    seen_at: float
    task: Mapping[str, Any] | None = None
    exit_code: int | None = None
    stop_code: str = ""

    @property
    def error_type(self) -> str:
        """Return the value of `error.type`: ECS's stop code, or the state; "" when nothing failed."""
        has_stop_code = bool(self.stop_code) and self.state in (State.FAILED, State.REMOVED)
        return self.stop_code if has_stop_code else str(self.state.value) if self.state in _FAILED_STATES else ""


def build_attempt_spans(namespace: str, record: Record, end: AttemptEnd) -> list[RequestSpan]:
    """Return the spans of an attempt that has ended; `record` as it was in that attempt, or is at its own end."""
    submitted = Submitted.of(namespace, record)
    parts = _attempt_parts(record, end)
    failed = next((name for name, _, _ in reversed(parts) if name not in ("stop", "result")), "")
    shared = attempt_attributes(record)
    ran = shared | run_attributes(record, end.task, end.exit_code)
    return [
        RequestSpan(
            name=name,
            kind=SpanKind.INTERNAL,
            span_id=submitted.span_id(record.launch, name),
            parent_id=submitted.request_span_id(),
            start=start,
            end=stop,
            attributes=ran if name == "run" else shared,
            error_type=end.error_type if name == failed else "",
        )
        for name, start, stop in parts
    ]


def _attempt_parts(record: Record, end: AttemptEnd) -> list[tuple[str, float, float]]:
    """Name, start and end of each span of an attempt, in order."""
    task = end.task or {"startedAt": record.started_at, "stoppedAt": end.at}
    since = record.requeued_at or record.created_at
    phases = build_phases(phase_starts(since, record.first_called_at, record.launched_at, task), end.at)
    parts = [(_SPAN_NAMES.get(each.name, each.name), each.start, each.end or each.start) for each in phases]
    if record.launched_at:
        over_at = max([end.at, *(stop for _, _, stop in parts)])
        parts.append(("result", over_at, max(over_at, end.seen_at)))
    return parts


def build_request_span(namespace: str, record: Record, end: AttemptEnd) -> RequestSpan:
    """Return the span of a request that has ended: the parent of all others, and a child of its caller's span."""
    submitted = Submitted.of(namespace, record)
    return RequestSpan(
        name=f"process {record.queue}",
        kind=SpanKind.CONSUMER,
        span_id=submitted.request_span_id(),
        parent_id=submitted.trace().parent_id,
        start=record.created_at,
        end=max(record.created_at, end.at, end.seen_at),
        attributes=request_attributes(record),
        error_type=end.error_type,
    )
