"""One trace from the submission to the result, as a collector gets it from client, worker and container."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ecs_queue.client.client import EcsQueue
from ecs_queue.local.ecs import LocalEcs, LocalEcsOptions, local_environment
from tests.otlp_collector import Collector, span_attributes
from tests.processes import QUICK_SETTINGS, merged_environ, run_worker
from tests.wait import wait_until

pytestmark = [pytest.mark.server, pytest.mark.slow]

_TRACE_ID, _CALLER = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
#: What a program does that continues TRACEPARENT, in OpenTelemetry's own words.
_PROGRAM = """
import os
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

provider = TracerProvider()
provider.add_span_processor(SimpleSpanProcessor(OTLPSpanExporter()))
parent = TraceContextTextMapPropagator().extract({"traceparent": os.environ["TRACEPARENT"]})
provider.get_tracer("etl").start_span("etl", parent).end()
"""


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    made = Collector()
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", made.url)
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "100")
    monkeypatch.setenv("AIRFLOW__ECS_QUEUE__OTEL_TRACES", "True")
    yield made
    made.close()


def test_a_request_is_one_trace_from_its_submission_to_its_result(
    collector: Collector, redis_url: str, tmp_path: Path
) -> None:
    options = LocalEcsOptions(provision_seconds=(0.2, 0.2), shutdown_delay_seconds=0.1, log_dir=tmp_path / "logs")
    with LocalEcs(options) as ecs:
        environ = merged_environ(local_environment(ecs.endpoint_url, redis_url), QUICK_SETTINGS)
        with EcsQueue.from_config(environ=environ) as queue, run_worker(environ, tmp_path / "worker.log"):
            handle = queue.submit(
                [sys.executable, "-c", _PROGRAM],
                environment={"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url, "PASSWORD": "secret"},
                traceparent=f"00-{_TRACE_ID}-{_CALLER}-01",
            )
            assert handle.result(60).exit_code == 0, (tmp_path / "worker.log").read_text()
            wait_until(lambda: any(span.name == "process default" for span in collector.spans()), "it was exported")

    spans = {span.name: span for span in collector.spans()}
    phases = ["wait", "launch", "provisioning", "pull", "run", "stop", "result"]
    assert set(spans) - {"start"} == {"submit default", "process default", *phases, "etl", "receive default"}
    assert {span.trace_id.hex() for span in spans.values()} == {_TRACE_ID}
    assert _parents(spans) == {
        "submit default": _CALLER,
        "process default": "submit default",
        **dict.fromkeys((*phases, "receive default"), "process default"),
        "etl": "run",
    }
    starts = [spans[name].start_time_unix_nano for name in phases]
    assert starts == sorted(starts)
    assert spans["pull"].end_time_unix_nano - spans["pull"].start_time_unix_nano >= 90_000_000
    assert span_attributes(spans["run"])["process.exit.code"] == 0
    services = {resource["service.name"] for resource in collector.trace_resources()}
    assert {"ecs-queue-worker", "ecs-queue-client"} <= services
    assert "secret" not in str(collector.trace_requests)


def _parents(spans: dict[str, Any]) -> dict[str, str]:
    """Each span's parent by its name; that of none of these by its id."""
    names = {span.span_id: span.name for span in spans.values()}
    found = {name: names.get(span.parent_span_id, span.parent_span_id.hex()) for name, span in spans.items()}
    return {name: parent for name, parent in found.items() if name != "start"}
