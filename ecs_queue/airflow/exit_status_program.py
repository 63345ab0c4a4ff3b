"""Runs a workload with Airflow's own program and exits with the workload's status."""
# It runs as `python -c` in the task's container, whose image need not have ecs_queue: it may import only the standard
# library and Airflow 3.1 to 3.4. workload_conversion.py sends it without comments.
#
# Airflow's program exits with 0 whatever the workload did. A task reports its state to the API server, but the result
# of a callback or a connection test can only be seen from the exit status. The program of Airflow 3.2 does
# not support callbacks: its executors run them themselves, and do not find those defined in a DAG file, whose module
# has a name that Airflow generates.

import sys
from typing import Any

from airflow.executors.base_executor import BaseExecutor
from airflow.sdk.execution_time import execute_workload as airflow_program

exit_codes: list[int] = []


def execute_callback(workload: Any) -> None:
    from importlib.util import module_from_spec, spec_from_file_location

    from airflow.dag_processing.bundles.manager import DagBundlesManager
    from airflow.executors.workloads.callback import execute_callback_workload

    bundle = DagBundlesManager().get_bundle(workload.bundle_info.name, workload.bundle_info.version)
    bundle.initialize()
    sys.path.append(str(bundle.path))
    module_name = workload.callback.data["path"].rpartition(".")[0]
    if module_name.startswith("unusual_prefix_"):
        spec: Any = spec_from_file_location(module_name, bundle.path / workload.dag_rel_path)
        sys.modules[module_name] = module_from_spec(spec)
        spec.loader.exec_module(sys.modules[module_name])
    exit_codes.append(0 if execute_callback_workload(workload.callback, airflow_program.log)[0] else 1)


if __name__ == "__main__":
    if hasattr(BaseExecutor, "run_workload"):
        run = BaseExecutor.run_workload
        BaseExecutor.run_workload = staticmethod(lambda *args, **kwargs: exit_codes.append(run(*args, **kwargs)))
    else:
        airflow_program.execute_workload = execute_callback
    airflow_program.main()
    sys.exit(exit_codes[0] or 0 if exit_codes else 1)
