"""A stand-in of an OpenTelemetry collector: it takes OTLP over HTTP, decodes it and keeps it."""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest


class Collector:
    """What was posted, and what it answers: `status`, or nothing while it hangs."""

    def __init__(self) -> None:
        self.requests: list[ExportMetricsServiceRequest] = []
        self.trace_requests: list[ExportTraceServiceRequest] = []
        self.status = 200
        self.answers = threading.Event()
        self.answers.set()
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                collector.answers.wait(60)
                if collector.status == 200:
                    collector.keep(self.path, body)
                self.send_response(collector.status)
                self.end_headers()

            def log_message(self, format: str, *args: Any) -> None:
                """Log nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_port}"

    def keep(self, path: str, body: bytes) -> None:
        """Decode and keep what was posted."""
        if path == "/v1/metrics":
            self.requests.append(ExportMetricsServiceRequest.FromString(body))
        elif path == "/v1/traces":
            self.trace_requests.append(ExportTraceServiceRequest.FromString(body))

    def close(self) -> None:
        self.answers.set()
        self.server.shutdown()
        self.server.server_close()

    def metrics(self) -> dict[str, Any]:
        """The newest export of each metric, by name."""
        return {
            metric.name: metric
            for request in list(self.requests)
            for resource in request.resource_metrics
            for scope in resource.scope_metrics
            for metric in scope.metrics
        }

    def spans(self) -> list[Any]:
        """Every span that was exported, in order."""
        return [
            span
            for request in list(self.trace_requests)
            for resource in request.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]

    def resource(self) -> dict[str, str]:
        return _attributes(self.requests[-1].resource_metrics[0].resource)

    def trace_resources(self) -> list[dict[str, str]]:
        """The resource of each export of spans."""
        return [_attributes(found.resource) for request in self.trace_requests for found in request.resource_spans]


def _attributes(resource: Any) -> dict[str, str]:
    return {attribute.key: attribute.value.string_value for attribute in resource.attributes}


def span_attributes(span: Any) -> dict[str, str | int]:
    """The attributes of a span; all of ours are texts or integers."""
    return {
        each.key: each.value.int_value if each.value.HasField("int_value") else each.value.string_value
        for each in span.attributes
    }
