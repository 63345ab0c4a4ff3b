"""What a worker shows: complete, bounded, and quick whatever the ledger does."""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import pytest
from prometheus_client.parser import text_string_to_metric_families

from ecs_queue.broker.base import Broker
from ecs_queue.config import Config
from ecs_queue.errors import ConfigError, LedgerUnavailable
from ecs_queue.ledger.base import Ledger
from ecs_queue.monitoring import namespace_state
from ecs_queue.monitoring.catalogue import MAX_QUEUES, METRICS, OTHER, Sample
from ecs_queue.monitoring.counters import WorkerCounters
from ecs_queue.monitoring.monitor import Monitor
from ecs_queue.protocol.runs import Run, RunPhase
from ecs_queue.protocol.states import State
from tests.worker.harness import make_config

Values = Mapping[tuple[str, tuple[tuple[str, str], ...]], float]


class FakeLedger:
    """Counts of queues, and what happens before they are read."""

    def __init__(self, counts: Mapping[str, Mapping[State, int]]) -> None:
        self._counts = counts
        self.reads = 0
        self.runs: list[Run] = []
        self.before_read: Callable[[], object] = lambda: None

    def count_by_state(self) -> Mapping[str, Mapping[State, int]]:
        self.reads += 1
        self.before_read()
        return self._counts

    def list_paused_queues(self) -> dict[str, float]:
        return {"etl": 1.0}

    def list_workers(self) -> list[Any]:
        return []

    def find_oldest_queued(self, queues: Sequence[str]) -> dict[str, float]:
        return {"default": 90.0} if "default" in queues else {}

    def count_waiting_for_keys(self, queues: Sequence[str]) -> dict[str, int]:
        return dict.fromkeys(queues, 3)

    def count_delayed(self, queues: Sequence[str]) -> dict[str, int]:
        return {queue: 2 if queue == "default" else 0 for queue in queues}

    def now(self) -> float:
        return 100.0

    def count_dead_letters(self) -> dict[str, int]:
        return {"etl": 2, "forgotten": 1}

    def list_broken(self) -> list[Any]:
        return []

    def list_runs(self) -> list[Run]:
        return self.runs


class FakeBroker:
    def backlog(self, queue: str) -> int:
        return {"default": 2000, "nightly": 70}.get(queue, 0)


class FakeStatus:
    def __init__(self) -> None:
        self.obstacles: list[str] = []

    def read_gauges(self) -> list[Sample]:
        return [Sample("ecs_queue_draining", False)]

    def find_stopped_services(self) -> list[str]:
        return []

    def find_obstacles(self) -> list[str]:
        return self.obstacles


COUNTS = {
    "default": {State.QUEUED: 5, State.LAUNCHED: 2, State.SUCCESS: 10, State.UNKNOWN: 1},
    "etl": {State.QUEUED: 7},
    "": {State.REVOKED: 1},
}


class MonitorHarness:
    def __init__(self, counts: Mapping[str, Mapping[State, int]] = COUNTS, config: Config | None = None) -> None:
        self.ledger, self.status, self.counters = FakeLedger(counts), FakeStatus(), WorkerCounters()
        self.now = 0.0
        config = config or make_config(concurrency=8, run_task_rate=20)
        ledger, broker = cast("Ledger", self.ledger), cast("Broker", FakeBroker())
        self.monitor = Monitor(config, ledger, broker, self.counters, self.status, ["default"], self._monotonic)
        self._routes = self.monitor.build_routes()

    def _monotonic(self) -> float:
        return self.now + time.monotonic()

    def get(self, path: str, **query: str) -> tuple[int, str]:
        answer = self._routes[path](query)
        return answer.status, answer.body.decode()

    def scrape(self) -> Values:
        status, page = self.get("/metrics")
        assert status == 200
        families = list(text_string_to_metric_families(page))
        return {(each.name, tuple(each.labels.items())): each.value for family in families for each in family.samples}


