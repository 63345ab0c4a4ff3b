"""The reference API from one import."""

from __future__ import annotations

import dataclasses
import inspect
from pathlib import Path

import pytest

from ecs_queue import utils
from ecs_queue.errors import EcsQueueError

SIGNATURES = {
    "EcsExecutorTask": "task_arn last_status desired_status containers started_at stopped_reason external_executor_id",
    "EcsQueuedTask": "key command queue executor_config attempt_number next_attempt_time",
    "EcsTaskInfo": "cmd queue config",
    "EcsTaskCollection": "",
    "camelize_dict_keys": "nested_dict",
    "parse_assign_public_ip": "assign_public_ip is_launch_type_ec2",
}
METHODS = {
    "add_task": "task airflow_task_key queue airflow_cmd exec_config attempt_number",
    "update_task": "task",
    "task_by_key": "task_key",
    "task_by_arn": "arn",
    "pop_by_key": "task_key",
    "get_all_arns": "",
    "get_all_task_keys": "",
    "failure_count_by_key": "task_key",
    "increment_failure_count": "task_key",
    "info_by_key": "task_key",
    "__getitem__": "value",
    "__len__": "",
}


@pytest.mark.parametrize("name", sorted(SIGNATURES))
def test_the_signature_is_the_reference(name: str) -> None:
    parameters = inspect.signature(getattr(utils, name)).parameters
    assert list(parameters) == SIGNATURES[name].split()


@pytest.mark.parametrize("name", sorted(METHODS))
def test_the_collections_methods_are_the_reference(name: str) -> None:
    parameters = inspect.signature(getattr(utils.EcsTaskCollection, name)).parameters
    assert list(parameters) == ["self", *METHODS[name].split()]


def test_the_optional_arguments_of_a_task_default_to_none() -> None:
    parameters = inspect.signature(utils.EcsExecutorTask).parameters
    defaults = [parameter.default for parameter in parameters.values()]
    assert defaults == [inspect.Parameter.empty] * 4 + [None] * 3


def test_the_records_are_dataclasses() -> None:
    assert dataclasses.is_dataclass(utils.EcsQueuedTask)
    assert dataclasses.is_dataclass(utils.EcsTaskInfo)


def test_the_exception_is_in_the_one_tree() -> None:
    assert issubclass(utils.EcsExecutorException, EcsQueueError)


def test_every_public_name_is_there() -> None:
    assert all(hasattr(utils, name) for name in utils.__all__)
    assert {"CommandType", "ExecutorConfigType", "ExecutorConfigFunctionType"} <= set(utils.__all__)


def test_the_core_imports_nothing_of_ours_but_itself_and_errors() -> None:
    core = Path(utils.__file__).parent / "protocol"
    names = ("tasks", "spelling", "config_keys", "ecs_model", "executor_config", "merge", "run_task_kwargs")
    for name in names:
        lines = (core / f"{name}.py").read_text(encoding="utf-8").splitlines()
        ours = [line for line in lines if "import" in line and "ecs_queue" in line and not line.startswith('"""')]
        assert all("ecs_queue.core" in line or "ecs_queue.errors" in line for line in ours), name
