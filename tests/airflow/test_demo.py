"""The demo's own part: its output, its exit status and its clean-up. test_local_airflow.py runs the rest."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from ecs_queue.airflow import demo
from ecs_queue.errors import RetryableError


class FakeLocalAirflow:
    """Returns what a complete Airflow would return after its DAGs have ended."""

    url = "http://127.0.0.1:1"

    def __init__(self, directory: Path, dags: Path) -> None:
        self.directory = directory
        self.password_file = directory / "passwords.json"
        self.ecs = self
        self.state = "success"
        self.triggered: list[str] = []
        self.stopped = 0
        self.is_slow = False

    def start(self, on_progress: Callable[[str], None]) -> None:
        on_progress("starting")

    def stop(self) -> None:
        self.stopped += 1

    def wait_for_dags(self) -> list[str]:
        return ["late", "plain"]

    def trigger_dag(self, dag_id: str, run_id: str) -> None:
        self.triggered.append(dag_id)

    def wait_for(self, is_done: Callable[[], bool], timeout: float, description: str) -> None:
        if self.is_slow:
            raise RetryableError(f"{description} took more than {timeout:g} s")
        assert is_done()

    def has_table(self, name: str) -> bool:
        return True

    def stats(self) -> dict[str, int]:
        return {"tasks_created": 3}

    def fetch_rows(self, query: str) -> list[dict[str, Any]]:
        run = {"run_id": "demo", "state": "success"}
        if "from callback" in query:
            return [{"id": "1", "dag_id": "late", "state": self.state}]
        if "from dag_run" in query:
            return [run | {"dag_id": dag_id} for dag_id in self.triggered]
        times = {"start_date": "2026-01-01 00:00:00.5+00:00", "end_date": "2026-01-01 00:00:03+00:00"}
        task = {"task_id": "t", "map_index": -1, "external_executor_id": "1", "try_number": 1}
        return [run | times | task | {"dag_id": dag_id} for dag_id in self.triggered]


@pytest.fixture
def airflow(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> FakeLocalAirflow:
    local_airflow = FakeLocalAirflow(tmp_path, tmp_path)
    monkeypatch.setattr(demo, "LocalAirflow", lambda directory, dags: local_airflow)
    monkeypatch.setattr(signal, "signal", lambda number, handler: None)
    return local_airflow


def run_demo(*arguments: str) -> Any:
    return CliRunner().invoke(demo.main, list(arguments))


def test_it_runs_each_dag_and_prints_how_it_ended(airflow: FakeLocalAirflow) -> None:
    result = run_demo()
    assert result.exit_code == 0
    assert airflow.triggered == ["late", "plain"]
    assert "late: callback" in result.output
    assert "1/1 succeeded" in result.output
    assert "2.5 s" in result.output
    assert "3 containers" in result.output
    assert airflow.stopped == 1


def test_names_are_shown_as_they_are(airflow: FakeLocalAirflow) -> None:
    airflow.directory = Path("/files/[bold]/:smile:")
    assert "its files are in /files/[bold]/:smile:\n" in run_demo().output


def test_the_exit_status_is_1_when_a_callback_failed(airflow: FakeLocalAirflow) -> None:
    airflow.state = "failed"
    assert run_demo().exit_code == 1


def test_a_demo_that_takes_too_long_is_reported_and_stopped(airflow: FakeLocalAirflow) -> None:
    airflow.is_slow = True
    result = run_demo("--timeout", "7")
    assert result.exit_code == 1
    assert "took more than 7 s" in result.output
    assert airflow.stopped == 1


def test_it_stays_up_until_it_is_interrupted(airflow: FakeLocalAirflow, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(signal, "pause", interrupted)
    result = run_demo("--keep")
    assert result.exit_code == 0
    assert f"keeps running at {airflow.url}" in result.output
    assert str(airflow.password_file) in result.output
    assert airflow.stopped == 1
