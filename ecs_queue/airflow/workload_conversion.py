"""Converts an Airflow workload to the members of an ecs-queue task line. Pure."""

from __future__ import annotations

import ast
import binascii
import re
from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Any

import msgspec

from ecs_queue.client.task_line import parse_durations
from ecs_queue.errors import InvalidRequest
from ecs_queue.messages.fields import is_traceparent
from ecs_queue.messages.labels import fit_label_value
from ecs_queue.messages.request import POLICY_FIELDS
from ecs_queue.runtask.executor_config import normalize_executor_config
from ecs_queue.runtask.merge import merge_run_task

#: Airflow's marker of a container that an executor started for one task.
_CONTAINER_MARKER = {"name": "AIRFLOW_IS_EXECUTOR_CONTAINER", "value": "true"}
#: The key of an `executor_config` with the task's launch policies and concurrency key (docs/policies.md).
_POLICIES_KEY = "ecs_queue"
#: Airflow decides itself whether user code runs again: no retry rules.
_POLICIES = frozenset({*POLICY_FIELDS, "concurrency_key"}) - {"retry_rules"}
_EXECUTE_WORKLOAD_MODULE = "airflow.sdk.execution_time.execute_workload"
#: Parsed and unparsed, so that its comments take nothing of the 8,192 characters of overrides that ECS accepts.
_EXIT_STATUS_PROGRAM = ast.unparse(ast.parse(files(__package__).joinpath("exit_status_program.py").read_text()))


class _TokenClaims(msgspec.Struct):
    exp: float


_token_claims_decoder = msgspec.json.Decoder(_TokenClaims)
_REQUEST_ID_PATTERN = re.compile(r"[A-Za-z0-9_-]{1,48}")
#: Of callbacks and connection tests: they complete work in progress, and Airflow also sends them before tasks.
HIGHEST_PRIORITY = 9


class CallbackKey(str):
    """The key of a callback in Airflow 3.2, whose scheduler looks for the callback by it as if it were a UUID.

    SQLite and MySQL store a UUID by its `hex`; without that attribute the scheduler would end.
    """

    @property
    def hex(self) -> str:
        """The key as the `hex` of a UUID."""
        return self.replace("-", "")


def non_task_key(workload: Any) -> Any:
    """Return the key under which Airflow queues a callback or a connection test."""
    return workload.key if hasattr(workload, "key") else CallbackKey(workload.callback.key)


def copy_without_request_id(workload: Any) -> Any:
    """Return a copy of a task's workload for which a new request id is made."""
    task = workload.ti
    update = {"external_executor_id": None} if hasattr(task, "external_executor_id") else {}
    return workload.model_copy(update={"ti": task.model_copy(update=update)})


def validate_request_id(external_executor_id: object) -> str | None:
    """Return the id that Airflow assigned; None when it cannot be a request's id."""
    text = "" if external_executor_id is None else str(external_executor_id)
    return text if _REQUEST_ID_PATTERN.fullmatch(text) else None


def build_command(payload: str, *, report_exit_status: bool = False) -> list[str]:
    """Return the container's command for a workload.

    Args:
        payload: The workload as JSON.
        report_exit_status: Make the container's exit status that of the workload.
    """
    program = ["-c", _EXIT_STATUS_PROGRAM] if report_exit_status else ["-m", _EXECUTE_WORKLOAD_MODULE]
    return ["python", *program, "--json-string", payload]


def split_executor_config(
    executor_config: Mapping[str, Any] | None,
) -> tuple[Mapping[str, Any] | None, dict[str, Any]]:
    """Return what of an `executor_config` is for RunTask, and the members of a task line under its key `ecs_queue`.

    Raises:
        InvalidRequest: That key has something else than launch policies.
    """
    if not executor_config or _POLICIES_KEY not in executor_config:
        return executor_config, {}
    policies = executor_config[_POLICIES_KEY]
    if not isinstance(policies, Mapping) or policies.keys() - _POLICIES:
        raise InvalidRequest(
            f"executor_config: {_POLICIES_KEY}: expected an object with {', '.join(sorted(_POLICIES))}, "
            f"found {type(policies).__name__ if not isinstance(policies, Mapping) else ', '.join(map(str, policies))}"
        )
    return {key: value for key, value in executor_config.items() if key != _POLICIES_KEY}, parse_durations(policies)


def build_container_variables(shared_settings: Mapping[str, str]) -> list[dict[str, str]]:
    """Return the variables of each main container, as RunTask has them: Airflow's marker and `shared_settings`."""
    return [_CONTAINER_MARKER, *({"name": name, "value": text} for name, text in shared_settings.items())]


def add_container_variables(
    executor_config: Mapping[str, Any] | None, container_name: str | None, variables: list[dict[str, str]]
) -> dict[str, Any]:
    """Return the `executor_config` with these variables in the main container's environment.

    Raises:
        InvalidRequest: The `executor_config` is wrong.
    """
    if not executor_config:
        return {"environment": variables}
    override = {"name": container_name, "environment": variables}
    normalized = normalize_executor_config(executor_config, container_name)
    return merge_run_task(normalized, {"overrides": {"containerOverrides": [override]}})


def read_shared_settings(conf: Any) -> dict[str, str]:
    """Return, as variables, the scheduler's settings against which Airflow checks `executor=` when it imports a DAG.

    It imports the DAG in the task's container, too, whose image need not know the scheduler's executors.
    """
    values = {key: conf.get("core", key, fallback=None) for key in ("executor", "multi_team")}
    return {f"AIRFLOW__CORE__{key.upper()}": str(value) for key, value in values.items() if value is not None}


def read_labels(task: Any, names: Sequence[str], team: str | None) -> dict[str, str]:
    """Return the named labels of a task, with what a tag may not have replaced; {} for what is no task."""
    if task is None or not names:
        return {}
    found = {name: team if name == "team" else getattr(task, name, None) for name in names}
    return {name: fit_label_value(str(value)) for name, value in found.items() if value is not None}


def read_traceparent(task: Any) -> str:
    """Return the trace that Airflow hands to a task; "" without one, and for a callback."""
    found = (getattr(task, "context_carrier", None) or {}).get("traceparent")
    return found if is_traceparent(found) else ""


def convert_priority(priority_weight: int) -> int:
    """Return 0 to 9, where 9 is first: each doubling of Airflow's weight is one step, from 0 (<= 0) to 9 (>= 256)."""
    return min(max(priority_weight, 0).bit_length(), HIGHEST_PRIORITY)


def read_token_expiry(token: str) -> float | None:
    """Return `exp` of a JWT, in seconds since the epoch; None when it has no readable one. Verifies nothing."""
    parts = token.split(".")
    if len(parts) != 3:
        return None
    encoded = parts[1].replace("-", "+").replace("_", "/")
    try:
        claims = _token_claims_decoder.decode(binascii.a2b_base64(encoded + "=" * (-len(encoded) % 4)))
    except (binascii.Error, ValueError, msgspec.DecodeError):
        return None
    return claims.exp if 0 < claims.exp < 253_402_300_799 else None
