"""Exports the spans of requests under the ids that any process can name."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping, Sequence

from opentelemetry import trace as api
from opentelemetry.context import Context
from opentelemetry.sdk.trace.id_generator import IdGenerator
from opentelemetry.sdk.trace.sampling import Decision

from ecs_queue.monitoring.otel_outages import Report
from ecs_queue.monitoring.otel_pipeline import SpanPipeline
from ecs_queue.monitoring.spans import SAMPLED, RequestSpan, SpanKind, Submitted, Trace

_KINDS = {
    SpanKind.INTERNAL: api.SpanKind.INTERNAL,
    SpanKind.CONSUMER: api.SpanKind.CONSUMER,
}


class _GivenIds(IdGenerator):
    """Hands out the ids that a thread has named for its next span."""

    def __init__(self) -> None:
        self._next = threading.local()

    def give(self, trace_id: int, span_id: int) -> None:
        """Name the ids of the next span of this thread."""
        self._next.trace_id, self._next.span_id = trace_id, span_id

    def generate_trace_id(self) -> int:
        """See `IdGenerator`."""
        found: int = self._next.trace_id
        return found

    def generate_span_id(self) -> int:
        """See `IdGenerator`."""
        found: int = self._next.span_id
        return found


class SpanExport(SpanPipeline):
    """See the module. Thread-safe."""

    def __init__(
        self, service_name: str, instance: str, report: Report, environ: Mapping[str, str] = os.environ
    ) -> None:
        """See `SpanPipeline`."""
        self._ids = _GivenIds()
        super().__init__(service_name, instance, report, environ, self._ids)

    def is_sampled(self, submitted: Submitted, queue: str) -> bool:
        """Return whether the request's trace is recorded: by the sampler of OTEL_TRACES_SAMPLER, and its caller."""
        if not self.is_enabled:
            return False
        trace = submitted.trace()
        parent = parent_context(trace, trace.parent_id, trace.flags)
        name, kind = f"process {queue}", api.SpanKind.CONSUMER
        result = self.sampler.should_sample(parent, trace.trace_id, name, kind, {}, ())
        return result.decision is Decision.RECORD_AND_SAMPLE

    def export(self, trace: Trace, spans: Sequence[RequestSpan]) -> None:
        """Queue spans of a trace that is sampled."""
        for span in spans:
            is_child_of_caller = span.parent_id == trace.parent_id
            flags = trace.flags if is_child_of_caller else trace.flags | SAMPLED
            attributes = {**span.attributes, "error.type": span.error_type} if span.error_type else span.attributes
            self._ids.give(trace.trace_id, span.span_id)
            made = self.tracer.start_span(
                span.name,
                parent_context(trace, span.parent_id, flags),
                _KINDS[span.kind],
                attributes,
                start_time=nanoseconds(span.start),
            )
            if span.error_type:
                made.set_status(api.StatusCode.ERROR)
            made.end(nanoseconds(span.end))


def parent_context(trace: Trace, parent_id: int, flags: int) -> Context:
    """Return the context of a span whose parent another process exports; 0: it has none."""
    if not parent_id:
        return Context()
    parent = api.SpanContext(trace.trace_id, parent_id, is_remote=True, trace_flags=api.TraceFlags(flags))
    return api.set_span_in_context(api.NonRecordingSpan(parent), Context())


def nanoseconds(seconds: float) -> int:
    """Return a time as the SDK takes it, to the millisecond."""
    return round(seconds * 1000) * 1_000_000
