"""What a worker knows of its clusters: from the start on, and again after a failure."""

from __future__ import annotations

from typing import Any

import pytest

from ecs_queue.ecs.cluster_check import cluster_finding
from ecs_queue.findings import Reporter
from ecs_queue.protocol.ecs_results import EcsError, EcsErrorKind
from ecs_queue.worker.cluster_monitor import ClusterMonitor
from tests.worker.harness import TARGET, WorkerHarness

UNAVAILABLE = EcsError(EcsErrorKind.UNAVAILABLE, "no answer")
STRATEGY = ({"capacityProvider": "my-instances", "weight": 1},)


def test_a_strategy_that_could_not_be_read_is_asked_for_again_less_and_less_often(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    harness = WorkerHarness({"AIRFLOW__AWS_ECS_EXECUTOR__LAUNCH_TYPE": ""})
    context = harness.worker.context
    monitor = ClusterMonitor(context)
    answers: list[Any] = [UNAVAILABLE] * 8 + [STRATEGY]
    monkeypatch.setattr(harness.ecs, "default_strategy", lambda target: answers.pop(0))

    monitor.ask_for_strategies()
    (text,) = [finding.sentence for finding in monitor.check()]
    assert "tasks run on FARGATE" in text
    waits = [monitor.step() for _ in range(8)]

    assert all(10 <= wait <= min(600, 10 * 2 ** (number + 1)) for number, wait in enumerate(waits))
    assert max(waits) > 60
    assert context.profile("default").cluster_strategy == ()
    monitor.step()
    assert context.profile("default").cluster_strategy == STRATEGY
    assert harness.worker.emitted("check.finding") == [
        {"reason": "queue default: the default strategy of its cluster is known"}
    ]
    assert monitor.step() == 600.0


def test_a_missing_cluster_is_in_health_before_the_first_request_until_it_exists(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    harness = WorkerHarness({"AIRFLOW__AWS_ECS_EXECUTOR__CHECK_HEALTH_ON_STARTUP": "True"})
    monitor = ClusterMonitor(harness.worker.context)
    answer: dict[str, Any] = {"clusters": []}
    monkeypatch.setattr(
        harness.ecs, "check_cluster", lambda target, reporter: cluster_finding(reporter, target, answer, "", None)
    )

    monitor.ask_for_strategies()
    list(monitor.check())
    monitor.step()

    missing = cluster_finding(Reporter("default"), TARGET, {}, "", None).sentence
    assert monitor.reasons() == [missing]
    answer["clusters"] = [{"status": "ACTIVE"}]
    monitor.step()
    assert monitor.reasons() == []
