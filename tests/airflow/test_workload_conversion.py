"""Converting a workload to the members of a task line."""

from __future__ import annotations

import base64
import sys
import uuid
from types import ModuleType, SimpleNamespace

import pytest

from ecs_queue.airflow import workload_conversion
from ecs_queue.errors import InvalidRequest
from ecs_queue.messages.labels import check_labels

TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


def make_jwt(payload: bytes) -> str:
    return f"e30.{base64.urlsafe_b64encode(payload).decode().rstrip('=')}.sig"


@pytest.mark.parametrize(
    ("weight", "priority"),
    [(-5, 0), (0, 0), (1, 1), (2, 2), (3, 2), (4, 3), (255, 8), (256, 9), (10**9, 9)],
)
def test_each_doubling_of_the_weight_is_one_step_of_priority(weight: int, priority: int) -> None:
    assert workload_conversion.convert_priority(weight) == priority


def test_the_generated_key_of_a_callback_can_be_looked_up_as_a_uuid() -> None:
    callback_id = uuid.uuid4()
    key = workload_conversion.non_task_key(SimpleNamespace(callback=SimpleNamespace(key=str(callback_id))))
    assert key == str(callback_id)
    assert key.hex == callback_id.hex


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


def test_the_marker_and_the_settings_are_added_to_the_variables_of_a_flat_executor_config() -> None:
    found = workload_conversion.add_container_variables(
        {"cpu": 512, "environment": [{"name": "A", "value": "1"}]},
        "main",
        workload_conversion.build_container_variables({"B": "2"}),
    )
    [override] = found["overrides"]["containerOverrides"]
    assert override["cpu"] == 512
    assert [pair["name"] for pair in override["environment"]] == ["A", "AIRFLOW_IS_EXECUTOR_CONTAINER", "B"]


@pytest.mark.parametrize(
    ("carrier", "found"),
    [
        ({"traceparent": TRACE, "tracestate": "a=b"}, TRACE),
        ({"traceparent": "made up"}, ""),
        ({}, ""),
        (None, ""),
    ],
)
def test_the_trace_is_that_of_the_tasks_carrier(carrier: object, found: str) -> None:
    assert workload_conversion.read_traceparent(SimpleNamespace(context_carrier=carrier)) == found
    assert workload_conversion.read_traceparent(None) == ""


def test_an_executor_config_that_is_not_for_ecs_is_rejected() -> None:
    with pytest.raises(InvalidRequest, match="pod_override"):
        workload_conversion.add_container_variables({"pod_override": object()}, "main", [])


@pytest.mark.parametrize("given", [None, "", "x" * 49, "a b", "ä"])
def test_an_id_that_no_request_can_have_is_not_used(given: str | None) -> None:
    assert workload_conversion.validate_request_id(given) is None


def test_the_exit_status_of_a_callback_is_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    class BaseExecutor:
        run_workload = staticmethod(lambda *args, **kwargs: 7)

    airflow_program = SimpleNamespace(main=lambda: BaseExecutor.run_workload("workload"))
    for name in ("airflow", "airflow.executors", "airflow.sdk"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    fakes = {
        "airflow.executors.base_executor": SimpleNamespace(BaseExecutor=BaseExecutor),
        "airflow.sdk.execution_time": SimpleNamespace(execute_workload=airflow_program),
    }
    for name, module in fakes.items():
        monkeypatch.setitem(sys.modules, name, module)
    command = workload_conversion.build_command("{}", report_exit_status=True)
    assert (command[:2], command[3:]) == (["python", "-c"], ["--json-string", "{}"])
    with pytest.raises(SystemExit) as exited:
        exec(command[2], {"__name__": "__main__"})
    assert exited.value.code == 7


def test_the_exit_status_program_is_short_and_has_no_comments() -> None:
    program = workload_conversion.build_command("{}", report_exit_status=True)[2]
    assert len(program) < 2000  # ECS accepts 8,192 characters of overrides
    assert "#" not in program


def test_the_labels_of_a_task_are_those_that_the_configuration_names() -> None:
    task = SimpleNamespace(dag_id="etl", task_id="load", run_id="manual__2025 50%", map_index=-1)
    read = workload_conversion.read_labels
    assert read(task, ("dag_id", "run_id"), "blue") == {"dag_id": "etl", "run_id": "manual__2025 50_"}
    assert read(task, ("task_id", "map_index", "team"), "blue") == {
        "task_id": "load",
        "map_index": "-1",
        "team": "blue",
    }
    assert read(task, ("team",), None) == read(task, (), "blue") == read(None, ("dag_id", "team"), "blue") == {}
    long = SimpleNamespace(dag_id="d" * 300)
    check_labels(read(long, ("dag_id", "task_id"), None))


def test_launch_policies_are_no_part_of_the_executor_config_for_run_task() -> None:
    config = {"cpu": 512, "ecs_queue": {"start_timeout": "5m"}}
    assert workload_conversion.split_executor_config(config) == ({"cpu": 512}, {"start_timeout": 300.0})
    keyed = {"ecs_queue": {"concurrency_key": "customer 7"}}
    assert workload_conversion.split_executor_config(keyed) == ({}, {"concurrency_key": "customer 7"})
    assert workload_conversion.split_executor_config({"cpu": 512}) == ({"cpu": 512}, {})
    assert workload_conversion.split_executor_config(None) == (None, {})


@pytest.mark.parametrize("policies", [5, {"start_timout": 5}, {"start_timeout": "soon"}])
def test_launch_policies_that_are_none_are_rejected(policies: object) -> None:
    with pytest.raises(InvalidRequest, match="start_timeout"):
        workload_conversion.split_executor_config({"ecs_queue": policies})
