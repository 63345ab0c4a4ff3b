"""The spans that workers make of attempts and requests, and the trace that containers continue."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pytest

from ecs_queue.ecs.clients import Target
from ecs_queue.messages.fields import is_traceparent
from ecs_queue.monitoring.span_attributes import ATTRIBUTES
from ecs_queue.monitoring.spans import ATTEMPT_SPANS, RequestSpan, Submitted, Trace
from ecs_queue.protocol.ecs_results import RunTaskResultKind
from ecs_queue.protocol.operations import ResultCode, TaskUpdate
from ecs_queue.protocol.runs import RunEnd, Turn
from ecs_queue.protocol.states import State
from ecs_queue.worker.tracing import OtelTracing
from tests.fake_clock import START
from tests.worker.harness import WorkerHarness, failed_result
from tests.worker.warm_harness import WARM, Runner, settle, start

CALLER = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
UNSAMPLED = CALLER[:-1] + "0"


class Spans:
    """A `SpanSink` that keeps what it is given."""

    def __init__(self) -> None:
        self.spans: list[RequestSpan] = []
        self.traces: list[Trace] = []

    def is_sampled(self, submitted: Submitted, queue: str) -> bool:
        return bool(submitted.trace().flags & 1)

    def export(self, trace: Trace, spans: Sequence[RequestSpan]) -> None:
        self.spans += spans
        self.traces += [trace] * len(spans)

    def names(self) -> list[str]:
        return [span.name for span in self.spans]

    def times(self) -> dict[str, tuple[float, float]]:
        """Seconds since the test's start."""
        return {span.name: (span.start - START, span.end - START) for span in self.spans}

    def errors(self) -> dict[str, str]:
        return {span.name: span.error_type for span in self.spans if span.error_type}


class TracedHarness(WorkerHarness):
    """Its worker exports spans."""

    def __init__(self, environ: Mapping[str, str] | None = None) -> None:
        super().__init__(environ)
        self.exported = Spans()
        context = self.worker.context
        context.tracing = OtelTracing(self.config.namespace, self.exported, self.clock, context.telemetry)

    def container_traceparent(self, number: int = -1) -> str | None:
        (container,) = self.ecs.run_task_calls[number].arguments["overrides"]["containerOverrides"]
        found = {variable["name"]: variable["value"] for variable in container.get("environment", ())}
        return found.get("TRACEPARENT")


@pytest.fixture
def harness() -> TracedHarness:
    return TracedHarness()


def run_to_the_end(harness: TracedHarness, exit_code: int = 0) -> None:
    """A task with every time that ECS gives; it was submitted 2 s before it was launched."""
    body = harness.put_request(traceparent=CALLER, command=["secret"])
    harness.clock.advance(2)
    harness.worker.handle_message(body)
    arn = harness.record().arn
    task = harness.ecs.tasks[arn]
    task["clusterArn"] = "arn:aws:ecs:us-east-1:123456789012:cluster/jobs"
    task["taskDefinitionArn"] = "arn:aws:ecs:us-east-1:123456789012:task-definition/family:7"
    task["launchType"], task["availabilityZone"] = "FARGATE", "us-east-1a"
    task["pullStartedAt"], task["pullStoppedAt"] = START + 5, START + 8
    harness.clock.advance(7)
    harness.ecs.mark_running(arn)
    harness.clock.advance(20)
    task["stoppingAt"] = START + 28
    harness.ecs.finish(arn, exit_code)
    harness.advance(1.5)


def test_a_request_has_a_span_for_each_phase_under_its_callers_trace(harness: TracedHarness) -> None:
    run_to_the_end(harness)

    assert harness.exported.times() == {
        "wait": (0, 2),
        "launch": (2, 2),
        "provisioning": (2, 5),
        "pull": (5, 8),
        "start": (8, 9),
        "run": (9, 28),
        "stop": (28, 29),
        "result": (29, 30.5),
        "process default": (0, 30.5),
    }
    assert list(harness.exported.times())[:-1] == list(ATTEMPT_SPANS)
    *children, request = harness.exported.spans
    assert {span.parent_id for span in children} == {request.span_id}
    assert {f"{trace.trace_id:032x}" for trace in harness.exported.traces} == {CALLER.split("-")[1]}
    assert f"{request.parent_id:016x}" == CALLER.split("-")[2]
    assert harness.exported.errors() == {}


def test_the_container_is_a_child_of_the_span_run(harness: TracedHarness) -> None:
    run_to_the_end(harness)

    (run,) = (span for span in harness.exported.spans if span.name == "run")
    assert harness.container_traceparent() == f"00-{CALLER.split('-')[1]}-{run.span_id:016x}-01"


