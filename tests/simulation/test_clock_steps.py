"""The clock of the ledger's server goes back, by seconds to a day, while everything else goes on."""

from __future__ import annotations

from collections import Counter

import pytest

from ecs_queue.ledger.memory import MemoryLedger
from tests.simulation.faults import SimFaults
from tests.simulation.simulation import simulate

_FAULTS = SimFaults(clock_goes_back=0.02, kill=0.01, drop=0.2, throttle=0.1, run_task_lost_after_effect=0.3)
#: Enough for each way of recovery: one seed in fifteen looks for its task.
_SEEDS = range(90)


def test_nothing_is_lost_or_doubled_or_waits() -> None:
    coverage: Counter[str] = Counter()
    for seed in _SEEDS:
        report = simulate(seed, faults=_FAULTS)
        assert not report.violations, f"seed {seed}: {report.violations[0]}"
        coverage += report.coverage

    assert {"end SUCCESS", "reclaim run_task", "reclaim list_tasks"} <= coverage.keys()


def test_the_simulation_finds_it_when_due_times_are_not_brought_forward(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MemoryLedger, "_bring_forward", lambda *_: None)

    assert any(simulate(seed, faults=_FAULTS).violations for seed in _SEEDS)
