"""The executor's metrics, as Airflow's backends get them."""

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
from ecs_queue.airflow.metrics import COUNTERS, GAUGES, PREFIX, TIMERS, Metrics
from ecs_queue.core.states import State
from tests.airflow.stage import OrphanTask, Stage, task

DOCS = Path(__file__).parents[2] / "docs" / "airflow.md"


class Backend:
    """Keeps what Airflow's Stats is given."""

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
def backend(stage: Stage) -> Backend:
    made = Backend()
    stage.executor.metrics = Metrics(None, made)
    return made


def counted(backend: Backend) -> dict[str, int]:
    return {name.removeprefix(f"{PREFIX}."): count for name, count in backend.counts.items()}


def test_what_goes_out_and_comes_back_is_counted_and_timed(stage: Stage, backend: Backend) -> None:
    items = [task(f"t{number}") for number in range(3)]
    stage.queue(*items, task("bad", executor_config={"name": "x"}))
    stage.beat()
    stage.finish(stage.id_of(items[0]))
    stage.finish(stage.id_of(items[1]), State.FAILED)
    stage.beat()
    assert counted(backend) == {"published": 3, "refused": 1, "results SUCCESS": 1, "results FAILED": 1}
    assert backend.timed == {f"{PREFIX}.publish.duration": 1, f"{PREFIX}.sync.duration": 2}
    assert backend.gauges == {f"{PREFIX}.outstanding": 1, f"{PREFIX}.unconfirmed_results": 2}


def test_many_tasks_are_one_packet(stage: Stage, backend: Backend) -> None:
    stage.queue(*(task(f"t{number}") for number in range(500)))
    stage.beat()
    assert counted(backend) == {"published": 500}
    assert len(backend.tags) == 1


def test_an_outage_is_counted_by_its_server(stage: Stage, backend: Backend) -> None:
    stage.queue(task())
    stage.ledger.down = True
    stage.beat()
    stage.beat()
    assert counted(backend) == {"ledger_unavailable": 2}
    stage.ledger.down, stage.broker.down = False, True
    stage.beat()
    assert counted(backend) == {"ledger_unavailable": 2, "broker_unavailable": 1, "published": 1}
    stage.broker.down = False


def test_adoption_and_revocation_are_counted(stage: Stage, backend: Backend) -> None:
    item, never = task("sent"), task("never")
    stage.queue(item)
    stage.beat()
    request_id = stage.id_of(item)
    other = stage.successor()
    other.executor.metrics = Metrics(None, backend)
    other.executor.try_adopt_task_instances([OrphanTask(item, request_id), OrphanTask(never, None)])
    other.executor.revoke_task(ti=OrphanTask(item, request_id))
    other.beat()
    assert counted(backend) == {"published": 1, "adopted": 1, "not_adopted": 1, "revoked": 1}
    assert backend.timed[f"{PREFIX}.adopt_task_instances.duration"] == 1


def test_a_task_that_did_not_start_in_time_and_a_repeated_result_are_counted(stage: Stage, backend: Backend) -> None:
    late, dropped = task("late"), task("dropped")
    stage.queue(late, dropped)
    stage.beat()
    stage.events()
    stage.waiting = {stage.id_of(dropped)}
    stage.finish(stage.id_of(late), State.EXPIRED)
    stage.finish(stage.id_of(dropped))
    stage.beat()
    stage.events()
    stage.beat()
    found = counted(backend)
    assert (found["expired"], found["results SUCCESS"], found["results_repeated"]) == (1, 1, 1)


def test_an_unexpected_error_is_counted(stage: Stage, backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    def explode(*args: object) -> None:
        raise RuntimeError("not foreseen")

    monkeypatch.setattr(stage.executor._intake, "take", explode)
    stage.queue(task())
    stage.beat()
    assert counted(backend) == {"errors": 1}


def test_a_backend_that_is_broken_does_not_end_the_scheduler(stage: Stage, backend: Backend) -> None:
    def broken(*args: object, **kwargs: object) -> None:
        raise OSError("no backend")

    backend.gauge = broken  # type: ignore[method-assign]
    stage.queue(task())
    stage.beat()
    assert len(stage.executor.running) == 1


def test_a_team_is_a_tag() -> None:
    backend = Backend()
    metrics = Metrics("data", backend)
    metrics.incr("adopted")
    metrics.send()
    assert backend.tags == [{"team_name": "data"}]


def test_the_docs_name_every_metric() -> None:
    named = set(re.findall(rf"^\| `{PREFIX}\.([a-z_.]+)`", DOCS.read_text(), re.MULTILINE))
    assert named == {*COUNTERS, *TIMERS, *GAUGES}


def test_airflows_own_statsd_client_sends_them(monkeypatch: pytest.MonkeyPatch, stage: Stage) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        server.settimeout(10)
        for key, value in {"ON": "True", "HOST": "127.0.0.1", "PORT": str(server.getsockname()[1])}.items():
            monkeypatch.setenv(f"AIRFLOW__METRICS__STATSD_{key}", value)
        forget_backend()
        stage.executor.metrics = EcsQueueExecutor(parallelism=4).metrics
        stage.queue(task())
        stage.beat()
        wanted = {"published:1|c", "outstanding:1|g", "publish.duration:", "sync.duration:"}
        while wanted:
            packet = server.recv(4096).decode()
            wanted -= {name for name in wanted if packet.startswith(f"airflow.{PREFIX}.{name}")}
    monkeypatch.undo()
    forget_backend()
    EcsQueueExecutor(parallelism=4)


def forget_backend() -> None:
    """Later versions set the backend up anew with each executor; 3.1 and 3.2 keep the first."""
    stats: Any = getattr(base_executor, "Stats", None)
    if "initialize" in vars(type(stats)):  # 3.2
        stats.factory = stats.instance = None
    elif hasattr(type(stats), "factory"):  # 3.1
        del type(stats).factory
        type(stats).__init__(stats)
        stats.instance = None