def test_attributes_are_facts_and_all_of_the_table(harness: TracedHarness) -> None:
    run_to_the_end(harness, exit_code=3)

    *_, run, _, _, request = harness.exported.spans
    assert run.attributes == {
        "messaging.message.id": "a",
        "ecs_queue.attempt": 1,
        "ecs_queue.launch": 1,
        "cloud.provider": "aws",
        "cloud.platform": "aws_ecs",
        "cloud.region": "us-east-1",
        "cloud.account.id": "123456789012",
        "cloud.availability_zone": "us-east-1a",
        "aws.ecs.task.arn": harness.record().arn,
        "aws.ecs.cluster.arn": "arn:aws:ecs:us-east-1:123456789012:cluster/jobs",
        "aws.ecs.task.family": "family",
        "aws.ecs.task.revision": "7",
        "aws.ecs.launchtype": "fargate",
        "process.exit.code": 3,
    }
    assert request.attributes == {
        "messaging.system": "ecs_queue",
        "messaging.operation.name": "process",
        "messaging.operation.type": "process",
        "messaging.destination.name": "default",
        "messaging.message.id": "a",
        "ecs_queue.state": "FAILED",
        "ecs_queue.attempts": 1,
        "ecs_queue.stop_code": "EssentialContainerExited",
        "process.exit.code": 3,
    }
    assert {name for span in harness.exported.spans for name in span.attributes} <= set(ATTRIBUTES)
    expected = dict.fromkeys(("run", "process default"), "EssentialContainerExited")
    assert harness.exported.errors() == expected
    assert "secret" not in repr(harness.exported.spans)


def test_every_attempt_has_its_spans_and_its_container_their_parent(harness: TracedHarness) -> None:
    harness.launch(relaunch="interrupted")
    harness.clock.advance(5)
    harness.ecs.interrupt(harness.record().arn)
    harness.advance(2)
    first = harness.exported.names()
    harness.advance_in_steps(20)
    relaunched_at = harness.record().launched_at - START
    harness.ecs.finish(harness.record().arn)
    harness.advance_in_steps(3)

    assert (first[-2:], harness.exported.spans[len(first) - 2].error_type) == (["run", "result"], "SpotInterruption")
    second = [span for span in harness.exported.spans[len(first) :] if span.name == "wait"]
    assert [(span.start - START, span.end - START) for span in second] == [(7, relaunched_at)]
    runs = [span.span_id for span in harness.exported.spans if span.name == "run"]
    parents = [str(harness.container_traceparent(number)).split("-")[2] for number in range(2)]
    assert parents == [f"{span_id:016x}" for span_id in runs]
    assert [span.attributes["ecs_queue.attempt"] for span in harness.exported.spans if span.name == "run"] == [1, 2]
    assert len({span.span_id for span in harness.exported.spans}) == len(harness.exported.spans)


def test_the_arguments_of_one_launch_are_not_frozen_for_another(harness: TracedHarness) -> None:
    """Its message comes again while it waits for its second launch: those arguments name a span of the first."""
    body = harness.put_request(relaunch="interrupted")
    harness.worker.handle_message(body)
    harness.ecs.interrupt(harness.record().arn)
    harness.advance(2)
    harness.clock.advance(60)
    harness.worker.handle_message(body)

    assert len(harness.ecs.run_task_calls) == 1
    harness.advance_in_steps(20)
    submitted = Submitted.of(harness.config.namespace, harness.record())
    assert harness.container_traceparent(1) == submitted.run_traceparent(2, is_sampled=True)


def test_a_request_without_a_caller_has_a_trace_of_its_own(harness: TracedHarness) -> None:
    harness.ecs.finish(harness.launch())
    harness.advance(2)

    assert harness.exported.spans[-1].parent_id == 0
    assert is_traceparent(harness.container_traceparent())


def test_a_caller_that_is_not_sampled_stays_so(harness: TracedHarness) -> None:
    harness.ecs.finish(harness.launch(traceparent=UNSAMPLED))
    harness.advance(2)

    assert harness.exported.spans == []
    assert harness.container_traceparent() == UNSAMPLED


def test_a_task_that_does_not_start_fails_in_the_phase_that_it_has_reached(harness: TracedHarness) -> None:
    arn = harness.launch()
    harness.ecs.tasks[arn]["pullStartedAt"] = START + 1
    harness.clock.advance(3)
    harness.ecs.fail_to_start(arn)
    harness.advance(2)

    assert harness.exported.errors() == {"pull": "TaskFailedToStart"}
    assert harness.exported.names() == ["wait", "launch", "provisioning", "pull", "result"]


