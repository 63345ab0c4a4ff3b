"""The steps that `submit --wait` of one request shows on a terminal."""

from __future__ import annotations

import os
import re

import pytest

from ecs_queue.cli.ui.awaited_steps import StepLines, reached_steps
from ecs_queue.protocol.record import Record
from ecs_queue.protocol.states import State
from tests.cli.conftest import Deployment
from tests.cli.terminal import plain, run_on_terminal

STEPS = ["QUEUED", "LAUNCHED", "RUNNING"]


def test_each_step_is_printed_once_and_none_is_left_out() -> None:
    printed: list[str] = []
    lines = StepLines(printed.append)
    lines.show(Record(id="a"))
    assert printed == ["QUEUED"]
    lines.show(Record(id="a", state=State.LAUNCHED, launched_at=1.0, started_at=2.0))
    assert printed == STEPS
    lines.show(Record(id="a", attempt=2))
    lines.show(Record(id="a", state=State.LAUNCHED, launched_at=3.0, attempt=2))
    assert printed == STEPS
    assert reached_steps(Record(id="a", state=State.REVOKED)) == ["QUEUED"]


@pytest.mark.server
def test_a_terminal_shows_the_steps_and_a_file_does_not(deployment: Deployment) -> None:
    environ = {**os.environ, **deployment.environ}
    status, shown = run_on_terminal("submit", "--wait", "--", "sleep", "1", environ=environ)
    assert status == 0, shown
    assert re.findall(r"QUEUED|LAUNCHED|RUNNING", plain(shown)) == STEPS
    done = deployment.run("submit", "--wait", "--", "true")
    assert (done.returncode, done.stderr) == (0, "")
    assert not re.search("QUEUED|LAUNCHED|RUNNING", done.stdout)
