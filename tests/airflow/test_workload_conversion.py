"""From a workload to a task line."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
import uuid
from types import SimpleNamespace

import pytest

from ecs_queue.airflow import workload_conversion
from ecs_queue.errors import InvalidRequest


def make_jwt(payload: bytes) -> str:
    return f"e30.{base64.urlsafe_b64encode(payload).decode().rstrip('=')}.sig"


@pytest.mark.parametrize(
    ("weight", "priority"),
    [(-5, 0), (0, 0), (1, 1), (2, 2), (3, 2), (4, 3), (255, 8), (256, 9), (10**9, 9)],
)
def test_each_doubling_of_the_weight_is_one_step_of_priority(weight: int, priority: int) -> None:
    assert workload_conversion.convert_priority(weight) == priority


def test_the_generated_key_of_a_callback_can_be_looked_up_as_a_uuid() -> None:
    known = uuid.uuid4()
    key = workload_conversion.non_task_key(SimpleNamespace(callback=SimpleNamespace(key=str(known))))
    assert key == str(known)
    assert key.hex == known.hex


def test_the_expiry_is_that_of_the_token() -> None:
    assert workload_conversion.read_token_expiry(make_jwt(b'{"exp": 1700000000}')) == 1_700_000_000


@pytest.mark.parametrize(
    "token",
    [
        "",
        "abc",
        "a.b",
        make_jwt(b"{}"),
        make_jwt(b"[]"),
        make_jwt(b'{"exp": "soon"}'),
        make_jwt(b'{"exp": -1}'),
        make_jwt(b"\xff"),
        "a.!.c",
    ],
)
def test_a_token_without_a_readable_expiry_has_none(token: str) -> None:
    assert workload_conversion.read_token_expiry(token) is None


def test_the_marker_is_added_to_the_variables_of_a_flat_executor_config() -> None:
    found = workload_conversion.add_container_marker({"cpu": 512, "environment": [{"name": "A", "value": "1"}]}, "main")
    [override] = found["overrides"]["containerOverrides"]
    assert override["cpu"] == 512
    assert [pair["name"] for pair in override["environment"]] == ["A", "AIRFLOW_IS_EXECUTOR_CONTAINER"]


def test_an_executor_config_that_is_not_for_ecs_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="pod_override"):
        workload_conversion.add_container_marker({"pod_override": object()}, "main")


@pytest.mark.parametrize("given", [None, "", "x" * 49, "a b", "ä"])
def test_an_id_that_no_request_can_have_is_not_used(given: str | None) -> None:
    assert workload_conversion.validate_request_id(given) is None


def test_the_exit_status_of_a_callback_is_its_own() -> None:
    command = workload_conversion.build_command("{}", report_exit_status=True)
    fake = """
import sys, types
statuses = iter([7])
class BaseExecutor:
    run_workload = staticmethod(lambda *a, **k: next(statuses))
for name in ("airflow", "airflow.executors", "airflow.executors.base_executor", "airflow.sdk",
             "airflow.sdk.execution_time", "airflow.sdk.execution_time.execute_workload"):
    sys.modules[name] = types.ModuleType(name)
sys.modules["airflow.executors.base_executor"].BaseExecutor = BaseExecutor
sys.modules["airflow.sdk.execution_time.execute_workload"].main = lambda: BaseExecutor.run_workload("w")
"""
    ended = subprocess.run([sys.executable, "-c", fake + command[2]], check=False)
    assert ended.returncode == 7
    assert json.loads(command[-1]) == {}
