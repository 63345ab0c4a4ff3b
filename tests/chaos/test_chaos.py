"""Workers and the server killed, ECS failing and throttling: every request has one result, every launch one task.

`python -m tests.chaos` runs it with 2,000 requests and strict bounds on recovery times.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ecs_queue.journal.jsonl import read_events
from ecs_queue.replay.decisions import replay_decisions
from tests.chaos.__main__ import main
from tests.chaos.harness import ChaosHarness
from tests.chaos.options import ChaosOptions

#: What AWS's quota of 20 launches a second lets through in the time that the suite has.
_TASKS = int(os.environ.get("CHAOS_TASKS", "800"))
#: On a machine that is busy with other tests, a new worker needs seconds to start.
_MAX_RECOVERY_SECONDS = 60.0


@pytest.mark.server
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_nothing_is_lost_or_doubled_when_everything_fails_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ChaosHarness(ChaosOptions(directory=tmp_path, tasks=_TASKS, seed=7)) as chaos:
        report = chaos.run(timeout=500.0)
        print(report)
    assert report.violations == []
    assert (report.lost, report.duplicates, report.results.total()) == (0, 0, _TASKS)
    assert report.server_kills == 2
    assert report.worker_kills >= 5
    assert {"accept_then_drop", "server_error", "capacity", "start_failure"} <= report.faults.keys()
    assert report.throttled
    assert report.longest_recovery_seconds < _MAX_RECOVERY_SECONDS
    assert report.decisions > 2 * _TASKS
    assert report.scrapes > 10

    monkeypatch.setattr("ecs_queue.protocol.decisions.may_relaunch", lambda policy, observation: False)
    changed = replay_decisions(read_events(chaos.journal_file, print)).difference
    assert changed is not None
    assert (changed.rule, changed.id[:1]) == ("may_relaunch", "r")
    assert changed.event == "decision.poll"


def test_a_directory_that_holds_another_run_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "environment").touch()
    with pytest.raises(SystemExit):
        main(["--keep", str(tmp_path)])
    assert "expected an empty directory" in capsys.readouterr().err
