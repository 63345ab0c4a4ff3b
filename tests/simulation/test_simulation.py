"""Thousands of seeds of the real launcher, poller, sweeper and client: no fault loses or doubles anything."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.simulation.__main__ import main, replay_command
from tests.simulation.faults import SimFaults
from tests.simulation.simulation import SimulationReport, simulate

#: Seeds in a run of the suite. SIMULATION_SEEDS or `python -m tests.simulation --seeds N` runs more.
_SEEDS = int(os.environ.get("SIMULATION_SEEDS", "2000"))
#: The first of them, in one test that also counts which results they meet. The others are in blocks.
_COUNTED_SEEDS = 200
_BLOCKS = 40
_BLOCK_SIZE = max(1, (_SEEDS - _COUNTED_SEEDS) // _BLOCKS)
_ROOT = Path(__file__).parents[2]


def simulate_without_violation(seed: int) -> SimulationReport:
    """Run one seed; a violation fails the test with the command that replays it."""
    report = simulate(seed)
    assert not report.violations, f"{report.violations[0]}\nreplay it: {replay_command(seed)}"
    return report


def test_the_first_seeds_lose_and_double_nothing() -> None:
    for seed in range(20):
        assert simulate(seed).violations == []


@pytest.mark.slow
@pytest.mark.parametrize("block", range(_BLOCKS))
@pytest.mark.timeout(max(120, _BLOCK_SIZE))
def test_whatever_goes_wrong_nothing_is_lost_and_nothing_runs_twice(block: int) -> None:
    first = _COUNTED_SEEDS + block * _BLOCK_SIZE
    for seed in range(first, first + _BLOCK_SIZE):
        simulate_without_violation(seed)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_the_first_of_the_seeds_meet_every_result_that_matters_and_lose_and_double_nothing() -> None:
    """A simulation without such a result proves nothing about it."""
    missing = {
        "claim run_task",
        "claim limit_reached",
        "put_and_claim limit_reached",
        "put_and_claim key_full",
        "claim key_full",
        "claim before others of its key",
        "put_and_claim paused",
        "put_and_claim run_task",
        "put_and_claim not_claimable",
        "reclaim run_task",
        "reclaim list_tasks",
        "launched unchanged",
        "call_ambiguous ok",
        "call_ambiguous claim_lost",
        "no_effect ok",
        "no_effect claim_lost",
        "refused requeued",
        "refused ok",
        "task_absent too_early",
        "task_absent requeued",
        "task_absent ended",
        "update_tasks requeued",
        "update_tasks stale",
        "stop stop_requested",
        "stop ended",
        "put unchanged",
        "put ended",
        "adopt ended",
        "adopt ok",
        "end SUCCESS",
        "end FAILED",
        "end REMOVED",
        "end REVOKED",
        "end EXPIRED",
        "by an event: launched ok",
        "by an event: update_tasks ok",
        "by an event: update_tasks stale",
        "by an event: update_tasks requeued",
        "by an event: update_tasks ended",
        "polled_soon",
    }
    for seed in range(_COUNTED_SEEDS):
        missing -= (+simulate_without_violation(seed).coverage).keys()  # a count may be 0
    assert missing == set()


def test_without_faults_every_request_takes_one_launch() -> None:
    report = simulate(2, faults=SimFaults())
    assert report.violations == []
    assert report.coverage["launched ok"] == report.coverage["update_tasks ended"] > 0
    assert (
        report.coverage["reclaim run_task"]
        + report.coverage["reclaim list_tasks"]
        + report.coverage["update_tasks requeued"]
        == 0
    )


def test_one_seed_is_one_history() -> None:
    assert simulate(7, trace=True).history == simulate(7, trace=True).history


@pytest.mark.slow
def test_the_command_replays_the_history_of_another_process() -> None:
    """Even where Python orders its sets in another way."""
    environ = {**os.environ, "PYTHONHASHSEED": "4711"}
    command = [sys.executable, "-m", "tests.simulation", "--seed", "7", "--trace"]
    other = subprocess.run(command, cwd=_ROOT, env=environ, capture_output=True, text=True, timeout=60, check=True)
    history = simulate(7, trace=True).history
    assert other.stdout.splitlines()[: len(history)] == [
        f"{at - 1_800_000_000:11.3f} {source:<18} {event}" for at, source, event in history
    ]


@pytest.mark.slow
def test_a_violation_ends_with_its_replay(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--seed", "0", "--seeds", "5", "--disable-rule", "new_token_for_every_call"]) == 1
    shown = capsys.readouterr().out
    assert "two ECS tasks for one launch number" in shown
    assert "python -m tests.simulation --seed" in shown