def test_a_scrape_has_the_counts_of_the_ledger_and_they_add_up() -> None:
    values = MonitorHarness().scrape()
    by_queue = {"default": 18.0, "etl": 7.0}
    for queue, submitted in by_queue.items():
        live_or_ended = [
            value
            for (name, labels), value in values.items()
            if name in ("ecs_queue_requests", "ecs_queue_requests_ended_total") and ("queue", queue) in labels
        ]
        assert values["ecs_queue_requests_submitted_total", (("queue", queue),)] == submitted == sum(live_or_ended)
    assert values["ecs_queue_oldest_queued_age_seconds", (("queue", "default"),)] == 10
    assert values["ecs_queue_delayed_requests", (("queue", "default"),)] == 2
    assert values["ecs_queue_key_waiting_requests", (("queue", "default"),)] == 3
    assert values["ecs_queue_backlog_messages", (("queue", "default"),)] == 2000
    assert values["ecs_queue_queue_paused", (("queue", "etl"),)] == 1
    assert values["ecs_queue_workers_wanted", (("queue", "default"),)] == 3
    assert values["ecs_queue_dead_letters", ()] == 3
    dead = {labels: value for (name, labels), value in values.items() if name == "ecs_queue_queue_dead_letters"}
    assert dead == {(("queue", "default"),): 0, (("queue", "etl"),): 2, (("queue", "(other)"),): 1}
    assert values["ecs_queue_ledger_up", ()] == 1
    assert not [labels for _, labels in values if ("queue", "") in labels]


def test_the_runners_of_a_queue_are_counted_by_what_they_do() -> None:
    harness = MonitorHarness()
    alive: dict[str, Any] = {"pool": "etl.0123", "boot": "b", "seen_at": 99.0}
    harness.ledger.runs = [
        Run(name="starting", pool="etl.0123"),
        Run(name="busy", phase=RunPhase.FETCHED, **alive),
        Run(name="idle", phase=RunPhase.IDLE, **{**alive, "pool": "etl.4567"}),
        Run(name="leaving", phase=RunPhase.FETCHED, closed="drained", **alive),
        Run(name="silent", phase=RunPhase.IDLE, **{**alive, "seen_at": 10.0}),
        Run(name="left", phase=RunPhase.IDLE, closed="left", **alive),
    ]
    found = {labels: value for (name, labels), value in harness.scrape().items() if name == "ecs_queue_runners"}
    states = ("starting", "busy", "idle", "leaving", "silent")
    assert found == {(("queue", "etl"), ("state", state)): 1 for state in states}


def test_a_warm_queue_without_a_runner_has_none() -> None:
    config = make_config({"AIRFLOW__AWS_ECS_EXECUTOR__WARM_SECONDS": "60"})
    values = MonitorHarness({"default": {}}, config).scrape()
    assert values["ecs_queue_runners", (("queue", "default"), ("state", "idle"))] == 0


def test_only_metrics_of_the_catalogue_are_shown_with_its_types_and_labels() -> None:
    harness = MonitorHarness()
    for name, metric in METRICS.items():
        if metric.buckets:
            harness.counters.observe(name, 0.5, metric.labels)
    _, page = harness.get("/metrics")
    families = list(text_string_to_metric_families(page))
    for family in families:
        metric = METRICS[family.name if family.name in METRICS else f"{family.name}_total"]
        assert (family.type, family.documentation) == (metric.kind, metric.help)
        assert {label for sample in family.samples for label in sample.labels} - {"le"} == set(metric.labels)
    assert len([family for family in families if family.type == "histogram"]) == sum(
        bool(metric.buckets) for metric in METRICS.values()
    )


def test_a_histogram_has_its_buckets_summed_up_and_no_value_below_zero() -> None:
    harness = MonitorHarness()
    for seconds in (-3.0, 0.1, 0.3, 1e9):
        harness.counters.observe("ecs_queue_launch_seconds", seconds, ("default",))
    values = harness.scrape()
    name = "ecs_queue_launch_seconds"
    found = {dict(labels)["le"]: value for (sample, labels), value in values.items() if sample == f"{name}_bucket"}
    assert (found["0.1"], found["0.25"], found["0.5"], found["600.0"], found["+Inf"]) == (2, 2, 3, 3, 4)
    assert values[f"{name}_count", (("queue", "default"),)] == 4
    assert values[f"{name}_sum", (("queue", "default"),)] == pytest.approx(1e9 + 0.4)


