"""The client's spans by OpenTelemetry: under the application's tracer provider, or one of the client's own."""

from __future__ import annotations

import atexit
import time
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial

import msgspec
from opentelemetry import trace as api

from ecs_queue.client.handle import Handle
from ecs_queue.client.producer import PreparedRequest, is_accepted_code
from ecs_queue.client.tracing import ClientTracing
from ecs_queue.messages.request import TaskRequest
from ecs_queue.messages.result import TaskResult
from ecs_queue.monitoring.otel_outages import report_outages
from ecs_queue.monitoring.otel_pipeline import SCOPE, STOP_SECONDS, SpanPipeline
from ecs_queue.monitoring.otel_traces import nanoseconds, parent_context
from ecs_queue.monitoring.span_attributes import exit_attributes, message_attributes
from ecs_queue.monitoring.spans import Submitted, Trace, parse_traceparent
from ecs_queue.outage_log import OutageLine
from ecs_queue.protocol.operations import ResultCode
from ecs_queue.protocol.states import State


class OtelClientTracing(ClientTracing):
    """See the module. Thread-safe."""

    def __init__(
        self, namespace: str, log_outage: Callable[[OutageLine], None], clock: Callable[[], float] = time.time
    ) -> None:
        """Use the provider that the application has set, if it has, else export as the OTEL_ variables say."""
        self._namespace = namespace
        self._clock = clock
        self._pipeline: SpanPipeline | None = None
        provider = api.get_tracer_provider()
        if isinstance(provider, api.ProxyTracerProvider):  # the application has set none
            self._pipeline = SpanPipeline("ecs-queue-client", "", report_outages(log_outage))
            self._pipeline.start()
            atexit.register(self.close)  # a program that does not close its client must not lose the last spans
        self._tracer = provider.get_tracer(SCOPE) if self._pipeline is None else self._pipeline.tracer

    def begin_submission(self, request: TaskRequest) -> tuple[TaskRequest, api.Span]:
        """See `ClientTracing`. Without a trace of its own the request joins that of the caller's current span."""
        given = parse_traceparent(request.traceparent)
        span = self._tracer.start_span(
            f"submit {request.queue}",
            None if given is None else parent_context(given, given.parent_id, given.flags),
            api.SpanKind.PRODUCER,
            message_attributes("submit", "send", request.queue, request.id),
        )
        found = span.get_span_context()
        if not found.is_valid:  # OTEL_SDK_DISABLED
            return request, span
        traceparent = f"00-{found.trace_id:032x}-{found.span_id:016x}-{found.trace_flags:02x}"
        return msgspec.structs.replace(request, traceparent=traceparent), span

    def end_submission(self, prepared_request: PreparedRequest, code: ResultCode) -> None:
        """See `ClientTracing`."""
        span = prepared_request.submit_span
        if span is None or not span.is_recording():  # it has been sent before
            return
        if not is_accepted_code(code):
            span.set_attribute("error.type", code.value)
            span.set_status(api.StatusCode.ERROR)
        span.end()

    def fail_submission(self, span: api.Span | None, error_type: str) -> None:
        """See `ClientTracing`. The span of a request that the ledger has answered stays as it is."""
        if span is not None and span.is_recording():
            span.set_attribute("error.type", error_type)
            span.set_status(api.StatusCode.ERROR)
            span.end()

    def watch(self, handle: Handle) -> None:
        """See `ClientTracing`."""
        prepared_request = handle.prepared_request
        if prepared_request is not None:
            submission = prepared_request.submission
            submitted = Submitted(self._namespace, submission.id, submission.nonce, submission.traceparent)
            # Not the handle's own method: the client keeps handles that have callbacks.
            Future.add_done_callback(handle, partial(self._note_result, submitted))

    def close(self) -> None:
        """See `ClientTracing`."""
        if self._pipeline is not None:
            atexit.unregister(self.close)
            self._pipeline.stop()
            self._pipeline.join(STOP_SECONDS)

    def _note_result(self, submitted: Submitted, handle: Future[TaskResult]) -> None:
        """Export the span of a result, from the request's end to its arrival here, as a child of the request's span."""
        if Future.exception(handle) is not None:  # of `Future`: `Handle`'s would confirm that the caller has it
            return
        result, trace, now = Future.result(handle), submitted.trace(), self._clock()
        finished_at = result.finished_at.timestamp() if result.finished_at else now
        parent = Trace(trace.trace_id, submitted.request_span_id(), trace.flags)
        span = self._tracer.start_span(
            f"receive {result.queue}",
            parent_context(parent, parent.parent_id, parent.flags),
            api.SpanKind.CLIENT,
            {
                **message_attributes("receive", "receive", result.queue, result.id),
                "ecs_queue.state": result.state,
                **exit_attributes(result.exit_code),
            },
            start_time=nanoseconds(min(finished_at, now)),
        )
        if result.state not in (State.SUCCESS, State.REVOKED):
            span.set_attribute("error.type", result.stop_code or result.state)
            span.set_status(api.StatusCode.ERROR)
        span.end(nanoseconds(now))
