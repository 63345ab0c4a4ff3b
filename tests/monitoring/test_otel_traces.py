"""Spans by OpenTelemetry, as a collector gets them."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator, Sequence

import pytest
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import ConsoleSpanExporter, SpanExportResult

from ecs_queue.errors import ConfigError
from ecs_queue.monitoring import otel_pipeline
from ecs_queue.monitoring.otel_pipeline import open_exporters
from ecs_queue.monitoring.otel_setup import open_span_export
from ecs_queue.monitoring.otel_traces import SpanExport
from ecs_queue.monitoring.spans import RequestSpan, SpanKind, Submitted
from ecs_queue.outage_log import OutageLine, OutagePhase
from tests.otlp_collector import Collector, span_attributes
from tests.wait import wait_until

_TRACE_ID, _CALLER = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
SAMPLED = Submitted("ns", "a", "nonce", f"00-{_TRACE_ID}-{_CALLER}-01")
UNSAMPLED = Submitted("ns", "a", "nonce", f"00-{_TRACE_ID}-{_CALLER}-00")
OWN = Submitted("ns", "a", "nonce")


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    made = Collector()
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", made.url)
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "50")
    yield made
    made.close()


def make_spans(submitted: Submitted) -> list[RequestSpan]:
    """The span of a request, and one of its children."""
    root = RequestSpan(
        name="process default",
        kind=SpanKind.CONSUMER,
        span_id=submitted.request_span_id(),
        parent_id=submitted.trace().parent_id,
        start=100.25,
        end=107.5,
        attributes={"ecs_queue.state": "FAILED", "ecs_queue.attempts": 2},
        error_type="FAILED",
    )
    child = RequestSpan(
        name="run",
        kind=SpanKind.INTERNAL,
        span_id=submitted.span_id(1, "run"),
        parent_id=root.span_id,
        start=101.0,
        end=107.0,
        attributes={},
    )
    return [child, root]


def export_once(submitted: Submitted) -> bool:
    """Export the spans if they are sampled, in a process of its own that ends; return whether they were."""
    export = SpanExport("ecs-queue-worker", "w-1", lambda has_succeeded: None)
    export.start()
    is_sampled = export.is_sampled(submitted, "default")
    if is_sampled:
        export.export(submitted.trace(), make_spans(submitted))
    export.stop()
    assert export.join(5)
    return is_sampled


@pytest.mark.parametrize(("submitted", "trace_id", "caller"), [(SAMPLED, _TRACE_ID, _CALLER), (OWN, None, "")])
def test_spans_have_the_ids_that_any_process_can_name(
    collector: Collector, submitted: Submitted, trace_id: str | None, caller: str
) -> None:
    assert export_once(submitted)

    run, request = collector.spans()
    assert {span.trace_id.hex() for span in (run, request)} == {trace_id or f"{submitted.trace().trace_id:032x}"}
    assert request.parent_span_id.hex() == caller
    assert run.parent_span_id == request.span_id
    assert submitted.run_traceparent(1, is_sampled=True).split("-")[1:3] == [run.trace_id.hex(), run.span_id.hex()]
    assert (request.start_time_unix_nano, request.end_time_unix_nano) == (100_250_000_000, 107_500_000_000)
    assert (request.kind, request.status.code) == (request.SPAN_KIND_CONSUMER, request.status.STATUS_CODE_ERROR)
    facts = {"ecs_queue.state": "FAILED", "ecs_queue.attempts": 2, "error.type": "FAILED"}
    assert span_attributes(request) == facts
    (resource,) = collector.trace_resources()
    assert (resource["service.name"], resource["service.instance.id"]) == ("ecs-queue-worker", "w-1")


@pytest.mark.parametrize(
    ("variables", "submitted"),
    [
        ({}, UNSAMPLED),
        ({"OTEL_TRACES_SAMPLER": "parentbased_always_off"}, OWN),
        ({"OTEL_TRACES_SAMPLER": "always_off"}, SAMPLED),
        ({"OTEL_SDK_DISABLED": "true"}, SAMPLED),
        ({"OTEL_TRACES_EXPORTER": "none"}, SAMPLED),
    ],
)
def test_what_caller_or_operator_do_not_want_is_not_exported(
    collector: Collector, monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], submitted: Submitted
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)

    assert not export_once(submitted)
    assert collector.spans() == []


def test_every_process_samples_the_same_traces(collector: Collector, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "parentbased_traceidratio")
    monkeypatch.setenv("OTEL_TRACES_SAMPLER_ARG", "0.5")
    exports = [SpanExport("s", "", lambda has_succeeded: None) for _ in range(2)]
    requests = [Submitted("ns", str(number), "n") for number in range(200)]

    one, other = ([export.is_sampled(each, "default") for each in requests] for export in exports)
    assert one == other
    assert 60 < sum(one) < 140


def test_an_outage_of_the_collector_is_one_line_and_its_end_another(collector: Collector) -> None:
    collector.status = 400  # an answer that is not repeated
    lines: list[OutageLine] = []
    export = open_span_export("s", "", lines.append)
    export.start()
    for _ in range(3):
        export.export(SAMPLED.trace(), make_spans(SAMPLED))
        wait_until(lambda: lines, "it failed")
    collector.status = 200
    wait_until(lambda: _export_and_find_end(export, lines), "it works again")
    export.stop()
    export.join(5)

    assert [line.phase for line in lines] == [OutagePhase.BEGAN, OutagePhase.ENDED]


def _export_and_find_end(export: SpanExport, lines: list[OutageLine]) -> bool:
    export.export(SAMPLED.trace(), make_spans(SAMPLED))
    return lines[-1].phase is OutagePhase.ENDED


def test_a_collector_that_hangs_delays_nothing(collector: Collector, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "512")
    collector.answers.clear()
    export = open_span_export("s", "", lambda line: None)
    export.start()
    began = time.monotonic()
    for _ in range(1000):
        export.export(SAMPLED.trace(), make_spans(SAMPLED))
    export.stop()
    export.join(8)
    assert time.monotonic() - began < 8


def test_an_exporter_that_does_not_end_delays_a_stop_by_two_seconds_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of gRPC, versions before 1.36 wait for the present export up to 30 s."""

    class Stuck(ConsoleSpanExporter):
        def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
            never.wait(60)
            return SpanExportResult.FAILURE

        def shutdown(self) -> None:
            never.wait(60)

    never = threading.Event()
    monkeypatch.setattr(otel_pipeline, "open_exporters", lambda environ: [Stuck()])
    export = SpanExport("s", "", lambda has_succeeded: None)
    export.start()
    export.export(SAMPLED.trace(), make_spans(SAMPLED))
    export.stop()
    began = time.monotonic()
    assert not export.join(8)
    assert time.monotonic() - began < 7
    never.set()


def test_another_exporter_is_loaded_by_its_name() -> None:
    exporters = open_exporters({"OTEL_TRACES_EXPORTER": "console, otlp"})
    assert [type(exporter) for exporter in exporters] == [ConsoleSpanExporter, OTLPSpanExporter]


@pytest.mark.parametrize(
    "variables", [{"OTEL_TRACES_EXPORTER": "zipkin"}, {"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}], ids=str
)
def test_an_exporter_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch, variables: dict[str, str]) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match=r"found (zipkin|otlp_proto_grpc); install its package"):
        open_span_export("s", "", lambda line: None)


def test_without_its_packages_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("otel_traces", "otel_pipeline"):
        monkeypatch.delitem(sys.modules, f"ecs_queue.monitoring.{name}", raising=False)
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)
    with pytest.raises(ConfigError, match=r"pip install 'ecs-queue\[otel\]'"):
        open_span_export("s", "", lambda line: None)
