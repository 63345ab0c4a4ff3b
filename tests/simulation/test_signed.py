"""The simulation with signing keys: then a claim is good for one launch alone, and unsigned results are ignored."""

from __future__ import annotations

from collections import Counter

import pytest

from tests.simulation import world


def test_signatures_lose_and_double_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(world._ENVIRON, "AIRFLOW__ECS_QUEUE__SIGNING_KEYS", "k1:" + "a" * 32)
    world.configuration.cache_clear()
    met: Counter[str] = Counter()
    try:
        for seed in range(40):
            report = world.simulate(seed)
            assert not report.findings, f"seed {seed}: {report.findings[0]}"
            met += report.met
    finally:
        world.configuration.cache_clear()

    assert {"end SUCCESS", "admit moved_on", "claim call", "reclaim look"} <= met.keys()
