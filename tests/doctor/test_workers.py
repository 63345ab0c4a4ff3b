"""What the doctor says of workers and queues."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from ecs_queue.broker import open_broker
from ecs_queue.client.client import EcsQueue
from ecs_queue.config import Config, load_config
from ecs_queue.doctor.workers import check_config, check_workers
from ecs_queue.findings import Finding, Severity
from ecs_queue.ledger.base import WorkerInfo
from ecs_queue.ledger.memory import MemoryLedger
from ecs_queue.local.ecs import local_environment
from tests.protocol.settings import DEFAULT_SETTINGS


def config_of(**settings: str) -> Config:
    prefix = "AIRFLOW__ECS_QUEUE__"
    environ = local_environment("http://127.0.0.1:1", "memory://")
    return load_config(environ={**environ, **{prefix + name: value for name, value in settings.items()}})


@pytest.fixture
def ledger() -> MemoryLedger:
    return MemoryLedger(time.time, DEFAULT_SETTINGS)


def worker(**changes: Any) -> WorkerInfo:
    facts: dict[str, Any] = {"name": "w1", "host": "h", "pid": 1, "version": "1", "queues": ["default"]}
    numbers = {"concurrency": 1, "launches_in_progress": 0, "launched_total": 0, "ended_total": 0}
    return WorkerInfo(**{**facts, **numbers, "health": "ok", "started_at": 1.0, **changes})


def found(config: Config, ledger: MemoryLedger) -> dict[str, Finding]:
    return {finding.check: finding for finding in check_workers(config, open_broker(config), ledger, "1")}


def test_without_a_worker_there_is_a_warning_and_an_error_for_waiting_requests(ledger: MemoryLedger) -> None:
    config = config_of()
    with EcsQueue(config, open_broker(config), ledger, owner="") as queue:
        queue.submit(["true"], queue="etl")
        findings = found(config, ledger)
    assert findings["workers.alive"].severity is Severity.WARNING
    unserved = findings["queues.unserved"]
    assert (unserved.subject, unserved.severity) == ("etl", Severity.ERROR)
    assert "ecs-queue worker --queues etl" in unserved.advice


@pytest.mark.parametrize(
    ("broker_url", "checks"), [("amqp://127.0.0.1:1/", []), ("redis://127.0.0.1:1/0", ["broker.reachable"])]
)
def test_workers_are_checked_while_only_the_broker_is_down(
    ledger: MemoryLedger, broker_url: str, checks: list[str]
) -> None:
    ledger.heartbeat(worker(health="the broker: it does not answer"), 60)
    findings = found(config_of(BROKER_URL=broker_url, LEDGER_URL="redis://127.0.0.1:2/0"), ledger)
    assert [check for check in findings if check.startswith("broker")] == checks  # RabbitMQ's error is shown before
    assert findings["workers.health"].subject == "worker w1"


def test_an_unhealthy_worker_is_an_error_and_another_version_an_info(ledger: MemoryLedger) -> None:
    ledger.heartbeat(worker(health="default: no credentials", version="0.9"), 60)
    findings = found(config_of(), ledger)
    assert findings["workers.alive"].severity is Severity.OK
    assert (findings["workers.health"].subject, findings["workers.health"].severity) == ("worker w1", Severity.ERROR)
    assert "0.9" in findings["workers.versions"].text


def test_settings_meant_for_tests_are_warnings() -> None:
    checks = {finding.check: finding.severity for finding in check_config(config_of())}
    assert checks == {"config.valid": Severity.OK}
    short = config_of(RETRY_BASE_SECONDS="0.1", SETTLE_SECONDS="5")
    checks = {finding.check: finding.severity for finding in check_config(short)}
    assert checks["config.retry_base_seconds"] is Severity.WARNING
    assert checks["config.settle_seconds"] is Severity.WARNING


@pytest.mark.parametrize(
    ("mode", "level"),
    [(0o600, Severity.OK), (0o640, Severity.INFO), (0o644, Severity.WARNING), (0o604, Severity.WARNING)],
)
def test_a_file_with_keys_that_others_can_read_is_a_warning(tmp_path: Path, mode: int, level: Severity) -> None:
    files = {name: tmp_path / name for name in ("ecs_queue.cfg", "url", "tls.key")}
    files["ecs_queue.cfg"].write_text(f"[ecs_queue]\nsigning_keys = a:{'k' * 40}\nledger_url_file = {files['url']}\n")
    files["url"].write_text(f"rediss://u:hunter2@h/0?ssl_keyfile={files['tls.key']}")
    files["tls.key"].write_text("key")
    for file in files.values():
        file.chmod(mode)
    findings = [
        finding
        for finding in check_config(load_config(str(files["ecs_queue.cfg"]), {}))
        if finding.check == "config.secret_files"
    ]
    assert {finding.severity for finding in findings} == {level}
    assert sorted(str(file) for file in files.values() for finding in findings if str(file) in finding.text) == sorted(
        map(str, files.values())
    )
    assert not any("hunter2" in repr(finding) for finding in findings)
