"""For `runner_preload` of a queue of Airflow's tasks: imports what Airflow's program imports only when it runs a task.

Which modules these are was measured on Airflow 3.3: in a fork that has this module and the program, the supervisor and
the task import nothing more but the DAG file's own. None of them starts a thread.
"""

from __future__ import annotations

from importlib import import_module

#: Modules of the supervisor's and of the task's process. One that another version of Airflow lacks is left out.
LATE_MODULES = (
    "airflow.executors.workloads",
    "airflow.executors.base_executor",
    "airflow.sdk.execution_time.supervisor",
    "airflow.sdk.execution_time.task_runner",
    "airflow.sdk._shared.logging.factory",
    "airflow.sdk._shared.logging.remote",
    "airflow.sdk.definitions.connection",
    "airflow.sdk.definitions.decorators",
    "airflow.sdk.definitions.asset.metadata",
    "airflow.dag_processing.dagbag",
    "airflow.dag_processing.bundles.local",
    "airflow.providers.standard.decorators.python",
    "airflow.providers.standard.operators.python",
    "encodings.idna",
    "jinja2.ext",
    "setproctitle",
)


def import_late_modules() -> None:
    """Import `LATE_MODULES`."""
    for name in LATE_MODULES:
        try:
            import_module(name)
        except ModuleNotFoundError as error:
            if error.name is None or not name.startswith(error.name):
                raise


def load_certificates() -> None:
    """Let Airflow's client of the API server load the certificates, which it keeps for its process."""
    from airflow.sdk.api.client import Client

    Client(base_url="http://127.0.0.1", token="").close()  # connects to nothing


import_late_modules()
load_certificates()
