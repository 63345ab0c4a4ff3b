"""What a cold container's interpreter costs before Airflow runs a task: with and without compiled bytecode.

The interpreter `BENCH_AIRFLOW_PYTHON` runs it (`make bench` sets it), otherwise this one.
"""

from __future__ import annotations

import os
import resource
import subprocess
import tempfile

from bench import airflow
from bench.measurement import Measurement, median_and_range

_MODULES = ("airflow", "ecs_queue")
_INTERPRETER = "pass"
_PROGRAM = "import airflow.sdk.execution_time.execute_workload"
#: What the program imports only when it runs a task.
_LATE = f"{_PROGRAM}; import ecs_queue.airflow.preload"
_DISCOVERY = f"{_LATE}; from airflow.providers_manager import ProvidersManager as m; m().initialize_providers_list()"


def run(rounds: int) -> list[Measurement]:
    """See `bench.__main__`; `rounds` interpreters are started for each row."""
    if not airflow.is_installed(_MODULES):
        raise SystemExit(
            f"{airflow.python()} lacks one of {', '.join(_MODULES)}; make bench installs them and runs this"
        )
    with tempfile.TemporaryDirectory() as home:
        environ = {**os.environ, "AIRFLOW_HOME": home, "PYTHONDONTWRITEBYTECODE": "1"}
        without = {**environ, "PYTHONPYCACHEPREFIX": f"{home}/empty"}
        rows = {
            "an interpreter": (_INTERPRETER, environ),
            "with Airflow's program": (_PROGRAM, environ),
            "and what it imports when it runs a task": (_LATE, environ),
            "and discovery of providers": (_DISCOVERY, environ),
            "program and late imports, no compiled bytecode": (_LATE, without),
        }
        _start(_DISCOVERY, {**environ, "PYTHONDONTWRITEBYTECODE": ""})  # writes what is not compiled yet
        seconds: dict[str, list[float]] = {name: [] for name in rows}
        for _ in range(rounds):
            for name, (program, variables) in rows.items():
                seconds[name].append(_start(program, variables))
    return [Measurement(f"processor time: {name}", f"{median_and_range(found)} s") for name, found in seconds.items()]


def _start(program: str, environ: dict[str, str]) -> float:
    """Run the program in a new interpreter; return its processor time in seconds."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [airflow.python(), "-W", "ignore", "-c", program]
    subprocess.run(command, env=environ, check=True, timeout=120, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime
