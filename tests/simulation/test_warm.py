"""Seeds of the simulation with warm pools: runners lose and double nothing, and each rule that is off is noticed."""

from __future__ import annotations

import os
import re
from collections import Counter
from unittest.mock import patch

import pytest

from tests.simulation.__main__ import replay_command
from tests.simulation.faults import SimFaults
from tests.simulation.runners import RunnerFaults
from tests.simulation.warm import simulate_warm
from tests.simulation.warm_rules import WARM_RULES

#: Of the seeds of the suite (SIMULATION_SEEDS) a fortieth: each takes twice as long as one without runners.
_SEEDS = int(os.environ.get("SIMULATION_SEEDS", "2000")) // 40
#: Seeds within which a disabled rule must show.
_MAX_SEEDS = 60
_MAX_STEPS = 60_000


def test_the_first_seeds_with_runners_lose_and_double_nothing() -> None:
    for seed in range(5):
        assert simulate_warm(seed).violations == []


@pytest.mark.slow
@pytest.mark.timeout(max(120, _SEEDS))
def test_whatever_happens_to_runners_nothing_is_lost_and_nothing_runs_twice() -> None:
    coverage: Counter[str] = Counter()
    for seed in range(_SEEDS):
        report = simulate_warm(seed)
        assert not report.violations, f"{report.violations[0]}\nreplay it: {replay_command(seed, is_warm=True)}"
        coverage += report.coverage
    expected = {
        "claim assigned",
        "claim no_runner",
        "claim key_full",
        "put_and_claim assigned",
        "settle ended",
        "settle requeued",
        "settle describe_task",
        "settle stale",
        "put_back requeued",
        "update_runner_tasks ended",
        "update_runner_tasks requeued",
        "update_runner_tasks stale",
        "reclaim requeued",
        "stop ended",
        "stop stop_requested",
        "next_turn turn",
        "next_turn wait",
        "next_turn leave",
        "beat True",
        "leave True",
        "start first",
        "start warm",
        "StopTask",
        "end SUCCESS",
        "end FAILED",
        "end REVOKED",
        "end EXPIRED",
    }
    assert expected - coverage.keys() == set()


def test_without_faults_runners_take_one_request_after_the_other() -> None:
    report = simulate_warm(3, faults=SimFaults(), runner_faults=RunnerFaults())
    assert report.violations == []
    assert report.coverage["start warm"] > 0
    assert report.coverage["StopTask"] == 0


def test_one_seed_with_runners_is_one_history() -> None:
    assert simulate_warm(7, trace=True).history == simulate_warm(7, trace=True).history


@pytest.mark.slow
@pytest.mark.parametrize("name", list(WARM_RULES))
def test_a_disabled_rule_of_warm_pools_is_noticed(name: str) -> None:
    rule = WARM_RULES[name]
    patches = [patch.object(where, attribute, what) for where, attribute, what in rule.disable()]
    for each in patches:
        each.start()
    try:
        for seed in range(rule.first_seed, rule.first_seed + _MAX_SEEDS):
            found = simulate_warm(seed, faults=rule.faults, runner_faults=rule.runner_faults, max_steps=_MAX_STEPS)
            if found.violations:
                assert re.search(rule.expected_violation, found.violations[0]), f"seed {seed}: {found.violations[0]}"
                return
    finally:
        for each in reversed(patches):
            each.stop()
    pytest.fail(f"{_MAX_SEEDS} seeds found no violation")


@pytest.mark.slow
def test_the_faults_of_the_rules_do_no_harm_while_the_rules_hold() -> None:
    for rule in WARM_RULES.values():
        assert simulate_warm(1, faults=rule.faults, runner_faults=rule.runner_faults).violations == []
