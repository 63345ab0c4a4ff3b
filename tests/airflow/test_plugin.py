"""The plugin: what it adds to Airflow, when, and what its import costs."""

from __future__ import annotations

import logging
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from ecs_queue.airflow.page import mode
from ecs_queue.airflow.page.app import PageApp
from ecs_queue.airflow.plugin import URL_PREFIX, EcsQueuePlugin

pytestmark = pytest.mark.airflow

OURS = "ecs_queue.airflow.executor.EcsQueueExecutor"


@pytest.fixture(autouse=True)
def _no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AIRFLOW__ECS_QUEUE__AIRFLOW_PAGE", "ECS_QUEUE_CONFIG"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    ("executor", "setting", "is_on"),
    [
        ("LocalExecutor", None, False),
        (OURS, None, True),
        (f"LocalExecutor,ecs:{OURS}", None, True),
        (f"LocalExecutor;team={OURS}", None, True),
        (OURS, "off", False),
        (OURS, "changes", True),
        ("mine.MyEcsQueueExecutor", "Read", True),
    ],
)
def test_there_is_a_page_where_the_executor_is_or_the_configuration_says_so(
    monkeypatch: pytest.MonkeyPatch, executor: str, setting: str | None, is_on: bool
) -> None:
    monkeypatch.setenv("AIRFLOW__CORE__EXECUTOR", executor)
    if setting:
        monkeypatch.setenv("AIRFLOW__ECS_QUEUE__AIRFLOW_PAGE", setting)
    plugin = EcsQueuePlugin()
    assert [view["destination"] for view in plugin.external_views] == (["nav", "task_instance"] if is_on else [])
    assert [app["url_prefix"] for app in plugin.fastapi_apps] == ([URL_PREFIX] if is_on else [])
    assert plugin.fastapi_apps is plugin.fastapi_apps  # Airflow reads them several times


def test_the_file_of_ecs_queue_says_so_too(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = tmp_path / "ecs_queue.cfg"
    path.write_text("[ecs_queue]\nairflow_page = off\n")
    monkeypatch.setenv("AIRFLOW__CORE__EXECUTOR", OURS)
    monkeypatch.setenv("ECS_QUEUE_CONFIG", str(path))
    assert EcsQueuePlugin().external_views == []


def test_a_wrong_value_leaves_airflow_as_it_is_and_is_logged(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("AIRFLOW__ECS_QUEUE__AIRFLOW_PAGE", "maybe")
    plugin = EcsQueuePlugin()
    with caplog.at_level(logging.ERROR, "ecs_queue"):
        assert (plugin.fastapi_apps, plugin.external_views) == ([], [])
    (record,) = caplog.records
    assert "[ecs_queue] airflow_page: expected one of off, read, changes, found 'maybe'" in record.getMessage()
    assert "AIRFLOW__ECS_QUEUE__AIRFLOW_PAGE" in record.getMessage()


def test_without_the_packages_of_the_page_airflow_is_as_it_was_and_the_log_says_why(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def import_module(name: str) -> Any:
        raise ModuleNotFoundError("No module named 'jinja2'", name="jinja2")

    monkeypatch.setattr(mode, "import_module", import_module)
    monkeypatch.setenv("AIRFLOW__CORE__EXECUTOR", OURS)
    plugin = EcsQueuePlugin()
    with caplog.at_level(logging.WARNING, "ecs_queue"):
        assert (plugin.fastapi_apps, plugin.external_views) == ([], [])
    assert [record.getMessage() for record in caplog.records] == [
        "ecs-queue: no page in Airflow's UI: it needs jinja2 (pip install 'ecs-queue[web]')"
    ]


@pytest.mark.parametrize("loader", ["airflow.plugins_manager", "airflow.sdk.plugins_manager"])
def test_its_import_takes_no_other_module_along(loader: str) -> None:
    """Every process of Airflow imports it: each scheduler, each DAG processor, each task."""
    program = f"""
import importlib.util, sys
if importlib.util.find_spec({loader!r}) is None:
    sys.exit("none")
import {loader}
before = set(sys.modules)
from ecs_queue.airflow.plugin import EcsQueuePlugin
assert issubclass(EcsQueuePlugin, {loader}.AirflowPlugin)
EcsQueuePlugin.validate()
EcsQueuePlugin()
print(*sorted(set(sys.modules) - before))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=100, check=False)
    if done.stderr.strip() == "none":
        pytest.skip(f"this Airflow has no {loader}")
    imported = set(done.stdout.split())
    assert "ecs_queue.airflow.plugin" in imported, done.stderr
    assert imported <= {"ecs_queue", "ecs_queue.airflow", "ecs_queue.airflow.plugin"}


def test_its_address_begins_as_airflow_allows() -> None:
    from airflow.api_fastapi.app import RESERVED_URL_PREFIXES

    assert not URL_PREFIX.startswith(tuple(RESERVED_URL_PREFIXES))


def test_a_wrong_configuration_is_said_without_its_values_and_does_not_stop_the_api_server(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from airflow.api_fastapi.core_api.security import get_user

    monkeypatch.setenv("AIRFLOW__ECS_QUEUE__BROKER_URL", "redis://:swordfish@[")
    app = PageApp(allow_changes=False).build()
    app.dependency_overrides[get_user] = lambda: None
    browser = TestClient(app)
    with caplog.at_level(logging.ERROR, "ecs_queue"):
        answers = [browser.get("/") for _ in range(2)]
    assert [answer.status_code for answer in answers] == [503, 503]
    assert "the log of Airflow's API server says why" in answers[0].text
    (record,) = caplog.records
    assert "broker_url" in record.getMessage()
    assert "swordfish" not in answers[0].text + record.getMessage()
    monkeypatch.setenv("AIRFLOW__ECS_QUEUE__BROKER_URL", "memory://")
    assert browser.get("/healthz").status_code == 200