def test_a_refused_call_is_an_attempt_that_failed_to_launch(harness: TracedHarness) -> None:
    harness.ecs.run_task_results.append(failed_result(RunTaskResultKind.START_FAILURE))
    harness.launch()
    first = list(harness.exported.spans)
    harness.advance_in_steps(20)
    harness.ecs.finish(harness.record().arn)
    harness.advance_in_steps(3)

    assert [(span.name, span.error_type) for span in first] == [("wait", ""), ("launch", "REMOVED")]
    assert harness.exported.names()[2:] == ["wait", "launch", "provisioning", "run", "result", "process default"]


def test_lack_of_capacity_is_a_wait(harness: TracedHarness) -> None:
    harness.ecs.run_task_results.append(failed_result(RunTaskResultKind.CAPACITY))
    harness.launch()
    assert harness.exported.spans == []
    harness.advance_in_steps(20)
    harness.ecs.finish(harness.record().arn)
    harness.advance_in_steps(3)

    assert harness.exported.names() == ["wait", "launch", "provisioning", "run", "result", "process default"]
    assert harness.exported.times()["wait"][0] == 0


def test_a_request_that_ends_in_the_queue_has_waited(harness: TracedHarness) -> None:
    harness.put_request(expires_in=30.0)
    harness.advance(40)

    assert harness.state() is State.EXPIRED
    assert harness.exported.errors() == {"wait": "EXPIRED", "process default": "EXPIRED"}


def test_a_sampler_that_fails_keeps_no_request_from_its_launch_or_its_end(
    harness: TracedHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> bool:
        raise ValueError("a bug")

    monkeypatch.setattr(harness.exported, "is_sampled", fail)
    harness.ecs.finish(harness.launch(traceparent=CALLER))
    harness.advance(2)

    assert harness.state() is State.SUCCESS
    assert harness.container_traceparent() == CALLER
    failed = harness.worker.emitted("otel.export_failed")
    assert {event["reason"] for event in failed} == {"ValueError: a bug"}


class TestWarmPools:
    def test_an_attempt_whose_task_stops_before_its_reported_end_is_taken_is_exported_once(self) -> None:
        harness = TracedHarness(WARM)
        runner = start(harness, relaunch="any_failure")
        harness.ecs.finish(runner.arn, exit_code=1)
        (record,) = harness.ledger.get_with_payload(["a"])
        assert record is not None
        reconciler, task = harness.worker.poller.reconciler, harness.ecs.tasks[runner.arn]
        update, _ = reconciler.reconcile(Target.decode(record.target), record, task, harness.clock())
        runner.next(RunEnd(turn=1, exit_code=3))
        assert isinstance(update, TaskUpdate)
        assert reconciler.write_updates({"a": record}, [update])[0].code is ResultCode.STALE

        settle(harness)
        assert harness.exported.names() == ["wait", "provisioning", "run", "result"]

    def test_each_command_of_a_runner_has_its_own_trace(self) -> None:
        harness = TracedHarness(WARM)
        harness.launch("a", traceparent=CALLER)
        runner = Runner(harness)
        assert harness.container_traceparent() is None
        found = {}
        for number, name in enumerate(("a", "b"), 1):
            turn = runner.next()
            assert isinstance(turn, Turn)
            found[name] = runner.open(turn).environment["TRACEPARENT"]
            settle(harness)
            runner.next(RunEnd(turn=number, exit_code=0))
            settle(harness)
            if name == "a":
                harness.launch("b")
        for name in found:
            submitted = Submitted.of(harness.config.namespace, harness.record(name))
            assert found[name] == submitted.run_traceparent(1, is_sampled=True)
        assert found["a"].split("-")[1] == CALLER.split("-")[1] != found["b"].split("-")[1]

    def test_a_command_that_a_runner_ran_has_spans(self) -> None:
        harness = TracedHarness(WARM)
        harness.launch(relaunch="any_failure")
        runner = Runner(harness)
        runner.next()
        settle(harness)
        harness.clock.advance(5)
        runner.next(RunEnd(turn=1, exit_code=3))
        settle(harness)
        first = list(harness.exported.spans)

        assert [span.name for span in first] == ["wait", "provisioning", "run", "result"]
        assert first[2].error_type == "FAILED"
        harness.clock.advance(60)
        runner.next()
        harness.advance(1)
        turn = runner.next()
        assert isinstance(turn, Turn)
        settle(harness)
        runner.next(RunEnd(turn=2, exit_code=0))
        settle(harness)
        assert harness.exported.names()[4:] == ["wait", "provisioning", "run", "result", "process default"]
        assert harness.exported.spans[-3].attributes["ecs_queue.runner"] == runner.options.run
