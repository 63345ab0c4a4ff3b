"""What a worker shows of itself over HTTP, and what its counters make of its events."""

from __future__ import annotations

import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping

import pytest
from prometheus_client.parser import text_string_to_metric_families

from ecs_queue.errors import ConfigError, LedgerUnavailable
from ecs_queue.local.redis_server import find_free_port
from ecs_queue.monitoring.counters import WorkerCounters
from ecs_queue.protocol.ecs_results import RunTaskResultKind
from ecs_queue.protocol.states import State
from ecs_queue.worker.worker import Worker
from tests.wait import wait_until
from tests.worker.harness import WorkerHarness, failed_result
from tests.worker.live_harness import LiveWorkerHarness

Values = Mapping[tuple[str, frozenset[tuple[str, str]]], float]


def get(worker: Worker, path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{worker._config.metrics_port}{path}", timeout=30) as response:
            return response.status, response.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def scrape(worker: Worker) -> Values:
    families = text_string_to_metric_families(get(worker, "/metrics")[1])
    return {(each.name, frozenset(each.labels.items())): each.value for family in families for each in family.samples}


def labels(**values: str) -> frozenset[tuple[str, str]]:
    return frozenset(values.items())


@pytest.fixture
def make_harness() -> Iterator[Callable[..., LiveWorkerHarness]]:
    harnesses: list[LiveWorkerHarness] = []

    def make(**keys: float) -> LiveWorkerHarness:
        harnesses.append(LiveWorkerHarness(metrics_port=find_free_port(), **keys))
        return harnesses[-1]

    yield make
    for harness in harnesses:
        harness.stop_workers()


def test_a_scrape_of_a_worker_shows_its_launches_and_results(make_harness: Callable[..., LiveWorkerHarness]) -> None:
    harness = make_harness()
    worker = harness.start_worker()
    harness.submit("a", "b", "c")
    wait_until(lambda: len(harness.ecs.tasks) == 3)
    *ended, _ = harness.ecs.tasks
    for arn in ended:
        harness.ecs.finish(arn)
    wait_until(lambda: harness.emitted.count("request.ended") == 2)

    values = scrape(worker)
    queue = labels(queue="default")
    assert values["ecs_queue_launches_total", queue] == 3
    assert values["ecs_queue_wait_seconds_count", queue] == 3
    result = labels(queue="default", state="SUCCESS", stop_code="EssentialContainerExited")
    assert values["ecs_queue_results_total", result] == 2
    assert values["ecs_queue_stop_to_result_seconds_count", queue] == 2
    assert values["ecs_queue_ecs_call_seconds_count", labels(operation="RunTask", result="ok")] == 3
    assert values["ecs_queue_ledger_round_trip_seconds_count", labels()] >= 1
    assert values["ecs_queue_requests_submitted_total", queue] == 3
    assert values["ecs_queue_circuit_open", queue] == values["ecs_queue_draining", labels()] == 0
    assert values["ecs_queue_results_pending", labels()] == 0


def test_a_worker_is_ready_until_it_stops_or_its_ledger_fails_again_and_again(
    make_harness: Callable[..., LiveWorkerHarness],
) -> None:
    harness = make_harness()
    worker = harness.start_worker()
    wait_until(lambda: get(worker, "/readyz") == (200, "ok\n"))

    for _ in range(2):
        worker._context.outages.report_failure("poller", LedgerUnavailable("it is away"))
    assert get(worker, "/readyz") == (503, "the server of ledger and broker: it is away\n")
    assert get(worker, "/healthz") == (200, "ok\n"), "a restart would not help"
    assert scrape(worker)["ecs_queue_server_errors_total", labels(server="ledger")] == 2

    worker.stop()
    assert get(worker, "/readyz") == (503, "the worker stops\n")
    assert worker.join()
    with pytest.raises(urllib.error.URLError):
        get(worker, "/readyz")


def test_a_service_whose_thread_has_ended_makes_the_worker_unhealthy(
    make_harness: Callable[..., LiveWorkerHarness], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ecs_queue.worker.service.PeriodicService._run", lambda self: None)
    worker = make_harness().start_worker()
    wait_until(lambda: "the thread of poller has ended\n" in get(worker, "/healthz")[1])
    assert get(worker, "/healthz")[0] == get(worker, "/readyz")[0] == 503


def test_a_port_in_use_ends_the_start_before_anything_is_launched(
    make_harness: Callable[..., LiveWorkerHarness],
) -> None:
    harness = make_harness()
    harness.start_worker()
    with pytest.raises(ConfigError, match="metrics_port: cannot listen on"):
        harness.start_worker()
    assert harness.emitted.count("worker.started") == 1


def count_events(harness: WorkerHarness) -> Mapping[tuple[str, tuple[str, ...]], list[float]]:
    """The counters of the harness's worker; a histogram as its number and its sum."""
    counters = WorkerCounters()
    for name, fields in harness.worker.events:
        counters.record_event(name, fields)
    values, histograms = counters.read()
    found = {(each.name, each.labels): [each.value] for each in values}
    return found | {(each.name, each.labels): [sum(each.counts), each.total] for each in histograms}


def test_the_phases_of_a_task_are_measured_once() -> None:
    harness = WorkerHarness()
    body = harness.put_request()
    harness.clock.advance(3)
    assert harness.worker.handle_message(body)
    arn = harness.record().arn
    task = harness.ecs.tasks[arn]
    for times in ({"pullStartedAt": 10.0}, {"pullStoppedAt": 14.0}):
        task.update({name: harness.record().launched_at + at for name, at in times.items()})
        task["version"] += 1
        harness.advance(5)
    harness.clock.advance(10)
    harness.ecs.mark_running(arn)
    harness.advance(5)
    harness.advance(5)
    harness.clock.advance(100)
    harness.ecs.finish(arn)
    harness.advance(7)
    assert harness.state() is State.SUCCESS

    found = count_events(harness)
    queue = ("default",)
    assert found["ecs_queue_wait_seconds", queue] == pytest.approx([1, 3])
    assert found["ecs_queue_launch_seconds", queue][0] == 1
    assert found["ecs_queue_provisioning_seconds", queue] == pytest.approx([1, 10])
    assert found["ecs_queue_pull_seconds", queue] == pytest.approx([1, 4])
    assert found["ecs_queue_run_seconds", queue] == pytest.approx([1, 110])
    assert found["ecs_queue_stop_to_result_seconds", queue] == pytest.approx([1, 7])


def test_throttled_calls_attempts_and_stop_codes_are_counted() -> None:
    harness = WorkerHarness()
    harness.ecs.run_task_results.append(failed_result(RunTaskResultKind.THROTTLED))
    harness.worker.handle_message(harness.new_envelope(relaunch="interrupted"))
    harness.advance_in_steps(10)
    harness.ecs.interrupt(harness.record().arn)
    harness.advance_in_steps(20)
    harness.ecs.finish(harness.record().arn, exit_code=2, stop_code="MadeUp")
    harness.advance_in_steps(20)
    assert harness.state() is State.FAILED

    found = count_events(harness)
    assert found["ecs_queue_run_task_results_total", ("default", "throttled")] == [1]
    assert found["ecs_queue_launches_total", ("default",)] == [2]
    assert found["ecs_queue_wait_seconds", ("default",)][0] == 1
    assert found["ecs_queue_retries_total", ()] == [1]
    assert found["ecs_queue_attempts_total", ("default",)] == [2]
    assert found["ecs_queue_results_total", ("default", "FAILED", "(other)")] == [1]