def test_many_scrapers_share_one_read_and_see_a_new_one_after_some_seconds() -> None:
    harness = MonitorHarness()
    threads = [threading.Thread(target=harness.scrape) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert harness.ledger.reads == 1
    harness.now += namespace_state._MAX_AGE + 0.1
    harness.scrape()
    assert harness.ledger.reads == 2


def test_a_ledger_that_hangs_costs_one_thread_and_a_second_and_hides_no_counter(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(namespace_state, "_MAX_WAIT", 0.2)
    harness = MonitorHarness()
    go = threading.Event()
    harness.ledger.before_read = lambda: go.wait(60)
    harness.counters.increment("ecs_queue_launches_total", ("default",))
    before = threading.active_count()
    for _ in range(5):
        values = harness.scrape()
        assert values["ecs_queue_ledger_up", ()] == 0
        assert values["ecs_queue_launches_total", (("queue", "default"),)] == 1
    assert threading.active_count() == before + 1
    assert harness.get("/scale", queue="default")[0] == 503
    go.set()
    while harness.scrape()["ecs_queue_ledger_up", ()] == 0:
        harness.now += namespace_state._MAX_AGE
    assert harness.ledger.reads <= 2


def test_what_fails_is_left_out_and_counted_and_the_page_is_shown() -> None:
    harness = MonitorHarness()

    def fail() -> Any:
        raise LedgerUnavailable("it is away")

    harness.ledger.before_read = fail
    harness.status.read_gauges = lambda: fail()  # type: ignore[method-assign]
    values = harness.scrape()
    assert values["ecs_queue_ledger_up", ()] == 0
    assert values["ecs_queue_collection_errors_total", ()] == 1
    assert harness.get("/scale", queue="default") == (503, "it is away\n")


def test_queues_beyond_the_bound_count_together() -> None:
    counts = {f"q{number:04}": {State.QUEUED: 1} for number in range(MAX_QUEUES + 50)}
    harness = MonitorHarness(counts)
    for number in range(MAX_QUEUES + 50):
        harness.counters.increment("ecs_queue_launches_total", (f"q{number}",))
    values = harness.scrape()
    name = "ecs_queue_requests_submitted_total"
    submitted = {labels[0][1]: value for (sample, labels), value in values.items() if sample == name}
    assert len(submitted) == MAX_QUEUES + 1
    assert sum(submitted.values()) == MAX_QUEUES + 50
    launched = {labels[0][1]: value for (sample, labels), value in values.items() if "launches_total" in sample}
    assert (len(launched), launched[OTHER]) == (MAX_QUEUES + 1, 50)


def test_scale_answers_numbers_by_plain_keys() -> None:
    harness = MonitorHarness()
    status, text = harness.get("/scale", queue="Default")
    assert (status, json.loads(text)) == (
        200,
        {
            "queue": "default",
            "backlog": 2000,
            "oldest_age_seconds": 10.0,
            "in_flight": 2,
            "live_workers": 0,
            "workers_wanted": 3,
            "paused": 0,
        },
    )
    assert json.loads(harness.get("/scale", queue="default", within="10m")[1])["workers_wanted"] == 1
    assert json.loads(harness.get("/scale", queue="etl")[1])["workers_wanted"] == 1, "it is paused"
    assert json.loads(harness.get("/scale", queue="unknown")[1])["workers_wanted"] == 0
    for query in ({}, {"queue": "a b"}, {"queue": "a", "within": "0"}, {"queue": "a", "within": "soon"}):
        assert harness.get("/scale", **query)[0] == 400


def test_a_configured_queue_without_a_worker_and_a_record_has_its_backlog() -> None:
    """An autoscaler that went down to no worker starts one for the messages of a producer without the client."""
    config = make_config({"AIRFLOW__AWS_ECS_EXECUTOR_NIGHTLY__CLUSTER": "jobs"}, concurrency=1)
    found = json.loads(MonitorHarness(config=config).get("/scale", queue="nightly")[1])
    assert (found["backlog"], found["workers_wanted"]) == (70, 2)


def test_a_queue_that_is_not_read_has_no_numbers_instead_of_zeros() -> None:
    harness = MonitorHarness({f"q{number:04}": {State.QUEUED: 1} for number in range(MAX_QUEUES + 50)})
    assert json.loads(harness.get("/scale", queue="q0001")[1])["backlog"] == 1
    status, text = harness.get("/scale", queue="q0249")
    assert (status, text.startswith("q0249 is beyond the 200 queues")) == (503, True)


@pytest.mark.parametrize(("in_flight", "waiting"), [(1, 2), (0, 9)])
def test_requests_whose_key_is_full_need_no_worker_but_for_the_first_ones(in_flight: int, waiting: int) -> None:
    """With nothing in flight no key is full, and a fleet of no workers would leave them for ever."""
    states = {State.QUEUED: 9, State.LAUNCHED: in_flight}
    found = namespace_state.QueueState(states=states, backlog=0, oldest_age=0.0, paused=False, workers=0, key_waiting=7)
    assert found.waiting == waiting


def test_a_rate_of_its_own_bounds_the_workers_wanted_for_a_queue() -> None:
    environ = {"AIRFLOW__AWS_ECS_EXECUTOR_SLOW__LAUNCH_RATE": "1"}
    config = make_config(environ, concurrency=8, run_task_rate=200)
    found = namespace_state.QueueState(states={}, backlog=100_000, oldest_age=0.0, paused=False, workers=0)
    queues = {"slow": found, "quick": found}
    state = namespace_state.NamespaceState(queues=queues, other_states={}, workers=[])
    wanted = {queue: namespace_state.scale_signal(config, state, queue).workers_wanted for queue in state.queues}
    assert wanted["slow"] == 1
    assert wanted["quick"] > 1


def test_a_limit_of_tasks_in_flight_bounds_the_workers_wanted() -> None:
    config = make_config(concurrency=8, run_task_rate=0, max_in_flight=500)
    assert json.loads(MonitorHarness(config=config).get("/scale", queue="default")[1])["workers_wanted"] == 2


def test_without_prometheus_client_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monitor = MonitorHarness().monitor
    monkeypatch.delitem(sys.modules, "ecs_queue.monitoring.exposition")
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    with pytest.raises(ConfigError, match=r"pip install 'ecs-queue\[metrics\]'"):
        monitor.build_routes()


def test_health_is_503_with_a_line_for_each_reason() -> None:
    harness = MonitorHarness()
    assert harness.get("/healthz") == harness.get("/readyz") == (200, "ok\n")
    harness.status.obstacles = ["the ledger: away", "etl: no credentials"]
    assert harness.get("/readyz") == (503, "the ledger: away\netl: no credentials\n")
    assert harness.get("/healthz")[0] == 200


def test_a_line_for_cloudwatch_names_its_metrics_and_none_is_written_without_a_ledger() -> None:
    harness = MonitorHarness()
    lines: list[str] = []
    assert harness.monitor.write_emf(lines.append, lambda: 1_700_000_000.25) == 60
    (line,) = map(json.loads, lines)
    (directive,) = line["_aws"]["CloudWatchMetrics"]
    assert line["_aws"]["Timestamp"] == 1_700_000_000_250
    assert directive["Namespace"] == "ecs-queue"
    assert {name: line[name] for name in directive["Dimensions"][0]} == {
        "Installation": "ecs-queue",
        "Queue": "default",
    }
    values = {metric["Name"]: line[metric["Name"]] for metric in directive["Metrics"]}
    assert values == {"Backlog": 2000, "OldestAge": 10.0, "InFlight": 2, "LiveWorkers": 0, "WorkersWanted": 3}
    harness.now += 10
    harness.ledger.before_read = lambda: 1 / 0
    harness.monitor.write_emf(lines.append, lambda: 0.0)
    assert len(lines) == 1
