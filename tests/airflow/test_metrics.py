"""The executor's metrics, as Airflow's backends receive them."""

from __future__ import annotations

import re
import socket
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from airflow.executors import base_executor

from ecs_queue.airflow.executor import EcsQueueExecutor
from ecs_queue.airflow.metrics import COUNTERS, GAUGES, PREFIX, TIMERS, ExecutorMetrics
from ecs_queue.protocol.states import State
from tests.airflow.harness import AirflowHarness, FakeTaskInstance, make_task_workload

pytestmark = pytest.mark.airflow

DOCS = Path(__file__).parents[2] / "docs" / "airflow.md"


class FakeStatsBackend:
    """Records the calls of Airflow's metrics client."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.gauges: dict[str, float] = {}
        self.timed: Counter[str] = Counter()
        self.tags: list[dict[str, str]] = []

    def incr(self, name: str, count: int, *, tags: dict[str, str]) -> None:
        self.counts[f"{name} {tags['state']}" if "state" in tags else name] += count
        self.tags.append(tags)

    def gauge(self, name: str, value: float, *, tags: dict[str, str]) -> None:
        self.gauges[name] = value

    @contextmanager
    def timer(self, name: str, *, tags: dict[str, str]) -> Iterator[None]:
        yield
        self.timed[name] += 1


@pytest.fixture
def stats_backend(harness: AirflowHarness) -> FakeStatsBackend:
    backend = FakeStatsBackend()
    harness.executor.metrics = ExecutorMetrics(None, backend)
    return backend


def read_counts(stats_backend: FakeStatsBackend) -> dict[str, int]:
    return {name.removeprefix(f"{PREFIX}."): count for name, count in stats_backend.counts.items()}


def test_submissions_and_results_are_counted_and_timed(
    harness: AirflowHarness, stats_backend: FakeStatsBackend
) -> None:
    items = [make_task_workload(f"t{number}") for number in range(3)]
    harness.queue(*items, make_task_workload("bad", executor_config={"name": "x"}))
    harness.heartbeat()
    harness.finish_request(harness.request_id_of(items[0]))
    harness.finish_request(harness.request_id_of(items[1]), State.FAILED)
    harness.heartbeat()
    assert read_counts(stats_backend) == {"submitted": 3, "rejected": 1, "results SUCCESS": 1, "results FAILED": 1}
    assert stats_backend.timed == {f"{PREFIX}.submit.duration": 1, f"{PREFIX}.sync.duration": 2}
    assert stats_backend.gauges == {f"{PREFIX}.outstanding": 1, f"{PREFIX}.unconfirmed_results": 2}


def test_many_tasks_are_one_packet(harness: AirflowHarness, stats_backend: FakeStatsBackend) -> None:
    harness.queue(*(make_task_workload(f"t{number}") for number in range(500)))
    harness.heartbeat()
    assert read_counts(stats_backend) == {"submitted": 500}
    assert len(stats_backend.tags) == 1


def test_an_outage_is_counted_by_its_server(harness: AirflowHarness, stats_backend: FakeStatsBackend) -> None:
    harness.queue(make_task_workload())
    harness.ledger.is_unavailable = True
    harness.heartbeat()
    harness.heartbeat()
    assert read_counts(stats_backend) == {"ledger_unavailable": 2}
    harness.ledger.is_unavailable, harness.broker.is_unavailable = False, True
    harness.heartbeat()
    assert read_counts(stats_backend) == {"ledger_unavailable": 2, "broker_unavailable": 1, "submitted": 1}
    harness.broker.is_unavailable = False


def test_adoption_and_revocation_are_counted(harness: AirflowHarness, stats_backend: FakeStatsBackend) -> None:
    item, never = make_task_workload("sent"), make_task_workload("never")
    harness.queue(item)
    harness.heartbeat()
    request_id = harness.request_id_of(item)
    other = harness.another_scheduler()
    other.executor.metrics = ExecutorMetrics(None, stats_backend)
    other.executor.try_adopt_task_instances([FakeTaskInstance(item, request_id), FakeTaskInstance(never, None)])
    other.executor.revoke_task(ti=FakeTaskInstance(item, request_id))
    other.heartbeat()
    assert read_counts(stats_backend) == {"submitted": 1, "adopted": 1, "not_adopted": 1, "revoked": 1}
    assert stats_backend.timed[f"{PREFIX}.adopt_task_instances.duration"] == 1


def test_a_task_that_did_not_start_in_time_and_a_repeated_result_are_counted(
    harness: AirflowHarness, stats_backend: FakeStatsBackend
) -> None:
    late, dropped = make_task_workload("late"), make_task_workload("dropped")
    harness.queue(late, dropped)
    harness.heartbeat()
    harness.collect_events()
    harness.unprocessed = {harness.request_id_of(dropped)}
    harness.finish_request(harness.request_id_of(late), State.EXPIRED)
    harness.finish_request(harness.request_id_of(dropped))
    harness.heartbeat()
    harness.collect_events()
    harness.heartbeat()
    found = read_counts(stats_backend)
    assert (found["expired"], found["results SUCCESS"], found["results_repeated"]) == (1, 1, 1)


def test_an_unexpected_error_is_counted(
    harness: AirflowHarness, stats_backend: FakeStatsBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    def explode(*args: object) -> None:
        raise RuntimeError("not foreseen")

    monkeypatch.setattr(harness.executor._submitter, "submit", explode)
    harness.queue(make_task_workload())
    harness.heartbeat()
    assert read_counts(stats_backend) == {"errors": 1}


def test_a_backend_that_is_broken_does_not_end_the_scheduler(
    harness: AirflowHarness, stats_backend: FakeStatsBackend
) -> None:
    def broken(*args: object, **kwargs: object) -> None:
        raise OSError("no backend")

    stats_backend.gauge = broken  # type: ignore[method-assign]
    harness.queue(make_task_workload())
    harness.heartbeat()
    assert len(harness.executor.running) == 1


def test_a_team_is_a_tag() -> None:
    stats_backend = FakeStatsBackend()
    metrics = ExecutorMetrics("data", stats_backend)
    metrics.incr("adopted")
    metrics.flush()
    assert stats_backend.tags == [{"team_name": "data"}]


def test_the_docs_name_every_metric() -> None:
    named = set(re.findall(rf"^\| `{PREFIX}\.([a-z_.]+)`", DOCS.read_text(), re.MULTILINE))
    assert named == {*COUNTERS, *TIMERS, *GAUGES}


def test_airflows_own_statsd_client_sends_them(monkeypatch: pytest.MonkeyPatch, harness: AirflowHarness) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        server.settimeout(10)
        for key, value in {"ON": "True", "HOST": "127.0.0.1", "PORT": str(server.getsockname()[1])}.items():
            monkeypatch.setenv(f"AIRFLOW__METRICS__STATSD_{key}", value)
        reset_airflow_stats()
        harness.executor.metrics = EcsQueueExecutor(parallelism=4).metrics
        harness.queue(make_task_workload())
        harness.heartbeat()
        wanted = {"submitted:1|c", "outstanding:1|g", "submit.duration:", "sync.duration:"}
        while wanted:
            packet = server.recv(4096).decode()
            wanted -= {name for name in wanted if packet.startswith(f"airflow.{PREFIX}.{name}")}
    monkeypatch.undo()
    reset_airflow_stats()
    EcsQueueExecutor(parallelism=4)


def reset_airflow_stats() -> None:
    """Reset the client: later versions configure it again for each executor, 3.1 and 3.2 keep the first."""
    stats: Any = getattr(base_executor, "Stats", None)
    if "initialize" in vars(type(stats)):  # 3.2
        stats.factory = stats.instance = None
    elif hasattr(type(stats), "factory"):  # 3.1
        del type(stats).factory
        type(stats).__init__(stats)
        stats.instance = None
