"""The simulation with signing keys: a claim is valid for one launch only, and unsigned results are ignored."""

from __future__ import annotations

from collections import Counter

import pytest

from tests.simulation import simulation

pytestmark = pytest.mark.slow


def test_signatures_lose_and_double_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(simulation._ENVIRON, "AIRFLOW__ECS_QUEUE__SIGNING_KEYS", "k1:" + "a" * 32)
    simulation.make_config.cache_clear()
    coverage: Counter[str] = Counter()
    try:
        for seed in range(40):
            report = simulation.simulate(seed)
            assert not report.violations, f"seed {seed}: {report.violations[0]}"
            coverage += report.coverage
    finally:
        simulation.make_config.cache_clear()

    assert {"end SUCCESS", "put_and_claim not_claimable", "claim run_task", "reclaim list_tasks"} <= coverage.keys()
