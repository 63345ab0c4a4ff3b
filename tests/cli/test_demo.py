"""The demo: all of it works, is watched, and leaves nothing behind."""

from __future__ import annotations

import io
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from ecs_queue.cli import demo
from ecs_queue.cli.demo_tasks import DemoTask, demo_tasks
from ecs_queue.cli.demo_view import DemoView, LiveDemoView, open_demo_view
from ecs_queue.messages.result import TaskResult, build_result
from ecs_queue.protocol.record import Record
from ecs_queue.protocol.states import State
from tests.cli.conftest import json_lines
from tests.processes import CLI_COMMAND, assert_process_ended
from tests.servers import require_redis_binary
from tests.wait import wait_until


def gone(said: str) -> None:
    pids = [int(pid) for pid in re.findall(r"pid (\d+)", said)]
    assert len(pids) == 3
    for pid in pids:
        assert_process_ended(pid)


@pytest.mark.server
@pytest.mark.slow
def test_the_demo_shows_every_kind_of_end_and_leaves_nothing_behind(tmp_path: Path) -> None:
    require_redis_binary()
    environ = {**os.environ, "TMPDIR": str(tmp_path)}
    start = time.monotonic()
    done = subprocess.run(
        [*CLI_COMMAND, "demo", "--tasks", "7"], env=environ, capture_output=True, text=True, timeout=60
    )
    assert time.monotonic() - start < 40
    assert done.returncode == 0, done.stderr
    rows = [re.split(r"\s{2,}", line) for line in done.stdout.splitlines()]
    assert rows[0] == ["id", "command", "state", "attempts", "exit", "waited", "ran", "reason"]
    assert [tuple(row[:1] + row[2:5]) for row in rows[1:8]] == [
        ("hello-1", "SUCCESS", "1", "0"),
        ("exit3-2", "FAILED", "1", "3"),
        ("missing-3", "REMOVED", "3", "-"),
        ("stopped-4", "REVOKED", "1", "143"),
        ("unicode-5", "SUCCESS", "1", "0"),
        ("bigenv-6", "SUCCESS", "1", "0"),
        ("work-7", "SUCCESS", "1", "0"),
    ]
    assert done.stdout.splitlines()[-1].startswith("7 results: ")
    assert "7 of 7 ended as they should" in done.stderr
    assert "What to try next" in done.stderr
    gone(done.stderr)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.server
@pytest.mark.slow
def test_ctrl_c_ends_the_demo_and_everything_it_started(tmp_path: Path) -> None:
    require_redis_binary()
    environ = {**os.environ, "TMPDIR": str(tmp_path)}
    log = tmp_path.with_suffix(".log")
    with log.open("wb") as sink:
        process = subprocess.Popen([*CLI_COMMAND, "demo", "--json"], env=environ, stdout=subprocess.PIPE, stderr=sink)
    try:
        wait_until(lambda: "requests are submitted" in log.read_text(), "the demo is under way", 30)
        process.send_signal(signal.SIGINT)
        out, _ = process.communicate(timeout=30)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 130
    assert json_lines(out.decode()) == []
    assert "Traceback" not in log.read_text()
    gone(log.read_text())
    assert list(tmp_path.iterdir()) == []


def ended(task: DemoTask, **changes: Any) -> TaskResult:
    record = Record(id=task.id, state=State(task.state), exit_code=task.exit_code, attempts=task.attempts)
    for name, value in changes.items():
        setattr(record, name, value)
    return build_result(record)


@pytest.mark.parametrize("change", [{"state": State.FAILED}, {"exit_code": 9}, {"attempts": 2}])
def test_a_task_that_does_not_end_as_it_should_is_named_and_status_1(
    capsys: pytest.CaptureFixture[str], change: Mapping[str, Any]
) -> None:
    tasks = demo_tasks(2, 3)
    results = {tasks[0].id: ended(tasks[0], **change), tasks[1].id: ended(tasks[1])}
    assert demo._check_results(tasks, results, "1 s", as_json=True) == 1
    said = capsys.readouterr().err
    assert "hello-1 did not end as it should: expected SUCCESS, exit 0, 1 attempts" in said
    assert "1 of 2 ended as they should" in said


def test_a_result_that_does_not_come_is_status_1(capsys: pytest.CaptureFixture[str]) -> None:
    tasks = demo_tasks(1, 3)
    assert demo._check_results(tasks, {}, "30 s", as_json=True) == 1
    assert demo._check_results(tasks, {"hello-1": ended(tasks[0])}, "1 s", as_json=False) == 0
    assert "What to try next" in capsys.readouterr().err


def test_the_next_steps_begin_with_the_environment_that_has_the_command(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """`make demo` does not activate the environment that it makes."""
    activate = tmp_path / ".venv" / "bin" / "activate"
    activate.parent.mkdir(parents=True)
    activate.touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "prefix", str(tmp_path / ".venv"))
    monkeypatch.setenv("PATH", str(tmp_path))
    assert demo._next_steps().splitlines()[1].startswith("  . .venv/bin/activate  ")
    monkeypatch.chdir(activate.parent)
    assert f". {activate} " in demo._next_steps()
    activate.unlink()
    assert demo._next_steps() == demo._NEXT_STEPS
    activate.touch()
    command = tmp_path / "ecs-queue"
    command.touch(0o755)
    assert demo._next_steps() == demo._NEXT_STEPS


def records(*states: State) -> dict[str, Record]:
    return {
        task.id: Record(id=task.id, state=state, attempt=1, last_status="RUNNING", reason="[bold]as is")
        for task, state in zip(demo_tasks(len(states), 3), states, strict=True)
    }


def test_without_a_terminal_a_line_is_printed_when_something_has_changed(capsys: pytest.CaptureFixture[str]) -> None:
    with open_demo_view(demo_tasks(3, 3)) as view:
        assert type(view) is DemoView
        view.update(records(State.QUEUED, State.QUEUED, State.LAUNCHED))
        view.update(records(State.QUEUED, State.LAUNCHED, State.LAUNCHED))  # too soon
    assert capsys.readouterr().err == "0.00 s  QUEUED 2  LAUNCHED 1\n"


def test_a_terminal_gets_a_live_table(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "140")
    monkeypatch.setenv("LINES", "40")
    with open_demo_view(demo_tasks(3, 3)) as view:
        assert isinstance(view, LiveDemoView)
        view.update(records(State.QUEUED, State.QUEUED, State.LAUNCHED))
        view.update(records(State.SUCCESS, State.QUEUED, State.LAUNCHED))
    shown = screen.getvalue()
    assert "SUCCESS 1" in shown
    assert "/no/such/program" in shown
    assert "[bold]as is" in shown
