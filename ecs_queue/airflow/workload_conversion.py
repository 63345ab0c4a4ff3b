"""From an Airflow workload to a task line of ecs-queue. Pure: the clock is handed in."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from typing import Any

import msgspec

from ecs_queue.runtask.executor_config import normalize_executor_config
from ecs_queue.runtask.merge import merge_run_task

#: Airflow's sign that the task runs in a container that an executor started for it alone.
_CONTAINER_MARKER = {"name": "AIRFLOW_IS_EXECUTOR_CONTAINER", "value": "true"}
_EXECUTE_WORKLOAD_MODULE = "airflow.sdk.execution_time.execute_workload"
#: Airflow's program ends with 0 whatever the workload did. A task tells the API server how it ended; of a callback
#: and a connection test only the exit status speaks. That of 3.2 knows no callbacks: its executors run them themselves,
#: and find none that stands in the DAG's own file, whose module has a name that Airflow gives it.
_EXIT_STATUS_PROGRAM = """\
import sys
from airflow.executors.base_executor import BaseExecutor
from airflow.sdk.execution_time import execute_workload as program
codes = []
def execute(workload):
    from importlib.util import module_from_spec, spec_from_file_location
    from airflow.dag_processing.bundles.manager import DagBundlesManager
    from airflow.executors.workloads.callback import execute_callback_workload
    bundle = DagBundlesManager().get_bundle(workload.bundle_info.name, workload.bundle_info.version)
    bundle.initialize()
    sys.path.append(str(bundle.path))
    name = workload.callback.data["path"].rpartition(".")[0]
    if name.startswith("unusual_prefix_"):
        spec = spec_from_file_location(name, bundle.path / workload.dag_rel_path)
        sys.modules[name] = module_from_spec(spec)
        spec.loader.exec_module(sys.modules[name])
    codes.append(0 if execute_callback_workload(workload.callback, program.log)[0] else 1)
if hasattr(BaseExecutor, "run_workload"):
    run = BaseExecutor.run_workload
    BaseExecutor.run_workload = staticmethod(lambda *a, **k: codes.append(run(*a, **k)))
else:
    program.execute_workload = execute
program.main()
sys.exit(codes[0] or 0 if codes else 1)
"""


class _TokenClaims(msgspec.Struct):
    exp: float


_token_claims_decoder = msgspec.json.Decoder(_TokenClaims)
_REQUEST_ID_PATTERN = re.compile(r"[A-Za-z0-9_-]{1,48}")
#: Callbacks and connection tests finish work that is under way; Airflow sends them before tasks, too.
HIGHEST_PRIORITY = 9


class CallbackKey(str):
    """The key of a callback of Airflow 3.2, whose scheduler looks for the callback by it as if it was a UUID.

    SQLite and MySQL store a UUID by its `hex`; without one the scheduler would end.
    """

    @property
    def hex(self) -> str:
        """As a UUID's."""
        return self.replace("-", "")


def non_task_key(workload: Any) -> Any:
    """The key under which Airflow queues a callback or a connection test."""
    return workload.key if hasattr(workload, "key") else CallbackKey(workload.callback.key)


def validate_request_id(external_executor_id: object) -> str | None:
    """The id that Airflow assigned, when it can be the id of a request."""
    text = "" if external_executor_id is None else str(external_executor_id)
    return text if _REQUEST_ID_PATTERN.fullmatch(text) else None


def build_command(payload: str, *, report_exit_status: bool = False) -> list[str]:
    """The container's command for a workload as JSON. `status`: the exit status is to tell how it ended."""
    program = ["-c", _EXIT_STATUS_PROGRAM] if report_exit_status else ["-m", _EXECUTE_WORKLOAD_MODULE]
    return ["python", *program, "--json-string", payload]


def add_container_marker(executor_config: Mapping[str, Any] | None, container_name: str | None) -> dict[str, Any]:
    """The `executor_config` and Airflow's sign in the main container's environment; InvalidRequest when it is wrong."""
    if not executor_config:
        return {"environment": [dict(_CONTAINER_MARKER)]}
    asked = normalize_executor_config(executor_config, container_name)
    sign = {"name": container_name, "environment": [dict(_CONTAINER_MARKER)]}
    return merge_run_task(asked, {"overrides": {"containerOverrides": [sign]}})


def convert_priority(priority_weight: int) -> int:
    """0 to 9, 9 first: each doubling of Airflow's weight is one step, 0 and below is 0, 256 and above 9."""
    return min(max(priority_weight, 0).bit_length(), HIGHEST_PRIORITY)


def read_token_expiry(token: str) -> float | None:
    """`exp` of a JWT, seconds since the epoch; None when it has none that can be read. Nothing is verified."""
    parts = token.split(".")
    if len(parts) != 3:
        return None
    try:
        claims = _token_claims_decoder.decode(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
    except (binascii.Error, ValueError, msgspec.DecodeError):
        return None
    return claims.exp if 0 < claims.exp < 253_402_300_799 else None
