"""The reference API from one import."""

from __future__ import annotations

import ast
import dataclasses
import inspect
from collections.abc import Iterator
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


PACKAGE = Path(utils.__file__).parent
_TEXTS = ("ecs_queue.errors", "ecs_queue.error_text", "ecs_queue.payload_repr")
#: What each part of the pure core may import of ours, beside its own modules. No arrow leads back.
ALLOWED_IMPORTS = {
    "durations.py": (),
    "errors.py": (),
    "payload_repr.py": (),
    "error_text.py": ("ecs_queue.errors",),
    "tasks.py": ("ecs_queue.errors", "ecs_queue.payload_repr"),
    "protocol": ("ecs_queue.errors", "ecs_queue.payload_repr", "ecs_queue.tasks"),
    "messages": ("ecs_queue.durations", *_TEXTS, "ecs_queue.tasks", "ecs_queue.protocol"),
    "runs/runner_key.py": (*_TEXTS, "ecs_queue.protocol"),
    "runs/runner_options.py": (),
    "runtask": (
        *(*_TEXTS, "ecs_queue.tasks", "ecs_queue.protocol", "ecs_queue.messages"),
        *("ecs_queue.runs.runner_key", "ecs_queue.runs.runner_options"),
    ),
}


@pytest.mark.parametrize("part", ALLOWED_IMPORTS)
def test_the_pure_core_imports_nothing_of_ours_but_its_own_layers(part: str) -> None:
    allowed = (*ALLOWED_IMPORTS[part], f"ecs_queue.{part.removesuffix('.py')}")
    files = sorted((PACKAGE / part).glob("*.py")) or [PACKAGE / part]
    assert all(file.is_file() for file in files)
    for file in files:
        modules = [module for module in _imported_modules(file) if module.split(".")[0] == "ecs_queue"]
        unexpected = [module for module in modules if not _is_within(module, allowed)]
        assert not unexpected, f"{file.relative_to(PACKAGE)} imports {unexpected}"


def _imported_modules(file: Path) -> Iterator[str]:
    """Every module that the file imports, also within functions and under TYPE_CHECKING."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: a relative import"
            yield str(node.module)


def _is_within(module: str, packages: tuple[str, ...]) -> bool:
    return any(module == package or module.startswith(f"{package}.") for package in packages)
