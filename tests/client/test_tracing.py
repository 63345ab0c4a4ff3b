"""The spans of submissions and results, and whose trace a request joins."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
from opentelemetry import trace as api
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from ecs_queue.calls.executor import EcsExecutor
from ecs_queue.calls.payload import Direction
from ecs_queue.calls.store import MemoryCallStore
from ecs_queue.client.client import EcsQueue
from ecs_queue.errors import EcsQueueError, IdConflict, InvalidRequest, LedgerUnavailable
from ecs_queue.monitoring.spans import Submitted
from tests.calls.functions import add
from tests.client.harness import ClientHarness
from tests.otlp_collector import Collector
from tests.processes import IMPORT_ROOT, merged_environ
from tests.wait import wait_until
from tests.worker.harness import make_config

CALLER = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


class Application:
    """An application with a tracer provider of its own, and a client that exports under it."""

    def __init__(self, harness: ClientHarness, monkeypatch: pytest.MonkeyPatch) -> None:
        self.exporter = InMemorySpanExporter()
        self.provider = TracerProvider(shutdown_on_exit=False)
        self.provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        # The SDK takes a global provider once in a process.
        monkeypatch.setattr(api, "get_tracer_provider", lambda: self.provider)
        self.queue: EcsQueue = harness.make_client(
            config=make_config(
                {"AIRFLOW__AWS_ECS_EXECUTOR_STRICT__ALLOWED_OVERRIDES": "none"},
                namespace=harness.config.namespace,
                otel_traces=True,
            )
        )

    def spans(self) -> dict[str, ReadableSpan]:
        return {span.name: span for span in self.exporter.get_finished_spans()}


@pytest.fixture
def application(harness: ClientHarness, monkeypatch: pytest.MonkeyPatch) -> Application:
    return Application(harness, monkeypatch)


def traceparent_of(harness: ClientHarness, record_id: str) -> str:
    (record,) = harness.memory_ledger.get([record_id])
    assert record is not None
    return record.traceparent


def test_the_request_continues_the_span_of_its_submission(harness: ClientHarness, application: Application) -> None:
    application.queue.submit(["true"], id="a", traceparent=CALLER)

    submit = application.spans()["submit default"]
    assert submit.context is not None
    assert submit.parent is not None
    assert f"{submit.parent.span_id:016x}" == CALLER.split("-")[2]
    assert submit.kind is api.SpanKind.PRODUCER
    expected = f"00-{CALLER.split('-')[1]}-{submit.context.span_id:016x}-01"
    assert traceparent_of(harness, "a") == expected


def test_without_a_traceparent_it_joins_the_applications_current_span(
    harness: ClientHarness, application: Application
) -> None:
    with application.provider.get_tracer("app").start_as_current_span("nightly") as nightly:
        application.queue.submit(["true"], id="a")

    assert traceparent_of(harness, "a").split("-")[1] == f"{nightly.get_span_context().trace_id:032x}"
    parent = application.spans()["submit default"].parent
    assert parent is not None
    assert parent.span_id == nightly.get_span_context().span_id


def test_a_result_has_a_span_under_that_of_the_request_and_stays_unconfirmed(
    harness: ClientHarness, application: Application
) -> None:
    handle = application.queue.submit(["true"], id="a")
    harness.finish("a", exit_code=3)
    handle.exception(30)

    wait_until(lambda: "receive default" in application.spans(), "its callback was called")
    receive = application.spans()["receive default"]
    submitted = Submitted(harness.config.namespace, "a", handle.nonce)
    assert receive.parent is not None
    assert receive.parent.span_id == submitted.request_span_id()
    assert dict(receive.attributes or {})["ecs_queue.state"] == "FAILED"
    assert receive.status.status_code is api.StatusCode.ERROR
    assert receive.start_time is not None
    assert receive.end_time is not None
    assert receive.start_time <= receive.end_time
    (record,) = harness.memory_ledger.get(["a"])
    assert record is not None
    assert not record.confirmed_at


def test_a_submission_that_is_repeated_is_one_span(harness: ClientHarness, application: Application) -> None:
    prepared = application.queue.prepare({"command": ["true"], "id": "a"})
    harness.ledger.fail("put", "after")
    with pytest.raises(LedgerUnavailable):
        application.queue.send([prepared])
    assert not application.spans()
    application.queue.send([prepared])
    application.queue.send([prepared])

    assert len(application.exporter.get_finished_spans()) == 1


def test_a_rejected_submission_has_failed(application: Application) -> None:
    application.queue.submit(["true"], id="a")
    prepared = application.queue.prepare({"command": ["false"], "id": "a"})
    with pytest.raises(IdConflict):
        application.queue.send([prepared])

    *_, rejected = application.exporter.get_finished_spans()
    assert dict(rejected.attributes or {})["error.type"] == "conflict"


@pytest.mark.parametrize(
    ("failure", "error_type"),
    [("an invalid request after it", "InvalidRequest"), ("an outage", "LedgerUnavailable"), ("ids", "IdConflict")],
)
def test_a_submission_that_an_error_ends_has_failed(
    harness: ClientHarness, application: Application, failure: str, error_type: str
) -> None:
    requests: list[dict[str, Any]] = [{"command": ["true"], "id": "a"}]
    if failure == "an outage":
        harness.ledger.fail("put", "before")
    else:
        requests.append({"command": ["false"], "id": "a"} if failure == "ids" else {"command": []})
    with pytest.raises(EcsQueueError) as raised:
        application.queue.submit_many(requests)

    assert type(raised.value).__name__ == error_type
    spans = application.exporter.get_finished_spans()
    assert {dict(span.attributes or {}).get("error.type") for span in spans} == {error_type}


def test_a_request_whose_policy_is_not_allowed_has_failed(application: Application) -> None:
    with pytest.raises(InvalidRequest):
        application.queue.submit(["true"], queue="strict", start_timeout=5)

    assert dict(application.spans()["submit strict"].attributes or {})["error.type"] == "InvalidRequest"


def test_a_call_whose_payload_cannot_be_stored_has_failed(application: Application) -> None:
    class UnavailableStore(MemoryCallStore):
        def put(self, call_id: str, direction: Direction, payload: bytes, seconds: float) -> None:
            raise LedgerUnavailable("gone")

    executor = EcsExecutor(application.queue, store=UnavailableStore())
    with pytest.raises(LedgerUnavailable):
        executor.submit(add, 1, 1)
    executor.shutdown()

    assert dict(application.spans()["submit default"].attributes or {})["error.type"] == "LedgerUnavailable"


def test_a_program_that_does_not_close_its_client_exports_at_its_exit() -> None:
    collector = Collector()
    program = (
        "from ecs_queue.client.otel_tracing import OtelClientTracing\n"
        "from ecs_queue.messages.request import new_request\n"
        "from ecs_queue.client.producer import PreparedRequest\n"
        "from ecs_queue.protocol.operations import ResultCode\n"
        "tracing = OtelClientTracing('ns', print)\n"
        "request = new_request(id='a', command=['true'], now=1.0, accept_seconds=1.0)\n"
        "request, span = tracing.begin_submission(request)\n"
        "tracing.end_submission(PreparedRequest(request, None, span), ResultCode.CREATED)\n"
    )
    environ = merged_environ({"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url, "PYTHONPATH": str(IMPORT_ROOT)})
    try:
        subprocess.run([sys.executable, "-c", program], env=environ, check=True, timeout=60)
        assert [span.name for span in collector.spans()] == ["submit default"]
    finally:
        collector.close()
