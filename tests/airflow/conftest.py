"""Collects the tests with the marker `airflow` only where Airflow is installed (`make airflow-test`)."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

if find_spec("airflow") is None:
    # A file with the marker `airflow` imports Airflow, so it cannot even be collected without it.
    collect_ignore = sorted(
        path.name for path in Path(__file__).parent.glob("test_*.py") if "pytest.mark.airflow" in path.read_text()
    )
    print(f"not collected without Airflow: {', '.join(collect_ignore)}; `make airflow-test` runs them", file=sys.stderr)
else:
    # Before Airflow is imported: a home for this process alone, so that no installation is touched.
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
        warnings.simplefilter("ignore")  # of Airflow's own imports, and of the Starlette that an older one needs
        import airflow.models.dag  # noqa: F401
        import starlette.testclient  # noqa: F401

        from tests.airflow.harness import AirflowHarness

    def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
        """Only warnings of ecs_queue are errors, not those of Airflow and its libraries. Slow files are first.

        Such a file takes a minute or more. As the last one, it would run while the other processes have nothing to do.
        """
        own_items = [item for item in items if Path(__file__).parent in item.path.parents]
        for item in own_items:
            item.add_marker(pytest.mark.filterwarnings("ignore"), append=False)
            item.add_marker(pytest.mark.filterwarnings("error:::ecs_queue"), append=True)
        slow_files = {item.path for item in own_items if item.get_closest_marker("slow")}
        items.sort(key=lambda item: item.path not in slow_files)

    @pytest.fixture(scope="session", autouse=True)
    def _airflow_home() -> Iterator[None]:
        import shutil

        yield
        shutil.rmtree(_home, ignore_errors=True)

    @pytest.fixture
    def harness() -> Iterator[AirflowHarness]:
        """An executor of the installed Airflow on a ledger and a broker in memory."""
        with AirflowHarness.in_memory() as harness:
            yield harness

    @pytest.fixture
    def make_harness() -> Iterator[Callable[[str], AirflowHarness]]:
        """Makes executors on a real server, each for a scheduler job."""
        harnesses: list[AirflowHarness] = []

        def make(url: str, job_id: int = 7) -> AirflowHarness:
            harnesses.append(AirflowHarness.on_redis(url, job_id))
            return harnesses[-1]

        yield make
        for harness in harnesses:
            harness.close()
