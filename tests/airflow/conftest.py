"""What needs Airflow is collected only where it is installed (`make airflow-test`); the rest is tested everywhere."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

#: These files import Airflow; the value says whether they take minutes.
_NEEDS_AIRFLOW = {
    "test_airflow_3_4.py": False,
    "test_callbacks_system.py": False,
    "test_cli.py": False,
    "test_crash_points.py": True,
    "test_executor.py": False,
    "test_faults.py": False,
    "test_local_airflow.py": True,
    "test_local_airflow_schedulers.py": True,
    "test_metrics.py": False,
    "test_obsolete_requests.py": False,
    "test_obsolete_requests_system.py": True,
    "test_teams.py": False,
}

if find_spec("airflow") is None:
    collect_ignore = sorted(_NEEDS_AIRFLOW)
    print(f"not collected without Airflow: {', '.join(collect_ignore)}; `make airflow-test` runs them", file=sys.stderr)
else:
    # Before Airflow is imported: a home of this process's own, so that nobody's installation is touched.
    _home = Path(tempfile.mkdtemp(prefix="ecs-queue-airflow-"))
    os.environ |= {
        "AIRFLOW_HOME": str(_home),
        "AIRFLOW__CORE__UNIT_TEST_MODE": "False",
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{_home / 'airflow.db'}",
        "AIRFLOW__API_AUTH__JWT_SECRET": "only-for-tests-0123456789-0123456789-0123456789-0123456789-0123456789",
        "AIRFLOW__LOGGING__LOGGING_LEVEL": "WARNING",
    }

    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of Airflow's own imports
        import airflow.models.dag  # noqa: F401

        from tests.airflow.harness import AirflowHarness

    def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
        """Warnings of Airflow and its libraries are not ours to be errors."""
        for item in items:
            if Path(__file__).parent in item.path.parents:
                item.add_marker(pytest.mark.filterwarnings("ignore"), append=False)
                item.add_marker(pytest.mark.filterwarnings("error:::ecs_queue"), append=True)
                if item.path.name in _NEEDS_AIRFLOW:
                    item.add_marker(pytest.mark.airflow)
                    if _NEEDS_AIRFLOW[item.path.name]:
                        item.add_marker(pytest.mark.slow)

    @pytest.fixture(scope="session", autouse=True)
    def _airflow_home() -> Iterator[None]:
        import shutil

        yield
        shutil.rmtree(_home, ignore_errors=True)

    @pytest.fixture
    def harness() -> Iterator[AirflowHarness]:
        """An executor of the installed Airflow on a ledger and a broker in memory."""
        with AirflowHarness.in_memory() as made:
            yield made

    @pytest.fixture
    def make_harness() -> Iterator[Callable[[str], AirflowHarness]]:
        """More executors on one real server; by scheduler job."""
        made: list[AirflowHarness] = []

        def make(url: str, job_id: int = 7) -> AirflowHarness:
            made.append(AirflowHarness.on_redis(url, job_id))
            return made[-1]

        yield make
        for one in made:
            one.close()
