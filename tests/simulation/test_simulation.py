"""Thousands of seeds of the real launcher, tracker, sweeper and client: nothing lost, nothing doubled, by any fault."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from tests.simulation.__main__ import main, replay_command
from tests.simulation.faults import Faults
from tests.simulation.world import simulate

#: Seeds in a run of the suite; more of them: SIMULATION_SEEDS, or `python -m tests.simulation --seeds N`.
_SEEDS = int(os.environ.get("SIMULATION_SEEDS", "5000"))
_BLOCKS = 50
_BLOCK = max(1, _SEEDS // _BLOCKS)
_ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("block", range(_BLOCKS))
@pytest.mark.timeout(max(120, _BLOCK))
def test_whatever_goes_wrong_nothing_is_lost_and_nothing_runs_twice(block: int) -> None:
    for seed in range(block * _BLOCK, (block + 1) * _BLOCK):
        report = simulate(seed)
        assert not report.findings, f"{report.findings[0]}\nreplay it: {replay_command(seed)}"


def test_the_seeds_meet_every_answer_that_matters() -> None:
    """A simulation that never gets there proves nothing about it."""
    met: Counter[str] = Counter()
    for seed in range(200):
        met += simulate(seed).met
    expected = {
        "claim call",
        "claim full",
        "admit full",
        "admit paused",
        "admit call",
        "admit moved_on",
        "reclaim call",
        "reclaim look",
        "launched same",
        "unsure ok",
        "unsure lost",
        "no_effect ok",
        "no_effect lost",
        "refused retry",
        "refused ok",
        "none early",
        "none retry",
        "none ended",
        "outcomes retry",
        "outcomes stale",
        "stop marked",
        "stop ended",
        "put same",
        "put ended",
        "adopt ended",
        "adopt ok",
        "end SUCCESS",
        "end FAILED",
        "end REMOVED",
        "end REVOKED",
        "end EXPIRED",
        "by an event: launched ok",
        "by an event: outcomes ok",
        "by an event: outcomes stale",
        "by an event: outcomes retry",
        "by an event: outcomes ended",
        "hastened",
    }
    assert expected - met.keys() == set()


def test_without_faults_every_request_takes_one_launch() -> None:
    report = simulate(2, mix=Faults())
    assert report.findings == []
    assert report.met["launched ok"] == report.met["outcomes ended"] > 0
    assert report.met["reclaim call"] + report.met["reclaim look"] + report.met["outcomes retry"] == 0


def test_one_seed_is_one_history() -> None:
    assert simulate(7, traced=True).lines == simulate(7, traced=True).lines


def test_the_command_replays_the_history_of_another_process() -> None:
    """Also where Python orders its sets in another way."""
    environ = {**os.environ, "PYTHONHASHSEED": "4711"}
    command = [sys.executable, "-m", "tests.simulation", "--seed", "7", "--trace"]
    told = subprocess.run(command, cwd=_ROOT, env=environ, capture_output=True, text=True, timeout=60, check=True)
    here = simulate(7, traced=True).lines
    assert told.stdout.splitlines()[: len(here)] == [
        f"{when - 1_800_000_000:11.3f} {who:<18} {what}" for when, who, what in here
    ]


def test_a_finding_ends_with_its_replay(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--seed", "0", "--seeds", "5", "--broken", "a_new_token_for_every_call"]) == 1
    shown = capsys.readouterr().out
    assert "two ECS tasks for one launch number" in shown
    assert "python -m tests.simulation --seed" in shown
