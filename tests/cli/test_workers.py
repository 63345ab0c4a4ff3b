"""What `workers` says of each worker and of all together."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from ecs_queue.cli.ui import output
from ecs_queue.cli.workers import _HEADERS, _row, summarize_workers
from ecs_queue.ledger.base import WorkerInfo
from tests.cli.conftest import Deployment, Invoke, json_lines
from tests.wait import wait_until
from tests.worker_info import make_worker_info

NOW = 1_700_000_000.0


def info(**fields: Any) -> WorkerInfo:
    known: dict[str, Any] = {
        "version": "0.1.0",
        "queues": ["default", "etl"],
        "concurrency": 32,
        "launches_in_progress": 3,
        "launched_total": 1234,
        "ended_total": 1200,
        "started_at": NOW - 600,
        "last_seen_at": NOW - 1,
        "launch_rate": 4.2,
        "start_call_rate": 5.0,
        "start_call_limit": 20.0,
        "read_call_rate": 1.0,
        "read_call_limit": 20.0,
        "broker_poll_age": 0.25,
    }
    return make_worker_info(**(known | fields))


def test_a_row_shows_threads_rate_limit_use_last_poll_and_version() -> None:
    row = dict(zip(_HEADERS, _row(info(), NOW), strict=True))
    assert (row["launching"], row["rate"], row["usage"], row["version"]) == ("3/32", "4.2/s", "25% / 5%", "0.1.0")
    assert row["polled"] == "1.25 s / never"  # its own words are as old as its heartbeat
    assert dict(zip(_HEADERS, _row(info(start_call_limit=0.0), NOW), strict=True))["usage"] == "5.0/s / 5%"


def test_the_sums_of_all_workers_and_a_mix_of_versions_are_shown() -> None:
    words = summarize_workers([info(), info(name="w2", version="0.2.0")])
    assert "2 workers, 8.4 launches/s" in words
    assert "RunTask and StopTask 10.0 of 20/s" in words
    assert "DescribeTasks and ListTasks 2.0 of 20/s" in words
    assert words.endswith("2 versions")
    assert "Spot" not in words
    mixed = [info(), info(spot_call_rate=8.0), info(spot_call_rate=6.0)]
    assert "RunTask and StopTask 15.0 of 20/s, RunTask on Fargate Spot 14.0 of 20/s" in summarize_workers(mixed)
    assert dict(zip(_HEADERS, _row(mixed[1], NOW), strict=True))["usage"] == "25% + 40% Spot / 5%"
    assert "5.0/s, no limit" in summarize_workers([info(start_call_limit=0.0)])


@pytest.mark.parametrize(("columns", "is_table"), [("80", False), ("160", True)])
def test_a_narrow_terminal_gets_a_block_a_worker(
    columns: str, is_table: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(output, "is_terminal", lambda *_: True)
    monkeypatch.setenv("COLUMNS", columns)
    output.print_table(_HEADERS, [_row(info(), NOW)])
    lines = capsys.readouterr().out.splitlines()
    assert max(len(line) for line in lines) <= int(columns)
    assert any("name" in line and "launching" in line for line in lines) == is_table
    assert any(line.split() == ["launching", "3/32"] for line in lines) != is_table


def test_a_worker_of_an_older_version_is_listed(invoke: Invoke, no_worker_environ: Mapping[str, str]) -> None:
    import msgspec

    from ecs_queue.client.client import EcsQueue

    old = {name: value for name, value in msgspec.to_builtins(info()).items() if name in _OF_OLD}
    with EcsQueue.from_config(environ=no_worker_environ, owner="") as queue:
        queue.ledger.heartbeat(msgspec.convert(old, WorkerInfo), 15.0)
    (line,) = json_lines(invoke("workers", "--json", env=no_worker_environ).stdout)
    assert (line["launched_total"], line["polled_at"]) == (1234, None)
    assert "never / never" in invoke("workers", env=no_worker_environ).stdout


_OF_OLD = frozenset(
    (
        "name",
        "host",
        "pid",
        "version",
        "queues",
        "concurrency",
        "launches_in_progress",
        "launched_total",
        "ended_total",
    )
) | {"health", "started_at", "last_seen_at"}


def test_a_real_worker_reports_its_polls_calls_and_rates(invoke: Invoke, deployment: Deployment) -> None:
    with deployment.make_client() as queue:
        assert queue.submit(["true"]).result(timeout=30).succeeded

    def line() -> dict[str, Any]:
        (found,) = json_lines(invoke("workers", "--json", env=deployment.environ).stdout)
        return found

    shown: dict[str, Any] = {}

    def is_complete() -> bool:
        shown.update(line())
        rates = (shown[rate] for rate in ("launch_rate", "start_call_rate", "read_call_rate"))
        return min(rates) > 0 and shown["described_at"] is not None

    wait_until(is_complete, "a heartbeat has the rates and the last DescribeTasks", 20)
    assert shown["started_at"] < shown["polled_at"] <= shown["last_seen_at"]
