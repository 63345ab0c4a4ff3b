"""What the doctor says of workers and queues."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from ecs_queue.broker import open_broker
from ecs_queue.client.client import EcsQueue
from ecs_queue.config import Config, load_config
from ecs_queue.doctor.workers import check_config, check_workers
from ecs_queue.findings import Finding, Severity
from ecs_queue.ledger.memory import MemoryLedger
from ecs_queue.local.ecs import local_environment
from ecs_queue.protocol.operations import ClaimRequest
from tests.protocol.settings import DEFAULT_SETTINGS
from tests.worker_info import make_worker_info


def config_of(**settings: str) -> Config:
    prefix = "AIRFLOW__ECS_QUEUE__"
    environ = local_environment("http://127.0.0.1:1", "memory://")
    return load_config(environ={**environ, **{prefix + name: value for name, value in settings.items()}})


@pytest.fixture
def ledger() -> MemoryLedger:
    return MemoryLedger(time.time, DEFAULT_SETTINGS)


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


def keyed_config(**keys: str) -> Config:
    prefix = "AIRFLOW__AWS_ECS_EXECUTOR_ETL__"
    environ = local_environment("http://127.0.0.1:1", "memory://")
    return load_config(environ={**environ, **{prefix + name: value for name, value in keys.items()}})


@pytest.mark.parametrize(
    ("limit", "severity", "text"),
    [("1", Severity.INFO, "1 requests wait"), ("0", Severity.WARNING, "max_per_key is 0 here")],
)
def test_requests_that_wait_for_their_key_are_found_and_a_limit_that_is_not_the_workers(
    ledger: MemoryLedger, limit: str, severity: Severity, text: str
) -> None:
    config = keyed_config(MAX_PER_KEY=limit)
    with EcsQueue(config, open_broker(config), ledger, owner="") as queue:
        for name in ("a", "b"):
            queue.submit(["true"], queue="etl", id=name, concurrency_key="k")
            ledger.claim(name, ClaimRequest(claim=name, worker="w", args="{}", target="t", key_limit=1))
        finding = found(config, ledger)["queues.max_per_key"]
    assert (finding.subject, finding.severity) == ("etl", severity)
    assert text in finding.text


def test_a_limit_of_a_key_that_the_queue_never_reaches_is_a_warning(ledger: MemoryLedger) -> None:
    finding = found(keyed_config(MAX_PER_KEY="5", MAX_IN_FLIGHT="5"), ledger)["queues.max_per_key"]
    assert (finding.severity, "max_in_flight = 5 is reached first" in finding.text) == (Severity.WARNING, True)
    assert "queues.max_per_key" not in found(keyed_config(MAX_PER_KEY="4", MAX_IN_FLIGHT="5"), ledger)
    assert "queues.max_per_key" not in found(keyed_config(MAX_PER_KEY="4"), ledger)
    assert "queues.max_per_key" not in found(keyed_config(MAX_IN_FLIGHT="4"), ledger)


@pytest.mark.parametrize(
    ("broker_url", "checks"), [("amqp://127.0.0.1:1/", []), ("redis://127.0.0.1:1/0", ["broker.reachable"])]
)
def test_workers_are_checked_while_only_the_broker_is_down(
    ledger: MemoryLedger, broker_url: str, checks: list[str]
) -> None:
    ledger.heartbeat(make_worker_info(health="the broker: it does not answer"), 60)
    findings = found(config_of(BROKER_URL=broker_url, LEDGER_URL="redis://127.0.0.1:2/0"), ledger)
    assert [check for check in findings if check.startswith("broker")] == checks  # RabbitMQ's error is shown before
    assert findings["workers.health"].subject == "worker w1"


def test_an_unhealthy_worker_is_an_error_and_another_version_an_info(ledger: MemoryLedger) -> None:
    ledger.heartbeat(make_worker_info(health="default: no credentials", version="0.9"), 60)
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


@pytest.mark.parametrize(("start_timeout", "expected"), [("0", True), ("300", False)])
def test_a_limit_of_starts_needs_a_start_timeout(start_timeout: str, expected: bool) -> None:
    section = "AIRFLOW__AWS_ECS_EXECUTOR_ETL__"
    config = load_config(environ={f"{section}MAX_STARTING": "5", f"{section}START_TIMEOUT": start_timeout})
    warned = [finding.subject for finding in check_config(config) if finding.check == "config.max_starting"]
    assert warned == (["etl"] if expected else [])
