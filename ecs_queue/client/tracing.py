"""The client's part of a request's trace: the span of its submission, and that of its result (docs/tracing.md)."""

from __future__ import annotations

from typing import Any

from ecs_queue.client.handle import Handle
from ecs_queue.client.producer import PreparedRequest
from ecs_queue.messages.request import TaskRequest
from ecs_queue.protocol.operations import ResultCode


class ClientTracing:
    """Exports nothing. A client without `otel_traces` has it."""

    def begin_submission(self, request: TaskRequest) -> tuple[TaskRequest, Any]:
        """Return the request with the trace that it is to continue, and the span of its submission, if there is one."""
        return request, None

    def end_submission(self, prepared_request: PreparedRequest, code: ResultCode) -> None:
        """Note what the ledger made of a request."""

    def fail_submission(self, span: Any, error_type: str) -> None:
        """Note on a span of `begin_submission` that its request is not sent after all, or may not have been."""

    def watch(self, handle: Handle) -> None:
        """Note the result when it comes."""

    def close(self) -> None:
        """Export what is left, for some seconds at most."""
