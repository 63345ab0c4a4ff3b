"""A runner dies at each of its crash points: the ledger knows enough, and no other process starts the command again."""

from __future__ import annotations

from pathlib import Path

import pytest

from ecs_queue.crash_points import ENVIRONMENT_VARIABLE, EXIT_CODE
from ecs_queue.local.reaper import kill_processes_with
from tests.runner.conftest import MakeRunner
from tests.runner.crash_scenarios import AFTER_THE_CRASH
from tests.wait import TIMEOUT_SECONDS

pytestmark = [pytest.mark.server]


@pytest.mark.parametrize("point", AFTER_THE_CRASH)
def test_a_runner_that_dies_here_starts_nothing_twice_and_loses_no_end(
    point: str, make_runner: MakeRunner, tmp_path: Path
) -> None:
    expected = AFTER_THE_CRASH[point]
    starts = tmp_path / "starts"
    starts.touch()
    runner = make_runner(warm_seconds=0.1)
    hold = "sleep 600" if point == "runner.command_started" else "exit 3"
    runner.assign("sh", "-c", f"echo x >> {starts}; {hold}")
    runner.start(**{ENVIRONMENT_VARIABLE: point, "CONTAINER": runner.name})
    assert runner.process is not None
    assert runner.process.wait(TIMEOUT_SECONDS) == EXIT_CODE, runner.output()
    if point == "runner.command_started":  # the container ends when the command has begun
        runner.await_lines(starts, 1)
    kill_processes_with("CONTAINER", runner.name)
    runner.start()  # ECS restarts the container, or has started a second task
    assert runner.process.wait(TIMEOUT_SECONDS) == 0
    fields = runner.fields()
    found = (fields["phase"], len(starts.read_text().split()), "closed" in fields)
    assert found == (expected.phase, expected.starts, expected.is_closed)
    assert fields.get("exit_code") == ("3" if expected.phase == "ended" else None)
